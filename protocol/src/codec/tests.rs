use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Empty,
    Named(String),
    Pair(i64, Option<f64>),
    Full { tags: Vec<String>, counts: HashMap<String, u32>, blob: Blob, child: Option<Box<Shape>> },
}

/// Bytes that serde carries as bytes, as `serde_bytes` does.
#[derive(Debug, Clone, PartialEq)]
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BlobVisitor;
        impl serde::de::Visitor<'_> for BlobVisitor {
            type Value = Blob;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(BlobVisitor)
    }
}

/// A list as deep as it is long: the shape that overflows the stack without a bound on nesting.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Link(Option<Box<Link>>);

fn codecs() -> Vec<Codec> {
    if cfg!(feature = "bincode") { vec![Codec::Bincode, Codec::Postcard] } else { vec![Codec::Postcard] }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Empty),
        any::<String>().prop_map(Shape::Named),
        (any::<i64>(), proptest::option::of(proptest::num::f64::NORMAL)).prop_map(|(a, b)| Shape::Pair(a, b)),
    ];
    leaf.prop_recursive(6, 32, 4, |inner| {
        (
            proptest::collection::vec(".{0,6}", 0..4),
            proptest::collection::hash_map(".{0,4}", any::<u32>(), 0..4),
            proptest::collection::vec(any::<u8>(), 0..40),
            proptest::option::of(inner.prop_map(Box::new)),
        )
            .prop_map(|(tags, counts, blob, child)| Shape::Full { tags, counts, blob: Blob(blob), child })
    })
}

fn decodes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    for codec in codecs() {
        let blob = encode(codec, value).unwrap();
        assert_eq!(&decode::<T>(&blob, blob.len()).unwrap(), value);
    }
}

/// Decoding may succeed or fail with a typed error; a panic, an abort or a runaway allocation fails the test run.
fn decode_as_everything(bytes: &[u8]) {
    fn one<T: DeserializeOwned>(bytes: &[u8]) {
        if let Err(error) = decode::<T>(bytes, bytes.len()) {
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
        }
    }
    one::<Shape>(bytes);
    one::<Vec<Shape>>(bytes);
    one::<Vec<String>>(bytes);
    one::<HashMap<String, Vec<u64>>>(bytes);
    one::<BTreeMap<u128, Option<char>>>(bytes);
    one::<Blob>(bytes);
    one::<Vec<u8>>(bytes);
    one::<Vec<()>>(bytes);
    one::<std::collections::LinkedList<()>>(bytes);
    one::<Link>(bytes);
    one::<Vec<Vec<Vec<[u64; 16]>>>>(bytes);
    one::<crate::Value>(bytes);
    one::<String>(bytes);
}

fn lengths() -> Vec<Vec<u8>> {
    let bincode = [vec![253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], vec![252, 0xff, 0xff, 0xff, 0x7f]];
    let postcard =
        [vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], vec![0xff, 0xff, 0xff, 0xff, 0x0f]];
    bincode.into_iter().chain(postcard).collect()
}

proptest! {
    #[test]
    fn values_decode_to_themselves(shape in shapes(), list in proptest::collection::vec(shapes(), 0..4)) {
        decodes_back(&shape);
        decodes_back(&list);
    }

    #[test]
    fn random_bytes_never_harm(id in 0_u8..4, version in 0_u8..3, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut blob = vec![id, version];
        blob.extend(bytes);
        decode_as_everything(&blob);
    }

    #[test]
    fn mutated_values_never_harm(
        shape in shapes(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        prefix in proptest::option::of((any::<prop::sample::Index>(), 0_usize..4)),
    ) {
        for codec in codecs() {
            let mut blob = encode(codec, &shape).unwrap().to_vec();
            for (at, byte) in &edits {
                let at = at.index(blob.len());
                blob[at] = *byte;
            }
            if let Some((at, which)) = &prefix {
                let at = at.index(blob.len());
                blob.splice(at..at, lengths()[*which].iter().copied());
            }
            decode_as_everything(&blob);
        }
    }
}

#[test]
fn huge_lengths_are_refused_at_once() {
    for codec in codecs() {
        for length in lengths() {
            for filler in [0, 4, 3_000] {
                let mut blob = vec![codec.id(), FORMAT_VERSION];
                blob.extend(&length);
                blob.extend(vec![0; filler]);
                decode_as_everything(&blob);
                assert!(decode::<Vec<()>>(&blob, blob.len()).is_err());
                assert!(decode::<String>(&blob, blob.len()).is_err());
                assert!(decode::<Blob>(&blob, blob.len()).is_err());
            }
        }
    }
}

#[test]
fn deep_nesting_is_an_error_both_ways() {
    let chain = |links: usize| (0..links).fold(Link(None), |link, _| Link(Some(Box::new(link))));
    for codec in codecs() {
        decodes_back(&chain(127));
        assert!(matches!(encode(codec, &chain(128)), Err(Error::Invalid { .. })));
        let mut hostile = vec![codec.id(), FORMAT_VERSION];
        hostile.extend(vec![1; 1_000_000]);
        assert!(matches!(decode::<Link>(&hostile, hostile.len()), Err(Error::Invalid { .. })));
    }
}

#[test]
fn items_without_bytes_are_bounded_both_ways() {
    for codec in codecs() {
        decodes_back(&vec![(); ENCODED_FREE_ITEMS_MAX]);
        assert!(matches!(encode(codec, &vec![(); 1_000_000]), Err(Error::Invalid { .. })));
    }
    decodes_back(&vec![0_u8; 1_000_000]);
}

#[test]
fn decode_rejects_what_it_does_not_know() {
    let blob = encode(Codec::Postcard, "text").unwrap();
    let edited = |at: usize, byte: u8| {
        let mut bytes = blob.to_vec();
        bytes[at] = byte;
        decode::<String>(&bytes, 100)
    };
    assert!(matches!(edited(0, 9), Err(Error::Invalid { .. })));
    assert!(matches!(edited(1, 2), Err(Error::Invalid { .. })));
    assert!(matches!(decode::<String>(&[], 100), Err(Error::Invalid { .. })));
    assert!(matches!(decode::<String>(&blob, blob.len() - 1), Err(Error::TooLarge { .. })));
    for codec in codecs() {
        let mut longer = encode(codec, "text").unwrap().to_vec();
        longer.push(0);
        let error = decode::<String>(&longer, 100).unwrap_err();
        assert!(error.to_string().contains("1 bytes follow its end"), "{error}");
    }
}

#[test]
fn codec_ids_are_fixed() {
    assert_eq!(encode(Codec::Postcard, &7_u8).unwrap(), [2, 1, 7].as_slice());
    #[cfg(feature = "bincode")]
    assert_eq!(encode(Codec::Bincode, &7_u8).unwrap(), [1, 1, 7].as_slice());
    #[cfg(not(feature = "bincode"))]
    assert!(decode::<u8>(&[1, 1, 7], 10).unwrap_err().to_string().contains("feature `bincode`"));
}

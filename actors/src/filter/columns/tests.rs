use larder_protocol::filter::{Scalar, field, field_path};
use serde_json::json;

use super::*;
use crate::filter::matches;

fn columns(documents: &[Value], declared: &DeclaredTree) -> Columns {
    let mut columns = Columns::default();
    for document in documents {
        columns.push(Some(document), declared);
    }
    columns
}

fn is_set(bits: &BlockBits, place: usize) -> bool {
    bits[place / 64] >> (place % 64) & 1 == 1
}

#[test]
fn values_that_no_filter_tells_apart_are_one() {
    let documents = [
        json!({"a": 1}),
        json!({"a": 1.0}),
        json!({"a": {"b": 1}}),
        json!({"a": {}}),
        json!({"a": [[1], {}]}),
        json!({"a": [{}, [2]]}),
    ];
    let columns = columns(&documents, &DeclaredTree::default());
    assert_eq!(columns.fields["a"].column.values.len(), 3);
    let filter = field("a").eq(1.0);
    assert_eq!(columns.matching(&Question::new(&filter)).certain[0] & 0b11_1111, 0b11);
}

#[test]
fn what_takes_too_much_is_given_up_and_said_to_be_unknown() {
    let document = |n: usize| json!({"long": "x".repeat(100) + &n.to_string(), "lang": if n.is_multiple_of(2) { "en" } else { "de" }});
    let documents: Vec<Value> = (0..BLOCK_LEN).map(document).collect();
    let columns_of = |declared: &[DeclaredField]| columns(&documents, &DeclaredTree::of(declared));
    let (long, lang) = (field("long").eq(documents[3]["long"].as_str().unwrap()), field("lang").eq("de"));
    let both = lang.clone().and(long.clone());
    let given_up = columns_of(&[]);
    assert!(given_up.size_bytes() < BYTES_MAX);
    assert_eq!(given_up.matching(&Question::new(&long)), Answer::UNKNOWN);
    let answer = given_up.matching(&Question::new(&both));
    assert_eq!((answer.certain[0], answer.possible[0]), (0, 0xaaaa_aaaa_aaaa_aaaa));
    let declared = columns_of(&[DeclaredField::new(field("long")).unwrap()]);
    assert_eq!(declared.matching(&Question::new(&both)).certain[0], 1 << 3);
}

#[test]
fn fields_beyond_the_bound_are_unknown_and_not_missing() {
    let documents: Vec<Value> = (0..200).map(|n| json!({format!("key{n}"): 1, "last": {"z": n}})).collect();
    let declared = DeclaredTree::of(&[DeclaredField::new(field_path(["last", "z"])).unwrap()]);
    let columns = columns(&documents, &declared);
    assert_eq!(columns.matching(&Question::new(&field("key150").is_empty())), Answer::UNKNOWN);
    assert_eq!(
        columns.matching(&Question::new(&field_path(["last", "z"]).lt(3))).certain,
        Answer {
            certain: {
                let mut bits = [0; 16];
                bits[0] = 0b111;
                bits
            },
            possible: [0; 16]
        }
        .certain
    );
}

#[test]
fn columns_come_back_as_they_were_and_other_bytes_are_refused_or_safe() {
    let document = |n: i32| json!({"n": n, "f": 0.1 + f64::from(n), "t": format!("t{}", n % 7), "tags": [n % 3, "x", [1]], "o": {"p": null, "q": n % 2 == 0}});
    let documents: Vec<Value> = (0..300).map(document).collect();
    let written = columns(&documents, &DeclaredTree::of(&[DeclaredField::new(field("n")).unwrap()]));
    let bytes = written.to_bytes();
    let read = Columns::from_bytes(&bytes).unwrap();
    assert_eq!(read, written);
    for end in (0..bytes.len()).step_by(11) {
        assert!(Columns::from_bytes(&bytes[..end]).is_none(), "cut at {end}");
    }
    let filter = field("f").gt(7).and(field("tags").any([Scalar::from(1)])).or(field("t").text_match("t"));
    for at in (0..bytes.len()).step_by(3) {
        let mut mutated = bytes.clone();
        mutated[at] = mutated[at].wrapping_add(1);
        if let Some(columns) = Columns::from_bytes(&mutated) {
            let _ = columns.matching(&Question::new(&filter));
        }
    }
}

#[test]
fn full_blocks_answer_as_the_evaluator_does() {
    let document = |n: i32| json!({"n": n * 7 % 1000, "text": format!("{}", n % 13), "half": f64::from(n) / 2.0});
    let documents: Vec<Value> = (0..1024).map(document).collect();
    let columns = columns(&documents, &DeclaredTree::default());
    for filter in [
        field("n").lt(500),
        field("n").gte(499.5).and(field("half").lte(100)),
        field("text").one_of((0..2000).map(|n| n.to_string())),
        field("text").none_of(["1", "2", "3"]),
        field("n").ne(7).and(field("m").ne(7)),
    ] {
        let answer = columns.matching(&Question::new(&filter));
        for (place, document) in documents.iter().enumerate() {
            assert_eq!(
                (is_set(&answer.certain, place), is_set(&answer.possible, place)),
                (matches(&filter, document), matches(&filter, document)),
                "{filter:?} {document}"
            );
        }
    }
}

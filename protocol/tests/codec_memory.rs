//! Decoding hostile bytes takes memory in proportion to the input. One test alone, since it measures the whole process.

use std::collections::{HashMap, LinkedList};

use larder_protocol::codec::decode;
use peak_alloc::PeakAlloc;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

#[derive(Deserialize)]
struct Tree {
    #[expect(dead_code, reason = "only decoded")]
    children: Vec<Tree>,
}

fn peak_bytes<T: DeserializeOwned>(blob: &[u8]) -> usize {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    drop(decode::<T>(blob, blob.len()));
    ALLOCATED.peak_usage().saturating_sub(before)
}

#[test]
fn decoding_takes_memory_in_proportion_to_the_input() {
    hostile_lengths_take_little_memory();
    without_the_guard_the_same_input_takes_far_more();
}

fn hostile_lengths_take_little_memory() {
    let bincode = [253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f].as_slice();
    let postcard = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01].as_slice();
    for (id, length) in [(1, bincode), (2, postcard)] {
        for repeats in [1, 10, 400] {
            let mut blob = vec![id, 1];
            blob.extend(length.repeat(repeats));
            let peaks = [
                peak_bytes::<String>(&blob),
                peak_bytes::<Vec<u8>>(&blob),
                peak_bytes::<Vec<String>>(&blob),
                peak_bytes::<HashMap<String, Vec<u64>>>(&blob),
                peak_bytes::<Vec<Vec<Vec<Vec<u64>>>>>(&blob),
                peak_bytes::<Tree>(&blob),
            ];
            // The largest item here takes 48 bytes, in a hash table with up to twice as many slots.
            let bytes_max = 4_096 + 128 * blob.len();
            assert!(peaks.iter().all(|peak| *peak <= bytes_max), "{peaks:?} of {bytes_max} for {} bytes", blob.len());
        }
        // Items that take no bytes are allowed up to a constant: each is a list node here.
        let mut blob = vec![id, 1];
        blob.extend(length);
        assert!(peak_bytes::<LinkedList<()>>(&blob) <= 4 << 20);
    }
}

fn without_the_guard_the_same_input_takes_far_more() {
    // The control: the codec alone reserves serde's 1 MiB for a claim of ten bytes, at every level.
    let length = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    assert!(postcard::from_bytes::<HashMap<u64, [u64; 4]>>(&length).is_err());
    assert!(ALLOCATED.peak_usage().saturating_sub(before) >= 1 << 20);
}

//! The well-vectorised scan of 32-bit floats in memory, two threads from 65,536 vectors on as larder has: exact, and the limit
//! of what comparing with every vector can do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use multiversion::multiversion;
use peer_harness::Result;
use peer_harness::vectors::{self, Job, Load, Run, Stage};

const K: usize = 10;
const LANES: usize = 32;

pub(crate) fn serve(job: &Job) -> Result<Run> {
    let (mut run, before) = (Run::default(), vectors::memory());
    if matches!(job.stage, Stage::Build) {
        return Ok(run);
    }
    for load in &job.loads {
        for query in 0..job.query_count() {
            let began = Instant::now();
            let ids = nearest(job, load, query);
            run.add(load, began.elapsed(), ids);
        }
    }
    run.note_memory(before);
    Ok(run)
}

fn nearest(job: &Job, load: &str, query: usize) -> Vec<usize> {
    let (half, count) = (job.count() / 2, job.count());
    let wanted = Load::field(load).map(|(_, values)| (values, job.value(query, values) as usize));
    let part = |start, end| scan(job.all(), job.query(query), wanted, start, end);
    let mut best = if count <= 65_536 {
        part(0, count)
    } else {
        std::thread::scope(|scope| {
            let other = scope.spawn(move || part(half, count));
            let mut best = part(0, half);
            best.extend(other.join().expect("a scan does not panic"));
            best
        })
    };
    best.sort();
    best.into_iter().take(K).map(|Reverse((_, number))| number).collect()
}

type Best = Vec<Reverse<(u32, usize)>>;

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma", "aarch64+neon"))]
fn scan(base: &[f32], query: &[f32], wanted: Option<(usize, usize)>, start: usize, end: usize) -> Best {
    let mut best: BinaryHeap<Reverse<(u32, usize)>> = BinaryHeap::with_capacity(K + 1);
    for number in start..end {
        if wanted.is_some_and(|(values, value)| number % values != value) {
            continue;
        }
        let row = &base[number * query.len()..][..query.len()];
        let mut sums = [0.0_f32; LANES];
        for (a, b) in row.as_chunks::<LANES>().0.iter().zip(query.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                sums[lane] += a[lane] * b[lane];
            }
        }
        let score: f32 = sums.iter().sum();
        // A number that sorts as the score does.
        let bits = score.to_bits();
        let key = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        if best.len() < K || best.peek().is_some_and(|Reverse((least, _))| key > *least) {
            best.push(Reverse((key, number)));
            if best.len() > K {
                best.pop();
            }
        }
    }
    best.into_vec()
}

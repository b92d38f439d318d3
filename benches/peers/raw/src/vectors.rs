//! The well-vectorised scan of 32-bit floats in memory, two threads from 65,536 vectors on as larder has: exact, and the limit
//! of what comparing with every vector can do. And rows committed by hand, for the durable insert.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use multiversion::multiversion;
use peer_harness::Result;
use peer_harness::vectors::{self, CALLERS, Job, Load, Run, Stage};
use rusqlite::{Connection, params};

const K: usize = 10;
const LANES: usize = 32;

pub(crate) fn serve(job: &Job) -> Result<Run> {
    let (mut run, before) = (Run::default(), vectors::memory());
    match job.stage {
        Stage::Build => return Ok(run),
        Stage::Durable => return durable(job),
        Stage::Query => {}
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

/// By hand: one connection that commits the rows that larder keeps, with its indexes, as many at a time as there are callers.
fn durable(job: &Job) -> Result<Run> {
    let connection = Connection::open(job.folder.join("raw.db"))?;
    connection.execute_batch(
        "PRAGMA page_size = 16384;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         CREATE TABLE point (slot INTEGER PRIMARY KEY, collection_key INTEGER NOT NULL, id TEXT NOT NULL, document TEXT,
             metadata TEXT, checksum INTEGER NOT NULL, vector_checksum INTEGER NOT NULL, text_checksum INTEGER,
             vector BLOB NOT NULL, text TEXT) STRICT;
         CREATE UNIQUE INDEX point_by_id ON point (collection_key, id);
         CREATE INDEX point_by_collection ON point (collection_key);",
    )?;
    let began = Instant::now();
    for first in (0..job.durable_count()).step_by(CALLERS) {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for number in first..job.durable_count().min(first + CALLERS) {
            let vector: Vec<u8> = job.base(number).iter().flat_map(|value| value.to_le_bytes()).collect();
            connection
                .prepare_cached(
                    "INSERT INTO point (slot, collection_key, id, metadata, checksum, vector_checksum, vector)
                     VALUES (?1, 1, ?2, ?3, ?1, ?1, ?4)",
                )?
                .execute(params![number as i64, number.to_string(), Job::metadata(number), vector])?;
        }
        connection.execute_batch("COMMIT")?;
    }
    Ok(Run::inserted(began.elapsed().as_secs_f64()))
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

//! The vectors store through the public API: every operation, bad input, and answers beside those of comparing with every
//! vector.

mod bad_input;
mod compaction;
mod faults;
mod kept;
mod model;
mod operations;
mod oracle;
mod processes;
mod search;

pub(crate) use processes::search_until_told;

use larder::{Hit, JsonText, Larder, Metric, Point, VectorCollection};

async fn collection(larder: &Larder, dimensions: usize, metric: Metric) -> VectorCollection {
    larder.vectors().collection("notes").dimensions(dimensions).metric(metric).open().await.unwrap()
}

fn point(id: &str, vector: &[f32]) -> Point {
    Point::new(id, vector).unwrap()
}

fn json(text: &str) -> JsonText {
    JsonText::new(text).unwrap()
}

fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.id.as_str()).collect()
}

/// Checks that a full check finds nothing.
async fn assert_sound(larder: &Larder) {
    assert_eq!(larder.check(larder::CheckDepth::Full).await.unwrap().findings, []);
}

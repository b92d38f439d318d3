//! The embedding cache through the public API.
//!
//! Start at `operations` and `computing`; the other modules each hold one part of its promises.

mod bad_input;
mod computing;
pub(crate) mod damage;
mod limits;
mod memo;
mod operations;
pub(crate) mod processes;

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{CheckDepth, EmbedCache, EmbedCacheSettings, Larder};

const HOUR: Duration = Duration::from_secs(3600);
const MODEL: &str = "model";

/// Opens a folder with settings of the cache's own; no slice of maintenance comes by itself.
async fn open(folder: &Path, change: impl FnOnce(&mut EmbedCacheSettings)) -> Larder {
    let builder = Larder::builder(folder).embed_cache(|cache| change(&mut cache.own));
    builder.settings(|settings| settings.maintenance_interval = HOUR).open().await.unwrap()
}

/// A vector that belongs to a number.
#[expect(clippy::cast_precision_loss, reason = "numbers below 2^20")]
fn vector(number: u64) -> Vec<f32> {
    vec![number as f32, 1.0, -0.5]
}

fn input(number: u64) -> String {
    format!("input {number}")
}

async fn get(cache: &EmbedCache, number: u64) -> Option<Vec<f32>> {
    cache.get(MODEL, &input(number)).await.unwrap().map(|vector| vector.as_slice().to_vec())
}

async fn put(cache: &EmbedCache, number: u64) {
    cache.put(MODEL, &input(number), vector(number)).await.unwrap();
}

/// Computes the vector of a number, and counts how often that was done.
async fn compute(cache: &EmbedCache, number: u64, runs: &AtomicU64) -> larder::Result<Vec<f32>> {
    let text = input(number);
    let computed = cache.get_or_compute(MODEL, &text, || async {
        runs.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(vector(number))
    });
    computed.await.map(|vector| vector.as_slice().to_vec())
}

/// Checks that a full check finds nothing.
async fn assert_sound(larder: &Larder) {
    assert_eq!(larder.check(CheckDepth::Full).await.unwrap().findings, []);
}

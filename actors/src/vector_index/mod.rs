//! Nearest vectors, exactly or nearly so, with nothing to build: an engine over (slot, vector) that knows no store.
//!
//! Start at [`VectorIndex`]. A vector is kept as a one-bit code (`coder`), as a row of 8 bits, and, within a budget, as it is
//! (`chunk`); a search (`search`) reads the codes of all, the rows of those that may be near, and the vectors of the few that are.
//! The loops are in `kernels`.
//!
//! Always true: rows in SQLite are the truth, and all of this can be made anew from them; an answer holds the k nearest of what
//! was pushed and not removed before the snapshot was taken, never fewer than k where there are k; the scores are exact, and the
//! same on every processor.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "places and lanes lie within what the same chunk holds, and levels within the bits that they are made for"
)]

mod blob;
mod chunk;
mod coder;
mod index;
mod kernels;
mod rank;
#[cfg(test)]
mod recall;
mod rotation;
mod search;
#[cfg(test)]
mod testing;

pub use blob::Malformed;
pub use chunk::{CHUNK_LEN, Chunk, ChunkBits};
pub use index::{Centre, Found, Hit, IndexSettings, Search, SearchError, Snapshot, VectorIndex};

/// What a store calls a vector by: a row's number.
pub type Slot = i64;

/// How vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The cosine of the angle between them.
    Cosine,
    /// Their inner product.
    Dot,
    /// The distance between them.
    L2,
}

/// Returns the vector at a length of 1, or a vector of zeros as it is.
fn normalized(vector: &[f32]) -> Vec<f32> {
    let largest = vector.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    if largest == 0.0 {
        return vector.to_vec();
    }
    // Divided twice, so that the square of neither the largest nor the smallest float is taken.
    let scaled: Vec<f32> = vector.iter().map(|value| value / largest).collect();
    let length = kernels::dot(&scaled, &scaled).sqrt();
    scaled.iter().map(|value| value / length).collect()
}

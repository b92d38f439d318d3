//! One-bit codes: for each component of a turned and centred vector, whether it is positive.
//!
//! The signs' product with a query, times a factor of the vector's own, estimates the inner product without bias. How far it
//! may be off follows from how well the signs match the vector; so a search knows which vectors it need not look at.
//!
//! Always true: a code is worth something only with the coder that made it.
//!
//! # Source
//! Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound", SIGMOD 2024: the estimate and
//! its error. The query's product is taken with the centred vector, and in 15 levels around 0, so that no bits need counting.

use super::kernels::{BLOCK, PLANES, dot};
use super::rotation::Rotation;

/// Components of a word of codes.
const WORD_BITS: usize = 64;
/// The largest level of a quantised query: four bits with a sign.
const LEVEL_MAX: f32 = 7.0;

/// Makes codes of vectors, and planes of queries, around one centre.
#[derive(Debug)]
pub(super) struct Coder {
    rotation: Rotation,
    /// What the coder was made around, as it was given: the same mean makes the same coder.
    mean: Vec<f32>,
    /// The turned mean.
    centre: Vec<f32>,
}

/// A vector's code but for its bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Code {
    /// What the signs' product with a query is multiplied by.
    pub(super) factor: f32,
    /// The vector's product with the centre, which belongs to its score with any query.
    pub(super) bias: f32,
    /// How badly the signs match, 0 to 1: the estimate's standard deviation is `factor * spread * |query|`.
    pub(super) spread: f32,
}

/// A query in levels, by bits.
#[derive(Debug)]
pub(super) struct CodeQuery {
    pub(super) planes: Vec<[u64; PLANES]>,
    /// The query's product with the centre, which belongs to its score with any vector.
    pub(super) base: f32,
    step: f32,
    level_sum: f32,
    /// Length of the centred query.
    length: f32,
    /// Standard deviation of what rounding to levels adds, for a factor of 1.
    rounding: f32,
}

impl Coder {
    /// The coder around `mean`.
    pub(super) fn new(mean: Vec<f32>) -> Self {
        let width = mean.len().next_multiple_of(WORD_BITS);
        let rotation = Rotation::new(width);
        let mut centre = padded(&mean, width);
        rotation.apply(&mut centre);
        Self { rotation, mean, centre }
    }

    pub(super) fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Words of one code.
    pub(super) fn word_count(&self) -> usize {
        self.centre.len() / WORD_BITS
    }

    /// Words of a block of codes.
    pub(super) fn block_word_count(&self) -> usize {
        self.word_count() * BLOCK
    }

    /// Writes the vector's bits to lane `lane` of a block, and returns the rest of its code.
    pub(super) fn encode(&self, vector: &[f32], block: &mut [u64], lane: usize) -> Code {
        let mut residual = padded(vector, self.centre.len());
        self.rotation.apply(&mut residual);
        for (value, centre) in residual.iter_mut().zip(&self.centre) {
            *value -= centre;
        }
        for (row, values) in block.chunks_exact_mut(BLOCK).zip(residual.chunks_exact(WORD_BITS)) {
            row[lane] = values.iter().enumerate().fold(0, |word, (bit, value)| word | (u64::from(*value > 0.0) << bit));
        }
        let bias = dot(&self.centre, &residual);
        let width = residual.len() as f32;
        let norm = dot(&residual, &residual);
        let sum: f32 = residual.iter().map(|value| value.abs()).sum();
        if sum == 0.0 || norm == 0.0 {
            return Code { factor: 0.0, bias, spread: 0.0 };
        }
        // The square of the cosine between the vector and its signs.
        let match_squared = (sum / norm.sqrt()).powi(2) / width;
        Code { factor: norm / sum, bias, spread: ((1.0 - match_squared).max(0.0) * width / (width - 1.0)).sqrt() }
    }

    pub(super) fn query(&self, query: &[f32]) -> CodeQuery {
        let mut turned = padded(query, self.centre.len());
        self.rotation.apply(&mut turned);
        let base = dot(&turned, &self.centre);
        for (value, centre) in turned.iter_mut().zip(&self.centre) {
            *value -= centre;
        }
        let largest = turned.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let step = if largest > 0.0 { largest / LEVEL_MAX } else { 1.0 };
        let levels: Vec<i32> = turned.iter().map(|value| (value / step).round() as i32).collect();
        CodeQuery {
            planes: levels.chunks_exact(WORD_BITS).map(planes).collect(),
            base,
            step,
            level_sum: levels.iter().sum::<i32>() as f32,
            length: dot(&turned, &turned).sqrt(),
            rounding: step * (turned.len() as f32 / 12.0).sqrt(),
        }
    }
}

impl CodeQuery {
    /// Returns slope and offset for [`bound_scores`](super::kernels::bound_scores): the score, so many standard deviations
    /// above the estimate, of a vector whose signs match no worse than `spread`.
    pub(super) fn bound(&self, spread: f32, deviations: f32) -> (f32, f32) {
        let deviation = (spread * self.length).hypot(self.rounding);
        (2.0 * self.step, deviations * deviation - self.step * self.level_sum)
    }
}

/// The bits of 64 levels: of each, its ones, twos, fours and minus eights.
fn planes(levels: &[i32]) -> [u64; PLANES] {
    std::array::from_fn(|plane| {
        levels.iter().enumerate().fold(0, |bits, (bit, level)| bits | (u64::from(level >> plane & 1 == 1) << bit))
    })
}

fn padded(values: &[f32], width: usize) -> Vec<f32> {
    let mut padded = Vec::with_capacity(width);
    padded.extend_from_slice(values);
    padded.resize(width, 0.0);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector_index::kernels::{bound_scores, sum_codes};
    use crate::vector_index::testing::Random;

    /// Estimated less true score in standard deviations, for random vectors and queries.
    fn errors(dimensions: usize, skew: f32) -> Vec<f32> {
        let mut random = Random::new(dimensions as u64);
        let mean: Vec<f32> = random.vector(dimensions).iter().map(|value| value * skew).collect();
        let mut shifted = |scale: f32| -> Vec<f32> {
            random
                .vector(dimensions)
                .iter()
                .zip(&mean)
                .map(|(value, mean)| scale * value * value * value + mean)
                .collect()
        };
        let coder = Coder::new(mean.clone());
        let mut errors = Vec::new();
        for _ in 0..60 {
            let query = shifted(1.0);
            let codes = coder.query(&query);
            for _ in 0..20 {
                let vector = shifted(0.5);
                let mut block = vec![0; coder.block_word_count()];
                let code = coder.encode(&vector, &mut block, 0);
                let (mut sums, mut bounds) = ([0; BLOCK], [0.0; BLOCK]);
                sum_codes(&block, &codes.planes, &mut sums);
                let (slope, offset) = codes.bound(code.spread, 0.0);
                bound_scores(&sums[..1], &[code.bias], &[code.factor], slope, offset, &mut bounds[..1]);
                let (_, one) = codes.bound(code.spread, 1.0);
                let error = bounds[0] + codes.base - dot(&query, &vector);
                errors.push(error / (code.factor * (one - offset)));
            }
        }
        errors
    }

    #[test]
    fn estimates_are_unbiased_and_as_far_off_as_they_say() {
        for (dimensions, skew) in [(64, 0.0), (384, 1.0), (384, 0.0), (1000, 3.0)] {
            let errors = errors(dimensions, skew);
            let mean = errors.iter().sum::<f32>() / errors.len() as f32;
            let beyond_two = errors.iter().filter(|error| **error < -2.0).count() as f32 / errors.len() as f32;
            assert!(mean.abs() < 0.15, "{dimensions}, {skew}: {mean} standard deviations of bias");
            assert!(
                beyond_two < 0.04,
                "{dimensions}, {skew}: {beyond_two} of the estimates are two deviations too low"
            );
        }
    }
}

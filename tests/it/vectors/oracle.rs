//! What a search must answer: a plain list, every vector compared, in the order of summation that larder promises.

use std::collections::BTreeMap;

use larder::{Metric, Point};

/// An inner product.
pub(crate) type Kernel = fn(&[f32], &[f32]) -> f32;

/// A collection as a map.
#[derive(Debug, Clone)]
pub(crate) struct Oracle {
    pub(crate) metric: Metric,
    kernel: Kernel,
    pub(crate) points: BTreeMap<String, Point>,
}

impl Oracle {
    pub(crate) fn new(metric: Metric) -> Self {
        Self::with_kernel(metric, dot)
    }

    pub(crate) fn with_kernel(metric: Metric, kernel: Kernel) -> Self {
        Self { metric, kernel, points: BTreeMap::new() }
    }

    pub(crate) fn upsert(&mut self, points: impl IntoIterator<Item = Point>) {
        self.points.extend(points.into_iter().map(|point| (point.id.to_string(), point)));
    }

    /// Ids and scores, best first, those of one score in the order of their ids.
    pub(crate) fn nearest(&self, query: &[f32], k: usize, is_wanted: impl Fn(&Point) -> bool) -> Vec<(String, f32)> {
        let query = self.prepared(query);
        let score = |point: &Point| self.score(&query, &self.prepared(point.vector.as_slice()));
        let wanted = self.points.iter().filter(|(_, point)| is_wanted(point));
        let mut scored: Vec<_> = wanted.map(|(id, point)| (id.clone(), score(point))).collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        scored.truncate(k);
        scored
    }

    fn prepared(&self, vector: &[f32]) -> Vec<f32> {
        if self.metric != Metric::Cosine {
            return vector.to_vec();
        }
        let largest = vector.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scaled: Vec<f32> = vector.iter().map(|value| value / largest).collect();
        let length = (self.kernel)(&scaled, &scaled).sqrt();
        scaled.iter().map(|value| value / length).collect()
    }

    fn score(&self, a: &[f32], b: &[f32]) -> f32 {
        match self.metric {
            Metric::L2 => {
                let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
                -(self.kernel)(&difference, &difference)
            }
            _ => (self.kernel)(a, b),
        }
    }
}

/// 32 partial sums, added pairwise.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 32];
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        sums[index % 32] += a * b;
    }
    for width in [16, 8, 4, 2, 1] {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}

/// Random numbers that are the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        usize::try_from(mixed >> 33).unwrap() % end
    }

    /// About normally distributed.
    #[expect(clippy::cast_precision_loss, reason = "numbers below a thousand")]
    pub(crate) fn vector(&mut self, dimensions: usize) -> Vec<f32> {
        (0..dimensions).map(|_| (0..6).map(|_| self.below(1000) as f32 / 500.0 - 1.0).sum()).collect()
    }
}

//! An orthogonal transform that spreads what a vector has in few components over all of them.
//!
//! One-bit codes keep a component's sign only, so their error is small when no component stands out. Signs flipped by a fixed
//! pseudo-random pattern and Walsh–Hadamard transforms of the largest power of two that fits, in turn at the front and at the
//! back, do that in `n log n` and need no matrix.
//!
//! Always true: lengths and inner products stay what they were, but for rounding; the pattern never changes, since stored codes
//! depend on it.

/// How often signs are flipped and a part is transformed; with four, a single non-zero component of 384 spreads over all.
const ROUNDS: usize = 4;
/// Where the pattern of signs begins.
const SEED: u64 = 0x6c61_7264_6572_0001;

/// The transform of vectors with so many components.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    /// For each round, 1 or −1 for each component.
    signs: Vec<Vec<f32>>,
    /// Components that one transform covers: the largest power of two that fits.
    span: usize,
}

impl Rotation {
    /// The transform for `width` components.
    #[must_use]
    pub(super) fn new(width: usize) -> Self {
        let mut state = SEED;
        let signs = (0..ROUNDS).map(|_| (0..width).map(|_| next_sign(&mut state)).collect()).collect();
        let span = if width.is_power_of_two() { width } else { width.next_power_of_two() / 2 };
        Self { signs, span }
    }

    /// Turns `values` in place.
    pub(super) fn apply(&self, values: &mut [f32]) {
        let scale = 1.0 / (self.span as f32).sqrt();
        let behind = values.len() - self.span;
        for (round, signs) in self.signs.iter().enumerate() {
            for (value, sign) in values.iter_mut().zip(signs) {
                *value *= sign;
            }
            let start = if round % 2 == 0 { 0 } else { behind };
            let part = &mut values[start..start + self.span];
            hadamard(part);
            for value in part {
                *value *= scale;
            }
        }
    }
}

/// SplitMix64's next number, as a sign.
fn next_sign(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    if (mixed ^ (mixed >> 31)) & 1 == 0 { 1.0 } else { -1.0 }
}

/// The Walsh–Hadamard transform of a power of two of values, without its scale.
fn hadamard(values: &mut [f32]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (front, back) = pair.split_at_mut(half);
            for (a, b) in front.iter_mut().zip(back) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_lengths_and_spreads_a_single_component() {
        for width in [1, 2, 64, 128, 192, 384, 768, 1000, 1536, 8192] {
            let rotation = Rotation::new(width);
            let mut values = vec![0.0; width];
            values[width / 3] = 3.0;
            rotation.apply(&mut values);
            let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
            assert!((length - 3.0).abs() < 1e-3, "{width}: {length}");
            let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            if width >= 64 {
                assert!(largest < 3.0 * 8.0 / (width as f32).sqrt(), "{width}: {largest}");
            }
        }
    }
}

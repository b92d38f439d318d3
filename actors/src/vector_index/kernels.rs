//! The loops that a search spends its time in, compiled for several instruction sets and chosen when first called.
//!
//! Always true: every variant returns the same bits. Codes and rows of 8 bits are scored in integers; f32 is summed in a fixed
//! order, in [`LANES`] partial sums that are added pairwise at the end, and never fused.

use multiversion::multiversion;

use super::chunk::ChunkBits;

/// Vectors whose codes lie side by side, a word of each.
pub(super) const BLOCK: usize = 8;
/// Bit planes of a quantised query; the last counts negatively.
pub(super) const PLANES: usize = 4;
/// Partial sums of an inner product: two registers of AVX-512.
const LANES: usize = 32;

/// Adds up, for each vector of the blocks, the query's levels where the code has a one.
///
/// A block has `planes.len()` rows of one word of each vector; `sums` has a place for each vector.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx512vpopcntdq",
    "x86_64+avx2+bmi1+bmi2+popcnt+lzcnt",
    "aarch64+neon"
))]
pub(super) fn sum_codes(codes: &[u64], planes: &[[u64; PLANES]], sums: &mut [i32]) {
    let (rows, _) = codes.as_chunks::<BLOCK>();
    let (sums, _) = sums.as_chunks_mut::<BLOCK>();
    // In a loop over eight rows or more the compiler would put rows and not lanes side by side, and shuffle: 3 to 7 times slower. So
    // none is longer than seven, which the compiler must not know.
    let row_count_max = std::hint::black_box(7);
    for (rows, sums) in rows.chunks_exact(planes.len()).zip(sums) {
        let mut counts = Counts::default();
        let (mut rows, mut planes) = (rows, planes);
        while !rows.is_empty() {
            let count = rows.len().min(row_count_max);
            for (row, planes) in rows[..count].iter().zip(&planes[..count]) {
                count_bits(row, planes[0], &mut counts.ones);
                count_bits(row, planes[1], &mut counts.twos);
                count_bits(row, planes[2], &mut counts.fours);
                count_bits(row, planes[3], &mut counts.eights);
            }
            (rows, planes) = (&rows[count..], &planes[count..]);
        }
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = counts.sum(lane) as i32;
        }
    }
}

/// Ones of each vector of a block, by the plane that they were counted under. An array of arrays made the compiler shuffle.
#[derive(Default)]
struct Counts {
    ones: [i64; BLOCK],
    twos: [i64; BLOCK],
    fours: [i64; BLOCK],
    eights: [i64; BLOCK],
}

impl Counts {
    #[inline(always)]
    fn sum(&self, lane: usize) -> i64 {
        self.ones[lane] + 2 * self.twos[lane] + 4 * self.fours[lane] - 8 * self.eights[lane]
    }
}

#[inline(always)]
fn count_bits(row: &[u64; BLOCK], plane: u64, counts: &mut [i64; BLOCK]) {
    for (count, word) in counts.iter_mut().zip(row) {
        *count += i64::from((word & plane).count_ones());
    }
}

/// Sets each bound to `bias + factor * (slope * sum + offset)`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx512vpopcntdq",
    "x86_64+avx2+bmi1+bmi2+popcnt+lzcnt",
    "aarch64+neon"
))]
pub(super) fn bound_scores(sums: &[i32], biases: &[f32], factors: &[f32], slope: f32, offset: f32, bounds: &mut [f32]) {
    for (((bound, sum), bias), factor) in bounds.iter_mut().zip(sums).zip(biases).zip(factors) {
        *bound = bias + factor * (slope * *sum as f32 + offset);
    }
}

/// Returns a bit for each bound that reaches `least`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx512vpopcntdq",
    "x86_64+avx2+bmi1+bmi2+popcnt+lzcnt",
    "aarch64+neon"
))]
pub(super) fn reaching(bounds: &[f32; 64], least: f32) -> u64 {
    let mut bits = 0;
    for (index, bound) in bounds.iter().enumerate() {
        bits |= u64::from(*bound >= least) << index;
    }
    bits
}

/// Returns how many bits are set.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx512vpopcntdq",
    "x86_64+avx2+bmi1+bmi2+popcnt+lzcnt",
    "aarch64+neon"
))]
pub(super) fn count_ones(bits: &ChunkBits) -> u32 {
    bits.iter().map(|word| word.count_ones()).sum()
}

/// Returns the inner product of a query in 16 and a row in 8 bits. 8,192 products of 1,023 and 127 fit into 32 bits.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl",
    "x86_64+avx2+bmi1+bmi2+popcnt+lzcnt",
    "aarch64+neon"
))]
pub(super) fn dot_int8(query: &[i16], row: &[i8]) -> i32 {
    query.iter().zip(row).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

/// Returns the inner product of two vectors of one length.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl",
    "x86_64+avx2+bmi1+bmi2+popcnt+lzcnt",
    "aarch64+neon"
))]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_lanes(a, b, |a, b| a * b)
}

/// Returns the square of the distance between two vectors of one length.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl",
    "x86_64+avx2+bmi1+bmi2+popcnt+lzcnt",
    "aarch64+neon"
))]
pub(super) fn distance_squared(a: &[f32], b: &[f32]) -> f32 {
    sum_lanes(a, b, |a, b| (a - b) * (a - b))
}

#[inline(always)]
fn sum_lanes(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let ((a_rows, a_rest), (b_rows, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_rows.iter().zip(b_rows) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += term(*a, *b);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector_index::testing::Random;

    /// The plainest way to say what a kernel computes, in the order that it promises.
    fn dot_in_order(a: &[f32], b: &[f32]) -> f32 {
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

    #[test]
    fn kernels_agree_bit_for_bit_with_plain_loops() {
        let mut random = Random::new(1);
        for length in (0..70).chain([127, 384, 1000, 8192]) {
            let (a, b) = (random.vector(length), random.vector(length));
            assert_eq!(dot(&a, &b).to_bits(), dot_in_order(&a, &b).to_bits(), "{length}");
            let difference: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
            assert_eq!(
                distance_squared(&a, &b).to_bits(),
                dot_in_order(&difference, &difference).to_bits(),
                "{length}"
            );
            let levels: Vec<i16> = a.iter().map(|value| (value * 300.0).clamp(-1023.0, 1023.0) as i16).collect();
            let row: Vec<i8> = b.iter().map(|value| (value * 40.0).clamp(-127.0, 127.0) as i8).collect();
            let expected: i64 = levels.iter().zip(&row).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
            assert_eq!(i64::from(dot_int8(&levels, &row)), expected, "{length}");
        }
    }

    #[test]
    fn the_largest_rows_do_not_overflow() {
        assert_eq!(dot_int8(&[1023; 8192], &[127; 8192]), 1023 * 127 * 8192);
        assert_eq!(dot_int8(&[1023; 8192], &[-127; 8192]), -1023 * 127 * 8192);
    }

    #[test]
    fn code_sums_agree_with_counting_bit_by_bit() {
        let mut random = Random::new(2);
        for words in [1, 2, 3, 6, 9, 16, 128] {
            let planes: Vec<[u64; PLANES]> = (0..words).map(|_| std::array::from_fn(|_| random.next())).collect();
            let codes: Vec<u64> = (0..3 * words * BLOCK).map(|_| random.next()).collect();
            let mut sums = vec![0; 3 * BLOCK];
            sum_codes(&codes, &planes, &mut sums);
            for (vector, sum) in sums.iter().enumerate() {
                assert_eq!(*sum, sum_one(&codes, &planes, vector), "{words} words, vector {vector}");
            }
        }
    }

    fn sum_one(codes: &[u64], planes: &[[u64; PLANES]], vector: usize) -> i32 {
        let first = vector / BLOCK * planes.len();
        let mut sum = 0;
        for (index, planes) in planes.iter().enumerate() {
            let word = codes[(first + index) * BLOCK + vector % BLOCK];
            for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
                let levels = planes.map(|plane| (plane >> bit & 1) as i32);
                sum += levels[0] + 2 * levels[1] + 4 * levels[2] - 8 * levels[3];
            }
        }
        sum
    }

    #[test]
    fn ones_are_counted() {
        assert_eq!(count_ones(&[0; 16]), 0);
        assert_eq!(count_ones(&[u64::MAX; 16]), 1024);
        assert_eq!(count_ones(&std::array::from_fn(|word| 1 << word)), 16);
    }

    #[test]
    fn bounds_are_reached_from_equality_on() {
        let bounds: [f32; 64] = std::array::from_fn(|index| index as f32);
        assert_eq!(reaching(&bounds, 60.0), 0b1111 << 60);
        assert_eq!(reaching(&bounds, f32::NEG_INFINITY), u64::MAX);
        assert_eq!(reaching(&[f32::NEG_INFINITY; 64], 0.0), 0);
    }
}

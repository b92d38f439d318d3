//! A search over chunks: codes say which vectors may be among the best, rows of 8 bits say it closer, and only what is left is
//! scored exactly.
//!
//! Always true: a vector is passed over only when what it may score at most is less than what the k best found so far score
//! at least. With [`Search::is_exact`] both are certain; without, a code's bound holds in about 49 of 50 cases, and most
//! of the others lie far enough above the k-th that the answer is the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::chunk::{CHUNK_LEN, Chunk, ChunkBits};
use super::coder::CodeQuery;
use super::kernels::{bound_scores, count_ones, dot, dot_int8, reaching, sum_codes};
use super::rank::Rank;

/// A code's vector is taken to score at most so many standard deviations above its estimate: 0.998 of the ten best are found
/// in the worst of the sets that `recall` tests; with 1.5 deviations it is 0.991, with 3 it takes twice as many rows.
const CODE_DEVIATIONS: f32 = 2.0;
/// The same for a row of 8 bits.
const ROW_DEVIATIONS: f32 = 4.0;
/// Where fewer places of a chunk are wanted, their rows are as quickly read as all its codes: 0.1 to 0.3 µs each, from memory that
/// no cache holds, beside 7 µs. At 128 a filter that left a tenth of 200,000 took six times as long as none.
pub(super) const SPARSE_MAX: u32 = 40;
/// Largest level of a query in 16 bits.
const LEVEL_MAX: f32 = 1023.0;

/// A prepared query.
#[derive(Debug)]
pub(super) struct Query {
    levels: Vec<i16>,
    step: f32,
    length: f32,
    /// Sum of the absolute components.
    length_l1: f32,
    is_exact: bool,
}

/// How far a row's score may be from the vector's: so much for a scale of 1, and so much besides.
#[derive(Debug, Clone, Copy)]
struct Margin {
    of_scale: f32,
    besides: f32,
}

/// A vector that may be among the best.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) chunk: usize,
    pub(super) place: usize,
    pub(super) score: f32,
    margin: f32,
}

/// The best so far.
#[derive(Debug)]
pub(super) struct Best {
    k: usize,
    /// The k highest scores that are certain, the lowest on top.
    certain: BinaryHeap<Reverse<Rank>>,
    candidates: Vec<Candidate>,
    /// What a vector must be able to score.
    least: f32,
    pub(super) code_count: usize,
    pub(super) row_count: usize,
}

/// Room for the scores of one chunk.
#[derive(Debug)]
pub(super) struct Scratch {
    sums: Vec<i32>,
    bounds: Vec<f32>,
    reached: Vec<(Rank, usize)>,
}

impl Query {
    pub(super) fn new(query: &[f32], is_exact: bool) -> Self {
        let largest = query.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let step = (largest / LEVEL_MAX).max(f32::MIN_POSITIVE);
        Self {
            levels: query.iter().map(|value| (value / step).round() as i16).collect(),
            step,
            length: dot(query, query).sqrt(),
            length_l1: query.iter().map(|value| value.abs()).sum(),
            is_exact,
        }
    }

    fn margin(&self, chunk: &Chunk) -> Margin {
        let dimensions = chunk.dimensions as f32;
        // Sums of f32, in lanes: see `kernels`. Twice, for the row's score and the exact one, and L2 subtracts lengths.
        let length_max = self.length.max(chunk.length_max);
        let rounding = 2.0 * (dimensions / 32.0 + 8.0) * f32::EPSILON * length_max * length_max
            + dimensions * f32::MIN_POSITIVE * f32::EPSILON;
        let certain = Margin {
            of_scale: self.length_l1 / 2.0,
            besides: self.step / 2.0 * dimensions.sqrt() * chunk.length_max * 1.01 + rounding,
        };
        if self.is_exact {
            return certain;
        }
        // A rounded component is off by 1/√12 of a step on average.
        let deviations = ROW_DEVIATIONS / 12.0_f32.sqrt();
        Margin {
            of_scale: certain.of_scale.min(deviations * self.length),
            besides: certain.besides.min(deviations * self.step * chunk.length_max + rounding),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self { sums: vec![0; CHUNK_LEN], bounds: vec![0.0; CHUNK_LEN], reached: Vec::new() }
    }
}

impl Best {
    pub(super) fn new(k: usize) -> Self {
        Self {
            k,
            certain: BinaryHeap::with_capacity(k.min(CHUNK_LEN) + 1),
            candidates: Vec::new(),
            least: f32::NEG_INFINITY,
            code_count: 0,
            row_count: 0,
        }
    }

    fn offer(&mut self, candidate: Candidate) {
        if candidate.score + candidate.margin < self.least {
            return;
        }
        self.candidates.push(candidate);
        let certain = candidate.score - candidate.margin;
        if self.certain.len() < self.k {
            self.certain.push(Reverse(Rank(certain)));
        } else if let Some(mut lowest) = self.certain.peek_mut()
            && certain > lowest.0.0
        {
            *lowest = Reverse(Rank(certain));
        }
        if self.certain.len() == self.k
            && let Some(Reverse(lowest)) = self.certain.peek()
        {
            self.least = lowest.0;
        }
    }

    /// Takes in what another thread found.
    pub(super) fn merge(&mut self, other: Self) {
        self.code_count += other.code_count;
        self.row_count += other.row_count;
        for candidate in other.candidates {
            self.offer(candidate);
        }
    }

    /// Returns those that may still be among the k best.
    pub(super) fn into_candidates(mut self) -> Vec<Candidate> {
        self.candidates.retain(|candidate| candidate.score + candidate.margin >= self.least);
        self.candidates
    }

    /// Looks at the wanted places of a chunk.
    pub(super) fn scan(
        &mut self,
        index: usize,
        chunk: &Chunk,
        wanted: &ChunkBits,
        query: &Query,
        codes: Option<&CodeQuery>,
        scratch: &mut Scratch,
    ) {
        let wanted_count = count_ones(wanted);
        let margin = query.margin(chunk);
        match codes {
            Some(codes) if wanted_count > SPARSE_MAX => {
                self.code_count += wanted_count as usize;
                scratch.reach(chunk, wanted, codes, self.least);
                // The most promising first: what they score spares looking at others, of which there are a thousand at first.
                let mut reached = BinaryHeap::from(std::mem::take(&mut scratch.reached));
                while let Some((Rank(bound), place)) = reached.pop()
                    && bound >= self.least
                {
                    self.score_row(index, chunk, place, query, margin);
                }
                scratch.reached = reached.into_vec();
            }
            _ => places(wanted).for_each(|place| self.score_row(index, chunk, place, query, margin)),
        }
    }

    fn score_row(&mut self, index: usize, chunk: &Chunk, place: usize, query: &Query, margin: Margin) {
        let scale = chunk.scales[place];
        // In this order no product of two small numbers vanishes.
        let score = scale * (query.step * dot_int8(&query.levels, chunk.row(place)) as f32) - chunk.half_norm(place);
        self.row_count += 1;
        self.offer(Candidate { chunk: index, place, score, margin: scale * margin.of_scale + margin.besides });
    }
}

impl Scratch {
    /// Notes the places whose codes may score `least`.
    fn reach(&mut self, chunk: &Chunk, wanted: &ChunkBits, codes: &CodeQuery, least: f32) {
        let (slope, offset) = codes.bound(chunk.spread_max, CODE_DEVIATIONS);
        sum_codes(&chunk.codes, &codes.planes, &mut self.sums);
        bound_scores(&self.sums, &chunk.biases, &chunk.factors, slope, offset, &mut self.bounds);
        self.reached.clear();
        let (words, _) = self.bounds.as_chunks::<64>();
        for (index, (bounds, wanted)) in words.iter().zip(wanted).enumerate() {
            let reached = if *wanted == 0 { 0 } else { reaching(bounds, least - codes.base) & wanted };
            self.reached.extend(bits(reached).map(|bit| (Rank(bounds[bit] + codes.base), index * 64 + bit)));
        }
    }
}

/// The places whose bits are set, ascending.
fn places(wanted: &ChunkBits) -> impl Iterator<Item = usize> {
    wanted.iter().enumerate().flat_map(|(index, word)| bits(*word).map(move |bit| index * 64 + bit))
}

fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        word &= word.checked_sub(1)?;
        Some(bit)
    })
}

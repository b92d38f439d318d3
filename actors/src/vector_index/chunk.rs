//! So many vectors of an index, laid out as a search reads them.
//!
//! Always true: slots ascend; a place is written once, and removing its vector clears its bit in `live`; without a coder there
//! are no codes.

use std::sync::Arc;

use super::coder::Coder;
use super::index::Centre;
use super::kernels::{BLOCK, count_ones, dot};
use super::{Metric, Slot, normalized};

/// Vectors of a chunk.
pub const CHUNK_LEN: usize = 1024;
/// One bit for each place of a chunk.
pub type ChunkBits = [u64; CHUNK_LEN / 64];
/// Largest value of a row in 8 bits.
const INT8_MAX: f32 = 127.0;

/// Some of an index's vectors, by place: the order of their slots.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub(super) dimensions: usize,
    /// Whose vectors they are, by place.
    pub(super) slots: Vec<Slot>,
    pub(super) live: ChunkBits,
    pub(super) coder: Option<Arc<Coder>>,
    pub(super) codes: Vec<u64>,
    /// As [`Code`](super::coder::Code) has them, with room for whole blocks.
    pub(super) factors: Vec<f32>,
    pub(super) biases: Vec<f32>,
    pub(super) spread_max: f32,
    /// The vectors in 8 bits a component, and what a step is worth.
    pub(super) rows: Vec<i8>,
    pub(super) scales: Vec<f32>,
    /// Half the squared lengths; empty but for [`Metric::L2`].
    pub(super) half_norms: Vec<f32>,
    pub(super) length_max: f32,
    /// The vectors as they are, where the index has memory for them.
    pub(super) vectors: Option<Vec<f32>>,
}

impl Chunk {
    pub(super) fn new(dimensions: usize, coder: Option<Arc<Coder>>, keeps_vectors: bool) -> Self {
        Self {
            dimensions,
            slots: Vec::new(),
            live: [0; CHUNK_LEN / 64],
            coder,
            codes: Vec::new(),
            factors: Vec::new(),
            biases: Vec::new(),
            spread_max: 0.0,
            rows: Vec::new(),
            scales: Vec::new(),
            half_norms: Vec::new(),
            length_max: 0.0,
            vectors: keeps_vectors.then(Vec::new),
        }
    }

    /// Whose vectors the chunk has, in its places' order, removed ones included.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Which places have a vector.
    #[must_use]
    pub fn live(&self) -> &ChunkBits {
        &self.live
    }

    pub(super) fn live_among(&self, wanted: &ChunkBits) -> ChunkBits {
        std::array::from_fn(|word| self.live[word] & wanted[word])
    }

    pub(super) fn live_count(&self) -> usize {
        count_ones(&self.live) as usize
    }

    /// Whether no vector can be added any more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.slots.len() == CHUNK_LEN
    }

    /// What its codes were made around. `None`: it has no codes.
    #[must_use]
    pub fn centre(&self) -> Option<Centre> {
        self.coder.clone().map(Centre)
    }

    /// Forgets all vectors but those of the slots, which ascend.
    pub(super) fn keep_only(&mut self, slots: &[Slot]) {
        self.live = [0; CHUNK_LEN / 64];
        let mut kept = slots.iter().peekable();
        for (place, slot) in self.slots.iter().enumerate() {
            while kept.next_if(|kept| *kept < slot).is_some() {}
            if kept.next_if_eq(&slot).is_some() {
                self.live[place / 64] |= 1 << (place % 64);
            }
        }
    }

    /// Adds a vector, as the metric compares it, behind the others. Returns how many bytes it takes as it is.
    pub(super) fn push_as(&mut self, slot: Slot, vector: &[f32], metric: Metric) -> usize {
        match metric {
            Metric::Cosine => self.push(slot, &normalized(vector), metric),
            Metric::Dot | Metric::L2 => self.push(slot, vector, metric),
        }
        if self.vectors.is_some() { size_of_val(vector) } else { 0 }
    }

    /// Adds a vector that is as the metric compares it.
    pub(super) fn push(&mut self, slot: Slot, vector: &[f32], metric: Metric) {
        let place = self.slots.len();
        self.slots.push(slot);
        self.live[place / 64] |= 1 << (place % 64);
        let largest = vector.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = (largest / INT8_MAX).max(f32::MIN_POSITIVE);
        self.rows.extend(vector.iter().map(|value| (value / scale).round() as i8));
        self.scales.push(scale);
        let norm = dot(vector, vector);
        self.length_max = self.length_max.max(norm.sqrt());
        if metric == Metric::L2 {
            self.half_norms.push(norm / 2.0);
        }
        if let Some(vectors) = &mut self.vectors {
            vectors.extend_from_slice(vector);
        }
        if let Some(coder) = self.coder.clone() {
            self.encode(place, vector, &coder);
        }
    }

    /// Forgets a vector; `false` if it is not here.
    pub(super) fn remove(&mut self, slot: Slot) -> bool {
        let Some(place) = self.place(slot) else { return false };
        self.live[place / 64] &= !(1 << (place % 64));
        true
    }

    /// Where the slot's vector is.
    pub(super) fn place(&self, slot: Slot) -> Option<usize> {
        let place = self.slots.binary_search(&slot).ok()?;
        (self.live[place / 64] >> (place % 64) & 1 == 1).then_some(place)
    }

    fn encode(&mut self, place: usize, vector: &[f32], coder: &Coder) {
        let block_words = coder.block_word_count();
        if place.is_multiple_of(BLOCK) {
            self.codes.resize(self.codes.len() + block_words, 0);
            self.factors.resize(place + BLOCK, 0.0);
            self.biases.resize(place + BLOCK, f32::NEG_INFINITY);
        }
        let block = &mut self.codes[place / BLOCK * block_words..][..block_words];
        let code = coder.encode(vector, block, place % BLOCK);
        self.factors[place] = code.factor;
        self.biases[place] = code.bias - self.half_norm(place);
        self.spread_max = self.spread_max.max(code.spread);
    }

    /// Makes all codes anew with another coder.
    pub(super) fn recode(&mut self, coder: Arc<Coder>) {
        self.codes.clear();
        self.factors.clear();
        self.biases.clear();
        self.spread_max = 0.0;
        let mut vector = Vec::with_capacity(self.dimensions);
        for place in 0..self.slots.len() {
            vector.clear();
            self.append_vector(place, &mut vector);
            self.encode(place, &vector, &coder);
        }
        self.coder = Some(coder);
    }

    /// Appends the vector, or what 8 bits kept of it.
    pub(super) fn append_vector(&self, place: usize, vector: &mut Vec<f32>) {
        match self.vector(place) {
            Some(kept) => vector.extend_from_slice(kept),
            None => vector.extend(self.row(place).iter().map(|value| f32::from(*value) * self.scales[place])),
        }
    }

    /// The vector as it is, if the chunk has it.
    pub(super) fn vector(&self, place: usize) -> Option<&[f32]> {
        let vectors = self.vectors.as_ref()?;
        Some(&vectors[place * self.dimensions..][..self.dimensions])
    }

    pub(super) fn row(&self, place: usize) -> &[i8] {
        &self.rows[place * self.dimensions..][..self.dimensions]
    }

    pub(super) fn half_norm(&self, place: usize) -> f32 {
        self.half_norms.get(place).copied().unwrap_or(0.0)
    }

    /// Memory in bytes, without the vectors as they are.
    pub(super) fn code_bytes(&self) -> usize {
        let floats = self.factors.len() + self.biases.len() + self.scales.len() + self.half_norms.len();
        size_of::<Self>() + 8 * (self.codes.len() + self.slots.len()) + 4 * floats + self.rows.len()
    }

    pub(super) fn vector_bytes(&self) -> usize {
        self.vectors.as_ref().map_or(0, |vectors| 4 * vectors.len())
    }
}

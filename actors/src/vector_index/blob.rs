//! A chunk as bytes, so that an index is read back instead of made anew.
//!
//! Always true: whatever the bytes, reading them ends in a chunk that is safe to search or in [`Malformed`], and takes no more
//! memory than a chunk has. That they are the bytes which were written is for a checksum beside them to say.
//!
//! Little endian: version, dimensions, metric, length, words of a code (0: no codes) as u32, `spread_max` and `length_max`; then
//! slots, scales, with L2 half the squared lengths, with codes factors, biases and codes, and last the rows. Which vectors are
//! live is not kept, since the rows in SQLite say it.

use std::sync::Arc;

use super::chunk::{CHUNK_LEN, Chunk};
use super::coder::Coder;
use super::kernels::BLOCK;
use super::{Metric, Slot};

const VERSION: u32 = 1;

/// Bytes that are no chunk of this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Chunk {
    /// The chunk as bytes, but for its vectors as they are.
    #[must_use]
    pub fn to_bytes(&self, metric: Metric) -> Vec<u8> {
        let words = self.coder.as_ref().map_or(0, |coder| coder.word_count());
        let mut bytes = Vec::with_capacity(self.code_bytes());
        for number in [VERSION, self.dimensions as u32, metric as u32, self.slots.len() as u32, words as u32] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend([self.spread_max, self.length_max].iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(self.slots.iter().flat_map(|slot| slot.to_le_bytes()));
        for floats in [&self.scales, &self.half_norms, &self.factors, &self.biases] {
            bytes.extend(floats.iter().flat_map(|float| float.to_le_bytes()));
        }
        bytes.extend(self.codes.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(self.rows.iter().map(|value| value.cast_unsigned()));
        bytes
    }

    /// Reads a chunk of an index of these dimensions, whose codes `coder` made. All its vectors are live.
    ///
    /// # Errors
    /// [`Malformed`], where the bytes are no such chunk.
    pub(super) fn from_bytes(
        bytes: &[u8],
        dimensions: usize,
        metric: Metric,
        coder: Option<Arc<Coder>>,
    ) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let [version, its_dimensions, its_metric, len, words] = reader.numbers::<5>()?;
        let coder_words = coder.as_ref().map_or(0, |coder| coder.word_count());
        let is_ours = version == VERSION
            && its_dimensions as usize == dimensions
            && its_metric == metric as u32
            && (1..=CHUNK_LEN).contains(&(len as usize))
            && words as usize == coder_words;
        if !is_ours {
            return Err(Malformed);
        }
        let len = len as usize;
        let coded_len = if words == 0 { 0 } else { len.next_multiple_of(BLOCK) };
        let mut chunk = Self::new(dimensions, coder, false);
        [chunk.spread_max, chunk.length_max] = reader.numbers::<2>()?.map(f32::from_bits);
        chunk.slots = reader.take(len, Slot::from_le_bytes)?;
        chunk.scales = reader.take(len, f32::from_le_bytes)?;
        chunk.half_norms = reader.take(if metric == Metric::L2 { len } else { 0 }, f32::from_le_bytes)?;
        chunk.factors = reader.take(coded_len, f32::from_le_bytes)?;
        chunk.biases = reader.take(coded_len, f32::from_le_bytes)?;
        chunk.codes = reader.take(coded_len * coder_words, u64::from_le_bytes)?;
        chunk.rows = reader.take(len * dimensions, i8::from_le_bytes)?;
        for place in 0..len {
            chunk.live[place / 64] |= 1 << (place % 64);
        }
        if reader.0.is_empty() && chunk.is_sound() { Ok(chunk) } else { Err(Malformed) }
    }

    /// Whether slots ascend and every number is one to calculate with.
    fn is_sound(&self) -> bool {
        let len = self.slots.len();
        let is_finite = |floats: &[f32]| floats.iter().all(|float| float.is_finite());
        self.slots.is_sorted_by(|a, b| a < b)
            && is_finite(&[self.spread_max, self.length_max])
            && is_finite(&self.scales)
            && is_finite(&self.half_norms)
            && is_finite(&self.factors)
            && self.biases.get(..len).is_none_or(is_finite)
    }
}

/// What is left of the bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<T, const N: usize>(&mut self, count: usize, read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Malformed> {
        let (front, rest) = self.0.split_at_checked(count * N).ok_or(Malformed)?;
        self.0 = rest;
        let (items, _) = front.as_chunks::<N>();
        Ok(items.iter().map(|item| read(*item)).collect())
    }

    fn numbers<const N: usize>(&mut self) -> Result<[u32; N], Malformed> {
        self.take(N, u32::from_le_bytes)?.try_into().map_err(|_| Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector_index::testing::Random;

    fn chunk(metric: Metric, len: usize, coder: Option<Arc<Coder>>) -> Chunk {
        let mut random = Random::new(len as u64);
        let mut chunk = Chunk::new(70, coder, false);
        for slot in 0..len {
            chunk.push(3 * slot as Slot, &random.vector(70), metric);
        }
        chunk
    }

    #[test]
    fn chunks_come_back_as_they_were() {
        let coder = Arc::new(Coder::new(vec![0.1; 70]));
        for (metric, len) in [(Metric::Cosine, 1), (Metric::Dot, 9), (Metric::L2, CHUNK_LEN)] {
            for coder in [None, Some(Arc::clone(&coder))] {
                let written = chunk(metric, len, coder.clone());
                let bytes = written.to_bytes(metric);
                let read = Chunk::from_bytes(&bytes, 70, metric, coder).expect("these are its bytes");
                assert_eq!(read.to_bytes(metric), bytes);
                assert_eq!(read.live, written.live);
            }
        }
    }

    #[test]
    fn other_bytes_are_refused_or_safe() {
        let coder = Some(Arc::new(Coder::new(vec![0.1; 70])));
        let bytes = chunk(Metric::L2, 40, coder.clone()).to_bytes(Metric::L2);
        let read = |bytes: &[u8]| Chunk::from_bytes(bytes, 70, Metric::L2, coder.clone());
        assert!(Chunk::from_bytes(&bytes, 71, Metric::L2, coder.clone()).is_err(), "other dimensions");
        assert!(Chunk::from_bytes(&bytes, 70, Metric::Dot, coder.clone()).is_err(), "another metric");
        assert!(Chunk::from_bytes(&bytes, 70, Metric::L2, None).is_err(), "no coder");
        for end in (0..bytes.len()).step_by(7) {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
        let mut random = Random::new(9);
        for _ in 0..2_000 {
            let mut mutated = bytes.clone();
            for _ in 0..=random.below(4) {
                let end = if random.below(2) == 0 { 40 } else { mutated.len() };
                let index = random.below(end);
                mutated[index] = random.next() as u8;
            }
            if let Ok(chunk) = read(&mutated) {
                assert!(chunk.slots.len() <= CHUNK_LEN && chunk.is_sound());
            }
        }
    }
}

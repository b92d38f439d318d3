//! The index of one collection: its chunks, and a search over a snapshot of them.

use std::sync::Arc;

use super::blob::Malformed;
use super::chunk::{CHUNK_LEN, Chunk, ChunkBits};
use super::coder::{CodeQuery, Coder};
use super::kernels::{count_ones, distance_squared, dot};
use super::search::{Best, Candidate, Query, SPARSE_MAX, Scratch};
use super::{Metric, Slot, normalized};

/// With fewer components a row of 8 bits is as quickly scored as a code.
const CODED_DIMENSIONS_MIN: usize = 64;
/// The centre is found anew when there are so many times more vectors than when it was found.
const GROWTH_UNTIL_CENTRED: usize = 8;
/// Vectors that a centre is the mean of, at most.
const SAMPLE_LEN: usize = 16_384;
/// A chunk of which less is live is put together with its neighbour.
const LIVE_MIN: usize = CHUNK_LEN / 2;
/// From so many vectors on a search is shared among threads; starting one costs as much as scanning 20,000.
const VECTORS_PER_THREAD: usize = 65_536;

/// What an index is for, fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSettings {
    /// Components of each vector, at least 1.
    pub dimensions: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// Bytes of vectors kept as they are, so that the last look at the best needs no other source. More makes searches
    /// quicker, by a few reads each.
    pub vector_bytes_max: usize,
}

/// The vectors of a collection, in memory, as codes and rows of 8 bits.
///
/// Slots ascend: a vector that is replaced gets a new one. Readers take a [`Snapshot`] and are not held up by changes.
#[derive(Debug, Clone)]
pub struct VectorIndex {
    settings: IndexSettings,
    coder: Option<Arc<Coder>>,
    /// How many vectors there were when the centre was found.
    centred_count: usize,
    live_count: usize,
    vector_bytes: usize,
    chunks: Arc<Vec<Arc<Chunk>>>,
}

/// What codes are made around; the same mean makes the same codes.
#[derive(Debug, Clone)]
pub struct Centre(pub(super) Arc<Coder>);

/// The vectors of a collection as they were when it was taken.
#[derive(Debug, Clone)]
pub struct Snapshot {
    settings: IndexSettings,
    chunks: Arc<Vec<Arc<Chunk>>>,
}

/// What is looked for.
#[expect(missing_debug_implementations, reason = "it holds closures")]
pub struct Search<'a> {
    /// So many components as the index has, all finite; with [`Metric::Cosine`] one of them is not 0.
    pub query: &'a [f32],
    /// How many to find.
    pub k: usize,
    /// Whether the answer is certain to be that of comparing with each vector. Otherwise about one in a thousand of the ten
    /// nearest is missed.
    pub is_exact: bool,
    /// Which vectors are wanted, chunk by chunk; `None` for all. Bits of removed vectors do not count.
    pub wanted: Option<&'a [ChunkBits]>,
    /// Threads to use at most, this one included.
    pub thread_count_max: usize,
    /// Asked between chunks: whether nobody waits for the answer any more.
    pub is_called_off: &'a (dyn Fn() -> bool + Sync),
}

/// A vector and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Whose vector it is.
    pub slot: Slot,
    /// Higher is nearer: the cosine, the inner product, or less the square of the distance.
    pub score: f32,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The k nearest, nearest first, and all that are as near as the last of them; those of one score by slot.
    pub hits: Vec<Hit>,
    /// Vectors whose codes were looked at.
    pub code_count: usize,
    /// Vectors whose rows of 8 bits were.
    pub row_count: usize,
    /// Vectors that were scored exactly.
    pub exact_count: usize,
}

/// Why a search found nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum SearchError<E> {
    /// [`Search::is_called_off`] said so.
    CalledOff,
    /// A vector that is not in memory could not be read.
    Read(E),
}

impl VectorIndex {
    /// An index without vectors.
    #[must_use]
    pub fn new(settings: IndexSettings) -> Self {
        Self { settings, coder: None, centred_count: 0, live_count: 0, vector_bytes: 0, chunks: Arc::default() }
    }

    /// Whether codes pay, so that an index of many vectors is to have a centre.
    #[must_use]
    pub fn is_coded(&self) -> bool {
        self.settings.dimensions >= CODED_DIMENSIONS_MIN
    }

    /// Makes codes around this centre from now on, until there are many times more than `count` vectors.
    pub fn set_centre(&mut self, centre: &Centre, count: usize) {
        self.coder = Some(Arc::clone(&centre.0));
        self.centred_count = count;
    }

    /// Makes codes around the mean of vectors, a sample of `count`, from now on.
    pub fn find_centre_of(&mut self, sample: &[Vec<f32>], count: usize) {
        let mut sums = vec![0.0_f64; self.settings.dimensions];
        for vector in sample {
            let prepared = self.settings.metric.prepared(vector);
            sums.iter_mut().zip(prepared).for_each(|(sum, value)| *sum += f64::from(value));
        }
        self.set_centre(&Centre::new(mean_of(&sums, sample.len())), count);
    }

    /// Appends a chunk that was kept as [`Chunk::to_bytes`] with its [centre](Chunk::centre). `live` are the slots, ascending,
    /// of every vector that is behind those of the index. Returns how many of them the chunk has.
    ///
    /// # Errors
    /// [`Malformed`], where the bytes are no such chunk, or it lacks a live vector that lies before its last. The index is
    /// as it was then.
    pub fn append_kept(&mut self, bytes: &[u8], centre: Option<&Centre>, live: &[Slot]) -> Result<usize, Malformed> {
        let coder = centre.map(|centre| Arc::clone(&centre.0));
        let mut chunk = Chunk::from_bytes(bytes, self.settings.dimensions, self.settings.metric, coder)?;
        let last = self.chunks.last().and_then(|chunk| chunk.slots.last());
        if last >= chunk.slots.first() {
            return Err(Malformed);
        }
        let count = chunk.slots.last().map_or(0, |last| live.partition_point(|slot| slot <= last));
        chunk.keep_only(&live[..count]);
        if chunk.live_count() != count {
            return Err(Malformed);
        }
        self.live_count += count;
        if count > 0 {
            Arc::make_mut(&mut self.chunks).push(Arc::new(chunk));
        }
        Ok(count)
    }

    /// How many vectors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live_count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live_count == 0
    }

    /// Components of each vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.settings.dimensions
    }

    /// How vectors are compared.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.settings.metric
    }

    /// Bytes of vectors that may be kept as they are.
    #[must_use]
    pub fn vector_bytes_max(&self) -> usize {
        self.settings.vector_bytes_max
    }

    /// Memory in bytes, and what of it are vectors as they are.
    #[must_use]
    pub fn bytes(&self) -> (usize, usize) {
        let codes: usize = self.chunks.iter().map(|chunk| chunk.code_bytes()).sum();
        (codes + self.vector_bytes, self.vector_bytes)
    }

    /// Adds a vector, whose slot must be above all before it. It is in every snapshot taken from now on.
    pub fn push(&mut self, slot: Slot, vector: &[f32]) {
        debug_assert_eq!(vector.len(), self.settings.dimensions, "the store checks dimensions");
        let keeps_vectors = self.vector_bytes + CHUNK_LEN * 4 * vector.len() <= self.settings.vector_bytes_max;
        let chunks = Arc::make_mut(&mut self.chunks);
        let mut chunk = match chunks.pop_if(|last| !last.is_full()) {
            Some(last) => last,
            None => Arc::new(Chunk::new(vector.len(), self.coder.clone(), keeps_vectors)),
        };
        self.vector_bytes += Arc::make_mut(&mut chunk).push_as(slot, vector, self.settings.metric);
        chunks.push(chunk);
        self.live_count += 1;
    }

    /// Forgets a vector; `false` if there is none with that slot. It is in no snapshot taken from now on.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let after = self.chunks.partition_point(|chunk| chunk.slots.first().is_some_and(|first| *first <= slot));
        let Some(index) = after.checked_sub(1) else { return false };
        if self.chunks[index].place(slot).is_none() {
            return false;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        let is_removed = Arc::make_mut(&mut chunks[index]).remove(slot);
        self.live_count -= usize::from(is_removed);
        if chunks[index].live_count() == 0 && index + 1 < chunks.len() {
            self.vector_bytes -= chunks[index].vector_bytes();
            chunks.remove(index);
        }
        is_removed
    }

    /// Does one piece of what keeps searches quick, of a few milliseconds: finds a centre, codes a chunk anew, or puts two
    /// chunks together. Returns whether there is more to do.
    pub fn tidy(&mut self) -> bool {
        if self.wants_centre() {
            self.find_centre();
            return true;
        }
        self.recode_one() || self.join_two()
    }

    fn wants_centre(&self) -> bool {
        self.settings.dimensions >= CODED_DIMENSIONS_MIN
            && self.live_count >= (self.centred_count * GROWTH_UNTIL_CENTRED).max(CHUNK_LEN)
    }

    fn find_centre(&mut self) {
        let step = self.live_count.div_ceil(SAMPLE_LEN);
        let mut sums = vec![0.0_f64; self.settings.dimensions];
        let mut count = 0_usize;
        let mut vector = Vec::new();
        for (chunk, place) in
            self.chunks.iter().flat_map(|chunk| (0..chunk.slots.len()).map(move |place| (chunk, place))).step_by(step)
        {
            vector.clear();
            chunk.append_vector(place, &mut vector);
            sums.iter_mut().zip(&vector).for_each(|(sum, value)| *sum += f64::from(*value));
            count += 1;
        }
        self.set_centre(&Centre::new(mean_of(&sums, count)), self.live_count);
    }

    fn recode_one(&mut self) -> bool {
        let Some(coder) = &self.coder else { return false };
        let is_old = |chunk: &Arc<Chunk>| chunk.coder.as_ref().is_none_or(|its_own| !Arc::ptr_eq(its_own, coder));
        let Some(index) = self.chunks.iter().position(is_old) else { return false };
        Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[index]).recode(Arc::clone(coder));
        true
    }

    fn join_two(&mut self) -> bool {
        let counts: Vec<usize> = self.chunks.iter().map(|chunk| chunk.live_count()).collect();
        let Some(index) =
            counts.windows(2).position(|pair| pair[0].min(pair[1]) < LIVE_MIN && pair[0] + pair[1] <= CHUNK_LEN)
        else {
            return false;
        };
        // The last chunk still grows: what is removed there is put together once it is full.
        if index + 2 == counts.len() && !self.chunks[index + 1].is_full() {
            return false;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        let second = chunks.remove(index + 1);
        self.vector_bytes -= chunks[index].vector_bytes() + second.vector_bytes();
        chunks[index] = Arc::new(self.settings.joined(&chunks[index], &second, self.coder.clone()));
        self.vector_bytes += chunks[index].vector_bytes();
        true
    }

    /// Makes every code promise too little.
    #[cfg(test)]
    pub(super) fn sabotage(&mut self) {
        for chunk in Arc::make_mut(&mut self.chunks) {
            Arc::make_mut(chunk).factors.iter_mut().for_each(|factor| *factor *= 0.5);
        }
    }

    /// The vectors as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { settings: self.settings, chunks: Arc::clone(&self.chunks) }
    }
}

fn mean_of(sums: &[f64], count: usize) -> Vec<f32> {
    sums.iter().map(|sum| (sum / count.max(1) as f64) as f32).collect()
}

impl Centre {
    /// The centre that is this mean.
    #[must_use]
    pub fn new(mean: Vec<f32>) -> Self {
        Self(Arc::new(Coder::new(mean)))
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> &[f32] {
        self.0.mean()
    }
}

impl IndexSettings {
    /// What is live in two chunks, as one.
    fn joined(&self, first: &Chunk, second: &Chunk, coder: Option<Arc<Coder>>) -> Chunk {
        let keeps_vectors = first.vectors.is_some() && second.vectors.is_some();
        let mut joined = Chunk::new(self.dimensions, coder, keeps_vectors);
        let mut vector = Vec::with_capacity(self.dimensions);
        for chunk in [first, second] {
            for (place, slot) in chunk.slots.iter().enumerate().filter(|(_, slot)| chunk.place(**slot).is_some()) {
                vector.clear();
                chunk.append_vector(place, &mut vector);
                joined.push(*slot, &vector, self.metric);
            }
        }
        joined
    }
}

impl Snapshot {
    /// How many vectors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.live_count()).sum()
    }

    /// How many chunks there are.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes of codes, or of rows, that a search for all reads at least.
    #[must_use]
    pub fn scan_bytes(&self, is_exact: bool) -> usize {
        let of_one = |chunk: &Chunk| match &chunk.coder {
            Some(coder) if !is_exact => 8 * coder.word_count() + 8,
            _ => self.settings.dimensions,
        };
        self.chunks.iter().map(|chunk| chunk.slots.len() * of_one(chunk)).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The chunks, in their slots' order.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().map(AsRef::as_ref)
    }

    /// Finds the nearest. `read` returns a vector that is not in memory, as it was given.
    ///
    /// # Errors
    /// [`SearchError::CalledOff`], and whatever `read` returns.
    pub fn search<E>(
        &self,
        search: &Search<'_>,
        read: impl FnMut(Slot) -> Result<Vec<f32>, E>,
    ) -> Result<Found, SearchError<E>> {
        let normalized = self.settings.metric.prepared(search.query);
        if search.k == 0 {
            return Ok(Found { hits: Vec::new(), code_count: 0, row_count: 0, exact_count: 0 });
        }
        let best = self.scan(search, &normalized).ok_or(SearchError::CalledOff)?;
        let (code_count, row_count) = (best.code_count, best.row_count);
        let candidates = best.into_candidates();
        let exact_count = candidates.len();
        let mut hits = self.score(&normalized, &candidates, read).map_err(SearchError::Read)?;
        hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.slot.cmp(&b.slot)));
        if let Some(last) = hits.get(search.k - 1).copied() {
            let end = hits.partition_point(|hit| hit.score >= last.score);
            hits.truncate(end);
        }
        Ok(Found { hits, code_count, row_count, exact_count })
    }

    fn scan(&self, search: &Search<'_>, query: &[f32]) -> Option<Best> {
        let thread_count = self.work(search).div_ceil(VECTORS_PER_THREAD).clamp(1, search.thread_count_max.max(1));
        let part_len = self.chunks.len().div_ceil(thread_count).max(1);
        let prepared = Query::new(query, search.is_exact);
        let codes = self.code_queries(search, query);
        let scan = |part: usize| self.scan_part(part * part_len, part_len, search, &prepared, &codes);
        if thread_count == 1 {
            return scan(0);
        }
        let scan = &scan;
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..thread_count).map(|part| scope.spawn(move || scan(part))).collect();
            let mut best = scan(0);
            for other in others {
                // A panic there is a panic here, and answered as one.
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                best = best.zip(other).map(|(mut best, other)| {
                    best.merge(other);
                    best
                });
            }
            best
        })
    }

    /// How much there is to scan, as a number of codes or, where there are none, of rows.
    fn work(&self, search: &Search<'_>) -> usize {
        let wanted_count = self.wanted_count(search.wanted);
        let is_coded = self.chunks.iter().any(|chunk| chunk.coder.is_some());
        if !is_coded {
            return wanted_count;
        }
        if search.is_exact || wanted_count <= SPARSE_MAX as usize * self.chunks.len() {
            // Their rows are read.
            return wanted_count * CHUNK_LEN / SPARSE_MAX as usize;
        }
        // All codes of a chunk are scanned, however many are wanted.
        self.chunks.len() * CHUNK_LEN
    }

    /// How many vectors are wanted.
    #[must_use]
    pub fn wanted_count(&self, wanted: Option<&[ChunkBits]>) -> usize {
        let Some(wanted) = wanted else { return self.len() };
        self.chunks.iter().zip(wanted).map(|(chunk, wanted)| count_ones(&chunk.live_among(wanted)) as usize).sum()
    }

    /// Where a vector is: the chunk, and the place in it.
    #[must_use]
    pub fn place(&self, slot: Slot) -> Option<(usize, usize)> {
        let after = self.chunks.partition_point(|chunk| chunk.slots.first().is_some_and(|first| *first <= slot));
        let index = after.checked_sub(1)?;
        Some((index, self.chunks[index].place(slot)?))
    }

    /// The query for each coder that chunks have: one, or two while chunks are coded anew.
    fn code_queries(&self, search: &Search<'_>, query: &[f32]) -> Vec<(Arc<Coder>, CodeQuery)> {
        let mut queries: Vec<(Arc<Coder>, CodeQuery)> = Vec::new();
        for coder in self.chunks.iter().filter(|_| !search.is_exact).filter_map(|chunk| chunk.coder.as_ref()) {
            if !queries.iter().any(|(known, _)| Arc::ptr_eq(known, coder)) {
                queries.push((Arc::clone(coder), coder.query(query)));
            }
        }
        queries
    }

    fn scan_part(
        &self,
        start: usize,
        len: usize,
        search: &Search<'_>,
        query: &Query,
        codes: &[(Arc<Coder>, CodeQuery)],
    ) -> Option<Best> {
        let mut best = Best::new(search.k);
        let mut scratch = Scratch::default();
        for (index, chunk) in self.chunks.iter().enumerate().skip(start).take(len) {
            if (search.is_called_off)() {
                return None;
            }
            let wanted = match search.wanted {
                Some(wanted) => chunk.live_among(&wanted[index]),
                None => chunk.live,
            };
            let coder = chunk.coder.as_ref();
            let codes = codes.iter().find(|(known, _)| coder.is_some_and(|coder| Arc::ptr_eq(known, coder)));
            best.scan(index, chunk, &wanted, query, codes.map(|(_, codes)| codes), &mut scratch);
        }
        Some(best)
    }

    fn score<E>(
        &self,
        query: &[f32],
        candidates: &[Candidate],
        mut read: impl FnMut(Slot) -> Result<Vec<f32>, E>,
    ) -> Result<Vec<Hit>, E> {
        let metric = self.settings.metric;
        let mut hits = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let chunk = &self.chunks[candidate.chunk];
            let slot = chunk.slots[candidate.place];
            let score = match chunk.vector(candidate.place) {
                Some(vector) => metric.score(query, vector),
                None => metric.score(query, &metric.prepared(&read(slot)?)),
            };
            hits.push(Hit { slot, score });
        }
        Ok(hits)
    }
}

impl Metric {
    /// Returns a vector as this compares it.
    #[must_use]
    pub fn prepared(self, vector: &[f32]) -> Vec<f32> {
        match self {
            Self::Cosine => normalized(vector),
            Self::Dot | Self::L2 => vector.to_vec(),
        }
    }

    /// Returns the score of two vectors that are [prepared](Self::prepared); higher is nearer.
    #[must_use]
    pub fn score(self, query: &[f32], vector: &[f32]) -> f32 {
        match self {
            Self::Cosine | Self::Dot => dot(query, vector),
            Self::L2 => -distance_squared(query, vector),
        }
    }
}

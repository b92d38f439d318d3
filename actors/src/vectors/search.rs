//! Searches: the index finds slots, rows say what they are.
//!
//! Start at [`search`] and [`Search::nearest`].
//!
//! Always true: whatever was committed before a search began is in its answer; all of an answer is of one committed state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_protocol::full_text::TextQuery;
use larder_protocol::limits::SEARCH_QUERIES_MAX;
use larder_protocol::vectors::{
    Diversity, ExplainSearch, Explanation, Hit, ScanPlan, SearchManyPoints, SearchOptions, SearchPoints, Vector,
};
use larder_protocol::{Error as Kind, Tokenizer};
use rusqlite::params;

use super::memory::{View, look, metric};
use super::row::{Columns, damaged};
use super::store::Reading;
use super::wanted::Wanted;
use crate::full_text;
use crate::sqlite::interrupt;
use crate::store::{Failure, Outcome};
use crate::vector_index::{self, Found, SearchError, Slot};

/// Bytes of codes or rows that are scanned on a caller's thread: about 200 µs.
const SCANNED_IN_PLACE_MAX: usize = 2 << 20;
/// Points that are found, or left out, on a caller's thread.
const POINTS_IN_PLACE_MAX: usize = 32;
/// A hybrid search fuses at least so many of the best of each list.
const FUSED_MIN: usize = 100;
/// What a rank is added to before it is inverted. The usual number: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion
/// outperforms Condorcet", SIGIR 2009.
const FUSION_RANK: f64 = 60.0;
/// A page of hits larger than this is refused, so that a reply's memory is bounded.
const REPLY_BYTES_MAX: usize = 256 << 20;

pub(super) fn search(context: &Reading<'_>, message: &SearchPoints) -> Outcome<Vec<Hit>> {
    let SearchPoints { collection, vector, text, options } = message;
    check(message)?;
    if context.is_in_place && (text.is_some() || !is_short(options)) {
        return Err(Failure::TooLong);
    }
    look(context, collection, |view| {
        // Before the filter is answered, which takes as long again on a thread.
        if context.is_in_place && view.snapshot.scan_bytes(options.is_exact) > SCANNED_IN_PLACE_MAX {
            return Err(Failure::TooLong);
        }
        let mut search = Search::begin(context, view, options)?;
        if let Some(vector) = vector {
            search.view.collection.check("query vector", vector)?;
        }
        let ranked = search.ranked(vector.as_ref(), text.as_ref())?;
        search.read(&ranked)
    })
}

pub(super) fn search_many(context: &Reading<'_>, message: &SearchManyPoints) -> Outcome<Vec<Vec<Hit>>> {
    let SearchManyPoints { collection, vectors, options } = message;
    options.check()?;
    if vectors.len() > SEARCH_QUERIES_MAX {
        let reason = format!("{} vectors, at most {SEARCH_QUERIES_MAX} are allowed", vectors.len());
        return Err(Kind::invalid("search", reason).into());
    }
    look(context, collection, |view| {
        let mut search = Search::begin(context, view, options)?;
        for vector in vectors {
            search.view.collection.check("query vector", vector)?;
        }
        let one = |vector| {
            let ranked = search.ranked(Some(vector), None)?;
            search.read(&ranked)
        };
        vectors.iter().map(one).collect()
    })
}

pub(super) fn explain(context: &Reading<'_>, message: &ExplainSearch) -> Outcome<Explanation> {
    let SearchPoints { collection, vector, text, options } = &message.search;
    check(&message.search)?;
    look(context, collection, |view| {
        let mut search = Search::begin(context, view, options)?;
        if let Some(vector) = vector {
            search.view.collection.check("query vector", vector)?;
        }
        let ranked = search.ranked(vector.as_ref(), text.as_ref())?;
        let read_began = Instant::now();
        let hits = search.read(&ranked)?;
        Ok(search.explanation(hits, read_began.elapsed()))
    })
}

fn check(message: &SearchPoints) -> Outcome<()> {
    message.options.check()?;
    if message.vector.is_none() && message.text.is_none() {
        return Err(Kind::invalid("search", "it names neither a vector nor a text").into());
    }
    if message.options.diversity.is_some() && (message.text.is_some() || message.vector.is_none()) {
        return Err(Kind::invalid("search diversity", "it needs a vector, and no text beside it").into());
    }
    message.text.as_ref().map_or(Ok(()), |text| Ok(text.check()?))
}

/// Whether a search with these options may be short.
fn is_short(options: &SearchOptions) -> bool {
    let SearchOptions { k, offset, include, exclude, diversity, .. } = options;
    diversity.is_none()
        && k + offset <= POINTS_IN_PLACE_MAX
        && include.as_ref().map_or(0, Vec::len) + exclude.len() <= POINTS_IN_PLACE_MAX
}

/// A point and its score, which rank it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ranked {
    slot: Slot,
    score: f32,
}

/// A search over one committed state, and what it has done so far.
struct Search<'a> {
    view: View<'a>,
    options: &'a SearchOptions,
    thread_count_max: usize,
    tokenizer: Tokenizer,
    wanted: Wanted,
    filter_time: Duration,
    scan_time: Duration,
    code_count: usize,
    row_count: usize,
    exact_count: usize,
}

impl<'a> Search<'a> {
    fn begin(context: &Reading<'_>, view: View<'a>, options: &'a SearchOptions) -> Outcome<Self> {
        let began = Instant::now();
        let wanted = Wanted::of(context, &view, options)?;
        Ok(Self {
            view,
            options,
            thread_count_max: context.settings.search_threads,
            tokenizer: context.settings.tokenizer,
            wanted,
            filter_time: began.elapsed(),
            scan_time: Duration::ZERO,
            code_count: 0,
            row_count: 0,
            exact_count: 0,
        })
    }

    /// How many are ranked, to return some of them.
    fn needed(&self) -> usize {
        if self.options.k == 0 { 0 } else { self.options.k + self.options.offset }
    }

    /// Returns the points of the page, best first.
    fn ranked(&mut self, vector: Option<&Vector>, text: Option<&TextQuery>) -> Outcome<Vec<Ranked>> {
        if self.options.k == 0 || self.wanted.count == 0 {
            return Ok(Vec::new());
        }
        let ranked = match (vector, text) {
            (Some(vector), None) => match self.options.diversity {
                Some(diversity) => self.diverse(vector, diversity)?,
                None => self.nearest(vector, self.needed())?,
            },
            (None, Some(text)) => self.fused(&[self.holding(text, self.needed())?])?,
            (Some(vector), Some(text)) => {
                let count = self.needed().max(FUSED_MIN);
                let lists = [self.nearest(vector, count)?, self.holding(text, count)?];
                self.fused(&lists)?
            }
            (None, None) => Vec::new(),
        };
        Ok(ranked.into_iter().skip(self.options.offset).take(self.options.k).collect())
    }

    /// Returns the nearest to a vector, best first, those of one score in the order of their ids.
    fn nearest(&mut self, vector: &Vector, count: usize) -> Outcome<Vec<Ranked>> {
        let began = Instant::now();
        let is_over = AtomicBool::new(false);
        // Only this thread knows its request; the other threads of the search hear of it here.
        let is_called_off = || {
            if interrupt::is_over() {
                is_over.store(true, Ordering::Relaxed);
            }
            is_over.load(Ordering::Relaxed)
        };
        let search = vector_index::Search {
            query: vector.as_slice(),
            k: count,
            is_exact: self.options.is_exact,
            wanted: self.wanted.bits(),
            thread_count_max: self.thread_count_max,
            is_called_off: &is_called_off,
        };
        let found = self.view.snapshot.search(&search, |slot| self.view.vector(slot));
        let Found { hits, code_count, row_count, exact_count } = found.map_err(|error| match error {
            SearchError::Read(failure) => failure,
            SearchError::CalledOff => interrupt::interrupted().into(),
        })?;
        self.code_count += code_count;
        self.row_count += row_count;
        self.exact_count += exact_count;
        let threshold = self.options.threshold.unwrap_or(f32::NEG_INFINITY);
        let hits = hits.into_iter().filter(|hit| hit.score >= threshold);
        let mut ranked: Vec<_> = hits.map(|hit| Ranked { slot: hit.slot, score: hit.score }).collect();
        self.order_ties(&mut ranked)?;
        ranked.truncate(count);
        self.scan_time += began.elapsed();
        Ok(ranked)
    }

    /// Puts points of one score, which lie side by side, in the order of their ids.
    fn order_ties(&self, ranked: &mut [Ranked]) -> Outcome<()> {
        for tied in ranked.chunk_by_mut(|a, b| a.score == b.score).filter(|tied| tied.len() > 1) {
            let mut with_ids = Vec::with_capacity(tied.len());
            for point in tied.iter() {
                with_ids.push((self.id(point.slot)?, *point));
            }
            with_ids.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            tied.iter_mut().zip(with_ids).for_each(|(place, (_, point))| *place = point);
        }
        Ok(())
    }

    fn id(&self, slot: Slot) -> Outcome<String> {
        let mut statement = self.view.connection.prepare_cached("SELECT id FROM point WHERE slot = ?1")?;
        Ok(statement.query_row([slot], |row| row.get(0))?)
    }

    /// Returns the points whose texts hold what is asked for, best first.
    fn holding(&self, text: &TextQuery, count: usize) -> Outcome<Vec<Ranked>> {
        let Some(query) = full_text::typed_query(text, self.tokenizer)? else { return Ok(Vec::new()) };
        let mut statement = self.view.connection.prepare_cached(
            "SELECT point.slot FROM point_text CROSS JOIN point ON point.slot = point_text.rowid
             WHERE point_text MATCH ?1 AND point.collection_key = ?2 ORDER BY point_text.rank, point.id",
        )?;
        let mut rows = statement.query(params![query, self.view.collection.key])?;
        let mut ranked = Vec::new();
        while let Some(row) = rows.next()?
            && ranked.len() < count
        {
            let slot = row.get(0)?;
            if self.wanted.contains(&self.view.snapshot, slot) {
                ranked.push(Ranked { slot, score: 0.0 });
            }
        }
        Ok(ranked)
    }

    /// Fuses lists by the ranks that a point has in them.
    fn fused(&self, lists: &[Vec<Ranked>]) -> Outcome<Vec<Ranked>> {
        let mut scores: Vec<(Slot, f64)> = Vec::new();
        for list in lists {
            scores.extend((1_u32..).zip(list).map(|(rank, point)| (point.slot, 1.0 / (FUSION_RANK + f64::from(rank)))));
        }
        scores.sort_unstable_by_key(|(slot, _)| *slot);
        #[expect(clippy::cast_possible_truncation, reason = "a score is shown as 32 bits")]
        let sum = |same: &[(Slot, f64)]| same.iter().map(|(_, score)| score).sum::<f64>() as f32;
        let same = scores.chunk_by(|a, b| a.0 == b.0);
        let mut ranked: Vec<_> =
            same.filter_map(|same| Some(Ranked { slot: same.first()?.0, score: sum(same) })).collect();
        ranked.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
        self.order_ties(&mut ranked)?;
        Ok(ranked)
    }

    /// Chooses among the nearest those that differ: maximal marginal relevance.
    fn diverse(&mut self, vector: &Vector, diversity: Diversity) -> Outcome<Vec<Ranked>> {
        let Diversity { relevance, candidate_count } = diversity;
        let metric = metric(self.view.collection.metric);
        let mut left = Vec::new();
        for point in self.nearest(vector, candidate_count.max(self.needed()))? {
            let prepared = metric.prepared(&self.view.vector(point.slot)?);
            left.push(Candidate { point, prepared, likeness: f32::NEG_INFINITY });
        }
        let mut chosen: Vec<Candidate> = Vec::new();
        while chosen.len() < self.needed() && !left.is_empty() {
            if interrupt::is_over() {
                return Err(interrupt::interrupted().into());
            }
            if let Some(last) = chosen.last() {
                for candidate in &mut left {
                    let likeness = metric.score(&candidate.prepared, &last.prepared);
                    candidate.likeness = candidate.likeness.max(likeness);
                }
            }
            let worth = |candidate: &Candidate| match candidate.likeness {
                f32::NEG_INFINITY => candidate.point.score,
                likeness => relevance * candidate.point.score - (1.0 - relevance) * likeness,
            };
            // The first of equals, which is the nearer one.
            let best = left.iter().enumerate().rev().max_by(|a, b| worth(a.1).total_cmp(&worth(b.1)));
            let Some(best) = best.map(|(at, _)| at) else { break };
            chosen.push(left.remove(best));
        }
        Ok(chosen.into_iter().map(|candidate| candidate.point).collect())
    }

    /// Reads what is asked for of the points.
    fn read(&self, ranked: &[Ranked]) -> Outcome<Vec<Hit>> {
        let columns = Columns(self.options.fields);
        let sql = format!("SELECT {} FROM point WHERE slot = ?1", columns.sql());
        let mut statement = self.view.connection.prepare_cached(&sql)?;
        let (mut hits, mut bytes) = (Vec::with_capacity(ranked.len()), 0);
        for point in ranked {
            let mut rows = statement.query([point.slot])?;
            let lost = || damaged(format!("slot {} is in an index, and no point is there", point.slot));
            let hit = columns.read(rows.next()?.ok_or_else(lost)?, point.score)?;
            bytes += hit.size_bytes();
            if bytes > REPLY_BYTES_MAX {
                let (bytes, bytes_max) = (bytes as u64, REPLY_BYTES_MAX as u64);
                return Err(Kind::TooLarge { what: "search reply".to_owned(), bytes, bytes_max }.into());
            }
            hits.push(hit);
        }
        Ok(hits)
    }

    fn explanation(&self, hits: Vec<Hit>, read_time: Duration) -> Explanation {
        let point_count = self.view.snapshot.len();
        let wanted_count = self.wanted.bits().map(|_| self.wanted.count);
        let (plan, reason) = match (wanted_count, self.code_count, self.row_count) {
            (Some(0), ..) => (ScanPlan::Nothing, "no point is wanted"),
            (_, 0, 0) => (ScanPlan::Nothing, "k is 0, there is no point, or only the text counts"),
            (None, 0, _) if self.options.is_exact => (ScanPlan::Rows, "it is to be exact"),
            (None, 0, _) => (ScanPlan::Rows, "the vectors are few or short, so that there are no codes"),
            (None, ..) => (ScanPlan::Codes, "nothing narrows the search"),
            (Some(_), 0, _) => {
                (ScanPlan::MaskedRows, "so few are wanted, or it is to be exact, that their rows are read at once")
            }
            (Some(_), ..) => (ScanPlan::MaskedCodes, "many are wanted, so that codes say which may be near"),
        };
        Explanation {
            hits,
            plan,
            filter_plan: self.wanted.filter_plan,
            reason: reason.to_owned(),
            point_count: point_count as u64,
            wanted_count: wanted_count.map(|count| count as u64),
            code_count: self.code_count as u64,
            row_count: self.row_count as u64,
            exact_count: self.exact_count as u64,
            follow_time: self.view.follow_time,
            filter_time: self.filter_time,
            scan_time: self.scan_time,
            read_time,
        }
    }
}

/// One that may be chosen for a diverse answer.
struct Candidate {
    point: Ranked,
    /// Its vector, as the metric compares it.
    prepared: Vec<f32>,
    /// How near it is to the nearest that is chosen.
    likeness: f32,
}

//! Values by key, whatever the backend is: what the handles and the single flight are made of.
//!
//! Always true: a file that is damaged or restarting is a miss to a reader, and an error to a writer.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use larder_actors::Result;
use larder_actors::embed_cache::{Backend, EmbedCache as Store, EmbedCacheSettings};
use larder_actors::store::{Ask, let_others_run_after_memory_reads};
use larder_protocol::embed_cache::{
    CacheKey, Cached, CachedValue, ContainsValues, DescribeCache, GetValue, GetValues, Producer, PutOutcome, PutValues,
    RemoveProduced, RemoveTagged, RemoveValues, RemovedPage, TouchValues, ValuePut,
};
use larder_protocol::{Class, Message, RequestOptions, Tag, Timestamp};

use super::{CacheState, CacheStatistics, EmbedCache};
use crate::stores::Hosted;

/// Values asked for in one message, so that an answer keeps its bounds: 1,000 of 8,192 components are 32 MiB.
const VALUES_PER_READ: usize = 1_000;

/// Values removed in one write: each may be in pages of its own, about four, and on a full disk a write has half of the ballast
/// for its pages. Others' writes come in between.
const VALUES_PER_REMOVAL: usize = 100;

/// Returns a put that nobody has a claim to and no time is known of.
pub(super) fn put(key: CacheKey, value: CachedValue) -> ValuePut {
    ValuePut { key, value, compute_time: Duration::ZERO, claim: None }
}

#[expect(clippy::disallowed_methods, reason = "a hit in memory asks no store, whose clock it could read")]
fn now() -> Timestamp {
    SystemTime::now().into()
}

impl EmbedCache {
    pub(super) fn settings(&self) -> &EmbedCacheSettings {
        &self.larder.settings().embed_cache.own
    }

    pub(super) fn state(&self) -> &CacheState {
        self.larder.cache()
    }

    pub(super) fn options(&self) -> RequestOptions {
        RequestOptions { deadline: self.deadline, ..RequestOptions::default() }
    }

    pub(super) async fn send<M: Ask<Store: Hosted>>(&self, message: M) -> Result<M::Reply> {
        self.larder.send(message, self.options()).await
    }

    /// Returns the value of a key, and counts a hit or a miss.
    pub(super) async fn find(&self, key: &CacheKey) -> Result<Option<Cached>> {
        if let Some(found) = self.look_in_memory(key)? {
            let_others_run_after_memory_reads(1).await;
            return Ok(Some(found));
        }
        if self.settings().backend != Backend::Sqlite {
            self.state().counters.note_misses(1);
            return Ok(None);
        }
        let found = missing_if_unwell(self.send(GetValue { key: *key }).await)?.flatten();
        match &found {
            Some(cached) => self.state().counters.note_file_hit(cached),
            None => self.state().counters.note_misses(1),
        }
        Ok(found)
    }

    /// Returns the values of keys, and counts hits and misses.
    pub(super) async fn find_many(&self, keys: &[CacheKey]) -> Result<Vec<Option<Cached>>> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.look_in_memory(key)?);
        }
        let_others_run_after_memory_reads(u32::try_from(keys.len()).unwrap_or(u32::MAX)).await;
        let counters = &self.state().counters;
        if self.settings().backend == Backend::Sqlite {
            let missing: Vec<usize> = (0..keys.len()).filter(|at| found.get(*at) == Some(&None)).collect();
            for some in missing.chunks(VALUES_PER_READ) {
                let asked = some.iter().filter_map(|at| keys.get(*at).copied()).collect();
                let read = missing_if_unwell(self.send(GetValues { keys: asked }).await)?.unwrap_or_default();
                for (at, cached) in some.iter().zip(read) {
                    if let (Some(place), Some(cached)) = (found.get_mut(*at), cached) {
                        counters.note_file_hit(&cached);
                        *place = Some(cached);
                    }
                }
            }
        }
        counters.note_misses(found.iter().filter(|cached| cached.is_none()).count());
        Ok(found)
    }

    /// Returns the value of a key in memory, and counts a hit; it never waits.
    fn look_in_memory(&self, key: &CacheKey) -> Result<Option<Cached>> {
        let found = match self.settings().backend {
            Backend::Sqlite => match self.larder.started::<Store>() {
                Some(store) => missing_if_unwell(store.read_memory(|memory| memory.get(key, now)))?.flatten(),
                None => None,
            },
            Backend::Memory => self.look_in_memory_again(key),
            Backend::Off => None,
        };
        if let Some(cached) = &found {
            self.state().counters.note_memory_hit(cached);
        }
        Ok(found)
    }

    /// Returns the value of a key in memory, where that is all there is; nobody counts it.
    pub(super) fn look_in_memory_again(&self, key: &CacheKey) -> Option<Cached> {
        self.state().memory.as_ref()?.get(key, now())
    }

    /// Stores values of one producer, all or none but those that were overtaken, with the handle's options. Values with
    /// different labels are stored apart: of those all or none are stored.
    pub(super) async fn store(&self, producer: &Producer, puts: Vec<ValuePut>) -> Result<Vec<PutOutcome>> {
        let Some(tags_by_key) = &self.tags_by_key else {
            return self.store_tagged(producer, puts, self.tags.clone()?).await;
        };
        let mut groups: HashMap<&[Tag], (Vec<usize>, Vec<ValuePut>)> = HashMap::new();
        let mut outcomes = vec![PutOutcome::Stored; puts.len()];
        for (place, put) in puts.into_iter().enumerate() {
            let tags = tags_by_key.get(&put.key).map_or(&[][..], Vec::as_slice);
            let (places, group) = groups.entry(tags).or_default();
            places.push(place);
            group.push(put);
        }
        // All at once, so that they share their commits.
        let stored = groups.into_iter().map(async |(tags, (places, group))| {
            Ok::<_, larder_actors::Error>((places, self.store_tagged(producer, group, tags.to_vec()).await?))
        });
        for (places, stored) in futures::future::try_join_all(stored).await? {
            for (place, outcome) in places.into_iter().zip(stored) {
                if let Some(slot) = outcomes.get_mut(place) {
                    *slot = outcome;
                }
            }
        }
        Ok(outcomes)
    }

    async fn store_tagged(&self, producer: &Producer, puts: Vec<ValuePut>, tags: Vec<Tag>) -> Result<Vec<PutOutcome>> {
        let now = now();
        let expires = self.time_to_live.map(|time| now.saturating_add(time));
        if let Some(memory) = &self.state().memory {
            let stored = vec![PutOutcome::Stored; puts.len()];
            let values = puts.into_iter().map(|put| (put.key, put.value, put.compute_time)).collect();
            return Ok(memory.put(producer, values, expires, tags, now).map(|()| stored)?);
        }
        if self.settings().backend == Backend::Off {
            return Ok(vec![PutOutcome::Stored; puts.len()]);
        }
        let generation = self.larder.started::<Store>().map(|store| store.memory().generation());
        let message = PutValues { producer: producer.clone(), puts, time_to_live: self.time_to_live, tags };
        let puts = message.puts.clone();
        let outcomes = self.send(message).await?;
        if let (Some(generation), Some(store)) = (generation, self.larder.started::<Store>()) {
            for (put, _) in puts.into_iter().zip(&outcomes).filter(|(_, outcome)| **outcome == PutOutcome::Stored) {
                let cached = Cached { value: put.value, compute_time: put.compute_time, stored: now, expires };
                store.memory().offer(generation, put.key, &cached);
            }
        }
        Ok(outcomes)
    }

    pub(super) async fn contains_keys(&self, keys: &[CacheKey]) -> Result<Vec<bool>> {
        match (self.settings().backend, &self.state().memory) {
            (Backend::Sqlite, _) => {
                let held = missing_if_unwell(self.send(ContainsValues { keys: keys.to_vec() }).await)?;
                Ok(held.unwrap_or_else(|| vec![false; keys.len()]))
            }
            (_, Some(memory)) => Ok(keys.iter().map(|key| memory.get(key, now()).is_some()).collect()),
            _ => Ok(vec![false; keys.len()]),
        }
    }

    pub(crate) async fn remove_keys(&self, keys: Vec<CacheKey>) -> Result<u64> {
        match (self.settings().backend, &self.state().memory) {
            (Backend::Sqlite, _) => {
                let mut removed_count = 0;
                for some in keys.chunks(VALUES_PER_REMOVAL) {
                    removed_count += self.send(RemoveValues { keys: some.to_vec() }).await?;
                }
                Ok(removed_count)
            }
            (_, Some(memory)) => Ok(memory.remove(&keys, now())),
            _ => Ok(0),
        }
    }

    /// Removes everything that carries a tag, vectors and other values; answers how much there was. It goes in writes of 100:
    /// what fails or is cancelled in the middle leaves the rest, and what is put meanwhile may stay.
    ///
    /// # Errors
    /// When the tag cannot be used, or the store cannot be written.
    pub async fn remove_tagged(&self, tag: impl AsRef<str>) -> Result<u64> {
        let tag = Tag::new(tag)?;
        match (self.settings().backend, &self.state().memory) {
            (Backend::Sqlite, _) => {
                self.page_by_page(|after| RemoveTagged { tag: tag.clone(), after, limit: VALUES_PER_REMOVAL }).await
            }
            (_, Some(memory)) => Ok(memory.remove_tagged(&tag)),
            _ => Ok(0),
        }
    }

    pub(super) async fn remove_produced(&self, producer: Producer) -> Result<u64> {
        match (self.settings().backend, &self.state().memory) {
            (Backend::Sqlite, _) => {
                let page = |after| RemoveProduced { producer: producer.clone(), after, limit: VALUES_PER_REMOVAL };
                self.page_by_page(page).await
            }
            (_, Some(memory)) => Ok(memory.remove_produced(&producer)),
            _ => Ok(0),
        }
    }

    /// Removes values page by page; answers how many there were.
    async fn page_by_page<M>(&self, page: impl Fn(Option<CacheKey>) -> M) -> Result<u64>
    where
        M: Ask<Store: Hosted> + Message<Reply = RemovedPage>,
    {
        let (mut removed_count, mut after) = (0, None);
        loop {
            let removed = self.send(page(after)).await?;
            removed_count += removed.removed_count;
            if removed.next.is_none() {
                return Ok(removed_count);
            }
            after = removed.next;
        }
    }

    pub(super) async fn touch_keys(&self, keys: Vec<CacheKey>) -> Result<u64> {
        let time_to_live = self.time_to_live;
        match (self.settings().backend, &self.state().memory) {
            (Backend::Sqlite, _) => self.send(TouchValues { keys, time_to_live }).await,
            (_, Some(memory)) => {
                let now = now();
                Ok(memory.touch(&keys, time_to_live.map(|time| now.saturating_add(time)), now))
            }
            _ => Ok(0),
        }
    }

    /// Returns what the cache has done for this process, and what it holds.
    ///
    /// # Errors
    /// When the store cannot be started or read.
    pub async fn statistics(&self) -> Result<CacheStatistics> {
        let counted = self.state().counters.read();
        match (self.settings().backend, &self.state().memory) {
            (Backend::Sqlite, _) => {
                let held = self.send(DescribeCache {}).await?;
                Ok(CacheStatistics {
                    entry_count: held.entry_count,
                    value_bytes: held.value_bytes,
                    file_bytes: held.file_bytes,
                    evicted: held.evicted_count,
                    ..counted
                })
            }
            (_, Some(memory)) => {
                let (entry_count, value_bytes) = memory.size();
                Ok(CacheStatistics { entry_count, value_bytes, ..counted })
            }
            _ => Ok(counted),
        }
    }
}

/// Turns the error of a file that is damaged or restarting into "not there".
fn missing_if_unwell<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if matches!(error.class(), Class::Corrupt | Class::Restarting) => {
            tracing::warn!(store = "embed_cache", %error, "what is cached cannot be read; it counts as missing");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

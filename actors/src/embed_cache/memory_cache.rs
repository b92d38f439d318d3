//! The cache without a file: values in memory alone, evicted as the memory tier sees fit.
//!
//! Start at [`MemoryCache`].
//!
//! Always true: it means what the store's messages mean, within one process and until that ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_protocol::embed_cache::{CacheKey, Cached, CachedValue, Producer};
use larder_protocol::{Error as Kind, Tag, Timestamp};
use quick_cache::Weighter;

use super::memory::CachedWeight;
use super::producers::{check_value, other_dimensions};
use crate::store::HotTier;

/// Cached values in memory alone.
#[derive(Debug)]
pub struct MemoryCache {
    tier: HotTier<CacheKey, Labelled, LabelledWeight>,
    dimensions: Mutex<HashMap<Producer, usize>>,
    value_bytes_max: usize,
}

#[derive(Debug, Clone)]
struct Labelled {
    cached: Cached,
    labels: Arc<Labels>,
}

/// By what values are removed together.
#[derive(Debug)]
struct Labels {
    producer: Producer,
    tags: Vec<Tag>,
}

#[derive(Debug, Clone)]
struct LabelledWeight;

impl Weighter<CacheKey, Labelled> for LabelledWeight {
    fn weight(&self, key: &CacheKey, labelled: &Labelled) -> u64 {
        CachedWeight.weight(key, &labelled.cached)
    }
}

impl MemoryCache {
    /// Returns an empty cache of about `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: u64, value_bytes_max: usize) -> Self {
        let tier = HotTier::new(bytes_max, super::memory::VALUE_BYTES_TYPICAL, LabelledWeight);
        Self { tier, dimensions: Mutex::default(), value_bytes_max }
    }

    /// Returns the value, if it is here and live at `now`.
    #[must_use]
    pub fn get(&self, key: &CacheKey, now: Timestamp) -> Option<Cached> {
        let found = self.tier.get(key)?.cached;
        Some(found).filter(|cached| cached.expires.is_none_or(|expires| expires > now))
    }

    /// Keeps values of one producer, with the times that they took, all or none.
    ///
    /// # Errors
    /// [`Kind::Invalid`] or [`Kind::TooLarge`] for a value that is none of the producer's.
    pub fn put(
        &self,
        producer: &Producer,
        values: Vec<(CacheKey, CachedValue, Duration)>,
        expires: Option<Timestamp>,
        tags: Vec<Tag>,
        now: Timestamp,
    ) -> Result<(), Kind> {
        producer.check()?;
        let mut known = self.dimensions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dimensions = known.get(producer).copied();
        for (_, value, _) in &values {
            check_value(producer, value, self.value_bytes_max)?;
            let CachedValue::Vector(vector) = value else { continue };
            match dimensions.replace(vector.dimensions()) {
                Some(known) if known != vector.dimensions() => {
                    return Err(other_dimensions(producer, known, vector.dimensions()));
                }
                _ => {}
            }
        }
        if let Some(dimensions) = dimensions {
            known.insert(producer.clone(), dimensions);
        }
        drop(known);
        let labels = Arc::new(Labels { producer: producer.clone(), tags });
        for (key, value, compute_time) in values {
            let cached = Cached { value, compute_time, stored: now, expires };
            self.tier.offer(self.tier.generation(), key, Labelled { cached, labels: Arc::clone(&labels) });
        }
        Ok(())
    }

    /// Removes values; answers how many were live at `now`.
    pub fn remove(&self, keys: &[CacheKey], now: Timestamp) -> u64 {
        let live_count = keys.iter().filter(|key| self.get(key, now).is_some()).count();
        self.tier.forget(keys.iter().copied());
        live_count as u64
    }

    /// Removes every value that carries a tag; answers how many did.
    pub fn remove_tagged(&self, tag: &Tag) -> u64 {
        self.remove_where(|labels| labels.tags.contains(tag))
    }

    /// Removes every value of a producer, and forgets its dimensions; answers how many there were.
    pub fn remove_produced(&self, producer: &Producer) -> u64 {
        self.dimensions.lock().unwrap_or_else(PoisonError::into_inner).remove(producer);
        self.remove_where(|labels| labels.producer == *producer)
    }

    fn remove_where(&self, is_meant: impl Fn(&Labels) -> bool) -> u64 {
        let removed_count = std::cell::Cell::new(0);
        self.tier.retain(|_, labelled| {
            let is_kept = !is_meant(&labelled.labels);
            removed_count.set(removed_count.get() + u64::from(!is_kept));
            is_kept
        });
        removed_count.get()
    }

    /// Sets when values expire; answers how many were live at `now`.
    pub fn touch(&self, keys: &[CacheKey], expires: Option<Timestamp>, now: Timestamp) -> u64 {
        let mut touched_count = 0;
        for key in keys {
            let Some(mut labelled) = self.tier.get(key).filter(|_| self.get(key, now).is_some()) else { continue };
            labelled.cached.expires = expires;
            self.tier.offer(self.tier.generation(), *key, labelled);
            touched_count += 1;
        }
        touched_count
    }

    /// Returns how many values there are, and about how many bytes they take.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        self.tier.size()
    }
}

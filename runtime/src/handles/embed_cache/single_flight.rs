//! One computation for everybody who asks for the same value, in this process and in others.
//!
//! Start at [`EmbedCache::resolve`]. Within the process callers meet in `flights`; a caller who leads then claims its keys from
//! the store, where processes meet.
//!
//! Always true: whoever leads computes what it was granted before it waits for anybody, so that no two wait for each other;
//! a claim is given back with its value, or when the caller is dropped, or by the end of its process.

use std::time::{Duration, Instant};

use larder_actors::embed_cache::Backend;
use larder_actors::{Error, Result};
use larder_protocol::embed_cache::{
    CacheKey, Cached, CachedValue, Claim, ClaimValues, Producer, ReleaseClaims, ValuePut,
};
use larder_protocol::lease::Fencing;
use larder_protocol::{Class, Error as Kind, RequestOptions, StoreName, Timestamp, Written};

use super::flights::{Boarding, Lead, Wait, computing};
use super::{EmbedCache, nothing_found};
use crate::larder::Larder;

/// How soon a value that another process computes is looked for, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// The caller's values as far as they are known, by the places of their keys.
struct Round<'c> {
    keys: Vec<CacheKey>,
    resolved: Vec<Option<Cached>>,
    /// Flights of ours whose values another process computes, by place.
    held: Vec<(usize, Lead<'c>)>,
    deadline: Instant,
}

impl Round<'_> {
    fn set(&mut self, place: usize, cached: Cached) {
        if let Some(slot) = self.resolved.get_mut(place) {
            *slot = Some(cached);
        }
    }
}

/// A value that this caller computes: where it belongs, and its claim, if the store could be asked for one.
type Granted<'c> = (usize, Lead<'c>, Option<Fencing>);

impl EmbedCache {
    /// Returns the values of keys that are all different: from the cache, from others, or from `compute`, which gets places
    /// of keys and returns a value for each.
    pub(super) async fn resolve<F, Fut>(
        &self,
        producer: &Producer,
        keys: Vec<CacheKey>,
        compute: F,
    ) -> Result<Vec<Cached>>
    where
        F: FnMut(Vec<usize>) -> Fut,
        Fut: Future<Output = Result<Vec<CachedValue>>>,
    {
        let resolved = or_missing(self.find_many(&keys).await, vec![None; keys.len()])?;
        self.resolve_rest(producer, keys, resolved, compute).await
    }

    /// Returns the value of one key: from the cache, from another caller, or from `compute`.
    pub(super) async fn resolve_one<F, Fut>(&self, producer: &Producer, key: CacheKey, compute: F) -> Result<Cached>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<CachedValue>>,
    {
        if let Some(cached) = or_missing(self.find(&key).await, None)? {
            return Ok(cached);
        }
        let mut compute = Some(compute);
        let computed = Box::pin(self.resolve_rest(producer, vec![key], vec![None], |_| {
            // Whatever it brings is this caller's answer, so that there is no second time.
            let computation = compute.take().map(|compute| compute());
            async move {
                match computation {
                    Some(computation) => Ok(vec![computation.await?]),
                    None => Err(nothing_found()),
                }
            }
        }));
        computed.await?.into_iter().next().ok_or_else(nothing_found)
    }

    async fn resolve_rest<F, Fut>(
        &self,
        producer: &Producer,
        keys: Vec<CacheKey>,
        resolved: Vec<Option<Cached>>,
        mut compute: F,
    ) -> Result<Vec<Cached>>
    where
        F: FnMut(Vec<usize>) -> Fut,
        Fut: Future<Output = Result<Vec<CachedValue>>>,
    {
        let patience = self.deadline.unwrap_or(self.settings().compute_time_max);
        let deadline = after(patience);
        let mut round = Round { keys, resolved, held: Vec::new(), deadline };
        let mut pause = PAUSE_MIN;
        loop {
            let waits = self.board(&mut round)?;
            self.lead(producer, &mut round, &mut compute).await?;
            if !round.held.is_empty() {
                self.pause(&round, pause).await?;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            }
            self.wait_for_others(&mut round, waits).await?;
            if round.resolved.iter().all(Option::is_some) {
                return Ok(round.resolved.into_iter().flatten().collect());
            }
        }
    }

    /// Boards a flight for each value that is missing: what others lead is returned, what this caller leads is held.
    fn board<'c>(&'c self, round: &mut Round<'c>) -> Result<Vec<(usize, Wait)>> {
        let until = after(self.settings().compute_time_max);
        let mut waits = Vec::new();
        for (place, key) in round.keys.iter().enumerate() {
            let is_known = round.resolved.get(place).is_some_and(Option::is_some);
            if is_known || round.held.iter().any(|(held, _)| *held == place) {
                continue;
            }
            match self.state().flights.board(*key, until) {
                Boarding::Leads(lead) => round.held.push((place, lead)),
                Boarding::Waits(wait) => waits.push((place, wait)),
                Boarding::IsItself => {
                    return Err(Kind::invalid("computation", "it asks the cache for what it computes").into());
                }
            }
        }
        Ok(waits)
    }

    /// Claims what this caller leads, and computes what it was granted; what others hold is held on to.
    async fn lead<'c, F, Fut>(&'c self, producer: &Producer, round: &mut Round<'c>, compute: &mut F) -> Result<()>
    where
        F: FnMut(Vec<usize>) -> Fut,
        Fut: Future<Output = Result<Vec<CachedValue>>>,
    {
        let led = std::mem::take(&mut round.held);
        if led.is_empty() {
            return Ok(());
        }
        let (claims, mut guard) = self.claim(&led, round.deadline).await?;
        let mut granted = Vec::new();
        for ((place, lead), claim) in led.into_iter().zip(claims) {
            match claim {
                Some(Claim::Found(cached)) => {
                    self.state().counters.note_shared(&cached);
                    round.set(place, cached.clone());
                    lead.land(cached);
                }
                Some(Claim::Granted { fencing }) => granted.push((place, lead, Some(fencing))),
                Some(Claim::Held { .. }) => round.held.push((place, lead)),
                None => granted.push((place, lead, None)),
            }
        }
        if granted.is_empty() {
            return Ok(());
        }
        self.compute(producer, round, granted, compute, &mut guard).await
    }

    /// Computes values, keeps them, and gives them to everybody who waits.
    async fn compute<'c, F, Fut>(
        &'c self,
        producer: &Producer,
        round: &mut Round<'c>,
        granted: Vec<Granted<'c>>,
        compute: &mut F,
        guard: &mut Claims,
    ) -> Result<()>
    where
        F: FnMut(Vec<usize>) -> Fut,
        Fut: Future<Output = Result<Vec<CachedValue>>>,
    {
        let numbers = granted.iter().map(|(_, lead, _)| lead.number).collect();
        let began = Instant::now();
        let values = computing(numbers, compute(granted.iter().map(|(place, ..)| *place).collect())).await?;
        let took = began.elapsed() / u32::try_from(granted.len()).unwrap_or(u32::MAX);
        if values.len() != granted.len() {
            let reason = format!("it returned {} values for {} inputs", values.len(), granted.len());
            return Err(Kind::invalid("computation", reason).into());
        }
        let put = |((_, lead, claim), value): (&Granted<'_>, &CachedValue)| ValuePut {
            key: lead.key,
            value: value.clone(),
            compute_time: took,
            claim: *claim,
        };
        if self.keep(producer, granted.iter().zip(&values).map(put).collect()).await? {
            guard.claims.clear();
        }
        self.state().counters.note_computed(values.len());
        for ((place, lead, _), value) in granted.into_iter().zip(values) {
            // Whoever waits wants the value, and what it saved.
            let cached = Cached { value, compute_time: took, stored: Timestamp(0), expires: None };
            round.set(place, cached.clone());
            lead.land(cached);
        }
        Ok(())
    }

    /// Keeps what was computed, if the store is well; answers whether it did. It is given to the callers in any case.
    async fn keep(&self, producer: &Producer, puts: Vec<ValuePut>) -> Result<bool> {
        let count = puts.len();
        let has_claims = puts.iter().any(|put| put.claim.is_some());
        if self.settings().backend == Backend::Sqlite && !has_claims {
            // It was not well when it was asked.
            self.state().counters.note_unkept(count);
            return Ok(false);
        }
        match self.store(producer, puts).await {
            Ok(_) => Ok(true),
            Err(error) if is_of_store(&error) => {
                tracing::warn!(store = "embed_cache", %error, "computed values are not kept");
                self.state().counters.note_unkept(count);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Claims the keys of flights; `None` where there is no store to ask.
    async fn claim(&self, led: &[(usize, Lead<'_>)], deadline: Instant) -> Result<(Vec<Option<Claim>>, Claims)> {
        let nothing = Claims { larder: self.larder.clone(), claims: Vec::new() };
        let keys: Vec<CacheKey> = led.iter().map(|(_, lead)| lead.key).collect();
        match self.settings().backend {
            Backend::Sqlite => {}
            // They may have landed between the look and the boarding.
            Backend::Memory => {
                let found = keys.iter().map(|key| self.look_in_memory_again(key).map(Claim::Found));
                return Ok((found.collect(), nothing));
            }
            Backend::Off => return Ok((vec![None; led.len()], nothing)),
        }
        match self.claim_keys(keys, deadline).await {
            Ok((claims, guard)) => Ok((claims.into_iter().map(Some).collect(), guard)),
            Err(error) if is_of_store(&error) => {
                tracing::warn!(store = "embed_cache", %error, "values are computed without a claim");
                Ok((vec![None; led.len()], nothing))
            }
            Err(error) => Err(error),
        }
    }

    /// Claims keys in a task of its own: what is granted to a caller who is gone by then is given back.
    async fn claim_keys(&self, keys: Vec<CacheKey>, deadline: Instant) -> Result<(Vec<Claim>, Claims)> {
        let (sender, claimed) = tokio::sync::oneshot::channel();
        let (larder, duration) = (self.larder.clone(), self.settings().compute_time_max);
        self.larder.in_background(async move {
            let message = ClaimValues { keys: keys.clone(), duration };
            let options = RequestOptions { deadline: Some(Duration::MAX), ..RequestOptions::default() };
            let answer = larder.send(message, options).await;
            // With nobody to take it, the guard gives back what was granted.
            let _ = sender.send(answer.map(|claims| {
                let granted = keys.into_iter().zip(&claims).filter_map(|(key, claim)| match claim {
                    Claim::Granted { fencing } => Some((key, *fencing)),
                    Claim::Found(_) | Claim::Held { .. } => None,
                });
                let guard = Claims { claims: granted.collect(), larder };
                (claims, guard)
            }));
        });
        match self.larder.wait_until(deadline, claimed).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => {
                Err(Kind::ShuttingDown { store: StoreName::EmbedCache, written: Written::NotApplied }.into())
            }
            None => Err(too_late()),
        }
    }

    /// Waits a little for the processes that hold claims.
    async fn pause(&self, round: &Round<'_>, pause: Duration) -> Result<()> {
        if Instant::now() >= round.deadline {
            return Err(too_late());
        }
        let until = (Instant::now() + pause).min(round.deadline);
        let _ = self.larder.wait_until(until, std::future::pending::<()>()).await;
        Ok(())
    }

    /// Waits for values that other callers of this process see to.
    async fn wait_for_others(&self, round: &mut Round<'_>, waits: Vec<(usize, Wait)>) -> Result<()> {
        for (place, wait) in waits {
            let until = wait.until.min(round.deadline);
            match self.larder.wait_until(until, wait.landed()).await {
                Some(Some(cached)) => {
                    self.state().counters.note_shared(&cached);
                    round.set(place, cached);
                }
                // Whoever led has given up, or may be overtaken.
                Some(None) => {}
                None if Instant::now() >= round.deadline => return Err(too_late()),
                None => {}
            }
        }
        Ok(())
    }
}

/// Claims that were granted to this caller and not used up: they are given back when it goes away.
struct Claims {
    larder: Larder,
    claims: Vec<(CacheKey, Fencing)>,
}

impl Drop for Claims {
    fn drop(&mut self) {
        if self.claims.is_empty() {
            return;
        }
        let (larder, claims) = (self.larder.clone(), std::mem::take(&mut self.claims));
        self.larder.in_background(async move {
            // Where it fails, the claims end by their time.
            let _ = larder.send(ReleaseClaims { claims }, RequestOptions::default()).await;
        });
    }
}

/// Turns the error of a store that cannot do its part into what there is without it.
fn or_missing<T>(found: Result<T>, nothing: T) -> Result<T> {
    match found {
        Err(error) if is_of_store(&error) => {
            tracing::warn!(store = "embed_cache", %error, "what is cached cannot be read; it is computed");
            Ok(nothing)
        }
        found => found,
    }
}

/// Whether an error says that the store cannot do its part now, so that a value is computed without it.
fn is_of_store(error: &Error) -> bool {
    matches!(
        error.class(),
        Class::Corrupt | Class::Restarting | Class::StoreFailed | Class::DiskFull | Class::Io | Class::Refused
    )
}

fn after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or(now + Duration::from_secs(365 * 24 * 3600))
}

fn too_late() -> Error {
    let doing = "waiting for another caller's computation".to_owned();
    Kind::DeadlineExceeded { store: StoreName::EmbedCache, doing, written: Written::NotApplied }.into()
}

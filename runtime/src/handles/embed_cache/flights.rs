//! Which values are being computed in this process, and who waits for them.
//!
//! Start at [`Flights::board`]. A flight is led by the caller that computes; it ends with the value, or without one when its
//! lead is dropped.
//!
//! Always true: of a key at most one flight is boarded at a time; a flight past its time is overtaken, and what it brings
//! then is only for those who still wait for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use larder_protocol::embed_cache::{CacheKey, Cached};
use tokio::sync::watch;

#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: Mutex<HashMap<CacheKey, Flight>>,
    numbers: AtomicU64,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    until: Instant,
    landing: watch::Receiver<Option<Cached>>,
}

/// What a caller does about a value that is not there.
pub(super) enum Boarding<'a> {
    /// It sees to the value.
    Leads(Lead<'a>),
    /// It waits for another caller to.
    Waits(Wait),
    /// It is the computation of the value itself that asks for it.
    IsItself,
}

/// The duty to see to a value. Dropped without a landing it goes to the next who boards.
#[derive(Debug)]
pub(super) struct Lead<'a> {
    flights: &'a Flights,
    pub(super) key: CacheKey,
    pub(super) number: u64,
    landing: watch::Sender<Option<Cached>>,
}

/// A place among those who wait for a value.
#[derive(Debug)]
pub(super) struct Wait {
    /// From then on whoever waits may board anew, and lead.
    pub(super) until: Instant,
    landing: watch::Receiver<Option<Cached>>,
}

impl Flights {
    /// Boards the flight of a key, or begins one that is overtaken after `until`.
    pub(super) fn board(&self, key: CacheKey, until: Instant) -> Boarding<'_> {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(&key) {
            if COMPUTING.with_borrow(|numbers| numbers.contains(&flight.number)) {
                return Boarding::IsItself;
            }
            if flight.until > Instant::now() {
                return Boarding::Waits(Wait { until: flight.until, landing: flight.landing.clone() });
            }
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (sender, landing) = watch::channel(None);
        flights.insert(key, Flight { number, until, landing });
        Boarding::Leads(Lead { flights: self, key, number, landing: sender })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead<'_> {
    /// Gives the value to everybody who waits. It must be where the next caller finds it.
    pub(super) fn land(self, cached: Cached) {
        self.landing.send_replace(Some(cached));
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // Another one may have overtaken it.
        if flights.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            flights.remove(&self.key);
        }
    }
}

impl Wait {
    /// Waits for the value; `None` when whoever leads has given up.
    pub(super) async fn landed(mut self) -> Option<Cached> {
        self.landing.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone())
    }
}

thread_local! {
    /// The flights whose computations are being polled on this thread, outermost first.
    static COMPUTING: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Runs the computation of some flights, so that it is noticed when it boards one of them.
pub(super) async fn computing<T>(numbers: Vec<u64>, computation: impl Future<Output = T>) -> T {
    let mut computation = pin!(computation);
    std::future::poll_fn(|context| {
        let _scope = Computing::enter(&numbers);
        computation.as_mut().poll(context)
    })
    .await
}

/// One poll of a computation.
struct Computing {
    before: usize,
}

impl Computing {
    fn enter(numbers: &[u64]) -> Self {
        COMPUTING.with_borrow_mut(|computing| {
            let before = computing.len();
            computing.extend_from_slice(numbers);
            Self { before }
        })
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        COMPUTING.with_borrow_mut(|computing| computing.truncate(self.before));
    }
}

//! Admission: how many requests, and how many bytes of them, may wait or run at once.
//!
//! Always true: the memory of requests is within the two budgets, because a permit travels with its request and is
//! given back when the request is over, even if its caller went away.

use std::sync::Arc;
use std::time::Duration;

use larder_protocol::{Error as Kind, StoreName, Written};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::deadline::Deadline;
use super::settings::StoreSettings;
use crate::error::Result;

/// What a caller who found no room should wait; a group takes a few milliseconds.
const RETRY_AFTER: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Admission {
    store: StoreName,
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    messages_max: usize,
    bytes_max: usize,
}

/// Room for one request, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    _message: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(store: StoreName, settings: &StoreSettings) -> Self {
        let (messages_max, bytes_max) = (settings.queue_messages_max, settings.queue_bytes_max);
        Self {
            store,
            messages: Arc::new(Semaphore::new(messages_max)),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            messages_max,
            bytes_max,
        }
    }

    /// Waits for room until the deadline.
    pub(super) async fn admit(&self, size_bytes: usize, deadline: &Deadline) -> Result<Permit> {
        let bytes = self.check_size(size_bytes)?;
        match self.try_admit(bytes) {
            Ok(permit) => Ok(permit),
            Err(TryAcquireError::Closed) => Err(self.closed().into()),
            Err(TryAcquireError::NoPermits) => match deadline.wait(self.wait_for_room(bytes)).await {
                Some(Ok(permit)) => Ok(permit),
                Some(Err(_closed)) => Err(self.closed().into()),
                None => Err(self.overloaded().into()),
            },
        }
    }

    /// Refuses every request from now on, those that wait for room included.
    pub(super) fn close(&self) {
        self.messages.close();
        self.bytes.close();
    }

    /// Returns how many requests, and how many bytes of them, wait or run now.
    pub(super) fn in_use(&self) -> (usize, usize) {
        let used = |max: usize, semaphore: &Semaphore| max.saturating_sub(semaphore.available_permits());
        (used(self.messages_max, &self.messages), used(self.bytes_max, &self.bytes))
    }

    fn check_size(&self, size_bytes: usize) -> Result<u32> {
        match u32::try_from(size_bytes) {
            Ok(bytes) if size_bytes <= self.bytes_max => Ok(bytes),
            // It would wait for room that can never be.
            _ => Err(Kind::TooLarge {
                what: "request".to_owned(),
                bytes: size_bytes as u64,
                bytes_max: self.bytes_max as u64,
            }
            .into()),
        }
    }

    fn try_admit(&self, bytes: u32) -> Result<Permit, TryAcquireError> {
        let message = Arc::clone(&self.messages).try_acquire_owned()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes)?;
        Ok(Permit { _message: message, _bytes: bytes })
    }

    async fn wait_for_room(&self, bytes: u32) -> Result<Permit, AcquireError> {
        let message = Arc::clone(&self.messages).acquire_owned().await?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await?;
        Ok(Permit { _message: message, _bytes: bytes })
    }

    fn closed(&self) -> Kind {
        Kind::ShuttingDown { store: self.store, written: Written::NotApplied }
    }

    fn overloaded(&self) -> Kind {
        let (messages, bytes) = self.in_use();
        let reason = format!(
            "no room until the deadline: {messages} of {} requests and {bytes} of {} bytes are waiting",
            self.messages_max, self.bytes_max
        );
        Kind::Overloaded { store: self.store, reason, retry_after: RETRY_AFTER }
    }
}

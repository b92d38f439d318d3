//! What tasks of this process are at work on, so that no two work on one subject.
//!
//! Between processes the journal's open intents do the same. An open intent of this process that nobody holds here is one whose
//! work was given up, and may be taken over.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use larder_protocol::documents::IntentSubject;
use tokio::sync::Notify;

use crate::larder::Larder;

/// The subjects that are held.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    held: Mutex<HashSet<IntentSubject>>,
    freed: Notify,
}

/// Subjects that are held until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    larder: Larder,
    subjects: Vec<IntentSubject>,
}

impl Subjects {
    fn held(&self) -> MutexGuard<'_, HashSet<IntentSubject>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds all of these at once, so that no two callers wait for each other; `None`: one of them is held.
pub(super) fn try_hold(larder: &Larder, subjects: &[IntentSubject]) -> Option<Held> {
    let mut held = larder.subjects().held();
    if subjects.iter().any(|subject| held.contains(subject)) {
        return None;
    }
    held.extend(subjects.iter().cloned());
    Some(Held { larder: larder.clone(), subjects: subjects.to_vec() })
}

/// Waits until all of these can be held at once.
pub(super) async fn hold(larder: &Larder, subjects: &[IntentSubject]) -> Held {
    loop {
        let mut freed = std::pin::pin!(larder.subjects().freed.notified());
        // Before the look, so that nothing is freed unheard between the two.
        freed.as_mut().enable();
        if let Some(held) = try_hold(larder, subjects) {
            return held;
        }
        freed.await;
    }
}

/// Waits until nothing is held.
pub(super) async fn settle(larder: &Larder) {
    loop {
        let mut freed = std::pin::pin!(larder.subjects().freed.notified());
        freed.as_mut().enable();
        if larder.subjects().held().is_empty() {
            return;
        }
        freed.await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let subjects = self.larder.subjects();
        {
            let mut held = subjects.held();
            for subject in &self.subjects {
                held.remove(subject);
            }
        }
        subjects.freed.notify_waiters();
    }
}

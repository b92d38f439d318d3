//! Subscriptions: the change log as a stream, across processes.
//!
//! Always true: notices come in commit order and none is left out; who is behind the kept log hears that first.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use larder_protocol::change::{Commit, Notice};
use larder_protocol::{Class, RequestOptions, Sequence};
use tokio::sync::watch;

use super::deadline::Deadline;
use super::handle::StoreHandle;
use super::{Store, changes};
use crate::error::Result;

/// Commits fetched at once.
const PAGE: usize = 256;
/// How soon a commit of another process is noticed; this process's own are noticed at once.
const POLL: Duration = Duration::from_millis(25);

/// A stream of a store's commits, by this process and others. It ends when the store is closed.
pub struct Notices {
    inner: BoxStream<'static, Result<Notice>>,
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}

impl futures::Stream for Notices {
    type Item = Result<Notice>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(context)
    }
}

struct Follower<S: Store> {
    store: StoreHandle<S>,
    /// Wakes at this process's commits; closed when the store is.
    commits: watch::Receiver<Sequence>,
    position: Sequence,
    fetched: VecDeque<Notice>,
}

impl Notices {
    pub(super) fn new<S: Store>(store: StoreHandle<S>, commits: watch::Receiver<Sequence>, after: Sequence) -> Self {
        let follower = Follower { store, commits, position: after, fetched: VecDeque::new() };
        let inner = futures::stream::unfold(Some(follower), |follower| async {
            let mut follower = follower?;
            match follower.next().await {
                Ok(Some(notice)) => Some((Ok(notice), Some(follower))),
                Ok(None) => None,
                // The store closes; that is the stream's end and no failure.
                Err(error) if error.class() == Class::ShuttingDown => None,
                // The reader cannot know what it missed; it subscribes anew when the store is well again.
                Err(error) => Some((Err(error), None)),
            }
        });
        Self { inner: inner.boxed() }
    }
}

impl<S: Store> Follower<S> {
    async fn next(&mut self) -> Result<Option<Notice>> {
        loop {
            if let Some(notice) = self.fetched.pop_front() {
                return Ok(Some(notice));
            }
            // Marked before the fetch, so that a commit during the fetch wakes the wait behind it.
            self.commits.borrow_and_update();
            if self.store.is_stopped() {
                return Ok(None);
            }
            self.fetch().await?;
            if self.fetched.is_empty() {
                self.wait().await;
            }
        }
    }

    async fn fetch(&mut self) -> Result<()> {
        let position = self.position;
        let page = move |connection: &rusqlite::Connection| {
            // At one instant: what is pruned between the two would be missed without a word.
            let transaction = connection.unchecked_transaction()?;
            let found = (changes::oldest_write(&transaction)?, changes::after(&transaction, position, PAGE)?);
            transaction.finish()?;
            Ok(found)
        };
        let (oldest, commits): (Option<Sequence>, Vec<Commit>) =
            self.store.on_thread("subscribe", size_of::<Self>(), RequestOptions::default(), page).await?;
        if let Some(oldest) = oldest.filter(|oldest| oldest.0 > position.0 + 1) {
            self.fetched.push_back(Notice::Lagged { oldest });
        }
        if let Some(last) = commits.last() {
            self.position = last.sequence;
        }
        self.fetched.extend(commits.into_iter().map(Notice::Commit));
        Ok(())
    }

    /// Waits until there may be something new.
    async fn wait(&mut self) {
        let poll = Deadline::after(POLL, self.store.timers());
        // Either way the next fetch decides; an error means that the store is closing, which `next` sees.
        let _ = poll.wait(self.commits.changed()).await;
    }
}

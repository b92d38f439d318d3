//! Finishing what was begun: by processes that died, or when a store could not follow.

use futures::{StreamExt, TryStreamExt};
use larder_actors::Result;
use larder_protocol::documents::{Intent, ListIntents};
use larder_protocol::limits::PAGE_ROWS_MAX;

use super::journal::OnDamage;
use super::{Context, subjects};

/// Intents that are finished at once, so that they share their commits.
const AT_ONCE: usize = 16;

impl Context {
    /// Finishes every open intent of this context whose process is dead, or that this process could not finish before; answers how
    /// many. [`open`](super::ContextBuilder::open) does it by itself. One that is damaged stays, for [`repair`](Self::repair) or the
    /// next call about its document; [`check`](Self::check) tells of it.
    ///
    /// # Errors
    /// [`Unfinished`](larder_protocol::Error::Unfinished) when a store still cannot follow.
    pub async fn recover(&self) -> Result<u64> {
        let context = self.clone();
        self.in_task(async move { context.recover_all().await }).await
    }

    /// Waits until no task of this process is at work on any document: calls whose callers went away are finished then, too.
    pub async fn settle(&self) {
        subjects::settle(&self.inner.larder).await;
    }

    async fn recover_all(&self) -> Result<u64> {
        let mut count = 0;
        let mut after = None;
        loop {
            let page = self.intents(after.take()).await?;
            let Some(last) = page.last() else { return Ok(count) };
            after = Some(last.id);
            let finishes = page.into_iter().map(|intent| self.recover_one(intent));
            let mut finishes = futures::stream::iter(finishes).buffer_unordered(AT_ONCE);
            while let Some(is_finished) = finishes.try_next().await? {
                count += u64::from(is_finished);
            }
        }
    }

    /// Finishes one intent, unless somebody is at work on it; answers whether it did.
    async fn recover_one(&self, intent: Intent) -> Result<bool> {
        let Some(_held) = subjects::try_hold(&self.inner.larder, std::slice::from_ref(&intent.subject)) else {
            return Ok(false);
        };
        self.finish_open(&intent.subject, OnDamage::Leave).await
    }

    /// Lists open intents of this context.
    pub(super) async fn intents(&self, after: Option<larder_protocol::documents::IntentId>) -> Result<Vec<Intent>> {
        let context = Some(self.inner.name.clone());
        self.send(ListIntents { context, after, limit: PAGE_ROWS_MAX }).await
    }
}

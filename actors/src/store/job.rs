//! A write on its way: the message, its caller's reply channel, and everything held for it until COMMIT.
//!
//! Start at [`Job`], what a group knows of a write; [`WriteJob`] is the one kind that callers send.

use std::sync::Arc;

use larder_protocol::{IdempotencyKey, Message, Written};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::admission::Permit;
use super::context::{Outcome, WriteContext};
use super::ticket::Ticket;
use super::{Store, WriteHandler, idempotency};
use crate::error::{Error, Result};
use crate::sqlite::interrupt::Scope;

/// A write in a group. It may run more than once, when the group is replayed without a neighbour that failed.
pub(super) trait Job<S: Store>: Send {
    /// The message's name.
    fn name(&self) -> &'static str;

    /// Bytes the message holds.
    fn size_bytes(&self) -> usize;

    /// Whether the write makes room on the disk.
    fn makes_room(&self) -> bool;

    /// Marks the write as running; answers `false` when nobody wants it any more.
    fn start(&self, connection: &Connection) -> bool;

    /// Returns whether the caller's deadline has passed.
    fn is_past_deadline(&self) -> bool;

    /// Lets the statements of a run end when nobody wants it any more.
    fn scope(&self) -> Option<Scope>;

    /// Runs the handler in the open transaction and keeps its reply.
    fn run(&mut self, context: &mut WriteContext<'_, S>) -> Outcome<()>;

    /// Marks the end of a run.
    fn finish(&self);

    /// Replaces the kept reply by an error.
    fn fail(&mut self, error: Error);

    /// Answers the caller: the kept reply when the group was committed, else the group's error.
    fn settle(self: Box<Self>, committed: Result<()>);

    /// Whether a caller waits for the answer; maintenance has none.
    fn is_request(&self) -> bool;
}

/// A caller's write.
pub(super) struct WriteJob<M: Message> {
    pub(super) message: M,
    pub(super) size_bytes: usize,
    pub(super) idempotency_key: Option<IdempotencyKey>,
    pub(super) ticket: Arc<Ticket>,
    /// Given back when the job is dropped, after its reply.
    pub(super) permit: Permit,
    pub(super) reply: oneshot::Sender<Result<M::Reply>>,
    pub(super) outcome: Option<Result<M::Reply>>,
}

impl<M: Message> WriteJob<M> {
    fn execute<S: WriteHandler<M>>(&self, context: &mut WriteContext<'_, S>) -> Outcome<M::Reply> {
        let Some(key) = &self.idempotency_key else { return S::write(context, &self.message) };
        let hash = idempotency::hash(&self.message)?;
        if let Some(first) = idempotency::find::<M>(context.connection, key, hash)? {
            return Ok(first);
        }
        let reply = S::write(context, &self.message)?;
        idempotency::keep::<M>(context.connection, key, hash, &reply, context.now)?;
        Ok(reply)
    }
}

impl<S: WriteHandler<M>, M: Message> Job<S> for WriteJob<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn makes_room(&self) -> bool {
        S::MAKES_ROOM
    }

    fn start(&self, connection: &Connection) -> bool {
        self.ticket.start(connection)
    }

    fn is_past_deadline(&self) -> bool {
        self.ticket.is_past_deadline()
    }

    fn scope(&self) -> Option<Scope> {
        Some(self.ticket.scope(None))
    }

    fn run(&mut self, context: &mut WriteContext<'_, S>) -> Outcome<()> {
        let reply = self.execute(context)?;
        self.outcome = Some(Ok(reply));
        Ok(())
    }

    fn finish(&self) {
        self.ticket.finish();
    }

    fn fail(&mut self, error: Error) {
        self.outcome = Some(Err(error));
    }

    fn is_request(&self) -> bool {
        true
    }

    fn settle(self: Box<Self>, committed: Result<()>) {
        let Self { outcome, reply, permit, .. } = *self;
        let answer = match (committed, outcome) {
            (Ok(()), Some(outcome)) => outcome,
            // A write that failed by itself stays undone, whatever became of its group.
            (Err(group), Some(Err(own))) if own.written() == Written::NotApplied && is_final(&own, &group) => Err(own),
            (Err(group), _) => Err(group),
            (Ok(()), None) => return,
        };
        drop(permit);
        // The caller may have gone away; the write is committed all the same.
        let _ = reply.send(answer);
    }
}

/// Whether an error holds though its group failed: it did not depend on what others wrote, or that is committed.
fn is_final(error: &Error, group: &Error) -> bool {
    group.written() == Written::Applied
        || matches!(
            error.kind(),
            larder_protocol::Error::Panicked { .. }
                | larder_protocol::Error::TooLarge { .. }
                | larder_protocol::Error::Invalid { .. }
        )
}

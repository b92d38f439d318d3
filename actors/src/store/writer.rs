//! The store's actor: a kameo actor on its own OS thread that turns its mailbox into groups.
//!
//! Start at `next`, which decides when a group ends.
//!
//! Always true: no panic or error of a handler reaches kameo, which would drop the messages behind it; the actor fails
//! only where no message is in hand, when its connection cannot be had again.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kameo::Actor;
use kameo::actor::{ActorRef, WeakActorRef};
use kameo::error::{ActorStopReason, PanicError};
use kameo::mailbox::{MailboxReceiver, Signal};
use kameo::message::{Context, Message};

use larder_protocol::{Error as Kind, Written};
use tokio::sync::oneshot;

use super::Store;
use super::compaction::Compaction;
use super::group::Group;
use super::job::Job;
use super::maintenance::{self, Swept, Then};
use super::shared::{Custody, Replacement, StoreShared};
use super::status::StoreState;
use crate::error::Error;

/// The first restart is immediate; each further one without a commit between waits four times longer, up to this.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
const BACK_OFF_FIRST: Duration = Duration::from_millis(10);

/// Owns the store's write connection.
pub(super) struct Writer<S: Store> {
    /// `None` while the file is set aside.
    group: Option<Group<S>>,
    shared: Arc<StoreShared<S>>,
    /// A [`Sweep`] is queued: one is enough.
    is_sweep_queued: bool,
}

/// A write for the group. The answer goes through the job's own channel, after COMMIT.
pub(super) struct Submit<S: Store>(pub(super) Box<dyn Job<S>>);

/// Time for a slice of the work that nobody asks for: expired rows, old log rows, free pages.
pub(super) struct Maintain {
    /// Told what it did; without it, the next slice follows where there is more to do.
    pub(super) reply: Option<oneshot::Sender<Result<Swept, Error>>>,
}

/// Writes the file anew, without gaps.
pub(super) struct Rewrite {
    pub(super) reply: oneshot::Sender<Result<Compaction, Error>>,
}

/// Time for a slice of what the store itself sweeps, which a write has asked for.
struct Sweep;

/// Makes everything acknowledged before survive a power cut.
pub(super) struct Flush {
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
}

/// Closes the file of a store that is quarantined.
pub(super) struct SetAside {
    pub(super) reply: oneshot::Sender<()>,
}

/// Replaces the file of a store that is set aside, and opens it.
pub(super) struct Replace {
    pub(super) replacement: Replacement,
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
}

/// Ends the actor after everything that was queued before.
pub(super) struct Close;

/// What an incarnation begins with.
pub(super) struct Beginning<S: Store> {
    shared: Arc<StoreShared<S>>,
    /// Taken by the first incarnation.
    first: Arc<Mutex<Option<Group<S>>>>,
}

impl<S: Store> Beginning<S> {
    /// Opens the file for the first incarnation, here and not in the actor: kameo would spend its restarts on a file that
    /// cannot be opened, while the caller has long been told so. Blocks.
    pub(super) fn open(shared: Arc<StoreShared<S>>) -> Result<Self, Error> {
        let group = Group::open(Custody::acquire(&shared))?;
        Ok(Self { shared, first: Arc::new(Mutex::new(Some(group))) })
    }
}

impl<S: Store> Clone for Beginning<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), first: Arc::clone(&self.first) }
    }
}

impl<S: Store> Actor for Writer<S> {
    type Args = Beginning<S>;
    type Error = Error;

    fn name() -> &'static str {
        S::NAME.as_str()
    }

    async fn on_start(Beginning { shared, first }: Self::Args, _actor: ActorRef<Self>) -> Result<Self, Error> {
        let opened = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let group = match opened {
            Some(group) => Some(group),
            None if shared.status.state() == StoreState::Quarantined => {
                return Ok(Self { group: None, shared, is_sweep_queued: false });
            }
            // The old incarnation may still be closing its connection: kameo starts the new one before `on_stop` has run.
            None => Some(restart(Custody::acquire(&shared))?),
        };
        shared.enter_open();
        Ok(Self { group, shared, is_sweep_queued: false })
    }

    async fn next(
        &mut self,
        _actor: WeakActorRef<Self>,
        mailbox: &mut MailboxReceiver<Self>,
    ) -> Result<Option<Signal<Self>>, Error> {
        let Some(group) = &mut self.group else { return Ok(mailbox.recv().await) };
        // First of all: what is queued is the next incarnation's, which can still write it.
        if let Some(broken) = group.take_broken() {
            return Err(broken);
        }
        // `try_recv` and not `recv_many`, which miscounts when an application enables kameo's `metrics` feature.
        if let Ok(signal) = mailbox.try_recv() {
            if !matches!(signal, Signal::Message { .. }) {
                group.commit();
            }
            return Ok(Some(signal));
        }
        group.commit();
        group.checkpoint_if_due();
        if let Some(broken) = group.take_broken() {
            return Err(broken);
        }
        Ok(mailbox.recv().await)
    }

    /// Told here and not by the supervisor, which hears of it when the next incarnation may already be serving.
    async fn on_panic(
        &mut self,
        _actor: WeakActorRef<Self>,
        panic: PanicError,
    ) -> Result<ControlFlow<ActorStopReason>, Error> {
        let cause = panic.with_downcast_ref(|error: &Error| described(error));
        self.shared.enter(StoreState::Restarting, Some(cause.unwrap_or_else(|| panic.to_string())));
        Ok(ControlFlow::Break(ActorStopReason::Panicked(panic)))
    }

    async fn on_stop(&mut self, _actor: WeakActorRef<Self>, _reason: ActorStopReason) -> Result<(), Error> {
        if let Some(group) = &mut self.group {
            group.close();
        }
        Ok(())
    }
}

/// Opens the file again after a failure, with the pause that the number of failures in a row asks for.
#[expect(clippy::disallowed_methods, reason = "back-off on the store's own thread, before it serves anything")]
fn restart<S: Store>(custody: Custody<S>) -> Result<Group<S>, Error> {
    let shared = custody.shared();
    shared.status.restart_count.fetch_add(1, Ordering::Relaxed);
    std::thread::sleep(back_off(shared.failures_in_a_row.fetch_add(1, Ordering::AcqRel)));
    // Whatever was committed last, memory may not have been told.
    S::forget(&shared.memory);
    let told = Arc::clone(shared);
    let opened = shared.file.prepare_existing().and_then(|()| Group::open(custody));
    opened.inspect_err(|error| told.enter(StoreState::Restarting, Some(described(error))))
}

/// Returns the error with its cause, for a state's reason.
fn described(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn back_off(failures_in_a_row: u32) -> Duration {
    match failures_in_a_row {
        0 => Duration::ZERO,
        n => BACK_OFF_FIRST.saturating_mul(4_u32.saturating_pow(n - 1)).min(BACK_OFF_MAX),
    }
}

impl<S: Store> Message<Submit<S>> for Writer<S> {
    type Reply = ();

    async fn handle(&mut self, Submit(job): Submit<S>, context: &mut Context<Self, ()>) {
        let Some(group) = &mut self.group else {
            return job.settle(Err(self.shared.status.unavailable(Written::NotApplied).into()));
        };
        group.run(job);
        if group.take_sweep_due() && !self.is_sweep_queued {
            // Behind those who wait already.
            self.is_sweep_queued = context.actor_ref().tell(Sweep).try_send().is_ok();
        }
    }
}

impl<S: Store> Message<Maintain> for Writer<S> {
    type Reply = ();

    async fn handle(&mut self, Maintain { reply }: Maintain, context: &mut Context<Self, ()>) {
        let Some(group) = &mut self.group else { return };
        group.probe();
        let is_at_rest = group.is_at_rest();
        let then: Then = match reply {
            // The caller may have gone away.
            Some(reply) => Box::new(|swept| drop(reply.send(swept))),
            None => again(context, || Maintain { reply: None }),
        };
        group.run(Box::new(maintenance::Slice::round(&self.shared.settings, is_at_rest, then)));
    }
}

impl<S: Store> Message<Rewrite> for Writer<S> {
    type Reply = ();

    async fn handle(&mut self, Rewrite { reply }: Rewrite, _: &mut Context<Self, ()>) {
        let Some(group) = &mut self.group else { return };
        if let Some(rewritten) = group.rewrite() {
            // The caller may have gone away.
            let _ = reply.send(rewritten);
        }
    }
}

impl<S: Store> Message<Sweep> for Writer<S> {
    type Reply = ();

    async fn handle(&mut self, _: Sweep, context: &mut Context<Self, ()>) {
        self.is_sweep_queued = false;
        let Some(group) = &mut self.group else { return };
        let then = again(context, || Sweep);
        group.run(Box::new(maintenance::Slice::sweep(&self.shared.settings, then)));
    }
}

/// Asks for one more slice where one left work behind.
fn again<S: Store, M: Send + 'static>(context: &Context<Writer<S>, ()>, slice: fn() -> M) -> Then
where
    Writer<S>: Message<M>,
{
    let actor = context.actor_ref().downgrade();
    Box::new(move |swept| {
        if matches!(swept, Ok(Swept::Some)) {
            // A store that is stopping sweeps on when it is opened again.
            let _ = actor.upgrade().map(|actor| actor.tell(slice()).try_send());
        }
    })
}

impl<S: Store> Message<Flush> for Writer<S> {
    type Reply = ();

    async fn handle(&mut self, Flush { reply }: Flush, _: &mut Context<Self, ()>) {
        let flushed = match &mut self.group {
            Some(group) => group.flush(),
            None => Some(Err(self.shared.status.unavailable(Written::NotApplied).into())),
        };
        if let Some(flushed) = flushed {
            // The caller may have gone away.
            let _ = reply.send(flushed);
        }
    }
}

impl<S: Store> Message<SetAside> for Writer<S> {
    type Reply = ();

    async fn handle(&mut self, SetAside { reply }: SetAside, _: &mut Context<Self, ()>) {
        if let Some(mut group) = self.group.take() {
            group.close();
        }
        // Nobody may be waiting.
        let _ = reply.send(());
    }
}

impl<S: Store> Message<Replace> for Writer<S> {
    type Reply = ();

    async fn handle(&mut self, Replace { replacement, reply }: Replace, _: &mut Context<Self, ()>) {
        let replaced = self.replace(replacement);
        // The caller may have gone away.
        let _ = reply.send(replaced);
    }
}

impl<S: Store> Writer<S> {
    fn replace(&mut self, replacement: Replacement) -> Result<(), Error> {
        if self.group.is_some() {
            let reason = "it is in use; only the file of a quarantined store is replaced".to_owned();
            return Err(Kind::Refused { what: format!("{} store", S::NAME), reason }.into());
        }
        self.shared.replace_presence(replacement)?;
        self.shared.file.prepare_existing()?;
        S::forget(&self.shared.memory);
        self.shared.status.is_wal_unsynced.store(self.shared.file.is_unsynced(), Ordering::Release);
        let mut group = Group::open(Custody::acquire(&self.shared))?;
        group.note_restored()?;
        self.group = Some(group);
        Ok(())
    }
}

impl<S: Store> Message<Close> for Writer<S> {
    type Reply = ();

    async fn handle(&mut self, _: Close, context: &mut Context<Self, ()>) {
        context.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_starts_at_nothing_and_is_bounded() {
        assert_eq!(back_off(0), Duration::ZERO);
        assert_eq!(back_off(1), BACK_OFF_FIRST);
        assert_eq!(back_off(2), BACK_OFF_FIRST * 4);
        assert_eq!(back_off(u32::MAX), BACK_OFF_MAX);
    }
}

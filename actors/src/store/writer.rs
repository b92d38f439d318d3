//! The store's actor: a kameo actor on its own OS thread that turns its mailbox into groups.
//!
//! Start at `next`, which decides when a group ends.
//!
//! Always true: no panic or error of a handler reaches kameo, which would drop the messages behind it; the actor fails
//! only where no message is in hand, when its connection cannot be had again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kameo::Actor;
use kameo::actor::{ActorRef, WeakActorRef};
use kameo::error::{ActorStopReason, PanicError};
use kameo::mailbox::{MailboxReceiver, Signal};
use kameo::message::{Context, Message};

use tokio::sync::oneshot;

use super::Store;
use super::group::Group;
use super::handle::{Lease, StoreShared};
use super::job::Job;
use super::maintenance;
use super::status::StoreState;
use crate::error::Error;

/// The first restart is immediate; each further one without a commit between waits four times longer, up to this.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
const BACK_OFF_FIRST: Duration = Duration::from_millis(10);

/// Owns the store's write connection.
pub(super) struct Writer<S: Store> {
    group: Group<S>,
    shared: Arc<StoreShared<S>>,
}

/// A write for the group. The answer goes through the job's own channel, after COMMIT.
pub(super) struct Submit<S: Store>(pub(super) Box<dyn Job<S>>);

/// Time for a slice of the work that nobody asks for: expired rows, old log rows, free pages.
pub(super) struct Maintain;

/// Makes everything acknowledged before survive a power cut.
pub(super) struct Flush {
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
}

/// Ends the actor after everything that was queued before.
pub(super) struct Close;

impl<S: Store> Actor for Writer<S> {
    type Args = Arc<StoreShared<S>>;
    type Error = Error;

    fn name() -> &'static str {
        S::NAME.as_str()
    }

    async fn on_start(shared: Self::Args, _actor: ActorRef<Self>) -> Result<Self, Error> {
        let start_count = shared.start_count.fetch_add(1, Ordering::AcqRel);
        // The old incarnation may still be closing its connection: kameo starts the new one before `on_stop` has run.
        let lease = Lease::acquire(&shared);
        let group = if start_count == 0 { Group::open(lease)? } else { restart(lease)? };
        shared.enter(StoreState::Serving, None);
        Ok(Self { group, shared })
    }

    async fn next(
        &mut self,
        _actor: WeakActorRef<Self>,
        mailbox: &mut MailboxReceiver<Self>,
    ) -> Result<Option<Signal<Self>>, Error> {
        // `try_recv` and not `recv_many`, which miscounts when an application enables kameo's `metrics` feature.
        if let Ok(signal) = mailbox.try_recv() {
            if !matches!(signal, Signal::Message { .. }) {
                self.group.commit();
            }
            return Ok(Some(signal));
        }
        self.group.commit();
        if let Some(broken) = self.group.take_broken() {
            return Err(broken);
        }
        self.group.checkpoint_if_due(!mailbox.is_empty());
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
        self.group.close();
        Ok(())
    }
}

/// Opens the file again after a failure, with the pause that the number of failures in a row asks for.
#[expect(clippy::disallowed_methods, reason = "back-off on the store's own thread, before it serves anything")]
fn restart<S: Store>(lease: Lease<S>) -> Result<Group<S>, Error> {
    let shared = lease.shared();
    shared.status.restart_count.fetch_add(1, Ordering::Relaxed);
    std::thread::sleep(back_off(shared.failures_in_a_row.fetch_add(1, Ordering::AcqRel)));
    let told = Arc::clone(shared);
    let opened = shared.file.prepare_existing().and_then(|()| Group::open(lease));
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

    async fn handle(&mut self, Submit(job): Submit<S>, _: &mut Context<Self, ()>) {
        self.group.run(job);
    }
}

impl<S: Store> Message<Maintain> for Writer<S> {
    type Reply = ();

    async fn handle(&mut self, _: Maintain, context: &mut Context<Self, ()>) {
        self.group.probe();
        let actor = context.actor_ref().downgrade();
        let again = move || {
            // A store that is stopping sweeps on when it is opened again.
            let _ = actor.upgrade().map(|actor| actor.tell(Maintain).try_send());
        };
        self.group.run(Box::new(maintenance::Slice::new(&self.shared.settings, again)));
    }
}

impl<S: Store> Message<Flush> for Writer<S> {
    type Reply = ();

    async fn handle(&mut self, Flush { reply }: Flush, _: &mut Context<Self, ()>) {
        // The caller may have gone away.
        let _ = reply.send(self.group.flush());
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

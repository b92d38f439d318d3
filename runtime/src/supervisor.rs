//! The supervisor: a kameo actor whose children are the stores. It restarts them, and sends them on their rounds.
//!
//! Start at [`start`]. kameo restarts a child by itself; this actor only tells the store what happened, and never dies
//! with one.
//!
//! Always true: one store's death changes nothing for another; a round blocks neither the supervisor nor a caller.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::stores::{Running, RunningStore, snapshot};

/// The stores' parent.
#[derive(Debug)]
pub(crate) struct Supervisor {
    running: Running,
}

/// A round past every store: maintenance where it is time for it, and checkpoints where they are due.
struct Round {
    is_maintenance_due: bool,
}

impl Actor for Supervisor {
    type Args = Running;
    type Error = Infallible;

    async fn on_start(running: Running, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self { running })
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        if let Some(store) = snapshot(&self.running).iter().find(|store| store.is_actor(id))
            && !reason.is_normal()
        {
            store.note_death(reason.to_string());
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Message<Round> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, Round { is_maintenance_due }: Round, _: &mut Context<Self, ()>) {
        for store in snapshot(&self.running) {
            if is_maintenance_due {
                store.maintain();
            }
            tokio::task::spawn_blocking(move || checkpoint(&*store));
        }
    }
}

fn checkpoint(store: &dyn RunningStore) {
    if let Err(error) = store.checkpoint_if_due() {
        // Nothing is lost: the WAL keeps everything, and the next round tries again.
        tracing::warn!(store = %store.name(), %error, "background checkpoint failed");
    }
}

/// Starts the supervisor on the runtime's own threads, and its rounds.
pub(crate) fn start(
    runtime: &Handle,
    running: Running,
    wal_grew: Arc<Notify>,
    interval: Duration,
) -> ActorRef<Supervisor> {
    let _entered = runtime.enter();
    let supervisor = Supervisor::spawn_with_mailbox(running, kameo::mailbox::unbounded());
    let weak = supervisor.downgrade();
    runtime.spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_maintenance_due = tokio::select! {
                () = wal_grew.notified() => false,
                _ = ticks.tick() => true,
            };
            let Some(supervisor) = weak.upgrade() else { return };
            if supervisor.tell(Round { is_maintenance_due }).try_send().is_err() {
                return;
            }
        }
    });
    supervisor
}

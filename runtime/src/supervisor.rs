//! The supervisor: a kameo actor whose children are the stores. It restarts them, and sends them on their rounds.
//!
//! Start at [`start`]. kameo restarts a child by itself, and the store tells its own states; this actor never dies with
//! one.
//!
//! Always true: one store's death changes nothing for another; a round blocks neither the supervisor nor a caller.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use larder_actors::sqlite::ballast::Ballast;
use larder_actors::store::StoreState;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::stores::{Running, RunningStore, snapshot};

/// The stores' parent.
#[derive(Debug)]
pub(crate) struct Supervisor {
    running: Running,
    ballast: Arc<Ballast>,
}

/// When the supervisor goes on its rounds, and what it looks after beside the stores.
#[derive(Debug)]
pub(crate) struct Rounds {
    pub(crate) wal_grew: Arc<Notify>,
    pub(crate) ballast: Arc<Ballast>,
    pub(crate) interval: Duration,
}

/// A round past every store: maintenance where it is time for it, and checkpoints where they are due.
struct Round {
    is_maintenance_due: bool,
}

impl Actor for Supervisor {
    type Args = (Running, Arc<Ballast>);
    type Error = Infallible;

    async fn on_start((running, ballast): Self::Args, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self { running, ballast })
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorId,
        _: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        Ok(ControlFlow::Continue(()))
    }
}

impl Message<Round> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, Round { is_maintenance_due }: Round, _: &mut Context<Self, ()>) {
        let stores = snapshot(&self.running);
        let is_used = !stores.is_empty();
        if is_maintenance_due && is_used && stores.iter().all(|store| store.observe().state != StoreState::Degraded) {
            let ballast = Arc::clone(&self.ballast);
            tokio::task::spawn_blocking(move || ballast.restore());
        }
        for store in stores {
            if is_maintenance_due {
                store.maintain();
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.check_after_doubt().await });
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
pub(crate) fn start(runtime: &Handle, running: Running, rounds: Rounds) -> ActorRef<Supervisor> {
    let Rounds { wal_grew, ballast, interval } = rounds;
    let _entered = runtime.enter();
    let supervisor = Supervisor::spawn_with_mailbox((running, ballast), kameo::mailbox::unbounded());
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

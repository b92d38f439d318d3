//! The machinery under faults: a small store whose handlers do what a test tells them, at the moment it tells them.
//!
//! Start at [`Notebook`], the store, and [`Opened`], which brings it up; a [`Gate`] holds a handler where a test wants it.
//!
//! Always true: no test waits by the clock; what must happen in an order is ordered by gates, replies and events.

mod admission;
mod close;
mod compaction;
mod deadlines;
mod group;
mod reads;
mod restart;
mod stages;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use larder_protocol::change::Change;
use larder_protocol::{Error as Kind, IdempotencyKey, Message, RequestOptions, StoreName};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, mpsc};

use super::{
    Failpoints, MACHINERY_TABLES, Outcome, Process, ReadContext, ReadHandler, ReadLane, Store, StoreEvent, StoreHandle,
    StoreOpening, StoreSettings, StoreState, WriteContext, WriteHandler,
};
use crate::Result;
use crate::sqlite::migration::FileSchema;

/// A wait in a test that takes this long is a hang.
const HANG: Duration = Duration::from_secs(60);

/// A table of lines, and handlers that follow the steps in their message.
#[derive(Debug)]
enum Notebook {}

/// What a handler does next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Step {
    /// Inserts the message's line.
    Insert,
    /// Refuses the request.
    Refuse,
    /// Breaks a rule of the schema, which undoes that statement alone.
    Violate,
    /// Panics.
    Panic,
    /// Stops until the test opens the gate of this name.
    Pause(String),
    /// Runs a read statement that only an interrupt ends.
    ReadForever,
    /// Runs an INSERT that only an interrupt ends.
    InsertForever,
    /// Moves the store's file away, so that it cannot be opened again.
    LoseFile,
}

/// Follows its steps in the group's transaction; answers how many lines there are then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Write {
    line: String,
    steps: Vec<Step>,
}

impl Message for Write {
    type Reply = u64;
    const STORE: StoreName = StoreName::Kv;
    const NAME: &'static str = "test.Write";
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.line.len()
    }
}

/// Follows its steps on a read connection; answers the lines in the order in which they were inserted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Read {
    steps: Vec<Step>,
    is_in_place: bool,
}

impl Message for Read {
    type Reply = Vec<String>;
    const STORE: StoreName = StoreName::Kv;
    const NAME: &'static str = "test.Read";
    fn size_bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// What test and handlers share.
#[derive(Debug, Default)]
struct Stage {
    gates: Mutex<HashMap<String, Held>>,
    file: OnceLock<PathBuf>,
    /// The next commit panics in the store's own code, after COMMIT and outside any message.
    panics_after_commit: AtomicBool,
    /// A full check stops at the gate "check", and then runs a statement that only an interrupt ends.
    checks_forever: AtomicBool,
}

/// A handler's side of a [`Gate`].
#[derive(Debug, Clone)]
struct Held {
    reached: mpsc::UnboundedSender<()>,
    opened: crossbeam_channel::Receiver<()>,
}

/// Holds every handler that pauses at it, until it is opened or dropped.
#[derive(Debug)]
struct Gate {
    reached: mpsc::UnboundedReceiver<()>,
    opening: crossbeam_channel::Sender<()>,
}

impl Gate {
    /// Waits until a handler stands at the gate.
    async fn reached(&mut self) {
        within(self.reached.recv()).await.expect("the gate is still held by its stage");
    }

    fn open(self) {
        drop(self.opening);
    }
}

impl Stage {
    fn gate(&self, name: &str) -> Gate {
        let (reached, told) = mpsc::unbounded_channel();
        let (opening, opened) = crossbeam_channel::bounded(0);
        self.gates.lock().unwrap().insert(name.to_owned(), Held { reached, opened });
        Gate { reached: told, opening }
    }

    fn pause(&self, name: &str) {
        let held = self.gates.lock().unwrap().get(name).cloned().expect("the test made the gate");
        let _ = held.reached.send(());
        // Ends with an error, when the gate is dropped.
        let _ = held.opened.recv();
    }

    /// The file may be moved while it is open only because what happens then is what is tested.
    #[expect(clippy::disallowed_methods, reason = "simulates a file that can no longer be opened")]
    fn lose_file(&self) {
        let path = self.file.get().unwrap();
        std::fs::rename(path, path.with_extension("lost")).unwrap();
        // In its place something that can neither be opened nor created.
        std::fs::create_dir(path).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "ends what `lose_file` simulates")]
    fn find_file(&self) {
        let path = self.file.get().unwrap();
        std::fs::remove_dir(path).unwrap();
        std::fs::rename(path.with_extension("lost"), path).unwrap();
    }
}

impl Store for Notebook {
    const NAME: StoreName = StoreName::Kv;
    const SCHEMA: FileSchema = FileSchema {
        application_id: 0x7465_7374, // "test"
        page_bytes: 4096,
        migrations: &[
            MACHINERY_TABLES,
            "CREATE TABLE line (id INTEGER PRIMARY KEY, text TEXT NOT NULL CHECK (text <> 'forbidden'));",
        ],
    };

    type Settings = Arc<Stage>;
    type Memory = Arc<Stage>;

    fn memory(settings: &Arc<Stage>, _exclusive: bool) -> Arc<Stage> {
        Arc::clone(settings)
    }

    fn committed(memory: &Arc<Stage>, _changes: &[Change]) {
        assert!(!memory.panics_after_commit.swap(false, Ordering::AcqRel), "told to panic after COMMIT");
    }

    fn forget(_memory: &Arc<Stage>) {}

    fn check(context: &ReadContext<'_, Self>, _: &mut dyn FnMut(String)) -> Outcome<()> {
        if !context.memory.checks_forever.load(Ordering::Acquire) {
            return Ok(());
        }
        follow(context.connection, context.memory, &pause("check"))?;
        follow(context.connection, context.memory, &Step::ReadForever)
    }

    fn sweep(_context: &mut WriteContext<'_, Self>, _rows_max: usize) -> Outcome<usize> {
        Ok(0)
    }
}

const FOREVER: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0";

impl WriteHandler<Write> for Notebook {
    const MAKES_ROOM: bool = false;

    fn write(context: &mut WriteContext<'_, Self>, message: &Write) -> Outcome<u64> {
        for step in &message.steps {
            match step {
                Step::Insert => insert(context, &message.line)?,
                Step::Violate => insert(context, "forbidden")?,
                Step::InsertForever => {
                    let sql = format!("INSERT INTO line (text) {FOREVER}");
                    context.connection.execute(&sql, [])?;
                }
                Step::LoseFile => context.settings.lose_file(),
                other => follow(context.connection, context.settings, other)?,
            }
        }
        Ok(context.connection.query_row("SELECT count(*) FROM line", [], |row| row.get(0))?)
    }
}

fn insert(context: &mut WriteContext<'_, Notebook>, line: &str) -> Outcome<()> {
    context.connection.prepare_cached("INSERT INTO line (text) VALUES (?1)")?.execute([line])?;
    context.changed("insert", "line", line);
    Ok(())
}

/// Follows a step that changes nothing.
fn follow(connection: &rusqlite::Connection, stage: &Stage, step: &Step) -> Outcome<()> {
    match step {
        Step::Refuse => Err(Kind::NotFound { what: "what was asked for".to_owned() }.into()),
        Step::Panic => panic!("told to panic"),
        Step::Pause(gate) => {
            stage.pause(gate);
            Ok(())
        }
        Step::ReadForever => Ok(connection.query_row(FOREVER, [], |_| Ok(()))?),
        step => unreachable!("{step:?} is for writes"),
    }
}

impl ReadHandler<Read> for Notebook {
    fn lane(message: &Read) -> ReadLane {
        if message.is_in_place { ReadLane::InPlace } else { ReadLane::Thread }
    }

    fn read(context: &ReadContext<'_, Self>, message: &Read) -> Outcome<Vec<String>> {
        for step in &message.steps {
            follow(context.connection, context.settings, step)?;
        }
        let mut statement = context.connection.prepare_cached("SELECT text FROM line ORDER BY id")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
    }
}

/// The store's parent, as the runtime's supervisor is one.
struct Parent;

impl Actor for Parent {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> std::result::Result<Self, Infallible> {
        Ok(Self)
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorId,
        _: ActorStopReason,
    ) -> std::result::Result<ControlFlow<ActorStopReason>, Infallible> {
        Ok(ControlFlow::Continue(()))
    }
}

/// A store that runs.
struct Opened {
    store: StoreHandle<Notebook>,
    stage: Arc<Stage>,
    events: broadcast::Receiver<StoreEvent>,
    failpoints: Arc<Failpoints>,
    _parent: ActorRef<Parent>,
    /// Last, so that it is removed after the store is gone.
    folder: tempfile::TempDir,
}

/// Brings a store up in a folder of its own.
async fn open(change: impl FnOnce(&mut StoreSettings)) -> Opened {
    open_in(tempfile::tempdir().unwrap(), 3, change).await
}

async fn open_in(folder: tempfile::TempDir, restarts: u32, change: impl FnOnce(&mut StoreSettings)) -> Opened {
    match try_open_in(folder, restarts, Arc::default(), change).await {
        Ok(opened) => opened,
        Err((error, _)) => panic!("{error}"),
    }
}

/// Gives the folder back where the store does not start.
async fn try_open_in(
    folder: tempfile::TempDir,
    restarts: u32,
    failpoints: Arc<Failpoints>,
    change: impl FnOnce(&mut StoreSettings),
) -> std::result::Result<Opened, (crate::Error, tempfile::TempDir)> {
    let stage = Arc::new(Stage::default());
    stage.file.set(folder.path().join("kv.db")).unwrap();
    // A gate may hold a group open for as long as the test likes.
    let mut settings = StoreSettings { group_time_max: HANG, ..StoreSettings::default() };
    change(&mut settings);
    let (sender, events) = broadcast::channel(64);
    let parent = Parent::spawn_with_mailbox((), kameo::mailbox::unbounded());
    let opening = StoreOpening {
        ballast: Arc::new(crate::sqlite::ballast::Ballast::at(&folder.path().join("ballast"), 0)),
        folder: folder.path().to_owned(),
        settings,
        store_settings: Arc::clone(&stage),
        is_exclusive: true,
        is_replicated: false,
        restart_limit: (restarts, HANG),
        events: sender,
        wal_grew: Arc::new(Notify::new()),
        runtime: Handle::current(),
        process: Process { folder: folder.path().to_owned(), name: "test".to_owned() },
        failpoints: Arc::clone(&failpoints),
    };
    match within(StoreHandle::<Notebook>::start(&parent, opening)).await {
        Ok(store) => Ok(Opened { store, stage, events, failpoints, _parent: parent, folder }),
        Err(error) => Err((error, folder)),
    }
}

impl Opened {
    async fn write(&self, line: &str, steps: impl Into<Vec<Step>>) -> Result<u64> {
        within(self.store.write(message(line, steps), RequestOptions::default())).await
    }

    /// Sends a write whose answer is taken later. It is queued when this returns, behind what was sent before.
    fn send(&self, line: &str, steps: impl Into<Vec<Step>>) -> tokio::task::JoinHandle<Result<u64>> {
        self.send_with(line, steps, RequestOptions::default())
    }

    fn send_with(
        &self,
        line: &str,
        steps: impl Into<Vec<Step>>,
        options: RequestOptions,
    ) -> tokio::task::JoinHandle<Result<u64>> {
        let (store, message) = (self.store.clone(), message(line, steps));
        let mut request = Box::pin(async move { store.write(message, options).await });
        // Polled here for the first time: a task of its own would be queued when it is scheduled, in any order.
        match (&mut request).now_or_never() {
            Some(answer) => tokio::spawn(std::future::ready(answer)),
            None => tokio::spawn(request),
        }
    }

    async fn read(&self, steps: impl Into<Vec<Step>>, is_in_place: bool) -> Result<Vec<String>> {
        let read = Read { steps: steps.into(), is_in_place };
        within(self.store.read(read, RequestOptions::default())).await
    }

    /// What is committed.
    async fn lines(&self) -> Vec<String> {
        self.read([], true).await.unwrap()
    }

    /// Waits until so many requests wait or run.
    async fn queued(&self, count: usize) {
        within(async {
            while self.store.observe().queue_messages != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn state(&mut self, state: StoreState) -> StoreEvent {
        loop {
            let event = within(self.events.recv()).await.expect("the store tells its states");
            if event.state == state {
                return event;
            }
        }
    }
}

fn message(line: &str, steps: impl Into<Vec<Step>>) -> Write {
    Write { line: line.to_owned(), steps: steps.into() }
}

fn pause(gate: &str) -> Step {
    Step::Pause(gate.to_owned())
}

fn deadline(deadline: Duration) -> RequestOptions {
    RequestOptions { deadline: Some(deadline), idempotency_key: None }
}

fn idempotency_key(key: &str) -> RequestOptions {
    RequestOptions { deadline: None, idempotency_key: Some(IdempotencyKey::new(key).unwrap()) }
}

/// Waits, but not for ever.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.expect("it hangs")
}

/// Takes the answer of a write sent earlier.
async fn answer<T>(sent: tokio::task::JoinHandle<T>) -> T {
    within(sent).await.expect("the caller's task does not panic")
}

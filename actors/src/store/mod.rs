//! What every store shares: the way from a message to a committed row and back.
//!
//! Start at [`Store`] and [`handlers!`](crate::handlers), what a store must say; then [`StoreHandle`], what a caller
//! holds; then the modules in the order a write passes them: `admission`, `job`, `writer`, `group`, `changes`. Reads go
//! through `readers`.
//!
//! Always true: only a store's writer changes its file; a reply to a write leaves after its COMMIT; reads never queue
//! behind writes; state in memory changes only after the commit that justifies it.

mod admission;
mod changes;
mod compaction;
mod context;
mod counter;
mod deadline;
mod failpoints;
mod fairness;
mod group;
mod handle;
mod hot;
mod idempotency;
mod job;
mod lease;
mod limits;
mod maintenance;
mod readers;
mod settings;
mod shared;
mod status;
mod subscription;
#[cfg(test)]
mod tests;
mod ticket;
mod writer;

#[cfg(test)]
pub(crate) use changes::ChangeSet;
pub use compaction::Compaction;
pub use context::{Failure, Outcome, ReadContext, WriteContext};
pub(crate) use context::{decoded, out_of_order, stored_name};
pub use counter::Counter;
pub use failpoints::{Failpoint, FailpointAction, Failpoints};
pub use fairness::let_others_run_after_memory_reads;
pub use handle::{CloseReport, StoreHandle};
pub use hot::HotTier;
pub use lease::Process;
pub(crate) use limits::{PAGE_BYTES_MAX, check_count, check_limit};
pub use settings::{StoreDefaults, StoreSettings};
pub use shared::{Replacement, StoreOpening, presence_path, store_file};
pub use status::{LatencySummary, StoreEvent, StoreObservation, StoreState};
pub use subscription::Notices;

use larder_protocol::change::Change;
use larder_protocol::{Message, StoreName, Tokenizer};

use crate::full_text::TextIndex;
use crate::sqlite::migration::{FileSchema, Migration};

/// The tables every store's file has; the first of every store's migrations.
pub const MACHINERY_TABLES: Migration = include_str!("migrations/0001_machinery.sql");

/// A store: a schema, and state derived from it. What it can be asked is listed by [`handlers!`](crate::handlers).
pub trait Store: Sized + Send + Sync + 'static {
    /// The store's word.
    const NAME: StoreName;
    /// Its file's schema; the first migration is [`MACHINERY_TABLES`].
    const SCHEMA: FileSchema;

    /// What a program may set about this store alone.
    type Settings: Clone + Send + Sync + std::fmt::Debug;
    /// State in memory derived from rows, shared by writer and readers; it can always be rebuilt.
    type Memory: Send + Sync;

    /// Returns the store's full-text index, if it has one, as the settings want it.
    #[must_use]
    fn text_index(_settings: &Self::Settings) -> Option<TextIndex> {
        None
    }

    /// Sets what takes texts apart.
    fn set_tokenizer(_settings: &mut Self::Settings, _tokenizer: Tokenizer) {}

    /// Adjusts the settings that every store has to the store's own.
    fn adjust(_common: &mut StoreSettings, _own: &Self::Settings) {}

    /// Returns the state in memory of a store just opened. `exclusive`: no other process can change the file.
    fn memory(settings: &Self::Settings, exclusive: bool) -> Self::Memory;

    /// Brings the state in memory up to date with `changes`, which were just committed by this process.
    fn committed(memory: &Self::Memory, changes: &[Change]);

    /// Forgets the state in memory, which may be from before a commit that it was not told of; it is built anew from rows.
    fn forget(memory: &Self::Memory);

    /// Removes some of what is due to go (expired rows), at most `rows_max`; answers how many rows went.
    ///
    /// # Errors
    /// When SQLite fails; nothing of the sweep is kept then.
    fn sweep(context: &mut WriteContext<'_, Self>, rows_max: usize) -> Outcome<usize>;

    /// Looks at every row for damage that SQLite cannot see, and tells `found` of each; pages by key, so that no read
    /// transaction is long.
    ///
    /// # Errors
    /// When SQLite fails.
    fn check(context: &ReadContext<'_, Self>, found: &mut dyn FnMut(String)) -> Outcome<()>;

    /// Returns whether a schema object beyond the migrations' is one that the store makes at run time.
    #[must_use]
    fn is_run_time_object(_name: &str, _sql: &str) -> bool {
        false
    }
}

/// Where a read runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLane {
    /// On the caller's thread: its cost is bounded by about 200 µs.
    InPlace,
    /// On a reader thread.
    Thread,
}

/// A store that executes the write `M`.
pub trait WriteHandler<M: Message>: Store {
    /// Whether the message makes room: such writes are tried even while the disk is full.
    const MAKES_ROOM: bool;

    /// Executes `message` inside the open transaction. It may run again after a neighbour failed.
    ///
    /// # Errors
    /// A refusal, or SQLite's error; whatever it changed is undone.
    fn write(context: &mut WriteContext<'_, Self>, message: &M) -> Outcome<M::Reply>;
}

/// A store that answers the read `M`.
pub trait ReadHandler<M: Message>: Store {
    /// Returns where this message runs.
    fn lane(message: &M) -> ReadLane;

    /// Answers `message` from what is committed.
    ///
    /// # Errors
    /// A refusal, or SQLite's error.
    fn read(context: &ReadContext<'_, Self>, message: &M) -> Outcome<M::Reply>;

    /// Answers from memory alone, where that is certain to be current.
    fn from_memory(_memory: &Self::Memory, _message: &M, _now: larder_protocol::Timestamp) -> Option<M::Reply> {
        None
    }
}

/// A message that some store handles, as a write or as a read.
pub trait Ask: Message {
    /// The store that handles it.
    type Store: Store;

    /// Sends it there and waits for the answer.
    fn send(
        self,
        store: &StoreHandle<Self::Store>,
        options: larder_protocol::RequestOptions,
    ) -> impl Future<Output = crate::Result<Self::Reply>> + Send;
}

/// Lists what a store can be asked, one line a message: the lane, the message, the function that handles it.
///
/// `write` runs in the writer's transaction, and so does `make_room`, even while the disk is full; `in_place` on the caller's thread; `on_thread` on a reader thread; `sized`
/// in place while a condition on the message holds.
#[macro_export]
macro_rules! handlers {
    ($store:ty { $($lane:ident $message:ty $(where $small:expr)? => $function:path $(, memory $memory:path)?;)* }) => {
        $($crate::handlers!(@one $lane, $store, $message, $function $(, small $small)? $(, memory $memory)?);)*
    };
    (@one write, $store:ty, $message:ty, $function:path) => {
        $crate::handlers!(@write $store, $message, $function, false);
    };
    (@one make_room, $store:ty, $message:ty, $function:path) => {
        $crate::handlers!(@write $store, $message, $function, true);
    };
    (@write $store:ty, $message:ty, $function:path, $makes_room:literal) => {
        impl $crate::store::WriteHandler<$message> for $store {
            const MAKES_ROOM: bool = $makes_room;
            fn write(
                context: &mut $crate::store::WriteContext<'_, Self>,
                message: &$message,
            ) -> $crate::store::Outcome<<$message as larder_protocol::Message>::Reply> {
                $function(context, message)
            }
        }
        impl $crate::store::Ask for $message {
            type Store = $store;
            async fn send(
                self,
                store: &$crate::store::StoreHandle<$store>,
                options: larder_protocol::RequestOptions,
            ) -> $crate::Result<Self::Reply> {
                store.write(self, options).await
            }
        }
    };
    (@one in_place, $store:ty, $message:ty, $function:path $(, memory $memory:path)?) => {
        $crate::handlers!(@read $store, $message, $function, |_| $crate::store::ReadLane::InPlace $(, memory $memory)?);
    };
    (@one on_thread, $store:ty, $message:ty, $function:path) => {
        $crate::handlers!(@read $store, $message, $function, |_| $crate::store::ReadLane::Thread);
    };
    (@one sized, $store:ty, $message:ty, $function:path, small $small:expr) => {
        $crate::handlers!(@read $store, $message, $function, |message: &$message| {
            let is_small: fn(&$message) -> bool = $small;
            if is_small(message) { $crate::store::ReadLane::InPlace } else { $crate::store::ReadLane::Thread }
        });
    };
    (@read $store:ty, $message:ty, $function:path, $lane:expr $(, memory $memory:path)?) => {
        impl $crate::store::ReadHandler<$message> for $store {
            fn lane(message: &$message) -> $crate::store::ReadLane {
                let lane: fn(&$message) -> $crate::store::ReadLane = $lane;
                lane(message)
            }
            fn read(
                context: &$crate::store::ReadContext<'_, Self>,
                message: &$message,
            ) -> $crate::store::Outcome<<$message as larder_protocol::Message>::Reply> {
                $function(context, message)
            }
            $(fn from_memory(
                memory: &Self::Memory,
                message: &$message,
                now: larder_protocol::Timestamp,
            ) -> Option<<$message as larder_protocol::Message>::Reply> {
                $memory(memory, message, now)
            })?
        }
        impl $crate::store::Ask for $message {
            type Store = $store;
            async fn send(
                self,
                store: &$crate::store::StoreHandle<$store>,
                options: larder_protocol::RequestOptions,
            ) -> $crate::Result<Self::Reply> {
                store.read(self, options).await
            }
        }
    };
}

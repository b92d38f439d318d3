//! The stores of one larder: which there are, how each is configured, and those that run.
//!
//! A new store is one more field in [`Stores`], one more [`Hosted`] implementation and a place in [`HOSTED`]; everything else
//! is generic.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use larder_actors::chat::Chat;
use larder_actors::documents::Documents;
use larder_actors::embed_cache::{Backend, EmbedCache};
use larder_actors::graph::Graph;
use larder_actors::kv::Kv;
use larder_actors::sqlite::connection::StoreFile;
use larder_actors::store::{CloseReport, Compaction, Store, StoreHandle, StoreObservation, store_file};
use larder_actors::vectors::Vectors;
use larder_protocol::StoreName;
use tokio::sync::OnceCell;

use crate::larder::{Larder, RestoredStore};
use crate::settings::{Settings, StoreConfig};
use larder_actors::Result;

/// A slot for each store, filled at its first use.
#[derive(Debug, Default)]
pub struct Stores {
    kv: OnceCell<StoreHandle<Kv>>,
    documents: OnceCell<StoreHandle<Documents>>,
    chat: OnceCell<StoreHandle<Chat>>,
    vectors: OnceCell<StoreHandle<Vectors>>,
    embed_cache: OnceCell<StoreHandle<EmbedCache>>,
    graph: OnceCell<StoreHandle<Graph>>,
    running: Running,
}

/// The stores that run, in the order in which they were started; shared with the supervisor.
pub(crate) type Running = Arc<Mutex<Vec<Arc<dyn RunningStore>>>>;

impl Stores {
    pub(crate) fn running(&self) -> &Running {
        &self.running
    }
}

/// Returns the stores that run now.
pub(crate) fn snapshot(running: &Running) -> Vec<Arc<dyn RunningStore>> {
    running.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Returns the files of every store that has one, used in this process or not, in the order of their names.
pub(crate) fn existing_files(settings: &Settings) -> Vec<StoreFile> {
    let mut files: Vec<_> =
        HOSTED.iter().map(|store| (store.file)(settings)).filter(|file| file.path.exists()).collect();
    files.sort_by_key(|file| file.store.as_str());
    files
}

/// Every store that this build hosts.
pub(crate) const HOSTED: [HostedStore; 6] = [
    HostedStore::of::<Kv>(),
    HostedStore::of::<Documents>(),
    HostedStore::of::<Chat>(),
    HostedStore::of::<Vectors>(),
    HostedStore::of::<EmbedCache>(),
    HostedStore::of::<Graph>(),
];

/// What is done with a store that is named when the program runs.
pub(crate) struct HostedStore {
    pub(crate) name: StoreName,
    pub(crate) file: fn(&Settings) -> StoreFile,
    /// Whether the settings want a file.
    pub(crate) is_used: fn(&Settings) -> bool,
    /// Starts it where it is not used yet.
    pub(crate) start: fn(Larder) -> BoxFuture<'static, Result<()>>,
    pub(crate) restore: fn(Larder, PathBuf) -> BoxFuture<'static, Result<RestoredStore>>,
}

impl HostedStore {
    const fn of<S: Hosted>() -> Self {
        Self {
            name: S::NAME,
            file: |settings| {
                let config = S::config(settings);
                store_file::<S>(&settings.path, &config.common, &config.own)
            },
            is_used: S::is_used,
            start: |larder| async move { larder.store::<S>().await.map(drop) }.boxed(),
            restore: |larder, snapshots| async move { larder.restore::<S>(snapshots).await }.boxed(),
        }
    }

    /// Returns the store of that name, if this build hosts it.
    pub(crate) fn named(name: StoreName) -> Option<Self> {
        HOSTED.into_iter().find(|store| store.name == name)
    }
}

/// A store that this runtime hosts.
pub trait Hosted: Store {
    fn slot(stores: &Stores) -> &OnceCell<StoreHandle<Self>>;
    fn config(settings: &Settings) -> &StoreConfig<Self::Settings>;

    /// What it holds can be computed again: a damaged file is set aside and begun anew, and nobody is asked.
    const IS_CACHE: bool = false;

    /// Whether the settings want the store to have a file.
    fn is_used(_settings: &Settings) -> bool {
        true
    }
}

impl Hosted for Kv {
    fn slot(stores: &Stores) -> &OnceCell<StoreHandle<Self>> {
        &stores.kv
    }

    fn config(settings: &Settings) -> &StoreConfig<Self::Settings> {
        &settings.kv
    }
}

impl Hosted for Documents {
    fn slot(stores: &Stores) -> &OnceCell<StoreHandle<Self>> {
        &stores.documents
    }

    fn config(settings: &Settings) -> &StoreConfig<Self::Settings> {
        &settings.documents
    }
}

impl Hosted for Chat {
    fn slot(stores: &Stores) -> &OnceCell<StoreHandle<Self>> {
        &stores.chat
    }

    fn config(settings: &Settings) -> &StoreConfig<Self::Settings> {
        &settings.chat
    }
}

impl Hosted for Vectors {
    fn slot(stores: &Stores) -> &OnceCell<StoreHandle<Self>> {
        &stores.vectors
    }

    fn config(settings: &Settings) -> &StoreConfig<Self::Settings> {
        &settings.vectors
    }
}

impl Hosted for EmbedCache {
    const IS_CACHE: bool = true;

    fn slot(stores: &Stores) -> &OnceCell<StoreHandle<Self>> {
        &stores.embed_cache
    }

    fn config(settings: &Settings) -> &StoreConfig<Self::Settings> {
        &settings.embed_cache
    }

    fn is_used(settings: &Settings) -> bool {
        settings.embed_cache.own.backend == Backend::Sqlite
    }
}

impl Hosted for Graph {
    fn slot(stores: &Stores) -> &OnceCell<StoreHandle<Self>> {
        &stores.graph
    }

    fn config(settings: &Settings) -> &StoreConfig<Self::Settings> {
        &settings.graph
    }
}

/// What the runtime does with any store.
pub(crate) trait RunningStore: Send + Sync + std::fmt::Debug {
    fn name(&self) -> StoreName;
    fn observe(&self) -> StoreObservation;
    fn maintain(&self);
    /// Blocks.
    fn checkpoint_if_due(&self) -> larder_actors::Result<()>;
    fn close(&self, drain: Duration) -> BoxFuture<'_, CloseReport>;
    fn check(&self, is_full: bool) -> BoxFuture<'_, larder_actors::Result<Vec<String>>>;
    fn check_after_doubt(&self) -> BoxFuture<'_, ()>;
    fn flush(&self) -> BoxFuture<'_, larder_actors::Result<()>>;
    fn compact(&self) -> BoxFuture<'_, larder_actors::Result<Compaction>>;
}

impl<S: Store> RunningStore for StoreHandle<S> {
    fn name(&self) -> StoreName {
        S::NAME
    }

    fn observe(&self) -> StoreObservation {
        self.observe()
    }

    fn maintain(&self) {
        self.maintain();
    }

    fn checkpoint_if_due(&self) -> larder_actors::Result<()> {
        self.checkpoint_if_due()
    }

    fn close(&self, drain: Duration) -> BoxFuture<'_, CloseReport> {
        self.close(drain).boxed()
    }

    fn check(&self, is_full: bool) -> BoxFuture<'_, larder_actors::Result<Vec<String>>> {
        self.check(is_full).boxed()
    }

    fn check_after_doubt(&self) -> BoxFuture<'_, ()> {
        self.check_after_doubt().boxed()
    }

    fn flush(&self) -> BoxFuture<'_, larder_actors::Result<()>> {
        self.flush().boxed()
    }

    fn compact(&self) -> BoxFuture<'_, larder_actors::Result<Compaction>> {
        self.compact().boxed()
    }
}

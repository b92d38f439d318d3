//! Opening: one runtime per folder and process, however often it is opened.
//!
//! Start at [`open`]; [`Builder`] gathers settings for it.
//!
//! Always true: two runtimes of one process never have the same folder; an open that comes while the folder is being
//! closed waits for the end of that.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use larder_actors::chat::ChatSettings;
use larder_actors::documents::DocumentsSettings;
use larder_actors::embed_cache::EmbedCacheSettings;
use larder_actors::graph::GraphSettings;
use larder_actors::kv::KvSettings;
use larder_actors::vectors::VectorsSettings;

use crate::error::OpenError;
use crate::folder::Folder;
use crate::larder::{Larder, Shared};
use crate::settings::{Replicator, Settings, Sharing, StoreConfig};

/// The folders this process has open, by their canonical path.
static OPEN: Mutex<Option<HashMap<PathBuf, Weak<Shared>>>> = Mutex::new(None);
/// Notified when a folder is no longer open.
static CLOSED: Condvar = Condvar::new();

/// Gathers settings, then opens.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("data");
/// let larder = larder::Larder::builder(&path)
///     .exclusive()
///     .kv(|kv| kv.common.durability = larder::Durability::Relaxed)
///     .open()
///     .await?;
/// larder.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is opened before `open` is awaited"]
pub struct Builder {
    settings: Settings,
}

impl Builder {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Lets no other process open the folder; hot values are then answered from memory.
    pub fn exclusive(mut self) -> Self {
        self.settings.sharing = Sharing::Exclusive;
        self
    }

    /// Leaves checkpoints to a replicator such as Litestream.
    pub fn external_replicator(mut self) -> Self {
        self.settings.replicator = Replicator::External;
        self
    }

    /// Changes the key–value store's settings.
    pub fn kv(mut self, change: impl FnOnce(&mut StoreConfig<KvSettings>)) -> Self {
        change(&mut self.settings.kv);
        self
    }

    /// Changes the vectors store's settings.
    pub fn vectors(mut self, change: impl FnOnce(&mut StoreConfig<VectorsSettings>)) -> Self {
        change(&mut self.settings.vectors);
        self
    }

    /// Changes the graph store's settings.
    pub fn graph(mut self, change: impl FnOnce(&mut StoreConfig<GraphSettings>)) -> Self {
        change(&mut self.settings.graph);
        self
    }

    /// Changes the documents store's settings.
    pub fn documents(mut self, change: impl FnOnce(&mut StoreConfig<DocumentsSettings>)) -> Self {
        change(&mut self.settings.documents);
        self
    }

    /// Changes the chat store's settings.
    pub fn chat(mut self, change: impl FnOnce(&mut StoreConfig<ChatSettings>)) -> Self {
        change(&mut self.settings.chat);
        self
    }

    /// Changes the embedding cache's settings.
    pub fn embed_cache(mut self, change: impl FnOnce(&mut StoreConfig<EmbedCacheSettings>)) -> Self {
        change(&mut self.settings.embed_cache);
        self
    }

    /// Changes any setting.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Opens the folder.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(self) -> Result<Larder, OpenError> {
        Larder::open_with(self.settings).await
    }
}

/// Opens the folder, or joins this process's runtime that has it open. Blocks.
pub(crate) fn open(settings: Settings) -> Result<Larder, OpenError> {
    settings.check().map_err(OpenError::Settings)?;
    let mut registry = lock();
    loop {
        // The folder may not exist yet; then nobody here has it open.
        let known = settings.path.canonicalize().ok().and_then(|path| entries(&mut registry).get(&path).cloned());
        match known.map(|weak| weak.upgrade()) {
            None => break,
            Some(Some(shared)) => match shared.join(&settings)? {
                Some(larder) => return Ok(larder),
                // It is closing.
                None => registry = CLOSED.wait(registry).unwrap_or_else(PoisonError::into_inner),
            },
            // It was dropped, and its threads are still ending.
            Some(None) => registry = CLOSED.wait(registry).unwrap_or_else(PoisonError::into_inner),
        }
    }
    let folder = Folder::open(&settings.path, settings.sharing)?;
    let path = folder.path().to_owned();
    let shared = Arc::new(Shared::start(folder, settings)?);
    entries(&mut registry).insert(path, Arc::downgrade(&shared));
    Ok(Larder::of(shared))
}

/// Forgets a folder whose files are closed, and wakes whoever waits to open it.
pub(crate) fn forget(path: &Path) {
    entries(&mut lock()).remove(path);
    CLOSED.notify_all();
}

fn lock() -> MutexGuard<'static, Option<HashMap<PathBuf, Weak<Shared>>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entries(registry: &mut Option<HashMap<PathBuf, Weak<Shared>>>) -> &mut HashMap<PathBuf, Weak<Shared>> {
    registry.get_or_insert_default()
}

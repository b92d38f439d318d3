//! The folder that a command works on: which it is, which stores it has, and how it is opened.
//!
//! Start at [`Place::folder`] and [`Folder::open`].
//!
//! Always true: only `init`, `restore` and writes into a larder that is there make anything; whatever the tool opens evicts
//! and sweeps nothing, since the limits are the application's to set.

use std::path::{Path, PathBuf};
use std::time::Duration;

use larder::protocol::StoreName;
use larder::{Larder, Settings};

use crate::failure::Failure;

/// The stores' words, in the order in which they are shown.
pub(crate) const STORES: [StoreName; 6] =
    [StoreName::Kv, StoreName::Documents, StoreName::Chat, StoreName::Vectors, StoreName::Graph, StoreName::EmbedCache];

/// Longer than any command takes, so that there is no maintenance while one runs.
const NEVER: Duration = Duration::from_secs(1 << 30);
/// Commands of a person's wait for what takes long, such as counting a large store.
const DEADLINE: Duration = Duration::from_secs(600);

/// Where the user says the larder is.
#[derive(Debug)]
pub(crate) struct Place {
    /// By `--folder` or the environment.
    pub(crate) named: Option<PathBuf>,
}

impl Place {
    /// Returns the larder's folder, which must be there.
    pub(crate) fn folder(&self) -> Result<Folder, Failure> {
        let path = self.named.as_deref().unwrap_or(Path::new("."));
        if is_larder(path) {
            return Ok(Folder { path: path.to_owned() });
        }
        let failure = match &self.named {
            Some(path) if !path.exists() => Failure::not_found(format!("folder {} is not there", path.display())),
            Some(path) => Failure::not_found(format!("{} is no larder's folder", path.display())),
            None => Failure::not_found("the current folder is no larder's"),
        };
        Err(failure.with_hint("name one with --folder or LARDER_FOLDER, or make one with `larder init FOLDER`"))
    }
}

/// Tells a larder's folder by its lock file, or by a store, since one that was just restored was never locked.
pub(crate) fn is_larder(path: &Path) -> bool {
    path.join("larder.lock").is_file() || STORES.iter().any(|store| path.join(file_name(*store)).is_file())
}

pub(crate) fn file_name(store: StoreName) -> String {
    format!("{store}.db")
}

/// A larder's folder.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

impl Folder {
    pub(crate) fn file(&self, store: StoreName) -> PathBuf {
        self.path.join(file_name(store))
    }

    pub(crate) fn has(&self, store: StoreName) -> bool {
        self.file(store).is_file()
    }

    /// Opens the folder to read; `None` where it has no such store, since asking would make one.
    pub(crate) async fn open_store(&self, store: StoreName) -> Result<Option<Larder>, Failure> {
        if !self.has(store) {
            return Ok(None);
        }
        Ok(Some(self.open().await?))
    }

    /// Opens the folder to read.
    pub(crate) async fn open(&self) -> Result<Larder, Failure> {
        // Room for deletes on a full disk is for those who write.
        let mut settings = settings(&self.path);
        settings.ballast_bytes = 0;
        Ok(Larder::open_with(settings).await?)
    }

    /// Opens the folder to write.
    pub(crate) async fn open_to_write(&self) -> Result<Larder, Failure> {
        Ok(Larder::open_with(settings(&self.path)).await?)
    }
}

/// Returns settings under which nothing goes that an application keeps: no limit of the tool's evicts, sweeps or refuses what
/// is larger than its own.
pub(crate) fn settings(path: &Path) -> Settings {
    let mut settings = Settings::at(path);
    settings.maintenance_interval = NEVER;
    settings.kv.own.value_bytes_max = 512 << 20;
    settings.documents.own.node_bytes_max = 64 << 20;
    settings.documents.own.document_bytes_max = 256 << 20;
    settings.chat.own.message_bytes_max = 64 << 20;
    settings.vectors.own.payload_bytes_max = 64 << 20;
    settings.graph.own.payload_bytes_max = 64 << 20;
    settings.embed_cache.own.value_bytes_max = 64 << 20;
    settings.embed_cache.own.bytes_max = None;
    settings.embed_cache.own.entries_max = None;
    // What is deleted here is overwritten, whether the application asks for that or not.
    settings.chat.own.secure_delete = true;
    for common in [
        &mut settings.kv.common,
        &mut settings.documents.common,
        &mut settings.chat.common,
        &mut settings.vectors.common,
        &mut settings.graph.common,
        &mut settings.embed_cache.common,
    ] {
        common.keeps_tokenizer = true;
        common.deadline = DEADLINE;
        common.reader_age_max = DEADLINE;
        common.queue_bytes_max = 1 << 30;
    }
    settings
}

//! A cache whose file is damaged goes on with an empty one: the damaged files are set aside, and nobody is asked.
//!
//! Start at [`whenever_damaged`].
//!
//! Always true: what is set aside is moved, never removed; a file that another process has open stays where it is until that
//! has noticed the damage, too, or is gone.

use std::path::PathBuf;
use std::time::Duration;

use larder_actors::Result;
use larder_actors::sqlite::connection::StoreFile;
use larder_actors::sqlite::presence::Presence;
use larder_actors::store::{Replacement, StoreEvent, StoreHandle, StoreState, presence_path};
use larder_protocol::{Error as Kind, StoreName, Written};
use tokio::runtime::Handle;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::quarantine;
use crate::stores::Hosted;

/// How soon it is tried again where another process has the file open. Until then the cache computes and keeps nothing.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Sets a damaged file aside that could not even be opened.
pub(crate) async fn begin_anew(runtime: &Handle, folder: PathBuf, store: StoreName) -> Result<()> {
    let set_aside = runtime.spawn_blocking(move || {
        let alone = Presence::alone(&presence_path(&folder, store));
        let _alone = alone.map_err(|_| Kind::Refused {
            what: format!("{store} store"),
            reason: "it is damaged, and another process has its file open".to_owned(),
        })?;
        quarantine::set_aside(&folder, store)
    });
    set_aside.await.unwrap_or_else(|_| Err(Kind::ShuttingDown { store, written: Written::NotApplied }.into()))
}

/// Begins the store's file anew whenever it is quarantined, until the store is over.
pub(crate) async fn whenever_damaged<S: Hosted>(
    store: StoreHandle<S>,
    file: StoreFile,
    mut events: broadcast::Receiver<StoreEvent>,
) {
    let mut damaged = identity(&file);
    loop {
        match store.observe().state {
            StoreState::Quarantined => {
                let replaced = store.replace_file(replacement(&file, damaged)).await;
                match replaced {
                    Ok(()) => {
                        damaged = identity(&file);
                        tracing::warn!(store = %S::NAME, "a damaged cache was set aside; it begins anew");
                    }
                    Err(error) => {
                        tracing::debug!(store = %S::NAME, %error, "a damaged cache cannot be set aside yet");
                        let _ = tokio::time::timeout(TRY_AGAIN, std::future::pending::<()>()).await;
                    }
                }
                continue;
            }
            StoreState::Stopped | StoreState::Failed => return,
            _ => {}
        }
        if matches!(events.recv().await, Err(RecvError::Closed)) {
            return;
        }
    }
}

fn replacement(file: &StoreFile, damaged: Option<u64>) -> Replacement {
    let (seen, swapped) = (file.clone(), file.clone());
    Replacement {
        is_done: Box::new(move || identity(&seen).is_some_and(|now| Some(now) != damaged)),
        swap: Box::new(move || {
            let folder = swapped.path.parent().map(PathBuf::from).unwrap_or_default();
            quarantine::set_aside(&folder, swapped.store)?;
            swapped.prepare()
        }),
    }
}

/// Tells one file from another that took its place.
fn identity(file: &StoreFile) -> Option<u64> {
    let metadata = file.path.metadata().ok()?;
    #[cfg(unix)]
    return Some(std::os::unix::fs::MetadataExt::ino(&metadata));
    #[cfg(not(unix))]
    metadata.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_nanos() as u64)
}

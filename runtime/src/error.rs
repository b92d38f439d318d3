//! Why a larder could not be opened.

use std::path::PathBuf;

/// Why a larder could not be opened. Nothing was changed in the folder, except that it may have been created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its range.
    #[error(transparent)]
    Settings(larder_protocol::Error),
    /// The folder cannot be created, read or written.
    #[error("folder {path} cannot be used while {doing}")]
    Folder {
        /// Which folder or file in it.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The folder is on a file system whose locks do not hold.
    #[error("folder {path} is on {file_system}, whose locks larder cannot rely on; use a local disk")]
    UnsupportedFileSystem {
        /// Which folder.
        path: PathBuf,
        /// Which file system.
        file_system: String,
    },
    /// Another process has the folder open in a way that excludes this one.
    #[error("folder {path} is held by another process: {held_by}")]
    Held {
        /// Which folder.
        path: PathBuf,
        /// What is known of the holder.
        held_by: String,
    },
    /// This process has the folder open already, with other settings.
    #[error("folder {path} is already open in this process with other settings: {difference}")]
    OtherSettings {
        /// Which folder.
        path: PathBuf,
        /// Which setting differs first.
        difference: String,
    },
    /// The runtime's own threads could not be started.
    #[error("the runtime's threads could not be started")]
    Threads(#[source] std::io::Error),
}

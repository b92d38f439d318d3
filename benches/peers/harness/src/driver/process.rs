//! Peers as processes, and the folders their turns run in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use peer_harness::Result;
use peer_harness::peer::Request;
use serde::de::DeserializeOwned;

use crate::options::Options;

/// The peers that are built, and the data folder, which is removed at the end.
pub(crate) struct Processes {
    store: String,
    programs: PathBuf,
    pub(crate) peers: Vec<String>,
    pub(crate) missing: Vec<String>,
    pub(crate) data: PathBuf,
}

impl Processes {
    /// Looks for the chosen peers' programs beside this one, and makes the data folder.
    pub(crate) fn find(options: &Options) -> Result<Self> {
        let this = std::env::current_exe()?;
        let programs = this.parent().ok_or("this program has no folder")?.to_owned();
        let is_built = |peer: &String| programs.join(program_name(peer)).exists();
        let (peers, missing): (Vec<_>, Vec<_>) = options.peers.iter().cloned().partition(is_built);
        if peers.is_empty() {
            return Err("none of the chosen peers is built".into());
        }
        let parent = options.folder.clone().unwrap_or_else(|| programs.clone());
        let data = parent.join(format!("larder-peers-{}", std::process::id()));
        fs::create_dir_all(&data).map_err(|error| format!("cannot make {}: {error}", data.display()))?;
        Ok(Self { store: options.run.store.to_owned(), programs, peers, missing, data: data.canonicalize()? })
    }

    /// Starts `peer` with `request` and waits for its answer.
    pub(crate) fn ask<T: DeserializeOwned>(&self, peer: &str, request: &Request) -> Result<T> {
        let output = Command::new(self.programs.join(program_name(peer)))
            .arg(&self.store)
            .arg(serde_json::to_string(request)?)
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("{peer} failed ({}) at {request:?}", output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The folder of `peer`'s entries that turns copy.
    pub(crate) fn prepared(&self, peer: &str) -> PathBuf {
        self.data.join("prepared").join(peer)
    }

    /// An empty folder for one turn; earlier ones are gone.
    pub(crate) fn empty_folder(&self) -> Result<PathBuf> {
        let folder = self.data.join("turn");
        remove(&folder)?;
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A copy of `peer`'s prepared entries, and everything written so far, on the disk.
    pub(crate) fn copied_folder(&self, peer: &str) -> Result<PathBuf> {
        let folder = self.data.join("turn");
        remove(&folder)?;
        // `cp` keeps holes (fjall preallocates its journal), `std::fs::copy` would write them out.
        succeed(Command::new("cp").arg("-R").arg(self.prepared(peer)).arg(&folder))?;
        // What others left for the kernel to write must not slow this peer.
        succeed(Command::new("sync").arg("-f").arg(&self.data))?;
        Ok(folder)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.data) {
            eprintln!("{} could not be removed: {error}", self.data.display());
        }
    }
}

fn program_name(peer: &str) -> String {
    format!("peer-{peer}{}", std::env::consts::EXE_SUFFIX)
}

/// Removes a folder that may be missing.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

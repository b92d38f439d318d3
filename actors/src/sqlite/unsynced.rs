//! The mark of a file whose WAL may hold frames that a failed sync lost: it outlives the process that saw the failure, and
//! ends when the machine was started anew, since from then on the WAL holds what the disk does.
//!
//! Start at [`is_marked`].
//!
//! Always true: a mark that cannot be read counts as one.

use std::path::Path;

/// Marks the file at `mark`'s place. Best effort: the disk is one whose syncs fail.
#[expect(clippy::disallowed_methods, reason = "a mark beside the lock files, not a store's file")]
pub(crate) fn set(mark: &Path) {
    if let Err(error) = std::fs::write(mark, boot_id()) {
        tracing::error!(%error, mark = %mark.display(), "a failed sync cannot be remembered beyond this process");
    }
}

/// Tells whether a sync failed since the machine was started; forgets a mark from before that.
#[expect(clippy::disallowed_methods, reason = "a mark beside the lock files, not a store's file")]
pub(crate) fn is_marked(mark: &Path) -> bool {
    match std::fs::read_to_string(mark) {
        Ok(text) if text != boot_id() => {
            // One that stays is found to be old again.
            let _ = std::fs::remove_file(mark);
            false
        }
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Names this start of the machine. Where it has no name, a mark lasts until the file is replaced.
#[expect(clippy::disallowed_methods, reason = "the kernel's own file")]
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a mark, not a store's file")]
mod tests {
    use super::*;

    #[test]
    fn mark_lasts_until_the_machine_is_started_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("kv.unsynced");
        assert!(!is_marked(&mark));
        set(&mark);
        assert!(is_marked(&mark));
        std::fs::write(&mark, "another start").unwrap();
        assert!(!is_marked(&mark));
        assert!(!mark.exists());
    }
}

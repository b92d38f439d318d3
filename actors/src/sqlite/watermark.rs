//! How far the writes of a store may have come, told beside SQLite: who keeps rows in memory learns in less than a µs, and without a
//! transaction, that nothing was committed since (decision 0025).
//!
//! Start at [`Watermark::is_at`].
//!
//! Always true: before a commit can be seen, whoever holds the write lock has raised the mark to the sequence that it ends with. So
//! where the mark is at a sequence that was seen to be committed, that is the newest. A commit that failed leaves the mark too high,
//! which says nothing.

use std::fs::File;
use std::io::Result;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_protocol::Sequence;

use super::lock_file;

/// The mark of one store.
#[derive(Debug)]
pub(crate) enum Watermark {
    /// No other process writes.
    Alone(AtomicU64),
    /// For all processes, as [`bytes_of`] has it.
    Shared(File),
}

impl Watermark {
    /// Opens the mark at `path`; `None`: that of a folder of one process.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::Alone(AtomicU64::new(0))) };
        let file = lock_file::open(path)?;
        if file.metadata()?.len() == 0 {
            // Its room is had before a disk is full; where it is full already, the first commit finds that out.
            let _ = write_at_start(&file, &bytes_of(Sequence(0)));
        }
        Ok(Self::Shared(file))
    }

    /// Says what is committed when this process begins to write, which other processes would have said.
    pub(crate) fn begin(&self, newest: Sequence) {
        if let Self::Alone(mark) = self {
            mark.store(newest.0, Ordering::SeqCst);
        }
    }

    /// Says that a commit which ends with `sequence` may follow. Only for who holds the write lock.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing may be committed.
    pub(crate) fn raise(&self, sequence: Sequence) -> Result<()> {
        match self {
            Self::Alone(mark) => mark.store(sequence.0, Ordering::SeqCst),
            Self::Shared(file) => write_at_start(file, &bytes_of(sequence))?,
        }
        Ok(())
    }

    /// Tells whether `sequence`, which was seen to be committed, is still the newest that is; false also where that is not known.
    pub(crate) fn is_at(&self, sequence: Sequence) -> bool {
        match self {
            Self::Alone(mark) => mark.load(Ordering::SeqCst) == sequence.0,
            Self::Shared(file) => {
                let mut mark = [0; MARK_BYTES];
                matches!(read_at_start(file, &mut mark), Ok(MARK_BYTES)) && mark == bytes_of(sequence)
            }
        }
    }
}

const MARK_BYTES: usize = 16;

/// Returns the mark's bytes: the number, little endian, and then its complement, so that half of one mark and half of another are none.
fn bytes_of(sequence: Sequence) -> [u8; MARK_BYTES] {
    (u128::from(sequence.0) | u128::from(!sequence.0) << 64).to_le_bytes()
}

#[cfg(unix)]
fn read_at_start(file: &File, bytes: &mut [u8]) -> Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, 0)
}

#[cfg(unix)]
fn write_at_start(file: &File, bytes: &[u8]) -> Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, 0)
}

#[cfg(windows)]
fn read_at_start(file: &File, bytes: &mut [u8]) -> Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, 0)
}

#[cfg(windows)]
fn write_at_start(file: &File, bytes: &[u8]) -> Result<()> {
    match std::os::windows::fs::FileExt::seek_write(file, bytes, 0)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(std::io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "not a file of SQLite's")]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_raises_another_sees() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.watermark");
        let [one, other] = [(); 2].map(|()| Watermark::open(Some(&path)).unwrap());
        assert!(other.is_at(Sequence(0)) && !other.is_at(Sequence(1)), "nobody has written");
        one.raise(Sequence(7)).unwrap();
        assert!(other.is_at(Sequence(7)) && !other.is_at(Sequence(6)));
        // As after a commit that failed.
        other.raise(Sequence(6)).unwrap();
        assert!(one.is_at(Sequence(6)) && !one.is_at(Sequence(7)));
    }

    #[test]
    fn mark_that_was_read_in_the_middle_of_a_write_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.watermark");
        let mark = Watermark::open(Some(&path)).unwrap();
        // Of the low bytes of both, some mixture is another number that a reader may be at.
        let (old, new) = (bytes_of(Sequence(0x01FF)), bytes_of(Sequence(0x0200)));
        for half in 1..MARK_BYTES {
            let mut torn = new;
            torn[..half].copy_from_slice(&old[..half]);
            std::fs::write(&path, torn).unwrap();
            let is_one = (0..0x0400).any(|sequence| mark.is_at(Sequence(sequence)));
            assert_eq!(is_one, torn == old || torn == new, "{half} bytes");
        }
    }

    #[test]
    fn mark_of_a_folder_of_one_process_needs_no_file() {
        let alone = Watermark::open(None).unwrap();
        alone.begin(Sequence(5));
        assert!(alone.is_at(Sequence(5)));
        alone.raise(Sequence(7)).unwrap();
        assert!(alone.is_at(Sequence(7)) && !alone.is_at(Sequence(6)));
    }
}

//! Writing a store's file anew, so that it is as large as what is in it.
//!
//! Start at [`StoreHandle::compact`](super::StoreHandle::compact). Pages that are free altogether are given back bit by bit;
//! those of which half is free are only filled again by rows that belong there, and rows that were deleted here and there
//! leave a file of such pages.
//!
//! Always true: readers go on with what they see; a crash, a full disk or a close leaves the file as it was.

use rusqlite::Connection;

/// How large a store's file was and is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after. The file shrinks to that once no reader, in any process, sees what was before.
    pub bytes_after: u64,
}

/// Writes the database anew, in one transaction.
///
/// # Source
/// <https://sqlite.org/lang_vacuum.html>: a copy is made in a temporary file, and comes back through the WAL.
pub(super) fn write_anew(connection: &Connection, page_bytes: u32) -> rusqlite::Result<Compaction> {
    let bytes = || -> rusqlite::Result<u64> {
        let page_count: u64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        Ok(page_count * u64::from(page_bytes))
    };
    let bytes_before = bytes()?;
    connection.execute_batch("VACUUM")?;
    Ok(Compaction { bytes_before, bytes_after: bytes()? })
}

//! Bringing a file to the current schema, and refusing one that is not ours or newer.
//!
//! Start at [`FileSchema`]; `connection` calls `identify` before anything may change the file.
//!
//! Always true: a refused file is not written to; a migration is applied whole or not at all.

use rusqlite::Connection;

use larder_protocol::Error as Kind;

use super::busy;
use crate::error::{Error, Result};

/// One step of the schema: plain SQL, applied inside a transaction. Released steps never change.
pub type Migration = &'static str;

/// Which file a store keeps, and how its schema came to be.
#[derive(Debug, Clone, Copy)]
pub struct FileSchema {
    /// SQLite's `application_id`, which tells the file from any other program's and any other store's.
    pub application_id: i32,
    /// Bytes of a database page, fixed when the file is created.
    pub page_bytes: u32,
    /// The steps, oldest first; `user_version` is how many were applied.
    pub migrations: &'static [Migration],
}

impl FileSchema {
    /// Returns the schema version this build reads and writes.
    #[must_use]
    pub fn version(&self) -> i32 {
        i32::try_from(self.migrations.len()).unwrap_or(i32::MAX)
    }
}

/// What a file is, before anything is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// Nothing was ever stored in it: a new file, or one whose creator died before the first commit.
    Empty,
    /// Ours, at this version, which is not newer than the build's.
    Ours(i32),
}

/// Tells whether the file behind `connection` may be used, without changing it. `file` names it in errors.
pub(super) fn identify(connection: &Connection, schema: &FileSchema, file: &str) -> Result<Identity> {
    // One transaction: another process may be creating the file at this very moment.
    let read = || {
        let transaction = connection.unchecked_transaction()?;
        let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let (application_id, version) = (pragma("application_id")?, pragma("user_version")?);
        let object_count =
            transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
        Ok((application_id, version, object_count))
    };
    let (application_id, version, object_count) = busy::retry(read).map_err(|e| refused(file, e))?;
    match (application_id, version) {
        (id, version) if id == schema.application_id && version <= schema.version() => Ok(Identity::Ours(version)),
        (id, version) if id == schema.application_id => Err(newer(file, version, schema)),
        (0, 0) if object_count == 0 => Ok(Identity::Empty),
        _ => Err(Kind::Refused {
            what: format!("file {file}"),
            reason: format!("it belongs to another application or store (application id {application_id:#x})"),
        }
        .into()),
    }
}

fn newer(file: &str, version: i32, schema: &FileSchema) -> Error {
    let supported = schema.version();
    Kind::Refused {
        what: format!("file {file}"),
        reason: format!(
            "its schema version {version} is newer than {supported}, the newest this build of larder knows"
        ),
    }
    .into()
}

fn refused(file: &str, error: rusqlite::Error) -> Error {
    let reason = format!("it cannot be read as a database ({error})");
    Error::caused_by(Kind::Refused { what: format!("file {file}"), reason }, error)
}

/// Applies the steps that the file lacks, in one transaction; another process may have done so meanwhile.
pub(super) fn migrate(connection: &mut Connection, schema: &FileSchema) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let applied: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let applied_count = usize::try_from(applied).unwrap_or(0);
    for step in schema.migrations.iter().skip(applied_count) {
        transaction.execute_batch(step)?;
    }
    if applied_count < schema.migrations.len() {
        transaction.pragma_update(None, "application_id", schema.application_id)?;
        transaction.pragma_update(None, "user_version", schema.version())?;
    }
    transaction.commit()
}

/// What SQLite's own ANALYZE leaves, which anybody may have run.
const STATISTICS: [&str; 2] =
    ["CREATE TABLE sqlite_stat1(tbl,idx,stat)", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"];

/// Returns the (name, SQL) of everything in the file's schema that SQLite did not make itself, in name order. A name that
/// SQLite keeps for itself says nothing: whoever writes the schema's own table can give it to a trigger.
fn schema_objects(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement =
        connection.prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")?;
    let objects = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    objects.filter(|object| !object.as_ref().is_ok_and(|(_, sql): &(_, String)| STATISTICS.contains(&&**sql))).collect()
}

/// Compares the file's schema with what the migrations make, so that a planted trigger or view never runs.
///
/// `is_expected` may accept further objects that the store itself creates at run time.
pub(super) fn verify_schema(
    connection: &Connection,
    reference: &Connection,
    is_expected: impl Fn(&str, &str) -> bool,
) -> rusqlite::Result<Option<String>> {
    let expected = schema_objects(reference)?;
    let found = schema_objects(connection)?;
    let surplus = found.iter().find(|object| !expected.contains(object) && !is_expected(&object.0, &object.1));
    if let Some((name, _)) = surplus {
        return Ok(Some(format!("its schema holds {name:?}, which larder did not make")));
    }
    let missing = expected.iter().find(|object| !found.contains(object));
    Ok(missing.map(|(name, _)| format!("its schema lacks {name:?}, or has it changed")))
}

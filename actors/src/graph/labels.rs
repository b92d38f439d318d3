//! Labels as numbers: each text is stored once.
//!
//! Start at [`Labels`]. Labels are never deleted; there are as many as a program has words for kinds and relations.

use std::collections::HashMap;
use std::sync::Arc;

use larder_protocol::Label;
use rusqlite::{Connection, OptionalExtension, params};

use super::row::{checksum, damaged};
use crate::graph_index::KeyHash;
use crate::store::{Outcome, decoded};

/// The labels that one request has met.
#[derive(Debug)]
pub(super) struct Labels<'a> {
    connection: &'a Connection,
    /// What readers have met before.
    known: Arc<HashMap<i64, Label, KeyHash>>,
    texts: HashMap<i64, Label, KeyHash>,
    keys: HashMap<Label, i64>,
}

impl<'a> Labels<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self::knowing(connection, Arc::default())
    }

    /// The same with what is known already, which must be committed.
    pub(super) fn knowing(connection: &'a Connection, known: Arc<HashMap<i64, Label, KeyHash>>) -> Self {
        Self { connection, known, texts: HashMap::default(), keys: HashMap::new() }
    }

    /// Returns whether a label that is known already has this text.
    pub(super) fn is_known_as(&self, key: i64, label: &Label) -> bool {
        self.known.get(&key) == Some(label)
    }

    /// Returns what was not known.
    pub(super) fn into_new(self) -> HashMap<i64, Label, KeyHash> {
        self.texts
    }

    /// Returns the text of a label.
    pub(super) fn text(&mut self, key: i64) -> Outcome<Label> {
        if let Some(label) = self.known.get(&key).or_else(|| self.texts.get(&key)) {
            return Ok(label.clone());
        }
        let label = read(self.connection, key)?;
        self.texts.insert(key, label.clone());
        Ok(label)
    }

    /// Returns the number of a label; `None`: nothing has it.
    pub(super) fn find(&mut self, label: &Label) -> Outcome<Option<i64>> {
        if let Some(key) = self.keys.get(label) {
            return Ok(Some(*key));
        }
        let found = find(self.connection, label)?;
        if let Some(key) = found {
            self.keys.insert(label.clone(), key);
        }
        Ok(found)
    }

    /// Returns the number of a label, which gets one if it has none.
    pub(super) fn intern(&mut self, label: &Label) -> Outcome<i64> {
        if let Some(key) = self.find(label)? {
            return Ok(key);
        }
        let key: i64 = self
            .connection
            .prepare_cached("SELECT coalesce(max(key), 0) + 1 FROM label")?
            .query_row([], |row| row.get(0))?;
        self.connection
            .prepare_cached("INSERT INTO label (key, text, checksum) VALUES (?1, ?2, ?3)")?
            .execute(params![key, label.as_str(), label_checksum(key, label.as_str())])?;
        self.keys.insert(label.clone(), key);
        Ok(key)
    }
}

pub(super) fn find(connection: &Connection, label: &Label) -> Outcome<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT key, checksum FROM label WHERE text = ?1")?;
    let row: Option<(i64, i64)> =
        statement.query_row([label.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match row {
        Some((key, stored)) if stored != label_checksum(key, label.as_str()) => Err(damaged_label(key)),
        found => Ok(found.map(|(key, _)| key)),
    }
}

pub(super) fn read(connection: &Connection, key: i64) -> Outcome<Label> {
    let mut statement = connection.prepare_cached("SELECT text, checksum FROM label WHERE key = ?1")?;
    let mut rows = statement.query([key])?;
    let row = rows.next()?.ok_or_else(|| damaged_label(key))?;
    let read = || -> rusqlite::Result<Option<Label>> {
        let (text, stored): (String, i64) = (row.get(0)?, row.get(1)?);
        Ok(Label::new(&text).ok().filter(|_| stored == label_checksum(key, &text)))
    };
    decoded(read(), || damaged_label(key))
}

/// Returns every label there is.
pub(super) fn all(connection: &Connection) -> Outcome<Vec<(i64, Label)>> {
    let mut statement = connection.prepare_cached("SELECT key FROM label ORDER BY key")?;
    let keys = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    keys.into_iter().map(|key| Ok((key, read(connection, key)?))).collect()
}

fn label_checksum(key: i64, text: &str) -> i64 {
    checksum(&[Some(key)], &[Some(text)])
}

fn damaged_label(key: i64) -> crate::store::Failure {
    damaged(format!("the label {key} does not match its checksum"))
}

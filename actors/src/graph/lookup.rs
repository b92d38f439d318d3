//! Finding entities by what they are called or described as.

use std::collections::HashMap;

use larder_protocol::full_text::TextQuery;
use larder_protocol::graph::{EntityHit, EntityLookup, LookUpEntities};
use larder_protocol::limits::{ENTITY_NAME_BYTES_MAX, PAGE_ROWS_MAX};
use larder_protocol::{EntityName, Error as Kind};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};

use super::delete::TOUCHED_KEPT;
use super::entities;
use super::labels::Labels;
use super::memory::hold;
use super::names::{self, NAME, Name};
use super::row::{ENTITY, EntityRow};
use super::store::Reading;
use crate::full_text;
use crate::graph_index::{KeyHash, NamePattern, Spelling};
use crate::store::Outcome;

pub(super) fn look_up(context: &Reading<'_>, message: &LookUpEntities) -> Outcome<Vec<EntityHit>> {
    if message.limit > PAGE_ROWS_MAX {
        return Err(Kind::invalid("limit", format!("{} is over {PAGE_ROWS_MAX}", message.limit)).into());
    }
    // Held before the transaction begins, so that nobody takes the names further than it sees.
    let mut names = match &message.by {
        EntityLookup::Misspelt(_) => Some(hold(&context.memory.names, context.is_in_place)?),
        _ => None,
    };
    context.at_one_instant(|connection| {
        let label_key = match &message.label {
            Some(label) => Some(entities::label_key(connection, label)?),
            None => None,
        };
        let found = Looked { connection, label_key, limit: message.limit };
        match &message.by {
            EntityLookup::Exact(text) => found.by_name(text, "name.name = ?1", []),
            EntityLookup::Prefix(text) => match end_of_prefix(text) {
                Some(end) => found.by_name(text, "name.name >= ?1 AND name.name < ?", [Sql::Text(end)]),
                None => found.by_name(text, "name.name >= ?1", []),
            },
            EntityLookup::Text(query) => found.by_text(context, query),
            EntityLookup::Misspelt(text) => match names.as_deref_mut() {
                Some(names) => found.by_spelling(context, names, text),
                None => found.by_every_name(context, text),
            },
            _ => Err(Kind::invalid("lookup", "it is of a kind that is not known here").into()),
        }
    })
}

/// Most that a misspelt lookup finds.
const MISSPELT_MAX: usize = 1_000;
/// So many names may have been changed before the index of spellings is made anew, and a share of all.
const CHANGED_MIN: usize = 1_000;
const CHANGED_SHARE: usize = 8;

/// The names in memory for misspelt lookups, and how far they have come.
#[derive(Debug)]
pub(super) struct Names {
    spelling: Spelling,
    to: i64,
    /// Of entities that were touched since: what was pushed of them before this is no longer so.
    valid_from: HashMap<i64, usize, KeyHash>,
}

impl Names {
    fn load(connection: &Connection, newest: i64, bytes_max: usize) -> Outcome<Option<Self>> {
        let mut names = Self { spelling: Spelling::default(), to: newest, valid_from: HashMap::default() };
        let mut statement = connection.prepare_cached(&format!("SELECT {NAME} FROM name ORDER BY name, label_key"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name = Name::read(row)?;
            names.spelling.push(name.entity_key, &name.name);
            if names.spelling.bytes() > bytes_max.min(Spelling::BYTES_MAX) {
                return Ok(None);
            }
        }
        Ok(Some(names))
    }

    fn can_follow(&self, newest: i64) -> bool {
        let is_light = self.valid_from.len() <= CHANGED_MIN.max(self.spelling.len() / CHANGED_SHARE);
        is_light && (0..=TOUCHED_KEPT).contains(&(newest - self.to))
    }

    fn follow(&mut self, connection: &Connection, newest: i64) -> Outcome<()> {
        if self.to == newest {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(
            "SELECT DISTINCT key FROM touched WHERE sequence > ?1 AND subject IS NULL
             UNION SELECT key FROM entity WHERE key > ?1 ORDER BY key",
        )?;
        let keys = statement.query_map([self.to], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
        for key in keys {
            self.valid_from.insert(key, self.spelling.len());
            if let Some(entity) = EntityRow::find(connection, key)?.filter(EntityRow::is_live) {
                for name in names::all(connection, &entity)? {
                    self.spelling.push(key, &name.name);
                }
            }
        }
        self.to = newest;
        Ok(())
    }
}

/// Returns the least text behind all that begin with `prefix`; `None`: there is none.
fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // UTF-8 sorts by code points; surrogates are none.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// A lookup on its way.
struct Looked<'a> {
    connection: &'a Connection,
    label_key: Option<i64>,
    limit: usize,
}

impl Looked<'_> {
    fn by_name<const N: usize>(&self, text: &str, condition: &str, parameters: [Sql; N]) -> Outcome<Vec<EntityHit>> {
        check_text(text)?;
        let mut parameters = [Sql::Text(text.to_owned())].into_iter().chain(parameters).collect::<Vec<_>>();
        let label = if let Some(label_key) = self.label_key {
            parameters.push(Sql::Integer(label_key));
            "AND name.label_key = ?"
        } else {
            ""
        };
        let limit = self.limit;
        let sql = format!(
            "SELECT {NAME} FROM name WHERE {condition} {label} ORDER BY name.name, name.label_key LIMIT {limit}"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(parameters))?;
        let mut labels = Labels::new(self.connection);
        let mut hits = Vec::new();
        while let Some(row) = rows.next()? {
            let name = Name::read(row)?;
            let entity = EntityRow::require(self.connection, name.entity_key)?.summary(&mut labels)?;
            hits.push(EntityHit { entity, matched: Some(EntityName::from_stored(&name.name)), score: 1.0 });
        }
        Ok(hits)
    }

    fn by_spelling(&self, context: &Reading<'_>, held: &mut Option<Names>, text: &str) -> Outcome<Vec<EntityHit>> {
        check_text(text)?;
        if self.limit > MISSPELT_MAX {
            return Err(Kind::invalid("limit", format!("{} is over {MISSPELT_MAX}", self.limit)).into());
        }
        let newest = context.newest_sequence()?.0.cast_signed();
        if !held.as_ref().is_some_and(|names| names.can_follow(newest)) {
            *held = Names::load(self.connection, newest, context.memory.bytes_max())?;
        }
        let Some(names) = held.as_mut() else { return self.by_every_name(context, text) };
        if let Err(error) = names.follow(self.connection, newest) {
            *held = None;
            return Err(error);
        }
        let is_current = |at, key| names.valid_from.get(&key).is_none_or(|from| at >= *from);
        // An entity may be found by several names, and be of another label.
        let mut wanted = self.limit;
        let mut best = Vec::new();
        loop {
            let found = names.spelling.find(text, wanted, is_current);
            best.clear();
            for spelled in &found {
                if !best.iter().any(|(key, _)| *key == spelled.key) && self.is_wanted(spelled.key)? {
                    best.push((spelled.key, spelled.score));
                }
            }
            if best.len() >= self.limit || found.len() < wanted {
                break;
            }
            wanted *= 4;
        }
        best.truncate(self.limit);
        self.spelled_hits(context, text, &best)
    }

    fn is_wanted(&self, key: i64) -> Outcome<bool> {
        let Some(label_key) = self.label_key else { return Ok(true) };
        Ok(EntityRow::require(self.connection, key)?.label_key == label_key)
    }

    /// Compares every name letter by letter, where their index does not fit in memory.
    fn by_every_name(&self, context: &Reading<'_>, text: &str) -> Outcome<Vec<EntityHit>> {
        let mut statement = self.connection.prepare_cached(&format!("SELECT {NAME} FROM name"))?;
        let mut rows = statement.query([])?;
        let mut best: Vec<(i64, f64)> = Vec::new();
        let pattern = NamePattern::new(text);
        while let Some(row) = rows.next()? {
            let name = Name::read(row)?;
            let score = pattern.likeness(&name.name);
            let is_near = best.len() < self.limit || best.last().is_some_and(|last| score > last.1);
            if !is_near || score <= 0.0 || !self.is_wanted(name.entity_key)? {
                continue;
            }
            match best.iter_mut().find(|(key, _)| *key == name.entity_key) {
                Some(known) => known.1 = known.1.max(score),
                None => best.push((name.entity_key, score)),
            }
            best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            best.truncate(self.limit);
        }
        self.spelled_hits(context, text, &best)
    }

    fn spelled_hits(&self, context: &Reading<'_>, text: &str, best: &[(i64, f64)]) -> Outcome<Vec<EntityHit>> {
        let mut labels = Labels::knowing(self.connection, context.memory.labels());
        let pattern = NamePattern::new(text);
        let mut hits = Vec::with_capacity(best.len());
        for (key, score) in best {
            let entity = EntityRow::require(self.connection, *key)?;
            // Only who was found by another name is asked for all of them.
            let matched = if pattern.likeness(&entity.name) >= *score {
                Some(EntityName::from_stored(&entity.name))
            } else {
                let all = names::all(self.connection, &entity)?;
                let nearest = all.iter().max_by(|a, b| pattern.likeness(&a.name).total_cmp(&pattern.likeness(&b.name)));
                nearest.map(|name| EntityName::from_stored(&name.name))
            };
            hits.push(EntityHit { entity: entity.summary(&mut labels)?, matched, score: *score });
        }
        context.memory.learn(labels.into_new());
        Ok(hits)
    }

    fn by_text(&self, context: &Reading<'_>, query: &TextQuery) -> Outcome<Vec<EntityHit>> {
        let Some(query) = full_text::typed_query(query, context.settings.tokenizer)? else { return Ok(Vec::new()) };
        let (label, mut parameters) = ("AND entity.label_key = ?2", vec![Sql::Text(query)]);
        parameters.extend(self.label_key.map(Sql::Integer));
        let sql = format!(
            "SELECT {ENTITY}, -entity_text.rank FROM entity_text CROSS JOIN entity ON entity.key = entity_text.rowid
             WHERE entity_text MATCH ?1 {} ORDER BY entity_text.rank, entity.key LIMIT {}",
            if self.label_key.is_some() { label } else { "" },
            self.limit
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(parameters))?;
        let mut labels = Labels::new(self.connection);
        let mut hits = Vec::new();
        while let Some(row) = rows.next()? {
            let entity = EntityRow::read(row)?.summary(&mut labels)?;
            hits.push(EntityHit { entity, matched: None, score: row.get(8)? });
        }
        Ok(hits)
    }
}

/// Refuses a text longer than any name.
pub(super) fn check_text(text: &str) -> Outcome<()> {
    let (bytes, bytes_max) = (text.len() as u64, ENTITY_NAME_BYTES_MAX as u64);
    if bytes > bytes_max {
        return Err(Kind::TooLarge { what: "lookup".to_owned(), bytes, bytes_max }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_before_the_next_text() {
        assert_eq!(end_of_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(end_of_prefix("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(end_of_prefix("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(end_of_prefix("\u{10ffff}"), None);
        assert_eq!(end_of_prefix(""), None);
    }
}

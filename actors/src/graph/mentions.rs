//! What says something about entities whose names a text holds.

use std::collections::{BTreeMap, HashMap, HashSet};

use larder_protocol::graph::{FindMentions, Mention};
use larder_protocol::limits::MENTIONED_NAMES_MAX;
use larder_protocol::{Error as Kind, SourceId};
use rusqlite::{Connection, params};

use super::labels::Labels;
use super::names::{NAME, Name};
use super::row::{EntityRow, RELATION, RelationRow};
use super::sources;
use super::store::Reading;
use crate::store::{Outcome, check_limit};

/// Most facts of one entity that are looked at.
const FACTS_MAX: usize = 1_000;

pub(super) fn find(context: &Reading<'_>, message: &FindMentions) -> Outcome<Vec<Mention>> {
    check_limit(message.limit)?;
    if message.names.len() > MENTIONED_NAMES_MAX || !(1..=FACTS_MAX).contains(&message.facts_max) {
        let reason = format!("{} names, {} facts of each", message.names.len(), message.facts_max);
        return Err(Kind::invalid("question for mentions", reason).into());
    }
    context.at_one_instant(|connection| {
        let mentioned = mentioned(connection, &message.names)?;
        let mut facts = BTreeMap::new();
        for key in &mentioned {
            for fact in newest_facts(connection, *key, message.facts_max)? {
                facts.insert(fact.key, fact);
            }
        }
        let facts = facts.into_values().filter(|fact| fact.validity.holds_at(context.now));
        rank(connection, &mentioned, facts, message)
    })
}

fn mentioned(connection: &Connection, names: &[String]) -> Outcome<HashSet<i64>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {NAME} FROM name WHERE name = ?1"))?;
    let mut keys = HashSet::new();
    for name in names {
        let mut rows = statement.query([name])?;
        while let Some(row) = rows.next()? {
            keys.insert(Name::read(row)?.entity_key);
        }
    }
    Ok(keys)
}

/// Reads an entity's facts on either side, newest first.
fn newest_facts(connection: &Connection, entity_key: i64, facts_max: usize) -> Outcome<Vec<RelationRow>> {
    let mut facts = Vec::new();
    for end in ["subject", "object"] {
        let sql = format!("SELECT {RELATION} FROM relation WHERE {end} = ?1 ORDER BY key DESC LIMIT ?2");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![entity_key, facts_max])?;
        while let Some(row) = rows.next()? {
            facts.push(RelationRow::read(row)?);
        }
    }
    Ok(facts)
}

/// Ranks the sources of facts by how many of the mentioned entities they name.
fn rank(
    connection: &Connection,
    mentioned: &HashSet<i64>,
    facts: impl Iterator<Item = RelationRow>,
    message: &FindMentions,
) -> Outcome<Vec<Mention>> {
    let mut labels = Labels::new(connection);
    let mut found: HashMap<SourceId, Mention> = HashMap::new();
    for fact in facts {
        let (subject, object) =
            (EntityRow::require(connection, fact.subject)?, EntityRow::require(connection, fact.object)?);
        if !subject.is_live() || !object.is_live() {
            continue;
        }
        let named = [fact.subject, fact.object].into_iter().filter(|key| mentioned.contains(key)).count();
        let score = if named == 2 { 2.0 } else { 1.0 };
        for source in sources::of(connection, fact.key)? {
            if !source.as_str().starts_with(&message.prefix) {
                continue;
            }
            if let Some(mention) = found.get_mut(&source) {
                mention.score += score;
                continue;
            }
            let fact = (subject.summary(&mut labels)?, labels.text(fact.label_key)?, object.summary(&mut labels)?);
            found.insert(source.clone(), Mention { source, score, fact });
        }
    }
    let mut mentions: Vec<Mention> = found.into_values().collect();
    mentions.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.source.cmp(&b.source)));
    mentions.truncate(message.limit);
    Ok(mentions)
}

//! The key–value store as a map in memory: what each write must answer, and what each read must find.
//!
//! Start at [`Model::write`] and [`Model::answer`].
//!
//! Always true: versions and times are the store's to choose, so the model learns them from answers, and checks that a
//! version never comes back and that what was learned stays until it may change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use larder::Class;
use larder::protocol::kv::{
    CollectionSummary, Direction, Entry, KeyRange, KeyedEntry, Operation, OperationOutcome, PutValue, RequiredState,
    ScanPage, ScanValues,
};
use larder::protocol::{CollectionName, Format, Key, Timestamp, Value, Version};

use super::steps::{Answer, Matches, Message, Question, Replied, Reply, Write};
use crate::torture::Random;

/// What is under a key.
#[derive(Debug, Clone)]
struct Row {
    value: Value,
    /// `None`: changed by a write that does not answer its version.
    version: Option<Version>,
    /// Every version this row had is at most this.
    version_before: u64,
    tags: BTreeSet<String>,
    expires: bool,
    /// `None`: not read yet.
    created: Option<Timestamp>,
}

type Rows = BTreeMap<(String, String), Row>;

/// The store, as it must be.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    rows: Rows,
    /// The greatest version seen: each later one is greater.
    newest: u64,
    declared: BTreeSet<Vec<String>>,
    /// Writes that succeeded under an idempotency key, and their answers.
    outcomes: BTreeMap<String, (Message, Reply)>,
}

/// What went wrong, or how the store must refuse.
enum Refusal {
    Class(Class),
    Divergence(String),
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self::Divergence(text)
    }
}

type Predicted<T> = Result<T, Refusal>;

fn at(collection: &CollectionName, key: &Key) -> (String, String) {
    (collection.as_str().to_owned(), key.as_str().to_owned())
}

impl Model {
    /// Returns the version under a key, where the model knows it.
    pub(super) fn version(&self, collection: &CollectionName, key: &Key) -> Option<Version> {
        self.rows.get(&at(collection, key)).and_then(|row| row.version)
    }

    /// Returns a write that was sent before under its idempotency key; sometimes with another message.
    pub(super) fn any_keyed(&self, random: &mut Random) -> Option<Write> {
        let (key, (message, _)) = self.outcomes.iter().nth(random.index(self.outcomes.len().max(1)))?;
        let message = if random.percent(80) { message.clone() } else { self.outcomes.values().next()?.0.clone() };
        Some(Write { message, idempotency_key: Some(key.clone()) })
    }

    /// Executes a write that was answered with `replied`; an error says what should have been answered.
    pub(super) fn write(&mut self, write: &Write, replied: &Replied) -> Result<(), String> {
        if let Some((first, outcome)) = write.idempotency_key.as_ref().and_then(|key| self.outcomes.get(key)) {
            let expected = if *first == write.message { Ok(outcome.clone()) } else { Err(Class::Conflict) };
            return expect(&expected, replied);
        }
        let before = self.clone_for_undo(&write.message);
        match self.execute(&write.message, replied) {
            Ok(expected) => {
                if let Some(key) = &write.idempotency_key {
                    self.outcomes.insert(key.clone(), (write.message.clone(), expected.clone()));
                }
                expect(&Ok(expected), replied)
            }
            Err(Refusal::Class(class)) => {
                if let Some(rows) = before {
                    self.rows = rows;
                }
                expect(&Err(class), replied)
            }
            Err(Refusal::Divergence(text)) => Err(text),
        }
    }

    /// Returns what a refusal half way must restore.
    fn clone_for_undo(&self, message: &Message) -> Option<Rows> {
        matches!(message, Message::Transaction(_)).then(|| self.rows.clone())
    }

    fn execute(&mut self, message: &Message, replied: &Replied) -> Predicted<Reply> {
        let replied = replied.as_ref().ok();
        let version = match replied {
            Some(Reply::Version(version) | Reply::MaybeVersion(Some(version))) => Some(*version),
            _ => None,
        };
        Ok(match message {
            Message::Put(put) => Reply::Version(self.put(put, version)?),
            Message::PutIfAbsent(message) if self.rows.contains_key(&at(&message.put.collection, &message.put.key)) => {
                Reply::MaybeVersion(None)
            }
            Message::PutIfAbsent(message) => Reply::MaybeVersion(Some(self.put(&message.put, version)?)),
            Message::CompareAndPut(message) => {
                self.require(&message.put.collection, &message.put.key, RequiredState::AtVersion(message.expected))?;
                Reply::Version(self.put(&message.put, version)?)
            }
            Message::PutMany(message) => self.put_many(&message.puts, replied)?,
            Message::Delete(message) => Reply::Was(self.delete(&message.collection, &message.key)),
            Message::DeleteMany(message) => {
                let deleted = message.keys.iter().filter(|key| self.delete(&message.collection, key)).count();
                Reply::Count(deleted as u64)
            }
            Message::CompareAndDelete(message) => {
                self.require(&message.collection, &message.key, RequiredState::AtVersion(message.expected))?;
                self.delete(&message.collection, &message.key);
                Reply::Done
            }
            Message::DeleteTagged(message) => {
                let (collection, tag) = (message.collection.as_str(), message.tag.as_str());
                self.remove_where(|(name, _), row| name == collection && row.tags.contains(tag))
            }
            Message::Increment(message) => Reply::Sum(self.increment(&message.collection, &message.key, message.by)?),
            Message::Touch(message) => Reply::Was(self.touch(&message.collection, &message.key, message.time_to_live)),
            Message::Pop(message) => self.pop(&message.collection, &message.key, replied)?,
            Message::Transaction(message) => Reply::Outcomes(self.transaction(&message.operations, replied)?),
            Message::Drop(message) => self.remove_where(|(name, _), _| name == message.collection.as_str()),
            Message::Declare(message) => Reply::Was(self.declared.insert(message.field.0.clone())),
        })
    }

    /// Puts, at the version that the store answered; without one the store must have refused, or it diverges.
    fn put(&mut self, put: &PutValue, version: Option<Version>) -> Predicted<Version> {
        check(put)?;
        if let Some(version) = version {
            self.advance(version)?;
        }
        let key = at(&put.collection, &put.key);
        let old = self.rows.remove(&key);
        if put.time_to_live != Some(Duration::ZERO) {
            let row = Row {
                value: put.value.clone(),
                version,
                version_before: self.newest.saturating_sub(u64::from(version.is_some())),
                tags: put.tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
                expires: put.time_to_live.is_some(),
                created: old.and_then(|row| row.created),
            };
            self.rows.insert(key, row);
        }
        Ok(version.unwrap_or(Version(0)))
    }

    /// Notes a version that the store gave out.
    fn advance(&mut self, version: Version) -> Result<(), String> {
        if version.0 <= self.newest {
            return Err(format!("version {version} is not greater than {}, which was given out before", self.newest));
        }
        self.newest = version.0;
        Ok(())
    }

    fn put_many(&mut self, puts: &[PutValue], replied: Option<&Reply>) -> Predicted<Reply> {
        puts.iter().try_for_each(check)?;
        let Some(Reply::Versions(versions)) = replied else {
            // Refused without a reason: `expect` says so.
            return Ok(Reply::Versions(vec![Version(0); puts.len()]));
        };
        if versions.len() != puts.len() {
            return Err(format!("{} versions for {} puts", versions.len(), puts.len()).into());
        }
        let put = |(put, version): (&PutValue, &Version)| self.put(put, Some(*version));
        Ok(Reply::Versions(puts.iter().zip(versions).map(put).collect::<Predicted<_>>()?))
    }

    fn delete(&mut self, collection: &CollectionName, key: &Key) -> bool {
        self.rows.remove(&at(collection, key)).is_some()
    }

    fn remove_where(&mut self, is_gone: impl Fn(&(String, String), &Row) -> bool) -> Reply {
        let before = self.rows.len();
        self.rows.retain(|key, row| !is_gone(key, row));
        Reply::Count((before - self.rows.len()) as u64)
    }

    fn increment(&mut self, collection: &CollectionName, key: &Key, by: i64) -> Predicted<i64> {
        let newest = self.newest;
        let fresh = Row {
            value: Value::bytes(""),
            version: None,
            version_before: newest,
            tags: BTreeSet::new(),
            expires: false,
            created: None,
        };
        let found = self.rows.get(&at(collection, key));
        let old = match found {
            None => 0,
            Some(row) if row.value.format == Format::Json => {
                serde_json::from_slice::<i64>(&row.value.bytes).map_err(|_| Refusal::Class(Class::Conflict))?
            }
            Some(_) => return Err(Refusal::Class(Class::Conflict)),
        };
        let sum = old.checked_add(by).ok_or(Refusal::Class(Class::Conflict))?;
        let row = self.rows.entry(at(collection, key)).or_insert(fresh);
        (row.value, row.version, row.version_before) = (json(sum), None, newest);
        Ok(sum)
    }

    fn touch(&mut self, collection: &CollectionName, key: &Key, time_to_live: Option<Duration>) -> bool {
        let key = at(collection, key);
        if time_to_live == Some(Duration::ZERO) {
            return self.rows.remove(&key).is_some();
        }
        let row = self.rows.get_mut(&key);
        row.map(|row| row.expires = time_to_live.is_some()).is_some()
    }

    fn pop(&mut self, collection: &CollectionName, key: &Key, replied: Option<&Reply>) -> Predicted<Reply> {
        let Some(Reply::Popped(popped)) = replied else {
            return Err(format!("popping does not answer {replied:?}").into());
        };
        self.check_entry(collection.as_str(), key.as_str(), popped.as_ref())?;
        self.delete(collection, key);
        Ok(Reply::Popped(popped.clone()))
    }

    fn require(&self, collection: &CollectionName, key: &Key, state: RequiredState) -> Predicted<()> {
        let row = self.rows.get(&at(collection, key));
        let holds = match state {
            RequiredState::Absent => row.is_none(),
            RequiredState::Present => row.is_some(),
            // An unknown version is of a later write than any version that was asked for.
            RequiredState::AtVersion(version) => row.is_some_and(|row| row.version == Some(version)),
        };
        if holds { Ok(()) } else { Err(Refusal::Class(Class::Conflict)) }
    }

    fn transaction(&mut self, operations: &[Operation], replied: Option<&Reply>) -> Predicted<Vec<OperationOutcome>> {
        for operation in operations {
            if let Operation::Put(put) = operation {
                check(put)?;
            }
        }
        let replied = match replied {
            Some(Reply::Outcomes(outcomes)) => outcomes.as_slice(),
            _ => &[],
        };
        let mut outcomes = Vec::new();
        for (number, operation) in operations.iter().enumerate() {
            outcomes.push(match operation {
                Operation::Require { collection, key, state } => {
                    self.require(collection, key, *state)?;
                    OperationOutcome::Held
                }
                Operation::Put(put) => {
                    let version = match replied.get(number) {
                        Some(OperationOutcome::Put(version)) => Some(*version),
                        _ => None,
                    };
                    OperationOutcome::Put(self.put(put, version)?)
                }
                Operation::Delete(message) => OperationOutcome::Deleted(self.delete(&message.collection, &message.key)),
                Operation::Increment(message) => {
                    OperationOutcome::Incremented(self.increment(&message.collection, &message.key, message.by)?)
                }
                other => return Err(format!("the model does not know {other:?}").into()),
            });
        }
        Ok(outcomes)
    }

    /// Checks the answer to a question; learns versions and times from it.
    pub(super) fn answer(&mut self, question: &Question, answer: &Answer) -> Result<(), String> {
        match (question, answer) {
            (Question::Get(get), Answer::Entry(entry)) => {
                self.check_entry(get.collection.as_str(), get.key.as_str(), entry.as_ref())
            }
            (Question::GetMany(get), Answer::Entries(entries)) if entries.len() == get.keys.len() => {
                let mut pairs = get.keys.iter().zip(entries);
                pairs.try_for_each(|(key, entry)| {
                    self.check_entry(get.collection.as_str(), key.as_str(), entry.as_ref())
                })
            }
            (Question::Scan(scan, matches), Answer::Page(page)) => self.check_page(scan, *matches, page),
            (Question::Count(count, matches), Answer::Count(found)) => {
                let expected = self.keys_in(count.collection.as_str(), &count.range, *matches).len() as u64;
                if *found == expected { Ok(()) } else { Err(format!("counted {found}, not {expected}")) }
            }
            (Question::Collections(_), Answer::Collections(found)) => self.check_collections(found),
            (question, answer) => Err(format!("{question:?} is not answered by {answer:?}")),
        }
    }

    fn check_entry(&mut self, collection: &str, key: &str, found: Option<&Entry>) -> Result<(), String> {
        let row = self.rows.get_mut(&(collection.to_owned(), key.to_owned()));
        let (row, entry) = match (row, found) {
            (None, None) => return Ok(()),
            (Some(row), Some(entry)) => (row, entry),
            (row, found) => return Err(format!("key {key} of {collection}: found {found:?}, expected {row:?}")),
        };
        let is_same = entry.value == row.value
            && row.version.map_or(entry.version.0 > row.version_before, |version| version == entry.version)
            && entry.expires.is_some() == row.expires
            && row.created.is_none_or(|created| created == entry.created)
            && entry.updated >= entry.created;
        if !is_same {
            return Err(format!("key {key} of {collection}: found {entry:?}, expected {row:?}"));
        }
        (row.version, row.created) = (Some(entry.version), Some(entry.created));
        self.newest = self.newest.max(entry.version.0);
        Ok(())
    }

    fn check_page(&mut self, scan: &ScanValues, matches: Option<Matches>, page: &ScanPage) -> Result<(), String> {
        let mut keys = self.keys_in(scan.collection.as_str(), &scan.range, matches);
        if scan.direction == Direction::Descending {
            keys.reverse();
        }
        if let Some(after) = &scan.after {
            keys.retain(|key| match scan.direction {
                Direction::Ascending => key.as_str() > after.as_str(),
                Direction::Descending => key.as_str() < after.as_str(),
            });
        }
        let has_more = keys.len() > scan.limit;
        keys.truncate(scan.limit);
        let found: Vec<&str> = page.entries.iter().map(|row| row.key.as_str()).collect();
        if found != keys {
            return Err(format!("the page holds {found:?}, not {keys:?}"));
        }
        let next = page.next.as_ref().map(Key::as_str);
        if next != keys.last().map(String::as_str).filter(|_| has_more) {
            return Err(format!("the page goes on behind {next:?}, has_more is {has_more}"));
        }
        let mut entries = page.entries.iter();
        entries.try_for_each(|KeyedEntry { key, entry }| {
            self.check_entry(scan.collection.as_str(), key.as_str(), Some(entry))
        })
    }

    fn check_collections(&self, found: &[CollectionSummary]) -> Result<(), String> {
        let mut expected: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for ((collection, _), row) in &self.rows {
            let (count, bytes) = expected.entry(collection).or_default();
            *count += 1;
            *bytes += row.value.bytes.len() as u64;
        }
        let found_same = found.iter().map(|one| (one.name.as_str(), (one.entry_count, one.value_bytes)));
        if found_same.eq(expected.iter().map(|(name, sums)| (*name, *sums))) {
            return Ok(());
        }
        Err(format!("the collections are {found:?}, not {expected:?}"))
    }

    fn keys_in(&self, collection: &str, range: &KeyRange, matches: Option<Matches>) -> Vec<String> {
        let rows = self.rows.iter().filter(|((name, key), row)| {
            name == collection && is_in(range, key) && matches.is_none_or(|matches| is_match(matches, &row.value))
        });
        rows.map(|((_, key), _)| key.clone()).collect()
    }
}

fn expect(expected: &Replied, replied: &Replied) -> Result<(), String> {
    if expected == replied { Ok(()) } else { Err(format!("expected {expected:?}")) }
}

/// The part of a put that the store must refuse whatever it holds.
fn check(put: &PutValue) -> Predicted<()> {
    let is_json = || serde_json::from_slice::<serde_json::Value>(&put.value.bytes).is_ok();
    if put.value.format == Format::Json && !is_json() {
        return Err(Refusal::Class(Class::InvalidInput));
    }
    Ok(())
}

fn json(number: i64) -> Value {
    Value::json(&number).unwrap()
}

fn is_in(range: &KeyRange, key: &str) -> bool {
    match range {
        KeyRange::All => true,
        KeyRange::Prefix(prefix) => key.starts_with(prefix),
        KeyRange::Between { from, to } => {
            from.as_ref().is_none_or(|from| key >= from.as_str()) && to.as_ref().is_none_or(|to| key < to.as_str())
        }
    }
}

fn is_match(matches: Matches, value: &Value) -> bool {
    if value.format != Format::Json {
        return false;
    }
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(&value.bytes) else { return false };
    match matches {
        Matches::NumberAtLeast(least) => json.get("n").and_then(serde_json::Value::as_i64).is_some_and(|n| n >= least),
        Matches::LanguageIs(language) => json.get("lang").is_some_and(|found| found == language),
        Matches::LanguageIsNot(language) => json.get("lang").is_none_or(|found| found != language),
    }
}

//! `larder kv`: values by key.
//!
//! Start at [`Command`]; [`EntryRow`] is an entry as it is printed and exported.

use std::io::Read;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand};
use futures::{Stream, TryStreamExt};
use larder::Larder;
use larder::protocol::kv::{
    CollectionSummary, CompareAndDelete, CompareAndPut, DeleteValue, Direction, DropCollection, Entry, GetValue,
    KeyRange, KeyedEntry, ListCollections, PutIfAbsent, PutValue, ScanValues,
};
use larder::protocol::{CollectionName, Format, Key, StoreName, Tag, Value, Version};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::arguments::Page;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::json;
use crate::list::{self, PAGE_ROWS, Row};
use crate::output::Output;
use crate::table::Column;
use crate::text;
use crate::time;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value under a key
    Get(Get),
    /// Store a value under a key
    Put(Put),
    /// Delete a key, or a whole collection
    Delete(Delete),
    /// List the collections, or the entries of one
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    collection: String,
    key: String,
}

/// A VALUE that is JSON is stored as JSON, and any other text as a JSON string: `5` is a number, `dark` is a string.
#[derive(Debug, Args)]
pub(crate) struct Put {
    collection: String,
    key: String,
    /// The value; without it, or as `-`, it is read from standard input
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    /// Store a JSON string, even where VALUE is JSON
    #[arg(long, conflicts_with = "bytes")]
    text: bool,
    /// Store VALUE as bytes, as it is
    #[arg(long)]
    bytes: bool,
    /// Let the entry go after this time, such as 90s, 12h, 7days
    #[arg(long, value_parser = time::duration)]
    ttl: Option<Duration>,
    /// Label the entry; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only where the key is absent
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// Only where the key is at this version
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    collection: String,
    /// Which key
    #[arg(required_unless_present = "all")]
    key: Option<String>,
    /// The whole collection
    #[arg(long, conflicts_with = "key")]
    all: bool,
    /// Only where the key is at this version
    #[arg(long, value_name = "VERSION", requires = "key")]
    if_version: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Of which the entries are listed; without it the collections are
    collection: Option<String>,
    /// Only keys that begin so
    #[arg(long, requires = "collection")]
    prefix: Option<String>,
    /// From the last key to the first
    #[arg(long, requires = "collection")]
    reverse: bool,
    #[command(flatten)]
    page: Page,
}

pub(crate) async fn run(command: Command, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Get(get) => self::get(get, folder, output).await,
        Command::Put(put) => self::put(put, folder, output).await,
        Command::Delete(delete) => self::delete(delete, folder, output).await,
        Command::List(list) => self::list(list, folder, output).await,
    }
}

async fn get(get: Get, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let (collection, key) = (CollectionName::new(&get.collection)?, Key::new(&get.key)?);
    let absent = || Failure::not_found(format!("key {:?} is not in collection {:?}", get.key, get.collection));
    let Some(larder) = folder.open_store(StoreName::Kv).await? else { return Err(absent()) };
    let found = larder.ask(GetValue { collection: collection.clone(), key: key.clone() }).await;
    larder.close().await;
    let entry = found?.ok_or_else(absent)?;
    if output.is_json() {
        return output.json(&EntryRow::of(&collection, KeyedEntry { key, entry }));
    }
    print_value(&entry.value, output)
}

/// Prints a value alone: JSON and its line break, bytes as they are. A terminal gets nothing that it would act upon.
fn print_value(value: &Value, output: &mut Output) -> Result<(), Failure> {
    match (value.format, std::str::from_utf8(&value.bytes)) {
        (Format::Json, Ok(json)) => output.stored_text(json),
        (_, Ok(text)) if output.is_terminal() => output.stored_text(text),
        (_, Err(_)) if output.is_terminal() => output.line(BASE64_STANDARD.encode(&value.bytes)),
        _ => output.bytes(&value.bytes),
    }
}

#[derive(Debug, Serialize)]
struct Stored {
    collection: String,
    key: String,
    version: u64,
}

async fn put(put: Put, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let message = PutValue {
        collection: CollectionName::new(&put.collection)?,
        key: Key::new(&put.key)?,
        value: value(&put)?,
        time_to_live: put.ttl,
        tags: put.tags.iter().map(Tag::new).collect::<Result<_, _>>()?,
    };
    let larder = folder.open_to_write().await?;
    let stored = send(&larder, message, &put).await;
    larder.close().await;
    let (collection, key) = (put.collection, put.key);
    let Some(Version(version)) = stored? else {
        let refused = Failure::refused(format!("key {key:?} is in collection {collection:?} already"));
        return Err(refused.with_hint("without --if-absent it would be replaced"));
    };
    output.answer(&Stored { collection, key, version }, |output, stored| {
        output.note(format!("stored at version {}", stored.version));
        Ok(())
    })
}

async fn send(larder: &Larder, message: PutValue, put: &Put) -> larder::Result<Option<Version>> {
    match put.if_version {
        Some(expected) => larder.ask(CompareAndPut { expected: Version(expected), put: message }).await.map(Some),
        None if put.if_absent => larder.ask(PutIfAbsent { put: message }).await,
        None => larder.ask(message).await.map(Some),
    }
}

fn value(put: &Put) -> Result<Value, Failure> {
    let bytes = match put.value.as_deref() {
        Some("-") | None => read_input()?,
        Some(value) => value.as_bytes().to_vec(),
    };
    if put.bytes {
        return Ok(Value::bytes(bytes));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage("the value is not UTF-8 text").with_hint("--bytes stores it as it is"))?;
    if !put.text && serde_json::from_str::<&RawValue>(&text).is_ok() {
        return Ok(Value { format: Format::Json, bytes: text.trim().to_owned().into() });
    }
    // The line break that ends what a shell command prints is not part of it.
    Ok(Value::json(text.strip_suffix('\n').unwrap_or(&text))?)
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|error| Failure::usage(format!("the value cannot be read from standard input: {error}")))?;
    Ok(bytes)
}

#[derive(Debug, Serialize)]
struct Deleted {
    deleted: u64,
}

async fn delete(delete: Delete, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let collection = CollectionName::new(&delete.collection)?;
    let key = delete.key.as_ref().map(Key::new).transpose()?;
    let deleted = if folder.has(StoreName::Kv) {
        let larder = folder.open_to_write().await?;
        let deleted = remove(&larder, collection, key, delete.if_version).await;
        larder.close().await;
        deleted?
    } else {
        0
    };
    if deleted == 0 {
        let what = delete.key.map_or_else(String::new, |key| format!("key {key:?} is not in "));
        let name = delete.collection;
        return Err(Failure::not_found(if what.is_empty() {
            format!("collection {name:?} is empty")
        } else {
            format!("{what}collection {name:?}")
        }));
    }
    output.answer(&Deleted { deleted }, |output, deleted| {
        output.note(format!("{} deleted", deleted.deleted));
        Ok(())
    })
}

async fn remove(
    larder: &Larder,
    collection: CollectionName,
    key: Option<Key>,
    if_version: Option<u64>,
) -> larder::Result<u64> {
    match (key, if_version.map(Version)) {
        (Some(key), Some(expected)) => larder.ask(CompareAndDelete { collection, key, expected }).await.map(|()| 1),
        (Some(key), None) => larder.ask(DeleteValue { collection, key }).await.map(u64::from),
        (None, _) => larder.ask(DropCollection { collection }).await,
    }
}

async fn list(list: List, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let Some(larder) = folder.open_store(StoreName::Kv).await? else { return Ok(()) };
    let page_rows = list.page.limit.saturating_add(1).min(PAGE_ROWS);
    let listed = match list.collection {
        None => {
            let after = list.page.after.map(CollectionName::new).transpose()?;
            let rows = collections(&larder, after).map_ok(CollectionRow);
            list::print(output, list.page.limit, rows).await
        }
        Some(name) => {
            let scan = ScanValues {
                collection: CollectionName::new(name)?,
                range: list.prefix.map_or(KeyRange::All, KeyRange::Prefix),
                direction: if list.reverse { Direction::Descending } else { Direction::Ascending },
                after: list.page.after.map(Key::new).transpose()?,
                filter: None,
                limit: page_rows,
            };
            // A damaged first value is no reason to say nothing of those behind it.
            let first = larder.ask(ScanValues { range: KeyRange::All, after: None, limit: 1, ..scan.clone() }).await;
            if first.is_ok_and(|page| page.entries.is_empty()) {
                output.note(format!(
                    "collection {:?} is not there, or empty; see `larder kv list`",
                    scan.collection.as_str()
                ));
            }
            list::print(output, list.page.limit, entries(&larder, scan)).await
        }
    };
    larder.close().await;
    listed
}

/// Returns every collection behind one, in the order of their names.
pub(crate) fn collections(
    larder: &Larder,
    after: Option<CollectionName>,
) -> impl Stream<Item = Result<CollectionSummary, Failure>> {
    list::pages(after, move |after| {
        let larder = larder.clone();
        async move {
            let page = larder.ask(ListCollections { after, limit: PAGE_ROWS }).await?;
            let next = (page.len() == PAGE_ROWS).then(|| page.last().map(|last| last.name.clone())).flatten();
            Ok((page, next))
        }
    })
}

/// Returns what a scan covers, to its end.
pub(crate) fn entries(larder: &Larder, scan: ScanValues) -> impl Stream<Item = Result<EntryRow, Failure>> {
    let collection = scan.collection.clone();
    let entries = list::pages(scan.after.clone(), move |after| {
        let (larder, scan) = (larder.clone(), ScanValues { after, ..scan.clone() });
        async move { larder.ask(scan).await.map(|page| (page.entries, page.next)) }
    });
    entries.map_ok(move |entry| EntryRow::of(&collection, entry))
}

/// A collection as it is printed.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct CollectionRow(CollectionSummary);

impl Row for CollectionRow {
    const COLUMNS: &'static [Column] =
        &[Column::text("COLLECTION"), Column::number("ENTRIES"), Column::number("BYTES")];

    fn cells(&self) -> Vec<String> {
        let CollectionSummary { name, entry_count, value_bytes } = &self.0;
        vec![name.to_string(), entry_count.to_string(), time::bytes(*value_bytes)]
    }

    fn cursor(&self) -> String {
        self.0.name.to_string()
    }
}

/// An entry as it is printed and exported: a value that is JSON as itself, any other in base64.
#[derive(Debug, Serialize)]
pub(crate) struct EntryRow {
    collection: String,
    key: String,
    format: Format,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    version: u64,
    created_ms: i64,
    updated_ms: i64,
    expires_ms: Option<i64>,
    #[serde(skip)]
    stored: Entry,
}

impl EntryRow {
    fn of(collection: &CollectionName, entry: KeyedEntry) -> Self {
        let KeyedEntry { key, entry } = entry;
        let Value { format, bytes } = &entry.value;
        let text = std::str::from_utf8(bytes).ok().filter(|_| *format == Format::Json);
        let value = text.and_then(|json| json::exact(json).ok());
        Self {
            collection: collection.to_string(),
            key: key.to_string(),
            format: *format,
            value_base64: value.is_none().then(|| BASE64_STANDARD.encode(bytes)),
            value,
            version: entry.version.0,
            created_ms: entry.created.0,
            updated_ms: entry.updated.0,
            expires_ms: entry.expires.map(|time| time.0),
            stored: entry,
        }
    }
}

/// Characters of a value in a table.
const PREVIEW_CHARS: usize = 60;

impl Row for EntryRow {
    const COLUMNS: &'static [Column] = &[
        Column::text("KEY"),
        Column::number("BYTES"),
        Column::text("UPDATED"),
        Column::text("EXPIRES"),
        Column::text("VALUE"),
    ];

    fn cells(&self) -> Vec<String> {
        let Entry { value, updated, expires, .. } = &self.stored;
        let shown = match std::str::from_utf8(&value.bytes) {
            Ok(text) if value.format != Format::Encoded => text::preview(text, PREVIEW_CHARS),
            _ => "(binary)".to_owned(),
        };
        vec![
            self.key.clone(),
            time::bytes(value.bytes.len() as u64),
            time::shown(*updated),
            time::shown_or_none(*expires),
            shown,
        ]
    }

    fn cursor(&self) -> String {
        self.key.clone()
    }
}

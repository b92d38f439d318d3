//! The key–value store's handles: [`Kv`] for the store, [`Collection`] for typed values, [`RawCollection`] for bytes.
//!
//! Always true: a method only builds a message; what it means is said at the message.

use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use larder_actors::kv::Kv as KvStore;
use larder_actors::store::Notices;
use larder_actors::{Error, Result};
use larder_protocol::filter::{FieldPath, Filter};
use larder_protocol::kv::{
    ApplyTransaction, CollectionSummary, CompareAndDelete, CompareAndPut, CountValues, DeclareField, DeleteTagged,
    DeleteValue, DeleteValues, Direction, DropCollection, Entry, ExtendLease, GetValue, GetValues, IncrementValue,
    KeyRange, KeyedEntry, ListCollections, Operation, PopValue, PutIfAbsent, PutValue, PutValues, ReleaseLease,
    ScanPage, ScanValues, TakeLease, TouchValue,
};
use larder_protocol::lease::Fencing;
use larder_protocol::{CollectionName, Error as Kind, Key, LeaseName, Message, Sequence, Tag, Value, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use larder_protocol::codec::Codec;

use super::STREAM_PAGE_ROWS;
use crate::larder::Larder;
use crate::request::Request;

/// The key–value store.
#[derive(Debug, Clone)]
pub struct Kv {
    larder: Larder,
}

impl Kv {
    pub(crate) fn new(larder: Larder) -> Self {
        Self { larder }
    }

    /// Returns a collection of values of type `T`, stored as JSON: they can be filtered, and read with `sqlite3`.
    ///
    /// Nothing is created before the first put. A name that cannot be used is an error of the first request.
    #[must_use]
    pub fn collection<T: Serialize + DeserializeOwned + Send + 'static>(&self, name: impl AsRef<str>) -> Collection<T> {
        Collection { raw: self.bytes(name), codec: None, values: PhantomData }
    }

    /// Returns a collection of plain bytes.
    #[must_use]
    pub fn bytes(&self, name: impl AsRef<str>) -> RawCollection {
        RawCollection { larder: self.larder.clone(), name: CollectionName::new(name) }
    }

    /// Lists the collections in name order, with what they hold. For the next page name the last of this one.
    pub fn collections(
        &self,
        after: Option<&CollectionName>,
        limit: usize,
    ) -> Request<ListCollections, Vec<CollectionSummary>> {
        Request::new(self.larder.clone(), Ok(ListCollections { after: after.cloned(), limit }), Ok)
    }

    /// Applies a list of operations, all or none. See [`ApplyTransaction`].
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let larder = larder::Larder::temporary().await?;
    /// let accounts = larder.kv().collection::<i64>("accounts");
    /// accounts.put("alice", &10).await?;
    /// let transfer = [accounts.require_present("alice")?, accounts.increment_operation("alice", -3)?, accounts.increment_operation("bob", 3)?];
    /// larder.kv().transaction(transfer).await?;
    /// assert_eq!(accounts.get("bob").await?, Some(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn transaction(&self, operations: impl IntoIterator<Item = Operation>) -> Request<ApplyTransaction> {
        let operations = operations.into_iter().collect();
        Request::new(self.larder.clone(), Ok(ApplyTransaction { operations }), Ok)
    }

    /// Takes a lease for `duration`, unless somebody has it whose time is not over and whose process lives. See
    /// [`TakeLease`].
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # let larder = larder::Larder::temporary().await?;
    /// let kv = larder.kv();
    /// if let Some(fencing) = kv.take_lease("report", Duration::from_secs(60)).await?.fencing() {
    ///     let report = "what only one process should work out".to_owned();
    ///     let reports = kv.collection::<String>("reports");
    ///     // Counts only if nobody overtook us meanwhile.
    ///     kv.transaction([kv.require_lease("report", fencing)?, reports.put_operation("today", &report)?]).await?;
    ///     kv.release_lease("report", fencing).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_lease(&self, lease: impl AsRef<str>, duration: Duration) -> Request<TakeLease> {
        let message = LeaseName::new(lease).map(|lease| TakeLease { lease, duration });
        Request::new(self.larder.clone(), message, Ok)
    }

    /// Lets the holding of `fencing` last for `duration` from now; a conflict, if it was overtaken.
    pub fn extend_lease(&self, lease: impl AsRef<str>, fencing: Fencing, duration: Duration) -> Request<ExtendLease> {
        let message = LeaseName::new(lease).map(|lease| ExtendLease { lease, fencing, duration });
        Request::new(self.larder.clone(), message, Ok)
    }

    /// Gives a lease back; answers whether the holding of `fencing` was the current one.
    pub fn release_lease(&self, lease: impl AsRef<str>, fencing: Fencing) -> Request<ReleaseLease> {
        let message = LeaseName::new(lease).map(|lease| ReleaseLease { lease, fencing });
        Request::new(self.larder.clone(), message, Ok)
    }

    /// Returns an operation for [`transaction`](Self::transaction) that requires the holding of `fencing` to be current.
    ///
    /// # Errors
    /// When the name cannot be used.
    pub fn require_lease(&self, lease: impl AsRef<str>, fencing: Fencing) -> Result<Operation> {
        Ok(Operation::RequireLease { lease: LeaseName::new(lease)?, fencing })
    }

    /// Declares a field of JSON values, so that filters on it use an index. Answers whether it was new.
    pub fn declare_field(&self, field: FieldPath) -> Request<DeclareField> {
        Request::new(self.larder.clone(), Ok(DeclareField { field }), Ok)
    }

    /// Returns the sequence of the newest commit, by this process or another: subscribe after it to hear only what is new.
    ///
    /// # Errors
    /// When the store cannot be started or read.
    pub async fn sequence(&self) -> Result<Sequence> {
        self.larder.sequence::<KvStore>().await
    }

    /// Returns a stream of what is committed to the store after `sequence`, by this process and others.
    ///
    /// # Errors
    /// When the store cannot be started.
    pub async fn subscribe(&self, after: Sequence) -> Result<Notices> {
        self.larder.subscribe::<KvStore>(after).await
    }
}

/// A collection of plain bytes.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let larder = larder::Larder::temporary().await?;
/// let pages = larder.kv().bytes("pages");
/// pages.put_many([("a", "first"), ("b", "second")]).await?;
/// assert_eq!(pages.get("b").await?.as_deref(), Some(&b"second"[..]));
/// assert_eq!(pages.entry("b").await?.map(|entry| entry.expires), Some(None));
/// assert!(pages.delete("a").await?);
/// assert_eq!(pages.scan().count().await?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RawCollection {
    larder: Larder,
    name: Result<CollectionName, Kind>,
}

impl RawCollection {
    /// Stores `value` under `key`.
    pub fn put(&self, key: impl AsRef<str>, value: impl Into<Bytes>) -> Request<PutValue> {
        self.put_value(key.as_ref(), Ok(Value::bytes(value)))
    }

    /// Stores many values at once, all or none.
    pub fn put_many<K: AsRef<str>, V: Into<Bytes>>(
        &self,
        values: impl IntoIterator<Item = (K, V)>,
    ) -> Request<PutValues> {
        self.put_values(values.into_iter().map(|(key, value)| (key, Ok(Value::bytes(value)))))
    }

    /// Reads the value under `key`.
    pub fn get(&self, key: impl AsRef<str>) -> Request<GetValue, Option<Bytes>> {
        self.get_as(key.as_ref(), |found| Ok(found.map(|entry| entry.value.bytes)))
    }

    /// Reads the entry under `key`: value, version and times.
    pub fn entry(&self, key: impl AsRef<str>) -> Request<GetValue> {
        self.get_as(key.as_ref(), Ok)
    }

    /// Deletes the entry; answers whether it was there.
    pub fn delete(&self, key: impl AsRef<str>) -> Request<DeleteValue> {
        self.request(key.as_ref(), |collection, key| DeleteValue { collection, key }, Ok)
    }

    /// Reads a range of entries in key order.
    pub fn scan(&self) -> Scan<Bytes> {
        Scan::new(self, |entry| Ok(entry.value.bytes))
    }

    fn put_value(&self, key: &str, value: Result<Value, Kind>) -> Request<PutValue> {
        Request::new(self.larder.clone(), self.put_message(key, value), Ok)
    }

    fn put_message(&self, key: &str, value: Result<Value, Kind>) -> Result<PutValue, Kind> {
        let (collection, key, value) = (self.name.clone()?, Key::new(key)?, value?);
        Ok(PutValue { collection, key, value, time_to_live: None, tags: Vec::new() })
    }

    fn put_values<K: AsRef<str>>(&self, values: impl Iterator<Item = (K, Result<Value, Kind>)>) -> Request<PutValues> {
        let puts: Result<Vec<_>, _> = values.map(|(key, value)| self.put_message(key.as_ref(), value)).collect();
        Request::new(self.larder.clone(), puts.map(|puts| PutValues { puts }), Ok)
    }

    fn get_as<T>(&self, key: &str, read: fn(Option<Entry>) -> Result<T>) -> Request<GetValue, T> {
        self.request(key, |collection, key| GetValue { collection, key }, read)
    }

    /// Builds a message about one key.
    fn request<M: Message, T>(
        &self,
        key: &str,
        message: impl FnOnce(CollectionName, Key) -> M,
        read: fn(M::Reply) -> Result<T>,
    ) -> Request<M, T> {
        let names = self.name.clone().and_then(|name| Ok((name, Key::new(key)?)));
        Request::new(self.larder.clone(), names.map(|(name, key)| message(name, key)), read)
    }

    /// Builds a message about the whole collection.
    fn request_all<M: Message, T>(
        &self,
        message: impl FnOnce(CollectionName) -> Result<M, Kind>,
        read: fn(M::Reply) -> Result<T>,
    ) -> Request<M, T> {
        Request::new(self.larder.clone(), self.name.clone().and_then(message), read)
    }
}

/// A value with its version and times.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryOf<T> {
    /// The value.
    pub value: T,
    /// Changes with every write to the key and never repeats.
    pub version: Version,
    /// When the key was first put since it was last absent.
    pub created: SystemTime,
    /// When the value was last put.
    pub updated: SystemTime,
    /// When the entry will be hidden. `None`: kept until deleted.
    pub expires: Option<SystemTime>,
}

/// A collection of values of one serde type.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use larder::field;
///
/// #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
/// struct Note { lang: String, year: u32 }
///
/// # let larder = larder::Larder::temporary().await?;
/// let notes = larder.kv().collection::<Note>("notes");
/// let note = Note { lang: "en".into(), year: 2026 };
/// let version = notes.put("n1", &note).ttl(Duration::from_secs(3600)).await?;
/// notes.compare_and_put("n1", version, &Note { year: 2027, ..note }).await?;
///
/// let found = notes.scan().filter(field("lang").eq("en").and(field("year").gte(2020))).page().await?;
/// assert_eq!(found.entries.len(), 1);
/// # Ok(())
/// # }
/// ```
///
/// Every other way to write and read:
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let larder = larder::Larder::temporary().await?;
/// use std::time::Duration;
///
/// let scores = larder.kv().collection::<i64>("scores");
/// assert!(scores.put_if_absent("ada", &1).await?.is_some());
/// assert!(scores.put_if_absent("ada", &2).await?.is_none());
/// assert_eq!(scores.increment("ada", 4).await?, 5);
/// scores.put_many([("bob", &7), ("eve", &9)]).await?;
/// assert_eq!(scores.get_many(["ada", "nobody"]).await?, [Some(5), None]);
/// assert!(scores.contains("bob").await?);
///
/// let version = scores.entry("bob").await?.ok_or("bob is there")?.version;
/// scores.compare_and_delete("bob", version).await?;
/// assert!(scores.touch("ada", Some(Duration::from_secs(60))).await?);
/// scores.put("kay", &3).tags(["new"]).await?;
/// assert_eq!(scores.delete_tagged("new").await?, 1);
/// assert_eq!(scores.pop("eve").await?, Some(9));
/// assert_eq!(scores.delete_many(["ada", "bob"]).await?, 1);
/// assert_eq!((scores.count().await?, scores.drop_all().await?), (0, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Collection<T> {
    raw: RawCollection,
    /// `None`: JSON.
    codec: Option<Codec>,
    values: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Collection<T> {
    fn clone(&self) -> Self {
        Self { raw: self.raw.clone(), codec: self.codec, values: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Collection<T> {
    /// Stores values in a binary encoding instead of JSON: smaller and faster, but filters cannot see into them.
    /// Values are read by what they were stored with.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Stores `value` under `key`.
    pub fn put(&self, key: impl AsRef<str>, value: &T) -> Request<PutValue> {
        self.raw.put_value(key.as_ref(), self.encode(value))
    }

    /// Stores many values at once, all or none; answers their versions in order.
    pub fn put_many<'v, K: AsRef<str>>(&self, values: impl IntoIterator<Item = (K, &'v T)>) -> Request<PutValues>
    where
        T: 'v,
    {
        self.raw.put_values(values.into_iter().map(|(key, value)| (key, self.encode(value))))
    }

    /// Stores `value` only where `key` is absent; answers `None` where it is present.
    pub fn put_if_absent(&self, key: impl AsRef<str>, value: &T) -> Request<PutIfAbsent> {
        let put = self.raw.put_message(key.as_ref(), self.encode(value));
        Request::new(self.raw.larder.clone(), put.map(|put| PutIfAbsent { put }), Ok)
    }

    /// Stores `value` only where the key's version is `expected`; else it is a conflict.
    pub fn compare_and_put(&self, key: impl AsRef<str>, expected: Version, value: &T) -> Request<CompareAndPut> {
        let put = self.raw.put_message(key.as_ref(), self.encode(value));
        Request::new(self.raw.larder.clone(), put.map(|put| CompareAndPut { expected, put }), Ok)
    }

    /// Reads the value under `key`.
    pub fn get(&self, key: impl AsRef<str>) -> Request<GetValue, Option<T>> {
        self.raw.get_as(key.as_ref(), |found| found.map(|entry| decode(&entry.value)).transpose())
    }

    /// Reads the entry under `key`: value, version and times.
    pub fn entry(&self, key: impl AsRef<str>) -> Request<GetValue, Option<EntryOf<T>>> {
        self.raw.get_as(key.as_ref(), |found| found.map(decode_entry).transpose())
    }

    /// Reads many values at one instant, in the order of the keys.
    pub fn get_many<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) -> Request<GetValues, Vec<Option<T>>> {
        self.raw.request_all(
            |collection| Ok(GetValues { collection, keys: checked(keys)? }),
            |found| found.into_iter().map(|entry| entry.map(|entry| decode(&entry.value)).transpose()).collect(),
        )
    }

    /// Answers whether there is an entry under `key`.
    pub fn contains(&self, key: impl AsRef<str>) -> Request<GetValue, bool> {
        self.raw.get_as(key.as_ref(), |found| Ok(found.is_some()))
    }

    /// Deletes the entry; answers whether it was there.
    pub fn delete(&self, key: impl AsRef<str>) -> Request<DeleteValue> {
        self.raw.delete(key)
    }

    /// Deletes many entries at once, all or none; answers how many were there.
    pub fn delete_many<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) -> Request<DeleteValues> {
        self.raw.request_all(|collection| Ok(DeleteValues { collection, keys: checked(keys)? }), Ok)
    }

    /// Deletes the entry only where its version is `expected`; else it is a conflict.
    pub fn compare_and_delete(&self, key: impl AsRef<str>, expected: Version) -> Request<CompareAndDelete> {
        self.raw.request(key.as_ref(), |collection, key| CompareAndDelete { collection, key, expected }, Ok)
    }

    /// Deletes every entry that carries `tag`; answers how many.
    pub fn delete_tagged(&self, tag: impl AsRef<str>) -> Request<DeleteTagged> {
        self.raw.request_all(|collection| Ok(DeleteTagged { collection, tag: Tag::new(tag)? }), Ok)
    }

    /// Adds to the integer under `key`, 0 where absent; answers the sum. See [`IncrementValue`].
    pub fn increment(&self, key: impl AsRef<str>, by: i64) -> Request<IncrementValue> {
        self.raw.request(key.as_ref(), |collection, key| IncrementValue { collection, key, by }, Ok)
    }

    /// Sets when the entry expires, from now; `None` keeps it until deleted. Answers whether it was there.
    pub fn touch(&self, key: impl AsRef<str>, time_to_live: Option<Duration>) -> Request<TouchValue> {
        self.raw.request(key.as_ref(), |collection, key| TouchValue { collection, key, time_to_live }, Ok)
    }

    /// Deletes the entry and answers its value: of several callers exactly one gets it.
    pub fn pop(&self, key: impl AsRef<str>) -> Request<PopValue, Option<T>> {
        self.raw.request(
            key.as_ref(),
            |collection, key| PopValue { collection, key },
            |found| found.map(|entry| decode(&entry.value)).transpose(),
        )
    }

    /// Reads a range of entries in key order.
    pub fn scan(&self) -> Scan<T> {
        Scan::new(&self.raw, |entry| decode(&entry.value))
    }

    /// Counts the entries. To count some of them, see [`Scan::count`].
    pub fn count(&self) -> Request<CountValues> {
        self.scan().count()
    }

    /// Deletes the collection with everything in it; answers how many entries it held.
    pub fn drop_all(&self) -> Request<DropCollection> {
        self.raw.request_all(|collection| Ok(DropCollection { collection }), Ok)
    }

    /// Returns an operation for [`Kv::transaction`] that stores `value`.
    ///
    /// # Errors
    /// When the name, key or value cannot be used.
    pub fn put_operation(&self, key: impl AsRef<str>, value: &T) -> Result<Operation> {
        Ok(Operation::Put(self.raw.put_message(key.as_ref(), self.encode(value))?))
    }

    /// Returns an operation for [`Kv::transaction`] that deletes a key.
    ///
    /// # Errors
    /// When the name or key cannot be used.
    pub fn delete_operation(&self, key: impl AsRef<str>) -> Result<Operation> {
        Ok(Operation::Delete(DeleteValue { collection: self.raw.name.clone()?, key: Key::new(key)? }))
    }

    /// Returns an operation for [`Kv::transaction`] that adds to a counter.
    ///
    /// # Errors
    /// When the name or key cannot be used.
    pub fn increment_operation(&self, key: impl AsRef<str>, by: i64) -> Result<Operation> {
        Ok(Operation::Increment(IncrementValue { collection: self.raw.name.clone()?, key: Key::new(key)?, by }))
    }

    /// Returns an operation for [`Kv::transaction`] that requires the key to be absent.
    ///
    /// # Errors
    /// When the name or key cannot be used.
    pub fn require_absent(&self, key: impl AsRef<str>) -> Result<Operation> {
        self.require(key.as_ref(), larder_protocol::kv::RequiredState::Absent)
    }

    /// Returns an operation for [`Kv::transaction`] that requires the key to be present.
    ///
    /// # Errors
    /// When the name or key cannot be used.
    pub fn require_present(&self, key: impl AsRef<str>) -> Result<Operation> {
        self.require(key.as_ref(), larder_protocol::kv::RequiredState::Present)
    }

    /// Returns an operation for [`Kv::transaction`] that requires the key to be at a version.
    ///
    /// # Errors
    /// When the name or key cannot be used.
    pub fn require_version(&self, key: impl AsRef<str>, version: Version) -> Result<Operation> {
        self.require(key.as_ref(), larder_protocol::kv::RequiredState::AtVersion(version))
    }

    fn require(&self, key: &str, state: larder_protocol::kv::RequiredState) -> Result<Operation> {
        Ok(Operation::Require { collection: self.raw.name.clone()?, key: Key::new(key)?, state })
    }

    fn encode(&self, value: &T) -> Result<Value, Kind> {
        match self.codec {
            None => Value::json(value),
            Some(codec) => Value::encoded(codec, value),
        }
    }
}

/// Options of a put.
impl<T> Request<PutValue, T> {
    /// Hides the entry once this has passed. Default: kept until deleted.
    pub fn ttl(self, time_to_live: Duration) -> Self {
        self.change(|put| {
            put.time_to_live = Some(time_to_live);
            Ok(())
        })
    }

    /// Labels the entry, to delete it with others by [`Collection::delete_tagged`].
    pub fn tags<S: AsRef<str>>(self, tags: impl IntoIterator<Item = S>) -> Self {
        self.change(|put| {
            put.tags = tags.into_iter().map(Tag::new).collect::<Result<_, _>>()?;
            Ok(())
        })
    }
}

/// One page of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryPage<T> {
    /// Keys and values, in the scan's order.
    pub entries: Vec<(Key, T)>,
    /// Where to continue, with [`Scan::after`]. `None`: this was the last page.
    pub next: Option<Key>,
}

/// A scan in the making: a range of entries in key order, as a page or as a stream.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let larder = larder::Larder::temporary().await?;
/// use futures::TryStreamExt;
///
/// let notes = larder.kv().collection::<u32>("notes");
/// notes.put_many([("a1", &1), ("a2", &2), ("b1", &3)]).await?;
///
/// assert_eq!(notes.scan().prefix("a").count().await?, 2);
/// assert_eq!(notes.scan().between("a2", "b1").page().await?.entries.len(), 1);
/// let newest_first: Vec<_> = notes.scan().starting_at("a2").reverse().stream().try_collect().await?;
/// assert_eq!(newest_first.iter().map(|(_, note)| *note).collect::<Vec<_>>(), [3, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a scan is only run by `page` or `stream`"]
pub struct Scan<T> {
    larder: Larder,
    message: Result<ScanValues, Kind>,
    read: fn(Entry) -> Result<T>,
}

impl<T: Send + 'static> Scan<T> {
    fn new(collection: &RawCollection, read: fn(Entry) -> Result<T>) -> Self {
        let message = collection.name.clone().map(|collection| ScanValues {
            collection,
            range: KeyRange::All,
            direction: Direction::Ascending,
            after: None,
            filter: None,
            limit: STREAM_PAGE_ROWS,
        });
        Self { larder: collection.larder.clone(), message, read }
    }

    /// Only keys that start with `prefix`.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        self.range(|| Ok(KeyRange::Prefix(prefix.into())))
    }

    /// Only keys from `from` (included) to `to` (excluded).
    pub fn between(self, from: impl AsRef<str>, to: impl AsRef<str>) -> Self {
        self.range(|| Ok(KeyRange::Between { from: Some(Key::new(from)?), to: Some(Key::new(to)?) }))
    }

    /// Only keys from `from` (included) on.
    pub fn starting_at(self, from: impl AsRef<str>) -> Self {
        self.range(|| Ok(KeyRange::Between { from: Some(Key::new(from)?), to: None }))
    }

    /// From the greatest key down.
    pub fn reverse(self) -> Self {
        self.change(|scan| {
            scan.direction = Direction::Descending;
            Ok(())
        })
    }

    /// Continues behind `key`.
    pub fn after(self, key: impl AsRef<str>) -> Self {
        self.change(|scan| {
            scan.after = Some(Key::new(key)?);
            Ok(())
        })
    }

    /// Only JSON values that match.
    pub fn filter(self, filter: Filter) -> Self {
        self.change(|scan| {
            scan.filter = Some(filter);
            Ok(())
        })
    }

    /// Most entries in a page, or fetched at once by a stream: 1 to 10,000. Default 256.
    pub fn limit(self, limit: usize) -> Self {
        self.change(|scan| {
            scan.limit = limit;
            Ok(())
        })
    }

    /// Counts the entries in the range that the filter matches, however many; `limit` does not matter.
    pub fn count(self) -> Request<CountValues> {
        let message = self.message.map(|scan| CountValues {
            collection: scan.collection,
            range: scan.range,
            filter: scan.filter,
        });
        Request::new(self.larder, message, Ok)
    }

    /// Reads one page at one instant. It may end early after 4 MiB of values; a stream goes on.
    ///
    /// # Errors
    /// When the request is refused, or a value does not decode as `T`.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let larder = larder::Larder::temporary().await?;
    /// let ages = larder.kv().collection::<u32>("ages");
    /// ages.put_many([("ada", &36), ("bob", &41), ("eve", &29)]).await?;
    ///
    /// let first = ages.scan().limit(2).page().await?;
    /// assert_eq!(first.entries.iter().map(|(_, age)| *age).collect::<Vec<_>>(), [36, 41]);
    /// let rest = ages.scan().after(first.next.ok_or("there is more")?).page().await?;
    /// assert_eq!((rest.entries.len(), rest.next), (1, None));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn page(self) -> Result<EntryPage<T>> {
        let ScanPage { entries, next } = self.larder.send(self.message?, Default::default()).await?;
        let decode = |row: KeyedEntry| Ok((row.key, (self.read)(row.entry)?));
        Ok(EntryPage { entries: entries.into_iter().map(decode).collect::<Result<_>>()?, next })
    }

    /// Reads on to the end, page by page: an entry present throughout is seen exactly once; concurrent changes may or
    /// may not be seen.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<(Key, T)>> {
        let Self { larder, message, read } = self;
        let pages = futures::stream::try_unfold(Some(message), move |next| {
            let larder = larder.clone();
            async move {
                let Some(message) = next else { return Ok::<_, Error>(None) };
                let message = message?;
                let ScanPage { entries, next } = larder.send(message.clone(), Default::default()).await?;
                let next = next.map(|after| Ok(ScanValues { after: Some(after), ..message }));
                Ok(Some((entries, next)))
            }
        });
        let decode = move |row: KeyedEntry| Ok((row.key, read(row.entry)?));
        pages.map_ok(move |entries| futures::stream::iter(entries).map(decode)).try_flatten().boxed()
    }

    /// Sets the range, once: two would contradict each other.
    fn range(self, range: impl FnOnce() -> Result<KeyRange, Kind>) -> Self {
        self.change(|scan| {
            if scan.range != KeyRange::All {
                return Err(Kind::invalid("scan", "it has two ranges; give a prefix or bounds, not both"));
            }
            scan.range = range()?;
            Ok(())
        })
    }

    fn change(mut self, change: impl FnOnce(&mut ScanValues) -> Result<(), Kind>) -> Self {
        self.message = self.message.and_then(|mut message| change(&mut message).map(|()| message));
        self
    }
}

fn checked<K: AsRef<str>>(keys: impl IntoIterator<Item = K>) -> Result<Vec<Key>, Kind> {
    keys.into_iter().map(Key::new).collect()
}

fn decode<T: DeserializeOwned>(value: &Value) -> Result<T> {
    Ok(value.decode()?)
}

#[expect(clippy::needless_pass_by_value, reason = "it is passed as a function over owned entries")]
fn decode_entry<T: DeserializeOwned>(entry: Entry) -> Result<EntryOf<T>> {
    Ok(EntryOf {
        value: decode(&entry.value)?,
        version: entry.version,
        created: entry.created.to_system_time(),
        updated: entry.updated.to_system_time(),
        expires: entry.expires.map(|time| time.to_system_time()),
    })
}

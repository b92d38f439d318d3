//! Random operations, how they are sent, and the broken stores that the model must tell from the real one.

use std::time::Duration;

use bytes::Bytes;
use larder::protocol::filter::{Filter, field};
use larder::protocol::kv::{
    ApplyTransaction, CollectionSummary, CompareAndDelete, CompareAndPut, CountValues, DeclareField, DeleteTagged,
    DeleteValue, DeleteValues, Direction, DropCollection, Entry, GetValue, GetValues, IncrementValue, KeyRange,
    ListCollections, Operation, OperationOutcome, PopValue, PutIfAbsent, PutValue, PutValues, RequiredState, ScanPage,
    ScanValues, TouchValue,
};
use larder::protocol::{CollectionName, Format, Key, Tag, Value, Version};
use larder::{Class, Larder};

use super::oracle::Model;
use crate::torture::Random;

/// Names with what SQL, JSON paths and patterns give a meaning to.
const COLLECTIONS: [&str; 3] = ["plain", "it's \"quoted\"", "100%_ünï"];
const TAGS: [&str; 3] = ["red", "a'b", "%"];
const KEY_COUNT: u64 = 30;
/// Long enough never to pass during a test.
const HOUR: Duration = Duration::from_secs(3600);

/// A message that writes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    Put(PutValue),
    PutIfAbsent(PutIfAbsent),
    CompareAndPut(CompareAndPut),
    PutMany(PutValues),
    Delete(DeleteValue),
    DeleteMany(DeleteValues),
    CompareAndDelete(CompareAndDelete),
    DeleteTagged(DeleteTagged),
    Increment(IncrementValue),
    Touch(TouchValue),
    Pop(PopValue),
    Transaction(ApplyTransaction),
    Drop(DropCollection),
    Declare(DeclareField),
}

/// A write, maybe with an idempotency key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Write {
    pub(super) message: Message,
    pub(super) idempotency_key: Option<String>,
}

/// What a write answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    Version(Version),
    MaybeVersion(Option<Version>),
    Versions(Vec<Version>),
    Was(bool),
    Count(u64),
    Sum(i64),
    Popped(Option<Entry>),
    Outcomes(Vec<OperationOutcome>),
    Done,
}

pub(super) type Replied = Result<Reply, Class>;

/// A filter that the model can evaluate by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Matches {
    NumberAtLeast(i64),
    LanguageIs(&'static str),
    LanguageIsNot(&'static str),
}

/// A message that reads.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Get(GetValue),
    GetMany(GetValues),
    Scan(ScanValues, Option<Matches>),
    Count(CountValues, Option<Matches>),
    Collections(ListCollections),
}

/// What a read answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Entry(Option<Entry>),
    Entries(Vec<Option<Entry>>),
    Page(ScanPage),
    Count(u64),
    Collections(Vec<CollectionSummary>),
}

/// A store that keeps all promises, or all but one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    No,
    DropsDeletes,
    IgnoresTimeToLive,
    LosesBatchItem,
    IgnoresIdempotencyKeys,
    SkipsRollback,
    LosesTags,
}

impl Broken {
    pub(super) const ALL: [Self; 6] = [
        Self::DropsDeletes,
        Self::IgnoresTimeToLive,
        Self::LosesBatchItem,
        Self::IgnoresIdempotencyKeys,
        Self::SkipsRollback,
        Self::LosesTags,
    ];
}

fn collection(random: &mut Random) -> CollectionName {
    CollectionName::new(COLLECTIONS[random.index(COLLECTIONS.len())]).unwrap()
}

fn key(random: &mut Random) -> Key {
    let number = random.below(KEY_COUNT);
    Key::new(match number % 5 {
        0 => format!("k'{number:02}"),
        1 => format!("k%{number:02}"),
        2 => format!("ключ{number:02}"),
        _ => format!("k{number:02}"),
    })
    .unwrap()
}

fn keys(random: &mut Random, count_max: u64) -> Vec<Key> {
    (0..random.below(count_max + 1)).map(|_| key(random)).collect()
}

fn tag(random: &mut Random) -> Tag {
    Tag::new(TAGS[random.index(TAGS.len())]).unwrap()
}

fn value(random: &mut Random) -> Value {
    let number = random.below(10);
    match random.below(20) {
        0..=4 => Value::json(&number).unwrap(),
        5..=9 => {
            Value::json(&serde_json::json!({ "n": number, "lang": if number < 5 { "en" } else { "de" } })).unwrap()
        }
        10 => Value::json("text").unwrap(),
        11 => Value::json(&i64::MAX).unwrap(),
        12 => Value { format: Format::Json, bytes: Bytes::from_static(b"{\"not\": json") },
        13 => Value::encoded(larder::Codec::default(), &number).unwrap(),
        // More than a page.
        14 => Value::bytes(vec![7; 5_000]),
        _ => Value::bytes(random.next().to_le_bytes().to_vec()),
    }
}

fn time_to_live(random: &mut Random) -> Option<Duration> {
    [None, None, None, Some(Duration::ZERO), Some(HOUR)][random.index(5)]
}

fn put(random: &mut Random) -> PutValue {
    let (collection, key, value) = (collection(random), key(random), value(random));
    let tags = (0..random.below(8).saturating_sub(5)).map(|_| tag(random)).collect();
    PutValue { collection, key, value, time_to_live: time_to_live(random), tags }
}

fn increment(random: &mut Random) -> IncrementValue {
    IncrementValue { collection: collection(random), key: key(random), by: [-3, -1, 1, 2, 5][random.index(5)] }
}

/// Returns the version of the key as it was before the burst; sometimes one that it never had.
fn version(random: &mut Random, model: &Model, collection: &CollectionName, key: &Key) -> Version {
    let known = model.version(collection, key).filter(|_| random.percent(80));
    known.unwrap_or(Version(0))
}

fn operation(random: &mut Random, model: &Model) -> Operation {
    match random.below(6) {
        0 | 1 => Operation::Put(put(random)),
        2 => Operation::Delete(DeleteValue { collection: collection(random), key: key(random) }),
        3 => Operation::Increment(increment(random)),
        _ => {
            let (collection, key) = (collection(random), key(random));
            let is_there = model.version(&collection, &key).is_some();
            let state = match random.below(8) {
                0 => RequiredState::AtVersion(version(random, model, &collection, &key)),
                1 => RequiredState::Present,
                2 => RequiredState::Absent,
                // Mostly one that holds, or hardly any transaction would.
                _ if is_there => RequiredState::Present,
                _ => RequiredState::Absent,
            };
            Operation::Require { collection, key, state }
        }
    }
}

impl Write {
    pub(super) fn any(random: &mut Random, model: &Model) -> Self {
        if random.percent(3)
            && let Some(write) = model.any_keyed(random)
        {
            return write;
        }
        let message = Message::any(random, model);
        let idempotency_key = random.percent(5).then(|| format!("key {}", random.below(400)));
        Self { message, idempotency_key }
    }
}

impl Message {
    fn any(random: &mut Random, model: &Model) -> Self {
        let (collection, key) = (collection(random), key(random));
        match random.below(100) {
            0..=24 => Self::Put(put(random)),
            25..=31 => Self::PutIfAbsent(PutIfAbsent { put: put(random) }),
            32..=41 => {
                let put = put(random);
                let expected = version(random, model, &put.collection, &put.key);
                Self::CompareAndPut(CompareAndPut { expected, put })
            }
            42..=49 => Self::PutMany(PutValues { puts: (0..random.below(6)).map(|_| put(random)).collect() }),
            50..=57 => Self::Delete(DeleteValue { collection, key }),
            58..=60 => Self::DeleteMany(DeleteValues { collection, keys: keys(random, 5) }),
            61..=65 => {
                let expected = version(random, model, &collection, &key);
                Self::CompareAndDelete(CompareAndDelete { collection, key, expected })
            }
            66..=67 => Self::DeleteTagged(DeleteTagged { collection, tag: tag(random) }),
            68..=77 => Self::Increment(increment(random)),
            78..=82 => Self::Touch(TouchValue { collection, key, time_to_live: time_to_live(random) }),
            83..=87 => Self::Pop(PopValue { collection, key }),
            88 => Self::rare(random, collection),
            _ => {
                let operations = (0..random.below(6)).map(|_| operation(random, model)).collect();
                Self::Transaction(ApplyTransaction { operations })
            }
        }
    }

    fn rare(random: &mut Random, collection: CollectionName) -> Self {
        match random.below(20) {
            0..=4 => Self::Drop(DropCollection { collection }),
            5 => Self::Declare(DeclareField { field: field("n") }),
            6 => Self::Declare(DeclareField { field: field("lang") }),
            _ => Self::DeleteTagged(DeleteTagged { collection, tag: tag(random) }),
        }
    }
}

impl Matches {
    fn any(random: &mut Random) -> Option<Self> {
        match random.below(6) {
            0 => Some(Self::NumberAtLeast(i64::try_from(random.below(10)).unwrap())),
            1 => Some(Self::LanguageIs("en")),
            2 => Some(Self::LanguageIsNot("en")),
            _ => None,
        }
    }

    fn filter(self) -> Filter {
        match self {
            Self::NumberAtLeast(least) => field("n").gte(least),
            Self::LanguageIs(language) => field("lang").eq(language),
            Self::LanguageIsNot(language) => field("lang").eq(language).not(),
        }
    }
}

impl Question {
    pub(super) fn any(random: &mut Random) -> Self {
        let (collection, matches) = (collection(random), Matches::any(random));
        match random.below(20) {
            0..=9 => Self::Get(GetValue { collection, key: key(random) }),
            10..=13 => Self::GetMany(GetValues { collection, keys: keys(random, 8) }),
            14..=17 => {
                let direction = if random.percent(50) { Direction::Ascending } else { Direction::Descending };
                let after = random.percent(30).then(|| key(random));
                let filter = matches.map(Matches::filter);
                let limit = 1 + random.index(12);
                Self::Scan(ScanValues { collection, range: range(random), direction, after, filter, limit }, matches)
            }
            18 => {
                let filter = matches.map(Matches::filter);
                Self::Count(CountValues { collection, range: range(random), filter }, matches)
            }
            _ => Self::Collections(ListCollections { after: None, limit: 10 }),
        }
    }

    /// Returns the questions whose answers are the whole store.
    pub(super) fn everything() -> Vec<Self> {
        let scan = |name| ScanValues {
            collection: CollectionName::new(name).unwrap(),
            range: KeyRange::All,
            direction: Direction::Ascending,
            after: None,
            filter: None,
            limit: 1_000,
        };
        let list = Self::Collections(ListCollections { after: None, limit: 1_000 });
        COLLECTIONS.into_iter().map(|name| Self::Scan(scan(name), None)).chain([list]).collect()
    }
}

fn range(random: &mut Random) -> KeyRange {
    match random.below(4) {
        0 => KeyRange::Prefix(["", "k", "k%", "ключ", "k0"][random.index(5)].to_owned()),
        1 => KeyRange::Between {
            from: random.percent(70).then(|| key(random)),
            to: random.percent(70).then(|| key(random)),
        },
        _ => KeyRange::All,
    }
}

/// Sends a write and waits for its answer.
pub(super) async fn send(larder: &Larder, write: Write, broken: Broken) -> Replied {
    let Write { message, idempotency_key } = write;
    let idempotency_key = idempotency_key.filter(|_| broken != Broken::IgnoresIdempotencyKeys);
    macro_rules! reply {
        ($message:expr, $reply:expr) => {{
            let request = larder.ask($message);
            let request = match idempotency_key {
                Some(key) => request.idempotency_key(key),
                None => request,
            };
            request.await.map($reply).map_err(|error| error.class())
        }};
    }
    match message {
        Message::Put(put) => reply!(spoiled(put, broken), Reply::Version),
        Message::PutIfAbsent(put) => reply!(put, Reply::MaybeVersion),
        Message::CompareAndPut(put) => reply!(put, Reply::Version),
        Message::PutMany(mut puts) if broken == Broken::LosesBatchItem && puts.puts.len() > 1 => {
            puts.puts.pop();
            let lose = |mut versions: Vec<Version>| {
                versions.extend(versions.last().map(|last| Version(last.0 + 1)));
                Reply::Versions(versions)
            };
            reply!(puts, lose)
        }
        Message::PutMany(puts) => reply!(puts, Reply::Versions),
        Message::Delete(DeleteValue { collection, key }) if broken == Broken::DropsDeletes => {
            reply!(GetValue { collection, key }, |found| Reply::Was(found.is_some()))
        }
        Message::Delete(delete) => reply!(delete, Reply::Was),
        Message::DeleteMany(delete) => reply!(delete, Reply::Count),
        Message::CompareAndDelete(delete) => reply!(delete, |()| Reply::Done),
        Message::DeleteTagged(delete) => reply!(delete, Reply::Count),
        Message::Increment(increment) => reply!(increment, Reply::Sum),
        Message::Touch(touch) => reply!(touch, Reply::Was),
        Message::Pop(pop) => reply!(pop, Reply::Popped),
        Message::Transaction(transaction) if broken == Broken::SkipsRollback => {
            without_rollback(larder, transaction).await
        }
        Message::Transaction(transaction) => reply!(transaction, Reply::Outcomes),
        Message::Drop(drop) => reply!(drop, Reply::Count),
        Message::Declare(declare) => reply!(declare, Reply::Was),
    }
}

fn spoiled(mut put: PutValue, broken: Broken) -> PutValue {
    match broken {
        Broken::IgnoresTimeToLive => put.time_to_live = None,
        Broken::LosesTags => put.tags.clear(),
        _ => {}
    }
    put
}

/// A transaction that is refused, but leaves its first operation behind.
async fn without_rollback(larder: &Larder, transaction: ApplyTransaction) -> Replied {
    let first = transaction.operations.first().cloned();
    let replied = larder.ask(transaction).await.map(Reply::Outcomes).map_err(|error| error.class());
    if replied == Err(Class::Conflict)
        && let Some(Operation::Put(put)) = first
    {
        larder.ask(put).await.unwrap();
    }
    replied
}

/// Asks a question; questions do not fail.
pub(super) async fn ask(larder: &Larder, question: Question) -> Answer {
    match question {
        Question::Get(get) => Answer::Entry(larder.ask(get).await.unwrap()),
        Question::GetMany(get) => Answer::Entries(larder.ask(get).await.unwrap()),
        Question::Scan(scan, _) => Answer::Page(larder.ask(scan).await.unwrap()),
        Question::Count(count, _) => Answer::Count(larder.ask(count).await.unwrap()),
        Question::Collections(list) => Answer::Collections(larder.ask(list).await.unwrap()),
    }
}

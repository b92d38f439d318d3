//! Store files, WALs, snapshots and manifests that somebody else had his hands on: each is refused or reported with a typed
//! error, or answers are right; nothing in it runs, and what is refused stays as it is.
//!
//! Start at [`mutated_files_are_refused_reported_or_answered_right`]; [`Mutation`] lists what is done to them.
//!
//! More: `LARDER_MUTATIONS=5000 cargo test --release --test it hostile -- --nocapture`.
#![expect(clippy::disallowed_methods, reason = "makes and compares files that no larder has open")]

use std::collections::BTreeMap;
use std::path::Path;

use futures::TryStreamExt;
use larder::{ChatMessage, CheckDepth, Class, Error, Larder, Metric, NewRelation, Node, Point, backup};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::support::{number_from_environment, within};
use crate::torture::Random;

const ENTRIES: u32 = 300;
const MESSAGES: u32 = 120;
const NODES: u32 = 150;
const POINTS: u32 = 150;
const FACTS: u32 = 200;
const VALUES: u32 = 100;

/// A store whose file is attacked.
#[derive(Debug, Clone, Copy)]
struct Attacked {
    store: &'static str,
    /// A table of it, and a number in it.
    table: &'static str,
    number: &'static str,
    /// Changes much of the file and nothing that a caller can see.
    unseen: &'static str,
}

/// Not the embedding cache: a file of its that is damaged is set aside, and begun anew.
const ATTACKED: [Attacked; 5] = [
    Attacked { store: "kv", table: "entry", number: "id", unseen: "UPDATE entry SET updated_ms = updated_ms + 1" },
    Attacked {
        store: "chat",
        table: "body",
        number: "id",
        unseen: "UPDATE session SET updated_ms = updated_ms + 1; UPDATE body_text_docsize SET sz = sz || x''",
    },
    Attacked { store: "documents", table: "node", number: "key", unseen: "REINDEX" },
    Attacked { store: "vectors", table: "point", number: "slot", unseen: "REINDEX" },
    Attacked { store: "graph", table: "relation", number: "key", unseen: "REINDEX" },
];
/// What a planted trigger or view leaves behind when it runs.
const EXECUTED: &str = "executed";

/// What is done to a store's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mutation {
    HeaderByte,
    PageBytes,
    PageSwapped,
    Truncated,
    PlantedTrigger,
    PlantedView,
    PlantedIndex,
    ChangedTable,
    HiddenTrigger,
    OtherApplication,
    NewerVersion,
    WalTruncated,
    WalBytes,
    WalOfAnotherStore,
    ShmGarbage,
    JournalGarbage,
}

impl Mutation {
    const ALL: [Self; 16] = [
        Self::HeaderByte,
        Self::PageBytes,
        Self::PageSwapped,
        Self::Truncated,
        Self::PlantedTrigger,
        Self::PlantedView,
        Self::PlantedIndex,
        Self::ChangedTable,
        Self::HiddenTrigger,
        Self::OtherApplication,
        Self::NewerVersion,
        Self::WalTruncated,
        Self::WalBytes,
        Self::WalOfAnotherStore,
        Self::ShmGarbage,
        Self::JournalGarbage,
    ];

    /// Does it to the closed file of a store in `folder`. `walled` holds the same stores with a WAL beside each, `other` is one
    /// of those.
    fn apply(self, folder: &Path, attacked: Attacked, walled: &Path, other: Attacked, random: &mut Random) {
        let Attacked { store, table, number, .. } = attacked;
        let file = folder.join(format!("{store}.db"));
        let sibling = |suffix: &str| folder.join(format!("{store}.db{suffix}"));
        let change = |path: &Path, change: &mut dyn FnMut(&mut Vec<u8>)| {
            let mut bytes = std::fs::read(path).unwrap();
            change(&mut bytes);
            std::fs::write(path, bytes).unwrap();
        };
        // Nothing sweeps it: it was stored in the far future.
        let leave = format!("INSERT INTO idempotency VALUES ('{EXECUTED}', x'', x'', {})", i64::MAX);
        let trigger = format!("CREATE TRIGGER planted AFTER INSERT ON {table} BEGIN {leave}; END");
        let sql = |sql: &str| Connection::open(&file).unwrap().execute_batch(sql).unwrap();
        let take_wal_of = |other: &str| {
            std::fs::copy(walled.join(format!("{store}.db")), &file).unwrap();
            std::fs::copy(walled.join(format!("{other}.db-wal")), sibling("-wal")).unwrap();
        };
        let mut flip = |bytes: &mut Vec<u8>, from: usize, to: usize, count: u64| {
            for _ in 0..count {
                let at = from + random.index(to - from);
                bytes[at] ^= 1 << random.below(8);
            }
        };
        match self {
            Self::HeaderByte => change(&file, &mut |bytes| flip(bytes, 0, 100, 1)),
            Self::PageBytes => change(&file, &mut |bytes| flip(bytes, 100, bytes.len(), 20)),
            Self::PageSwapped => change(&file, &mut |bytes| {
                let size = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
                let pages = bytes.len() / size;
                let (one, other) = (1 + random.index(pages - 1), 1 + random.index(pages - 1));
                let kept = bytes[one * size..(one + 1) * size].to_vec();
                bytes.copy_within(other * size..(other + 1) * size, one * size);
                bytes[other * size..(other + 1) * size].copy_from_slice(&kept);
            }),
            Self::Truncated => change(&file, &mut |bytes| bytes.truncate(random.index(bytes.len()))),
            Self::PlantedTrigger => sql(&trigger),
            Self::PlantedView => sql(&format!("CREATE VIEW planted AS SELECT * FROM {table}")),
            Self::PlantedIndex => sql(&format!("CREATE INDEX planted ON {table} (abs({number}))")),
            Self::ChangedTable => sql(&format!("ALTER TABLE {table} ADD COLUMN planted TEXT DEFAULT '{EXECUTED}'")),
            // Under a name that SQLite keeps for itself, so that a look at the schema may pass it over.
            Self::HiddenTrigger => sql(&format!(
                "PRAGMA writable_schema = ON;
                 INSERT INTO sqlite_schema VALUES ('trigger', 'sqlite_planted', '{table}', 0, '{}');
                 PRAGMA writable_schema = RESET",
                trigger.replace("planted", "sqlite_planted").replace('\'', "''")
            )),
            Self::OtherApplication => sql(&format!("PRAGMA application_id = {}", random.below(1 << 30))),
            Self::NewerVersion => sql(&format!("PRAGMA user_version = {}", 100 + random.below(1_000))),
            Self::WalTruncated => {
                take_wal_of(store);
                change(&sibling("-wal"), &mut |bytes| bytes.truncate(random.index(bytes.len())));
            }
            Self::WalBytes => {
                take_wal_of(store);
                change(&sibling("-wal"), &mut |bytes| flip(bytes, 0, bytes.len(), 5));
            }
            Self::WalOfAnotherStore => take_wal_of(other.store),
            Self::ShmGarbage => {
                take_wal_of(store);
                let garbage: Vec<u8> = (0..32_768).map(|_| random.next().to_le_bytes()[0]).collect();
                std::fs::write(sibling("-shm"), garbage).unwrap();
            }
            Self::JournalGarbage => {
                let garbage: Vec<u8> = (0..4_096).map(|_| random.next().to_le_bytes()[0]).collect();
                std::fs::write(sibling("-journal"), garbage).unwrap();
            }
        }
    }
}

/// What a damaged or foreign file may be answered with: that it is, and never that the caller did wrong.
const TYPED: [Class; 5] = [Class::Refused, Class::Corrupt, Class::Io, Class::StoreFailed, Class::Restarting];

/// What a store said under attack.
#[derive(Debug, Default)]
struct Seen {
    /// The classes of the errors that it answered.
    errors: Vec<Class>,
    right: usize,
    /// Answers that were no errors and yet wrong.
    wrong: Vec<String>,
    /// What a full check reports; an error is a report too.
    is_reported: bool,
}

impl Seen {
    fn note<T: PartialEq>(&mut self, what: &str, answer: Result<T, Error>, expected: &T) {
        match answer {
            Ok(found) if found == *expected => self.right += 1,
            Ok(_) => self.wrong.push(what.to_owned()),
            Err(error) => {
                if !TYPED.contains(&error.class()) {
                    self.wrong.push(format!("{what} is answered with {error:?}"));
                }
                self.errors.push(error.class());
            }
        }
    }

    fn is_refused(&self) -> bool {
        self.right == 0 && self.wrong.is_empty() && self.errors.first() == Some(&Class::Refused)
    }
}

fn value(n: u32) -> Vec<u8> {
    n.to_le_bytes().repeat(2 + n as usize % 300)
}

fn text(n: u32) -> String {
    format!("message {n} {}", "word ".repeat(n as usize % 40))
}

/// A vector in a direction of each number's own.
#[expect(clippy::cast_possible_truncation, reason = "digits are left out")]
fn vector(n: u32) -> [f32; 3] {
    let angle = f64::from(n) / 100.0;
    [angle.cos() as f32, angle.sin() as f32, 0.5]
}

fn fact(n: u32) -> NewRelation {
    NewRelation::new(format!("one {}", n % 20), "knows", format!("other {n}")).unwrap()
}

/// Makes a folder with every store in it, closed.
async fn fill(folder: &Path) {
    let larder = Larder::open(folder).await.unwrap();
    larder.kv().bytes("c").put_many((0..ENTRIES).map(|n| (format!("k{n}"), value(n)))).await.unwrap();
    for session in 0..4 {
        let messages = (0..MESSAGES).filter(|n| n % 4 == session).map(|n| ChatMessage::user(text(n)));
        larder.chat().session(format!("s{session}")).append(messages).await.unwrap();
    }
    let nodes = (0..NODES).map(|n| Node::text(format!("n{n}"), text(n)).unwrap());
    larder.documents().upsert(nodes).await.unwrap();
    let points = larder.vectors().collection("c").dimensions(3).metric(Metric::Cosine).open().await.unwrap();
    points.upsert((0..POINTS).map(|n| Point::new(format!("p{n}"), vector(n)).unwrap())).await.unwrap();
    larder.graph().upsert_relations((0..FACTS).map(fact)).await.unwrap();
    let inputs: Vec<String> = (0..VALUES).map(text).collect();
    larder.embed_cache().put_many("model", inputs.iter().zip((0..).map(|n| vector(n).to_vec()))).await.unwrap();
    assert!(larder.close().await.is_clean());
}

/// Leaves a WAL beside each store, whose frames change nothing that a caller can see.
fn leave_wals(folder: &Path) {
    for Attacked { store, unseen, .. } in ATTACKED {
        let connection = Connection::open(folder.join(format!("{store}.db"))).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        connection.execute_batch(unseen).unwrap();
    }
}

fn copy(from: &Path, to: &Path, stores: &[Attacked]) {
    for Attacked { store, .. } in stores {
        std::fs::copy(from.join(format!("{store}.db")), to.join(format!("{store}.db"))).unwrap();
    }
}

/// The store's files, byte for byte; the shared memory is SQLite's scratch.
fn files(folder: &Path, store: &str) -> BTreeMap<String, Vec<u8>> {
    let names = ["", "-wal", "-journal"].map(|suffix| format!("{store}.db{suffix}"));
    names.into_iter().filter_map(|name| Some((name.clone(), std::fs::read(folder.join(name)).ok()?))).collect()
}

/// Returns whether something planted has run.
fn is_executed(folder: &Path, store: &str) -> bool {
    let query = format!("SELECT count(*) FROM idempotency WHERE key = '{EXECUTED}'");
    // A file that cannot be read ran nothing either.
    let count = Connection::open(folder.join(format!("{store}.db")))
        .and_then(|connection| connection.query_row(&query, [], |row| row.get::<_, i64>(0)));
    count.is_ok_and(|count| count > 0)
}

/// Reads everything, and writes.
async fn use_store(folder: &Path, store: &str) -> Seen {
    let mut seen = Seen::default();
    let larder = within(Larder::open(folder)).await.unwrap();
    match store {
        "kv" => use_kv(&larder, &mut seen).await,
        "chat" => use_chat(&larder, &mut seen).await,
        "documents" => use_documents(&larder, &mut seen).await,
        "vectors" => use_vectors(&larder, &mut seen).await,
        _ => use_graph(&larder, &mut seen).await,
    }
    seen.is_reported = match within(larder.check(CheckDepth::Full)).await {
        Ok(report) => report.findings.iter().any(|finding| finding.store.as_str() == store),
        Err(_) => true,
    };
    larder.close().await;
    seen
}

async fn use_kv(larder: &Larder, seen: &mut Seen) {
    let kv = larder.kv().bytes("c");
    for n in (0..ENTRIES).step_by(7) {
        let found = within(kv.get(format!("k{n}"))).await.map(|found| found.map(|found| found.to_vec()));
        seen.note(&format!("k{n}"), found, &Some(value(n)));
    }
    let all = within(kv.scan().stream().try_fold(0, |count, _| async move { Ok(count + 1) })).await;
    seen.note("scan", all, &ENTRIES);
    let put = within(kv.put("new", "new")).await.map(|_| ());
    // A write that is refused leaves nothing: a file may be one that SQLite reads and does not write.
    let expected = put.is_ok();
    seen.note("put", put, &());
    let get = within(kv.get("new")).await.map(|found| found.is_some_and(|found| found == "new"[..]));
    seen.note("get", get, &expected);
}

async fn use_chat(larder: &Larder, seen: &mut Seen) {
    for session in 0..4 {
        let chat = larder.chat().session(format!("s{session}"));
        let expected: Vec<_> = (0..MESSAGES).filter(|n| n % 4 == session).map(text).collect();
        let messages = within(chat.export().try_collect::<Vec<_>>()).await;
        let texts = messages.map(|all| all.iter().map(|one| one.message.text().unwrap_or_default()).collect());
        seen.note(&format!("s{session}"), texts, &expected);
        let hits = within(chat.search("message").limit(1_000)).await.map(|hits| hits.len());
        seen.note(&format!("search in s{session}"), hits, &expected.len());
    }
    let new = larder.chat().session("new");
    let append = within(new.append([ChatMessage::user("new")])).await.map(|_| ());
    let expected = usize::from(append.is_ok());
    seen.note("append", append, &());
    seen.note("page", within(new.page(10)).await.map(|page| page.messages.len()), &expected);
}

async fn use_documents(larder: &Larder, seen: &mut Seen) {
    let documents = larder.documents();
    let text_of = |node: &Node| node.content.text().unwrap_or_default().to_owned();
    for n in (0..NODES).step_by(7) {
        let found = within(documents.get(format!("n{n}"))).await.map(|found| found.map(|found| text_of(&found.node)));
        seen.note(&format!("n{n}"), found, &Some(text(n)));
    }
    let all = within(documents.page().stream().try_fold(0, |count, _| async move { Ok(count + 1) })).await;
    seen.note("page", all, &NODES);
    let hits = within(documents.search("message").limit(1_000)).await.map(|hits| hits.len());
    seen.note("search", hits, &(NODES as usize));
    let put = within(documents.upsert([Node::text("new", "new").unwrap()])).await.map(|_| ());
    let expected = put.is_ok().then(|| "new".to_owned());
    seen.note("upsert", put, &());
    let get = within(documents.get("new")).await.map(|found| found.map(|found| text_of(&found.node)));
    seen.note("get", get, &expected);
}

async fn use_vectors(larder: &Larder, seen: &mut Seen) {
    let points = match within(larder.vectors().collection("c").dimensions(3).metric(Metric::Cosine).open()).await {
        Ok(points) => points,
        Err(error) => return seen.note("open", Err(error), &()),
    };
    for n in (0..POINTS).step_by(7) {
        let nearest = within(points.search(vector(n)).k(1).into_future()).await;
        seen.note(
            &format!("near p{n}"),
            nearest.map(|hits| hits.iter().map(|hit| hit.id.as_str().to_owned()).collect()),
            &vec![format!("p{n}")],
        );
    }
    seen.note("count", within(points.count()).await, &u64::from(POINTS));
    let all = within(points.page().stream().try_fold(0, |count, _| async move { Ok(count + 1) })).await;
    seen.note("page", all, &POINTS);
    let put = within(points.upsert([Point::new("new", [0.0, 0.0, -1.0]).unwrap()])).await.map(|_| ());
    let expected = put.is_ok();
    seen.note("upsert", put, &());
    seen.note("get", within(points.get("new")).await.map(|found| found.is_some()), &expected);
}

async fn use_graph(larder: &Larder, seen: &mut Seen) {
    let graph = larder.graph();
    for one in 0..20 {
        let name = format!("one {one}");
        let mut expected: Vec<String> = (0..FACTS).filter(|n| n % 20 == one).map(|n| format!("other {n}")).collect();
        expected.sort();
        let sorted = |found: Vec<String>| {
            let mut found = found;
            found.sort();
            found
        };
        let near = within(graph.neighbors(&name).into_future()).await;
        let near = near.map(|found| found.iter().map(|one| one.entity.name.as_str().to_owned()).collect());
        seen.note(&format!("near {name}"), near.map(sorted), &expected);
        let told = within(graph.relations().subject(&name).into_future()).await;
        let told = told.map(|page| page.relations.iter().map(|one| one.object.name.as_str().to_owned()).collect());
        seen.note(&format!("facts of {name}"), told.map(sorted), &expected);
    }
    for n in (0..FACTS).step_by(29) {
        let found = within(graph.named(format!("other {n}")).into_future()).await.map(|found| found.len());
        seen.note(&format!("other {n}"), found, &1);
    }
    let put = within(graph.upsert_relations([fact(FACTS)])).await.map(|_| ());
    let expected = usize::from(put.is_ok());
    seen.note("upsert", put, &());
    let get = within(graph.relations().object(format!("other {FACTS}")).into_future()).await;
    seen.note("get", get.map(|page| page.relations.len()), &expected);
}

#[tokio::test]
async fn mutated_files_are_refused_reported_or_answered_right() {
    let mutations = number_from_environment("LARDER_MUTATIONS", 200);
    let seed = number_from_environment("LARDER_SEED", 1);
    let (good, walled) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(good.path()).await;
    copy(good.path(), walled.path(), &ATTACKED);
    leave_wals(walled.path());
    let (mut refused, mut reported, mut right) = (0, 0, 0);
    // One alone: `LARDER_MUTATION=1612 LARDER_MUTATIONS=1613`.
    for index in number_from_environment("LARDER_MUTATION", 0)..mutations {
        let mut random = Random::of(seed, index);
        let mutation = Mutation::ALL[random.index(Mutation::ALL.len())];
        let at = random.index(ATTACKED.len());
        let (attacked, other) = (ATTACKED[at], ATTACKED[(at + 1) % ATTACKED.len()]);
        let store = attacked.store;
        let what = format!("{index} ({mutation:?} of {store}, LARDER_SEED={seed})");
        let folder = tempfile::tempdir().unwrap();
        copy(good.path(), folder.path(), &[attacked]);
        mutation.apply(folder.path(), attacked, walled.path(), other, &mut random);
        let before = files(folder.path(), store);
        // The last line says what it was that hangs.
        println!("{what}");
        let seen = use_store(folder.path(), store).await;
        assert!(seen.errors.iter().all(|class| TYPED.contains(class)), "{what}: {:?}", seen.wrong);
        assert!(seen.wrong.is_empty() || seen.is_reported, "{what}: wrong without a word: {:?}", seen.wrong);
        if seen.is_refused() {
            refused += 1;
            assert!(files(folder.path(), store) == before, "{what}: it was refused, and is not as it was");
        } else if seen.errors.is_empty() && seen.wrong.is_empty() && !seen.is_reported {
            right += 1;
        } else {
            reported += 1;
        }
        assert!(!is_executed(folder.path(), store), "{what}: something planted has run");
        let must_refuse = matches!(
            mutation,
            Mutation::PlantedTrigger
                | Mutation::PlantedView
                | Mutation::PlantedIndex
                | Mutation::ChangedTable
                | Mutation::HiddenTrigger
                | Mutation::OtherApplication
                | Mutation::NewerVersion
        );
        assert!(seen.is_refused() || !must_refuse, "{what}: it was not refused: {:?}", seen.errors);
    }
    println!("{mutations} mutated files: {refused} refused and unchanged, {reported} reported, {right} answered right");
    assert!(refused > 0 && reported > 0 && right > 0);
}

/// The two looks that the attack relies on see what they are for.
#[tokio::test]
async fn control_executed_trigger_and_changed_byte_are_seen() {
    let (good, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(good.path()).await;
    for attacked in ATTACKED {
        let Attacked { store, table, .. } = attacked;
        copy(good.path(), folder.path(), &[attacked]);
        let before = files(folder.path(), store);
        assert!(!is_executed(folder.path(), store));
        Mutation::PlantedTrigger.apply(folder.path(), attacked, good.path(), attacked, &mut Random::of(1, 1));
        assert!(files(folder.path(), store) != before);
        let insert = format!("INSERT OR REPLACE INTO {table} SELECT * FROM {table} LIMIT 1");
        Connection::open(folder.path().join(format!("{store}.db"))).unwrap().execute_batch(&insert).unwrap();
        assert!(is_executed(folder.path(), store), "{store}: the trigger ran, and nobody saw it");
    }
}

#[tokio::test]
async fn mutated_snapshots_and_manifests_are_refused_or_restored_right() {
    let mutations = number_from_environment("LARDER_MUTATIONS", 200);
    let (live, snapshots, target) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(live.path()).await;
    let larder = Larder::open(live.path()).await.unwrap();
    let snapshot = larder.snapshot(snapshots.path()).await.unwrap().path;
    larder.close().await;
    let names = ["manifest.json", "kv.db", "chat.db", "documents.db", "vectors.db", "graph.db", "embed_cache.db"];
    let good: BTreeMap<&str, Vec<u8>> =
        names.into_iter().map(|name| (name, std::fs::read(snapshot.join(name)).unwrap())).collect();
    let (mut refused, mut restored) = (0, 0);
    for index in 0..mutations {
        let mut random = Random::of(2, index);
        // The manifest is where there is most to be misread.
        let name = if random.percent(70) { names[0] } else { names[1 + random.index(names.len() - 1)] };
        let mut bytes = good[name].clone();
        match random.below(4) {
            0 => bytes.truncate(random.index(bytes.len())),
            1 => bytes.extend_from_within(..random.index(bytes.len())),
            _ => {
                for _ in 0..1 + random.below(3) {
                    let at = random.index(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
            }
        }
        std::fs::write(snapshot.join(name), &bytes).unwrap();
        let folder = target.path().join(index.to_string());
        match backup::restore(&snapshot, &folder) {
            Ok(_) => {
                restored += 1;
                // Only what the manifest says about the time can have changed.
                assert!(
                    names[1..].iter().all(|name| std::fs::read(folder.join(name)).unwrap() == good[name]),
                    "{index}"
                );
            }
            Err(error) => {
                refused += 1;
                assert!(matches!(error.class(), Class::Refused | Class::Corrupt), "{index}: {error:?}");
                assert!(!folder.exists(), "{index}: something was written");
            }
        }
        std::fs::write(snapshot.join(name), &good[name]).unwrap();
    }
    println!("{mutations} mutated snapshots: {refused} refused, {restored} restored as they were");
    assert!(refused > restored);
    backup::restore(&snapshot, target.path().join("good")).unwrap();
}

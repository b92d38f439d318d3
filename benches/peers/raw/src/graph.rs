//! A graph as a competent user keeps it in SQLite: entities and relations with indexes both ways, cached statements, one thread;
//! names for misspelt lookups in an FTS5 trigram index.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use peer_harness::Result;
use peer_harness::graph::{CALLERS, FOUND, Job, LIMIT, Run, Stage};
use rusqlite::{Connection, OptionalExtension, params};

const SCHEMA: &str = "
    CREATE TABLE label (key INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
    CREATE TABLE entity (key INTEGER PRIMARY KEY, label_key INTEGER NOT NULL, name TEXT NOT NULL UNIQUE, properties TEXT);
    CREATE TABLE relation (key INTEGER PRIMARY KEY, subject INTEGER NOT NULL, label_key INTEGER NOT NULL,
        object INTEGER NOT NULL, properties TEXT);
    CREATE INDEX relation_out ON relation (subject, label_key, object);
    CREATE INDEX relation_in ON relation (object, label_key, subject);
    CREATE VIRTUAL TABLE name USING fts5 (text, content = '', detail = full, tokenize = 'trigram');";

const NEIGHBORS: &str = "
    SELECT relation.key, relation.label_key, entity.label_key, entity.name FROM relation JOIN entity ON entity.key = relation.object
        WHERE relation.subject = (SELECT key FROM entity WHERE name = ?1)
    UNION ALL
    SELECT relation.key, relation.label_key, entity.label_key, entity.name FROM relation JOIN entity ON entity.key = relation.subject
        WHERE relation.object = (SELECT key FROM entity WHERE name = ?1) AND relation.subject <> relation.object
    LIMIT ?2";

/// A name as people write it: without what tells senses apart.
fn shown(name: &str) -> String {
    let name = name.strip_prefix("w:").unwrap_or(name);
    name.split('.').next().filter(|first| !first.is_empty()).unwrap_or(name).replace('_', " ")
}

fn open(job: &Job) -> Result<Connection> {
    let connection = Connection::open(job.folder.join("raw.db"))?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536;")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

pub(crate) fn serve(job: &Job) -> Result<Run> {
    match job.stage {
        Stage::Load => load(job),
        Stage::Query => peer_harness::callers::runtime()?.block_on(query(job)),
        Stage::Upsert => upsert(job),
    }
}

fn load(job: &Job) -> Result<Run> {
    let (entities, facts) = (job.entities()?, job.facts()?);
    let began = Instant::now();
    let connection = open(job)?;
    connection.execute_batch(SCHEMA)?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let mut labels = HashMap::new();
    for entity in &entities {
        let label = label(&connection, &mut labels, &entity.label)?;
        let mut insert =
            connection.prepare_cached("INSERT INTO entity (label_key, name, properties) VALUES (?1, ?2, ?3)")?;
        let key = insert.insert(params![label, entity.name, entity.properties])?;
        connection
            .prepare_cached("INSERT INTO name (rowid, text) VALUES (?1, ?2)")?
            .execute(params![key, shown(&entity.name)])?;
    }
    for fact in &facts {
        let label = label(&connection, &mut labels, &fact.label)?;
        let properties = (fact.properties != "{}").then_some(&fact.properties);
        put(&connection, &fact.subject, label, &fact.object, properties)?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(Run::loaded(began.elapsed().as_secs_f64()))
}

fn label(connection: &Connection, known: &mut HashMap<String, i64>, text: &str) -> Result<i64> {
    if let Some(key) = known.get(text) {
        return Ok(*key);
    }
    connection.prepare_cached("INSERT OR IGNORE INTO label (text) VALUES (?1)")?.execute([text])?;
    let key =
        connection.prepare_cached("SELECT key FROM label WHERE text = ?1")?.query_row([text], |row| row.get(0))?;
    known.insert(text.to_owned(), key);
    Ok(key)
}

fn key(connection: &Connection, name: &str) -> Result<i64> {
    Ok(connection.prepare_cached("SELECT key FROM entity WHERE name = ?1")?.query_row([name], |row| row.get(0))?)
}

/// Stores a fact, unless it is there.
fn put(connection: &Connection, subject: &str, label: i64, object: &str, properties: Option<&String>) -> Result<()> {
    let (subject, object) = (key(connection, subject)?, key(connection, object)?);
    let mut same =
        connection.prepare_cached("SELECT key FROM relation WHERE subject = ?1 AND label_key = ?2 AND object = ?3")?;
    let there: Option<i64> = same.query_row([subject, label, object], |row| row.get(0)).optional()?;
    if there.is_none() {
        connection
            .prepare_cached("INSERT INTO relation (subject, label_key, object, properties) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![subject, label, object, properties])?;
    }
    Ok(())
}

async fn query(job: &Job) -> Result<Run> {
    let (questions, lines) = (job.questions()?, job.lines()?);
    let Some(first) = questions.hops.first() else { return Ok(Run::default()) };
    let began = Instant::now();
    let connection = open(job)?;
    neighborhood(&connection, first, 2)?;
    let mut run = Run::opened(began.elapsed().as_secs_f64());
    for load in &job.loads {
        match load.as_str() {
            "1-hop" => {
                let told = |found: Vec<(i64, i64, i64, String)>| found.iter().map(|row| lines.of(&row.3)).collect();
                run.ask(load, &questions.hops, async |name| neighbors(&connection, name), told).await?;
            }
            "2-hop" | "3-hop" => {
                let depth = if load == "2-hop" { 2 } else { 3 };
                let told = |found: Vec<(String, usize)>| {
                    let pairs = found.iter().map(|(name, hops)| Ok([lines.of(name)?, *hops]));
                    Ok(pairs.collect::<Result<Vec<_>>>()?.concat())
                };
                run.ask(load, &questions.hops, async |name| neighborhood(&connection, name, depth), told).await?;
            }
            "lookup" => {
                // The key is the line, from 1.
                let told = |found: Vec<i64>| Ok(found.iter().map(|key| *key as usize - 1).collect());
                run.ask(load, &questions.typos, async |text| lookup(&connection, text), told).await?;
            }
            _ => {}
        }
    }
    Ok(run)
}

fn neighbors(connection: &Connection, name: &str) -> Result<Vec<(i64, i64, i64, String)>> {
    let mut statement = connection.prepare_cached(NEIGHBORS)?;
    let rows = statement
        .query_map(params![name, LIMIT as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn neighborhood(connection: &Connection, name: &str, depth: usize) -> Result<Vec<(String, usize)>> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let start = key(connection, name)?;
    let (mut met, mut found, mut level) = (HashSet::from([start]), Vec::new(), vec![start]);
    'walk: for hops in 1..=depth {
        let mut next = Vec::new();
        for node in level {
            for sql in
                ["SELECT object FROM relation WHERE subject = ?1", "SELECT subject FROM relation WHERE object = ?1"]
            {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query([node])?;
                while let Some(row) = rows.next()? {
                    let other: i64 = row.get(0)?;
                    if met.insert(other) {
                        let mut named = connection.prepare_cached("SELECT name FROM entity WHERE key = ?1")?;
                        found.push((named.query_row([other], |row| row.get(0))?, hops));
                        next.push(other);
                        if found.len() == LIMIT {
                            break 'walk;
                        }
                    }
                }
            }
        }
        level = next;
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(found)
}

/// The names that share the most and rarest threes with a text.
fn lookup(connection: &Connection, text: &str) -> Result<Vec<i64>> {
    let letters: Vec<char> = text.chars().collect();
    let threes: Vec<String> =
        letters.windows(3).map(|three| format!("\"{}\"", String::from_iter(three).replace('"', "\"\""))).collect();
    if threes.is_empty() {
        return Ok(Vec::new());
    }
    let mut statement =
        connection.prepare_cached("SELECT rowid FROM name WHERE name MATCH ?1 ORDER BY rank LIMIT ?2")?;
    let rows = statement.query_map(params![threes.join(" OR "), FOUND as i64], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// One fact a commit, the same asked of a thread by a task, and 64 a commit by hand.
fn upsert(job: &Job) -> Result<Run> {
    let (questions, mut run) = (job.questions()?, Run::default());
    let connection = open(job)?;
    let has_hop = job.loads.iter().any(|load| load == "upsert-1");
    // Whoever comes second finds the file in the system's cache.
    if has_hop && job.round % 2 == 1 {
        upsert_behind_a_thread(job, &questions.upserts, &mut run)?;
    }
    for load in &job.loads {
        let at_once = if load == "upsert-1" { 1 } else { CALLERS };
        let label = label(&connection, &mut HashMap::new(), &job.new_label(load))?;
        let (start, mut times) = (Instant::now(), Vec::new());
        for facts in questions.upserts.chunks(at_once) {
            let began = Instant::now();
            commit(&connection, facts, label)?;
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
        run.wrote(load, times, questions.upserts.len(), start.elapsed().as_secs_f64());
    }
    if has_hop && job.round % 2 == 0 {
        upsert_behind_a_thread(job, &questions.upserts, &mut run)?;
    }
    Ok(run)
}

/// `upsert-1` by a task that asks the connection's thread and waits: what a hop to another thread and back costs.
const HOP: &str = "upsert-1-hop";

fn upsert_behind_a_thread(job: &Job, upserts: &[(String, String)], run: &mut Run) -> Result<()> {
    let connection = open(job)?;
    let label = label(&connection, &mut HashMap::new(), &job.new_label(HOP))?;
    let (ask, asked) = crossbeam_channel::unbounded::<((String, String), tokio::sync::oneshot::Sender<bool>)>();
    let thread = std::thread::spawn(move || {
        for (fact, reply) in asked {
            // Who asked waits for it.
            let _ = reply.send(commit(&connection, &[fact], label).is_ok());
        }
    });
    let (start, mut times) = (Instant::now(), Vec::new());
    peer_harness::callers::runtime()?.block_on(async {
        for fact in upserts {
            let began = Instant::now();
            let (reply, answer) = tokio::sync::oneshot::channel();
            ask.send((fact.clone(), reply))?;
            if !answer.await? {
                return Err(peer_harness::Error::from("a commit failed"));
            }
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
        Result::Ok(())
    })?;
    run.wrote(HOP, times, upserts.len(), start.elapsed().as_secs_f64());
    drop(ask);
    Ok(thread.join().map_err(|_| "the thread panicked")?)
}

fn commit(connection: &Connection, facts: &[(String, String)], label: i64) -> Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for (subject, object) in facts {
        put(connection, subject, label, object, None)?;
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

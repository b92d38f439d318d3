//! Random operations on chat sessions agree with lists in memory, over reopenings.
//!
//! More: `LARDER_MODEL_OPERATIONS=200000 cargo test --release --test it chat::model -- --nocapture`.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use larder::{ChatMessage, Durability, Larder, MessageId};

use super::words;
use crate::support::{integrity_check, number_from_environment};
use crate::torture::Random;

const SESSIONS: u64 = 4;
const OPERATIONS_PER_OPENING: u64 = 250;

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    id: MessageId,
    text: String,
    role: &'static str,
    archived: bool,
    pinned: bool,
}

impl Kept {
    fn cost(&self) -> u64 {
        self.text.split_whitespace().count() as u64
    }
}

type Model = BTreeMap<String, Vec<Kept>>;

/// One thing that a store may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    ForgetsDeletes,
    ForgetsArchive,
    ForgetsEdits,
}

fn text(random: &mut Random) -> String {
    let words = ["apple", "brook", "cloud", "drum", "eagle", "fern"];
    (0..random.below(8)).map(|_| words[random.index(words.len())]).collect::<Vec<_>>().join(" ")
}

/// The strict window without tool calls, as its description reads.
fn window(kept: &[Kept], limit: u64) -> Option<Vec<MessageId>> {
    let live: Vec<&Kept> = kept.iter().filter(|one| !one.archived).collect();
    let is_mandatory = |one: &&&Kept| one.pinned || one.role == "system";
    let mandatory: u64 = live.iter().filter(is_mandatory).map(|one| one.cost()).sum();
    let openers: Vec<usize> = (0..live.len()).filter(|&at| live[at].role == "user").collect();
    let cost_from = |start: usize| {
        mandatory + live[start..].iter().filter(|one| !is_mandatory(one)).map(|one| one.cost()).sum::<u64>()
    };
    let start = openers.iter().copied().find(|&at| cost_from(at) <= limit);
    if start.is_none() && (mandatory > limit || !openers.is_empty()) {
        return None;
    }
    let start = start.unwrap_or(live.len());
    let taken = live.iter().enumerate().filter(|(at, one)| *at >= start || is_mandatory(one));
    Some(taken.map(|(_, one)| one.id).collect())
}

async fn change(larder: &Larder, model: &mut Model, random: &mut Random, flaw: Flaw) -> Result<(), String> {
    let name = format!("s{}", random.below(SESSIONS));
    let chat = larder.chat().session(&name);
    let is_there = model.contains_key(&name);
    let kept = model.entry(name.clone()).or_default();
    let chosen = if kept.is_empty() { None } else { Some(random.index(kept.len())) };
    let id = chosen.map_or(MessageId(u64::MAX >> 1), |at| kept[at].id);
    let same = |what: &str, found: u64, expected: u64| {
        if found == expected { Ok(()) } else { Err(format!("{what} in {name}: {found}, expected {expected}")) }
    };
    let done = match random.below(100) {
        0..55 => {
            let mut new = Vec::new();
            for _ in 0..1 + random.below(4) {
                let roles = if random.percent(10) { 4 } else { 3 };
                new.push((["user", "user", "assistant", "system"][random.index(roles)], text(random)));
            }
            let messages = new.iter().map(|(role, text)| ChatMessage::new((*role).into(), text));
            let ids = chat.append(messages).await.unwrap().ids;
            let new = new.into_iter().zip(ids);
            kept.extend(new.map(|((role, text), id)| Kept { id, text, role, archived: false, pinned: false }));
            return Ok(());
        }
        55..65 => {
            let text = text(random);
            let edited = chat.edit(id, ChatMessage::new(chosen.map_or("user", |at| kept[at].role).into(), &text)).await;
            if let (Some(at), true) = (chosen, flaw != Flaw::ForgetsEdits) {
                kept[at].text = text;
            }
            same("edit", u64::from(edited.is_ok()), u64::from(chosen.is_some()))
        }
        65..72 => {
            let deleted = chat.delete([id]).await.unwrap();
            if let (Some(at), true) = (chosen, flaw != Flaw::ForgetsDeletes) {
                kept.remove(at);
            }
            same("delete", deleted, u64::from(chosen.is_some()))
        }
        72..80 => {
            let archived = random.percent(70);
            let request = if archived { chat.archive([id]) } else { chat.unarchive([id]) };
            let changed = request.await.unwrap();
            let expected = chosen.is_some_and(|at| kept[at].archived != archived);
            if let (Some(at), true) = (chosen, flaw != Flaw::ForgetsArchive) {
                kept[at].archived = archived;
            }
            same("archive", changed, u64::from(expected))
        }
        80..88 => {
            let pinned = random.percent(60);
            let found = if pinned { chat.pin(id).await } else { chat.unpin(id).await }.unwrap();
            if let Some(at) = chosen {
                kept[at].pinned = pinned;
            }
            same("pin", u64::from(found), u64::from(chosen.is_some()))
        }
        88..94 => {
            let forked = kept[..chosen.map_or(0, |at| at + 1)].to_vec();
            let into = format!("s{}", random.below(SESSIONS));
            let may = chosen.is_some() && !model.contains_key(&into);
            let copied = larder.chat().session(&name).fork_at(id, &into).await;
            let expected = if may { forked.len() as u64 } else { u64::MAX };
            if may {
                model.insert(into, forked);
            }
            same("fork", copied.unwrap_or(u64::MAX), expected)
        }
        94..97 => {
            let expected = kept.len() as u64;
            kept.clear();
            same("clear", chat.clear().await.unwrap(), expected)
        }
        _ => {
            let deleted = chat.delete_session().await.unwrap();
            model.remove(&name);
            return same("delete session", u64::from(deleted), u64::from(is_there));
        }
    };
    // A session that was only named is not there.
    if !is_there {
        model.remove(&name);
    }
    done
}

/// Compares some sessions: one after a few operations, all before the folder is closed.
async fn compare(
    larder: &Larder,
    model: &Model,
    sessions: std::ops::Range<u64>,
    random: &mut Random,
) -> Result<(), String> {
    for session in sessions {
        let name = format!("s{session}");
        let chat = larder.chat().session(&name);
        let kept = model.get(&name).map_or(&[][..], Vec::as_slice);
        let found: Vec<_> = chat.export().try_collect::<Vec<_>>().await.map_err(|e| e.to_string())?;
        let found: Vec<_> =
            found.iter().map(|one| (one.id, one.message.text().unwrap(), one.archived, one.pinned)).collect();
        let expected: Vec<_> = kept.iter().map(|one| (one.id, one.text.clone(), one.archived, one.pinned)).collect();
        if found != expected {
            return Err(format!("{name} holds {found:?}\n  expected {expected:?}"));
        }
        let described = chat.description().await.unwrap();
        let counts = described.map(|described| (described.message_count, described.token_count));
        let expected = model.get(&name).map(|kept| (kept.len() as u64, kept.iter().map(Kept::cost).sum()));
        if counts != expected {
            return Err(format!("{name} counts {counts:?}, expected {expected:?}"));
        }
        let limit = random.below(60);
        let found =
            chat.window(limit).await.ok().map(|window| window.messages.iter().map(|one| one.id).collect::<Vec<_>>());
        let expected = window(kept, limit);
        if found.as_ref().map(|ids| ids.iter().collect::<std::collections::BTreeSet<_>>())
            != expected.as_ref().map(|ids| ids.iter().collect())
        {
            return Err(format!("{name}, window of {limit}: {found:?}, expected {expected:?}\n  of {kept:?}"));
        }
        let hits = chat.search("apple").limit(10_000).await.unwrap().len();
        let expected = kept.iter().filter(|one| one.text.contains("apple")).count();
        if hits != expected {
            return Err(format!("{name}: {hits} found, expected {expected}"));
        }
    }
    Ok(())
}

async fn run(seed: u64, operations: u64, flaw: Flaw) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let (mut random, mut model) = (Random::of(seed, 7), Model::new());
    let mut done = 0;
    while done < operations {
        let builder = Larder::builder(folder.path()).chat(|chat| {
            chat.own.counter = words();
            chat.common.durability = Durability::Relaxed;
        });
        let larder = builder.open().await.unwrap();
        for _ in 0..OPERATIONS_PER_OPENING.min(operations - done) {
            done += 1;
            change(&larder, &mut model, &mut random, flaw).await.map_err(|e| format!("operation {done}: {e}"))?;
            if done.is_multiple_of(5) {
                let session = random.below(SESSIONS);
                let compared = compare(&larder, &model, session..session + 1, &mut random).await;
                compared.map_err(|e| format!("after {done} operations: {e}"))?;
            }
        }
        compare(&larder, &model, 0..SESSIONS, &mut random)
            .await
            .map_err(|e| format!("after {done} operations: {e}"))?;
        let findings = larder.check(larder::CheckDepth::Full).await.unwrap().findings;
        if !findings.is_empty() {
            return Err(format!("after {done} operations: {findings:?}"));
        }
        assert!(larder.close().await.is_clean());
        assert_eq!(integrity_check(&folder.path().join("chat.db")), ["ok"]);
    }
    Ok(())
}

#[tokio::test]
async fn random_operations_agree_with_a_model() {
    let operations = number_from_environment("LARDER_MODEL_OPERATIONS", 2_000);
    let seed = number_from_environment("LARDER_SEED", u64::from(std::process::id()));
    run(seed, operations, Flaw::None).await.unwrap_or_else(|e| panic!("LARDER_SEED={seed}: {e}"));
    println!("{operations} operations agree (LARDER_SEED={seed})");
}

#[tokio::test]
async fn control_each_flaw_is_caught() {
    for flaw in [Flaw::ForgetsDeletes, Flaw::ForgetsArchive, Flaw::ForgetsEdits] {
        run(1, 2_000, flaw).await.expect_err(&format!("{flaw:?} went unseen"));
    }
}

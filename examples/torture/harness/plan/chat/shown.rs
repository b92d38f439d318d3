//! What a chat store shows of the ids that wrote to it.
//!
//! Start at [`inspect`].
//!
//! Always true: a session that is absent though two ids may explain it is never taken as proof against either.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use larder::{Larder, MessageId, Result, Sequence};

use super::super::changes::replay;
use super::super::{Fate, History, Shown};
use super::{ChatOperation, SessionChange, WORD, changer, fork_count, own, shared, text};

/// Hits of one page of a search.
const HITS: usize = 10_000;

/// A message as far as ids tell of it: who sent it, and which of its messages it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    id: u64,
    part: u64,
    archived: bool,
    pinned: bool,
}

/// Everything that the store answers.
#[derive(Debug, Default)]
struct Sessions {
    said: BTreeMap<String, Vec<Said>>,
    messages: BTreeSet<(String, MessageId)>,
}

pub(super) async fn inspect(larder: &Larder, history: &History) -> Result<Shown> {
    let mut shown = Shown::default();
    let sessions = Sessions::read(larder, &mut shown.violations).await?;
    for (name, said) in &sessions.said {
        match parse(name) {
            Some((SessionKind::Shared, _)) => tell_shared(history, name, said, &mut shown),
            Some((SessionKind::Own, id)) => tell_own(history, id, said, &mut shown),
            Some((SessionKind::Fork, id)) => tell_fork(history, id, said, &mut shown),
            None => shown.violations.push(format!("session {name} is there, which nobody made")),
        }
    }
    tell_changes(history, &sessions, &mut shown);
    compare_with_search(larder, history, &sessions, &mut shown).await?;
    compare_with_log(larder, &sessions, &mut shown.violations).await?;
    Ok(shown)
}

#[derive(Debug, Clone, Copy)]
enum SessionKind {
    Shared,
    Own,
    Fork,
}

fn parse(name: &str) -> Option<(SessionKind, u64)> {
    let (kind, number) = name.split_once('-')?;
    let kind = match kind {
        "shared" => SessionKind::Shared,
        "own" => SessionKind::Own,
        "fork" => SessionKind::Fork,
        _ => return None,
    };
    Some((kind, number.parse().ok()?))
}

impl Sessions {
    async fn read(larder: &Larder, violations: &mut Vec<String>) -> Result<Self> {
        let mut sessions = Self::default();
        let mut after = None;
        loop {
            let mut request = larder.chat().sessions().limit(1_000);
            if let Some(after) = after.take() {
                request = request.after(after);
            }
            let page = request.await?;
            for session in &page.sessions {
                let name = session.id.as_str();
                let messages: Vec<_> = larder.chat().session(name).export().try_collect().await?;
                let mut said = Vec::with_capacity(messages.len());
                for message in messages {
                    sessions.messages.insert((name.to_owned(), message.id));
                    let words = message.message.text().unwrap_or_default();
                    let mut numbers = words.split(' ').map(str::parse);
                    match (numbers.next(), numbers.next()) {
                        (Some(Ok(id)), Some(Ok(part))) if words == text(id, part) => {
                            said.push(Said { id, part, archived: message.archived, pinned: message.pinned });
                        }
                        _ => violations.push(format!("{name}: nobody said {words:?}")),
                    }
                }
                sessions.said.insert(name.to_owned(), said);
            }
            after = page.next;
            if after.is_none() {
                return Ok(sessions);
            }
        }
    }

    fn own(&self, id: u64) -> Option<&Vec<Said>> {
        self.said.get(&own(id))
    }
}

/// A shared session is only appended to: whole batches, in an order that callers could see.
fn tell_shared(history: &History, name: &str, said: &[Said], shown: &mut Shown) {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for pair in said.windows(2) {
        let &[one, next] = pair else { continue };
        let follows = if one.id == next.id { next.part == one.part + 1 } else { next.part == 0 };
        if !follows {
            let (one_id, next_id, part) = (one.id, next.id, next.part);
            shown.violations.push(format!("{name}: id {next_id} part {part} stands behind id {one_id}"));
        }
        if one.id != next.id && history.is_before(next.id, one.id) {
            let (one, next) = (one.id, next.id);
            shown.violations.push(format!("{name}: id {one} stands before id {next}, which was done before it"));
        }
    }
    for message in said {
        *counts.entry(message.id).or_default() += 1;
        if message.archived || message.pinned {
            shown.violations.push(format!("{name}: a message of id {} is archived or pinned", message.id));
        }
    }
    for (id, found) in counts {
        shown.found.insert(id);
        match ChatOperation::of(history.seed, id) {
            ChatOperation::Append { session, count } | ChatOperation::AppendOnce { session, count }
                if shared(session) == name =>
            {
                if found != count {
                    shown.violations.push(format!("{name}: id {id} is there in part: {found} of {count}"));
                }
            }
            other => shown.violations.push(format!("{name}: id {id} left {found} messages, and it does {other}")),
        }
    }
}

/// What an own session holds before anybody changes it.
fn unchanged(id: u64, count: u64) -> Vec<Said> {
    (0..count).map(|part| Said { id, part, archived: false, pinned: false }).collect()
}

/// What it holds after its one change; `None` when it is gone.
fn changed(mut said: Vec<Said>, id: u64, change: SessionChange) -> Option<Vec<Said>> {
    match change {
        SessionChange::Edit => {
            if let Some(first) = said.first_mut() {
                (first.id, first.part) = (id, 0);
            }
        }
        SessionChange::DeleteMessage => _ = said.pop(),
        SessionChange::Archive => said.last_mut().into_iter().for_each(|last| last.archived = true),
        SessionChange::Pin => said.first_mut().into_iter().for_each(|first| first.pinned = true),
        SessionChange::Trim => _ = said.drain(..said.len().saturating_sub(1)),
        SessionChange::Fork => {}
        SessionChange::DeleteSession => return None,
    }
    Some(said)
}

fn tell_own(history: &History, id: u64, said: &[Said], shown: &mut Shown) {
    shown.found.insert(id);
    let ChatOperation::Own { count } = ChatOperation::of(history.seed, id) else {
        return shown.violations.push(format!("own-{id} is there, which nobody made"));
    };
    let before = unchanged(id, count);
    let after = changer(history.seed, id).and_then(|(by, change)| Some((by, changed(before.clone(), by, change)?)));
    match after {
        Some((by, after)) if after != before && said == after => _ = shown.found.insert(by),
        _ if said == before => {}
        _ => shown.violations.push(format!("own-{id} holds {said:?}, which nobody may have left there")),
    }
}

fn tell_fork(history: &History, id: u64, said: &[Said], shown: &mut Shown) {
    shown.found.insert(id);
    let ChatOperation::Change { target, change: SessionChange::Fork } = ChatOperation::of(history.seed, id) else {
        return shown.violations.push(format!("fork-{id} is there, which nobody made"));
    };
    shown.found.insert(target);
    let ChatOperation::Own { count } = ChatOperation::of(history.seed, target) else {
        return shown.violations.push(format!("fork-{id} is of a session that nobody made"));
    };
    if said != unchanged(target, fork_count(count)) {
        shown.violations.push(format!("fork-{id} holds {said:?}, which nobody may have left there"));
    }
}

/// Tells of ids that delete a session; every other change is seen in the session itself.
fn tell_changes(history: &History, sessions: &Sessions, shown: &mut Shown) {
    for (id, _) in history.possible() {
        let ChatOperation::Change { target, change } = ChatOperation::of(history.seed, id) else { continue };
        if change != SessionChange::DeleteSession {
            continue;
        }
        match (history.fate(target), sessions.own(target)) {
            // It was made, and only this id can have deleted it.
            (Some(Fate::Applied), None) => shown.found.extend([id, target]),
            (_, None) => shown.untold.extend([id, target]),
            // Deleted before it was made, or not deleted.
            (_, Some(_)) if !history.is_before(target, id) => _ = shown.untold.insert(id),
            (_, Some(_)) => {}
        }
    }
}

/// The full-text index must find what is there, and only that.
async fn compare_with_search(larder: &Larder, history: &History, sessions: &Sessions, shown: &mut Shown) -> Result<()> {
    let mut hits = BTreeSet::new();
    let mut count = 0;
    loop {
        let page = larder.chat().search(WORD).offset(count).limit(HITS).await?;
        count += page.len();
        let is_last = page.len() < HITS;
        hits.extend(page.into_iter().map(|hit| (hit.session.as_str().to_owned(), hit.message.id)));
        if is_last {
            break;
        }
    }
    if let Some((session, message)) = hits.symmetric_difference(&sessions.messages).next() {
        shown.violations.push(format!("the search and session {session} disagree about message {message}"));
    }
    for id in shown.found.clone() {
        let ChatOperation::Change { target, change: SessionChange::Edit } = ChatOperation::of(history.seed, id) else {
            continue;
        };
        let session = larder.chat().session(own(target));
        // By its two numbers alone: words that every message holds make a search read every message.
        let finds = async |id: u64| -> Result<bool> {
            let hits = session.search(format!("{id} 0")).await?;
            Ok(hits.iter().any(|hit| hit.message.message.text() == Some(text(id, 0))))
        };
        if finds(target).await? || !finds(id).await? {
            shown.violations.push(format!("own-{target} was edited, and its search does not say so"));
        }
    }
    Ok(())
}

/// Where the change log reaches back to the first commit, it must leave the sessions that are there, with their messages.
async fn compare_with_log(larder: &Larder, sessions: &Sessions, violations: &mut Vec<String>) -> Result<()> {
    let observed = larder.observe().into_iter().find(|seen| seen.store.as_str() == "chat");
    let newest = observed.map_or(0, |seen| seen.sequence);
    let Some(changes) = replay(larder.chat().subscribe(Sequence(0)).await?, newest, violations).await? else {
        return Ok(());
    };
    // By session: the messages, or `None` where a fork took them along.
    let mut logged: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
    for change in changes {
        match (change.kind.as_str(), change.ids.is_empty()) {
            ("append", _) => {
                let ids = logged.entry(change.scope).or_insert_with(|| Some(BTreeSet::new()));
                ids.iter_mut().for_each(|ids| ids.extend(change.ids.iter().cloned()));
            }
            ("fork", _) => _ = logged.insert(change.scope, None),
            ("delete", true) => _ = logged.remove(&change.scope),
            ("delete", false) => {
                if let Some(Some(ids)) = logged.get_mut(&change.scope) {
                    change.ids.iter().for_each(|id| _ = ids.remove(id));
                }
            }
            _ => {}
        }
    }
    if !sessions.said.keys().eq(logged.keys()) {
        violations.push("the change log and the sessions disagree".to_owned());
    }
    for (name, ids) in logged {
        let of_session = (name.clone(), MessageId(0))..=(name.clone(), MessageId(u64::MAX));
        let there = sessions.messages.range(of_session).map(|(_, id)| id.to_string());
        if ids.is_some_and(|ids| ids != there.collect()) {
            violations.push(format!("the change log and session {name} disagree about its messages"));
        }
    }
    Ok(())
}

//! The chat store's plan: batches of messages whose texts say which id sent them, in shared sessions and in own ones.
//!
//! Start at [`ChatOperation::of`], then [`Found::check`].
//!
//! Always true: a text belongs to one id; a session of an id's own is deleted by at most one later id.

use std::collections::{BTreeMap, HashMap};

use futures::TryStreamExt;
use futures::future::{BoxFuture, join};
use larder::protocol::ClientMessageId;
use larder::{ChatMessage, CheckDepth, Larder, Result, Role};

use super::history::{Fate, History};
use super::plan::{Outcome, Plan, class_word};
use super::random::Random;
use super::sabotage::Lie;

/// Few shared sessions, so that callers meet.
const SHARED_COUNT: u64 = 4;
/// How far back the id lies whose session a later one deletes; the callers are fewer.
const BACK: u64 = 101;

pub(crate) struct ChatPlan;

/// What an id does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChatOperation {
    /// Appends its messages to a shared session, all or none.
    Append { session: u64, count: u64 },
    /// Does the same twice under client ids: once.
    AppendOnce { session: u64, count: u64 },
    /// Appends a batch whose last message has no role: nothing may be left.
    AppendRefused { session: u64, count: u64 },
    /// Appends to a session of its own.
    Own { count: u64 },
    /// Deletes an earlier id's own session.
    Delete { target: u64 },
}

impl ChatOperation {
    fn of(seed: u64, id: u64) -> Self {
        let mut random = Random::of(seed, id);
        let (session, count) = (random.below(SHARED_COUNT), 1 + random.below(5));
        match random.below(100) {
            0..50 => Self::Append { session, count },
            50..65 => Self::AppendOnce { session, count },
            65..75 => Self::AppendRefused { session, count },
            75..90 => Self::Own { count },
            _ => match id.checked_sub(BACK).map(|target| (target, Self::of(seed, target))) {
                Some((target, Self::Own { .. })) => Self::Delete { target },
                _ => Self::Append { session, count },
            },
        }
    }

    /// Returns the session and how many messages it leaves there; `None` when it leaves none.
    fn leaves(self, id: u64) -> Option<(String, u64)> {
        match self {
            Self::Append { session, count } | Self::AppendOnce { session, count } => Some((shared(session), count)),
            Self::Own { count } => Some((own(id), count)),
            Self::AppendRefused { .. } | Self::Delete { .. } => None,
        }
    }
}

fn shared(session: u64) -> String {
    format!("shared-{session}")
}

fn own(id: u64) -> String {
    format!("own-{id}")
}

fn text(id: u64, part: u64) -> String {
    format!("{id} {part} said in the torture")
}

fn batch(id: u64, count: u64, is_named: bool) -> Vec<ChatMessage> {
    let message = |part| {
        let message =
            if part % 2 == 0 { ChatMessage::user(text(id, part)) } else { ChatMessage::assistant(text(id, part)) };
        match ClientMessageId::new(format!("{id}-{part}")) {
            Ok(name) if is_named => message.with_client_id(name),
            _ => message,
        }
    };
    (0..count).map(message).collect()
}

fn outcome<T>(result: Result<T>) -> Outcome {
    match result {
        Ok(_) => Outcome::Acknowledged,
        Err(error) => Outcome::Failed(class_word(error.class()), error.written()),
    }
}

impl Plan for ChatPlan {
    fn describe(&self, seed: u64, id: u64) -> String {
        format!("chat {:?}", ChatOperation::of(seed, id))
    }

    fn is_repeatable(&self, seed: u64, id: u64) -> bool {
        matches!(ChatOperation::of(seed, id), ChatOperation::AppendOnce { .. })
    }

    fn is_sure(&self, seed: u64, id: u64) -> bool {
        matches!(ChatOperation::of(seed, id), ChatOperation::Append { .. })
    }

    fn send<'a>(&'a self, larder: &'a Larder, seed: u64, id: u64, lie: Option<Lie>) -> BoxFuture<'a, Outcome> {
        let chat = larder.chat();
        Box::pin(async move {
            match ChatOperation::of(seed, id) {
                ChatOperation::Append { session, count } => {
                    let sent = if lie == Some(Lie::SkipBatchHalf) { count.div_ceil(2) } else { count };
                    outcome(chat.session(shared(session)).append(batch(id, sent, false)).await)
                }
                ChatOperation::AppendOnce { session, count } => {
                    let chat = chat.session(shared(session));
                    let append = || chat.append(batch(id, count, true)).into_future();
                    match join(append(), append()).await {
                        (Ok(first), Ok(second)) if first.ids != second.ids => {
                            Outcome::Wrong("two appends under the same client ids got different ids".to_owned())
                        }
                        (Ok(_), _) | (_, Ok(_)) => Outcome::Acknowledged,
                        (first, _) => outcome(first),
                    }
                }
                ChatOperation::AppendRefused { session, count } => {
                    let mut messages = batch(id, count, false);
                    messages.push(ChatMessage::new(Role::from(""), "no role"));
                    match chat.session(shared(session)).append(messages).await {
                        Ok(_) => Outcome::Wrong("a message without a role was accepted".to_owned()),
                        refused => outcome(refused),
                    }
                }
                ChatOperation::Own { count } => outcome(chat.session(own(id)).append(batch(id, count, false)).await),
                ChatOperation::Delete { target } => outcome(chat.session(own(target)).delete_session().await),
            }
        })
    }

    fn verify<'a>(&'a self, larder: &'a Larder, history: &'a History) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async move {
            let mut violations = Found::read(larder).await?.check(history);
            let findings = larder.check(CheckDepth::Full).await?.findings;
            violations.extend(findings.into_iter().map(|finding| format!("{}: {}", finding.store, finding.what)));
            Ok(violations)
        })
    }

    fn lose_last(&self, connection: &rusqlite::Connection, history: &History) -> std::result::Result<String, String> {
        let certain = history.possible().filter(|(_, is_certain)| *is_certain).map(|(id, _)| id);
        let is_shared = |id: &u64| {
            matches!(
                ChatOperation::of(history.seed, *id),
                ChatOperation::Append { .. } | ChatOperation::AppendOnce { .. }
            )
        };
        let id = certain.filter(is_shared).last().ok_or("no acknowledged append to lose")?;
        let lost = text(id, 0);
        connection
            .execute("DELETE FROM place WHERE body_id IN (SELECT id FROM body WHERE text = ?1)", [&lost])
            .map_err(|e| format!("cannot delete {lost:?}: {e}"))?;
        Ok(lost)
    }

    fn add_row<'a>(&'a self, larder: &'a Larder) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let stray = ChatMessage::user(text(u64::MAX, 0));
            larder.chat().session(shared(0)).append([stray]).await.map(|_| ())
        })
    }
}

/// What the store holds.
struct Found {
    /// By session: the (id, part) of its messages, in order.
    sessions: BTreeMap<String, Vec<(u64, u64)>>,
    violations: Vec<String>,
}

impl Found {
    async fn read(larder: &Larder) -> Result<Self> {
        let mut found = Self { sessions: BTreeMap::new(), violations: Vec::new() };
        let mut after = None;
        loop {
            let mut request = larder.chat().sessions().limit(1_000);
            if let Some(after) = after.take() {
                request = request.after(after);
            }
            let sessions = request.await?;
            for session in &sessions {
                let messages: Vec<_> = larder.chat().session(session.id.as_str()).export().try_collect().await?;
                let mut read = Vec::with_capacity(messages.len());
                for message in messages {
                    let said = message.message.text().unwrap_or_default();
                    let mut numbers = said.split(' ').map(str::parse);
                    match (numbers.next(), numbers.next()) {
                        (Some(Ok(id)), Some(Ok(part))) if said == text(id, part) => read.push((id, part)),
                        _ => found.violations.push(format!("{}: nobody said {said:?}", session.id)),
                    }
                }
                found.sessions.insert(session.id.as_str().to_owned(), read);
            }
            match sessions.last() {
                Some(last) => after = Some(last.id.clone()),
                None => return Ok(found),
            }
        }
    }

    /// Returns what of it the log contradicts.
    fn check(mut self, history: &History) -> Vec<String> {
        let seed = history.seed;
        let mut deleted = HashMap::new();
        for (id, is_certain) in history.possible() {
            if let ChatOperation::Delete { target } = ChatOperation::of(seed, id) {
                deleted.insert(target, is_certain && history.is_before(target, id));
            }
        }
        let mut counts: BTreeMap<(String, u64), u64> = BTreeMap::new();
        for (session, messages) in &self.sessions {
            for pair in messages.windows(2) {
                let &[(id, part), (next_id, next_part)] = pair else { continue };
                let follows = if id == next_id { next_part == part + 1 } else { next_part == 0 };
                if !follows {
                    self.violations
                        .push(format!("{session}: id {next_id} part {next_part} stands behind id {id} part {part}"));
                }
                if id != next_id && history.is_before(next_id, id) {
                    self.violations
                        .push(format!("{session}: id {id} stands before id {next_id}, which was done before it"));
                }
            }
            for (id, _) in messages {
                *counts.entry((session.clone(), *id)).or_default() += 1;
            }
        }
        for ((session, id), count) in &counts {
            let left = ChatOperation::of(seed, *id).leaves(*id).filter(|(place, _)| place == session);
            match (history.fate(*id), left) {
                (None | Some(Fate::NotApplied), _) | (_, None) => {
                    self.violations.push(format!("{session}: id {id} left {count} messages that nobody sent"));
                }
                (_, Some((_, whole))) if *count != whole => {
                    self.violations.push(format!("{session}: id {id} is there in part: {count} of {whole}"));
                }
                _ if deleted.get(id) == Some(&true) => {
                    self.violations.push(format!("{session}: it was deleted, and is there"));
                }
                _ => {}
            }
        }
        for (id, is_certain) in history.possible() {
            let Some((session, _)) = ChatOperation::of(seed, id).leaves(id) else { continue };
            if is_certain && !deleted.contains_key(&id) && !counts.contains_key(&(session.clone(), id)) {
                self.violations.push(format!("{session}: id {id} is missing"));
            }
        }
        self.violations
    }
}

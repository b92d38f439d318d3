//! The chat store's plan: batches of messages whose texts say which id sent them, in shared sessions and in own ones, and
//! every kind of change to an own one.
//!
//! Start at [`ChatOperation::of`], which says what an id does; [`shown`] says what of that a store shows.
//!
//! Always true: a text belongs to one id; a session of an id's own is changed by at most one later id.

mod shown;

use std::fmt;

use futures::future::{BoxFuture, join};
use larder::protocol::ClientMessageId;
use larder::protocol::chat::Retention;
use larder::{ChatMessage, ChatSession, Larder, MessageId, Result, Role};

use super::{FAR, History, Lie, NEAR, Outcome, Plan, Random, Shown, must_fail};

/// Few shared sessions, so that callers meet.
const SHARED_COUNT: u64 = 4;
/// A word of every message.
const WORD: &str = "torture";

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
    /// Appends two messages or more to a session of its own.
    Own { count: u64 },
    /// Changes an earlier id's own session.
    Change { target: u64, change: SessionChange },
}

/// What an id does to an earlier one's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionChange {
    /// Replaces the first message with its own.
    Edit,
    /// Deletes the last message.
    DeleteMessage,
    /// Archives the last message.
    Archive,
    /// Pins the first message.
    Pin,
    /// Keeps the newest message alone.
    Trim,
    /// Makes a session of its own of the first half.
    Fork,
    DeleteSession,
}

impl ChatOperation {
    fn of(seed: u64, id: u64) -> Self {
        let mut random = Random::of(seed, id);
        let (session, count) = (random.below(SHARED_COUNT), 1 + random.below(5));
        match id % 10 {
            // Their distances lead to ids that end in 0 and 1.
            0 | 1 => Self::Own { count: count + 1 },
            4 if id >= FAR => Self::Change { target: id - FAR, change: SessionChange::of(&mut random) },
            5 if id >= NEAR => Self::Change { target: id - NEAR, change: SessionChange::of(&mut random) },
            6 | 7 => Self::AppendOnce { session, count },
            8 => Self::AppendRefused { session, count },
            _ => Self::Append { session, count },
        }
    }
}

impl SessionChange {
    const ALL: [Self; 7] =
        [Self::Edit, Self::DeleteMessage, Self::Archive, Self::Pin, Self::Trim, Self::Fork, Self::DeleteSession];

    fn of(random: &mut Random) -> Self {
        Self::ALL.get(random.index(Self::ALL.len())).copied().unwrap_or(Self::Edit)
    }
}

impl fmt::Display for ChatOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { session, count } => write!(f, "chat.append {session} {count}"),
            Self::AppendOnce { session, count } => write!(f, "chat.append_once {session} {count}"),
            Self::AppendRefused { session, count } => write!(f, "chat.append_refused {session} {count}"),
            Self::Own { count } => write!(f, "chat.own {count}"),
            Self::Change { target, change } => write!(f, "chat.{change:?} {target}"),
        }
    }
}

/// Returns the one id that may change an own session, and how.
fn changer(seed: u64, target: u64) -> Option<(u64, SessionChange)> {
    [target + NEAR, target + FAR].into_iter().find_map(|id| match ChatOperation::of(seed, id) {
        ChatOperation::Change { target: found, change } if found == target => Some((id, change)),
        _ => None,
    })
}

fn shared(session: u64) -> String {
    format!("shared-{session}")
}

fn own(id: u64) -> String {
    format!("own-{id}")
}

fn forked(id: u64) -> String {
    format!("fork-{id}")
}

fn text(id: u64, part: u64) -> String {
    format!("{id} {part} said in the {WORD}")
}

fn message(id: u64, part: u64) -> ChatMessage {
    if part.is_multiple_of(2) { ChatMessage::user(text(id, part)) } else { ChatMessage::assistant(text(id, part)) }
}

fn batch(id: u64, count: u64, is_named: bool) -> Vec<ChatMessage> {
    let named = |part| match ClientMessageId::new(format!("{id}-{part}")) {
        Ok(name) if is_named => message(id, part).with_client_id(name),
        _ => message(id, part),
    };
    (0..count).map(named).collect()
}

/// How many of a session's messages a fork takes along.
fn fork_count(count: u64) -> u64 {
    count.div_ceil(2)
}

impl Plan for ChatPlan {
    fn describe(&self, seed: u64, id: u64) -> String {
        ChatOperation::of(seed, id).to_string()
    }

    fn is_repeatable(&self, seed: u64, id: u64) -> bool {
        matches!(ChatOperation::of(seed, id), ChatOperation::AppendOnce { .. })
    }

    fn is_sure(&self, seed: u64, id: u64) -> bool {
        matches!(ChatOperation::of(seed, id), ChatOperation::Append { .. } | ChatOperation::Own { .. })
    }

    fn send<'a>(&'a self, larder: &'a Larder, seed: u64, id: u64, lie: Option<Lie>) -> BoxFuture<'a, Outcome> {
        let session = |name: String| larder.chat().session(name);
        Box::pin(async move {
            match ChatOperation::of(seed, id) {
                ChatOperation::Append { session: at, count } => {
                    let sent = if lie == Some(Lie::SkipBatchHalf) { count.div_ceil(2) } else { count };
                    Outcome::of(session(shared(at)).append(batch(id, sent, false)).await)
                }
                ChatOperation::AppendOnce { session: at, count } => append_once(&session(shared(at)), id, count).await,
                ChatOperation::AppendRefused { session: at, count } => {
                    let mut messages = batch(id, count, false);
                    messages.push(ChatMessage::new(Role::from(""), "no role"));
                    must_fail(Outcome::of(session(shared(at)).append(messages).await))
                }
                ChatOperation::Own { count } => append_own(&session(own(id)), count, id, seed).await,
                ChatOperation::Change { target, change } => make(change, &session(own(target)), id).await,
            }
        })
    }

    fn inspect<'a>(&'a self, larder: &'a Larder, history: &'a History) -> BoxFuture<'a, Result<Shown>> {
        Box::pin(shown::inspect(larder, history))
    }

    fn lose_last(&self, connection: &rusqlite::Connection, history: &History) -> Result<String, String> {
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

async fn append_once(session: &ChatSession, id: u64, count: u64) -> Outcome {
    let append = || session.append(batch(id, count, true)).into_future();
    match join(append(), append()).await {
        (Ok(first), Ok(second)) if first.ids != second.ids => {
            Outcome::Wrong("two appends under the same client ids got different ids".to_owned())
        }
        (Ok(_), _) | (_, Ok(_)) => Outcome::Acknowledged,
        // The first error may say "not applied" while the second leaves it open.
        (Err(first), second) if first.written() == larder::Written::NotApplied => Outcome::of(second),
        (first, _) => Outcome::of(first),
    }
}

/// Appends to a session that is not there yet; where nobody changes it later, the caller must see its own write.
async fn append_own(session: &ChatSession, count: u64, id: u64, seed: u64) -> Outcome {
    let ids = match session.append(batch(id, count, false)).await {
        Ok(appended) => appended.ids,
        refused => return Outcome::of(refused),
    };
    if changer(seed, id).is_some() {
        return Outcome::Acknowledged;
    }
    match session.window(1_000_000).await {
        Ok(window) if !window.messages.iter().map(|message| message.id).eq(ids) => {
            Outcome::Wrong("it does not read its own write".to_owned())
        }
        // A failed read is no wrong answer.
        _ => Outcome::Acknowledged,
    }
}

/// Changes a session, whose messages' ids are read first.
async fn make(change: SessionChange, session: &ChatSession, id: u64) -> Outcome {
    if change == SessionChange::DeleteSession {
        return Outcome::of(session.delete_session().await);
    }
    let ids: Vec<MessageId> = match session.page(10).await {
        Ok(page) => page.messages.iter().map(|message| message.id).collect(),
        Err(error) => return Outcome::unread(&error),
    };
    let (Some(first), Some(last)) = (ids.first().copied(), ids.last().copied()) else { return Outcome::not_found() };
    let middle = usize::try_from(fork_count(ids.len() as u64)).unwrap_or(1) - 1;
    let changed = match change {
        SessionChange::Edit => session.edit(first, message(id, 0)).await.map(|()| 1),
        SessionChange::DeleteMessage => session.delete([last]).await,
        SessionChange::Archive => session.archive([last]).await,
        SessionChange::Pin => session.pin(first).await.map(u64::from),
        SessionChange::Trim => session.trim(Retention::Count(1)).await,
        SessionChange::Fork => session.fork_at(ids.get(middle).copied().unwrap_or(first), forked(id)).await,
        SessionChange::DeleteSession => session.delete_session().await.map(u64::from),
    };
    match changed {
        Ok(0) => Outcome::Wrong(format!("{change:?} changed nothing, and nobody else changes the session")),
        other => Outcome::of(other),
    }
}

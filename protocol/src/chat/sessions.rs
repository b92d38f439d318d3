//! Messages about whole sessions: describe, list, fork, clear, delete, search.
//!
//! Start at [`PutSession`] and [`SearchMessages`].
//!
//! Always true: a session's name is data; an owner is a label of the program's, not an access right.

use serde::{Deserialize, Serialize};

use super::{MessageId, Role, StoredMessage};
use crate::filter::Filter;
use crate::json_text::JsonText;
use crate::message::message;
use crate::names::SessionId;
use crate::time::Timestamp;

/// A session as the store describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// What it is called.
    pub title: Option<String>,
    /// Whose it is.
    pub owner: Option<String>,
    /// The program's own facts about it: a JSON object.
    pub metadata: Option<JsonText>,
    /// Whether the program put it away.
    pub archived: bool,
    /// When it began.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// How many messages it has, archived ones too.
    pub message_count: u64,
    /// What they cost, by their stored counts.
    pub token_count: u64,
    /// The newest message that its summary covers. `None`: it has none.
    pub summary_through: Option<MessageId>,
}

impl Session {
    /// Returns about how many bytes the description holds in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_deref().map_or(0, str::len);
        let metadata = self.metadata.as_ref().map_or(0, |json| json.as_str().len());
        size_of::<Self>() + self.id.as_str().len() + text(&self.title) + text(&self.owner) + metadata
    }
}

/// Describes a session, replacing what was said before; its messages stay. Answers whether it was created.
///
/// Sending it twice leaves the same state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutSession {
    /// Which.
    pub session: SessionId,
    /// What it is called; at most [`SESSION_TITLE_BYTES_MAX`](crate::limits::SESSION_TITLE_BYTES_MAX) bytes.
    pub title: Option<String>,
    /// Whose it is; at most [`OWNER_BYTES_MAX`](crate::limits::OWNER_BYTES_MAX) bytes.
    pub owner: Option<String>,
    /// The program's own facts about it: a JSON object.
    pub metadata: Option<JsonText>,
    /// Whether it is put away.
    pub archived: bool,
}
message!(Chat, PutSession => bool, |m| {
    let metadata = m.metadata.as_ref().map_or(0, |json| json.as_str().len());
    m.title.as_deref().map_or(0, str::len) + m.owner.as_deref().map_or(0, str::len) + metadata
});

/// Reads what is said of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetSession {
    /// Which.
    pub session: SessionId,
}
message!(Chat, GetSession => Option<Session>, |m| m.session.as_str().len());

/// Lists sessions in the order of their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListSessions {
    /// Only this owner's.
    pub owner: Option<String>,
    /// Only those that are put away, or only those that are not.
    pub archived: Option<bool>,
    /// Only those whose metadata is so; a session without any has every field missing.
    pub filter: Option<Filter>,
    /// Continue behind this one.
    pub after: Option<SessionId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Chat, ListSessions => SessionPage, |m| {
    m.owner.as_deref().map_or(0, str::len) + m.filter.as_ref().map_or(0, Filter::size_bytes)
});

/// One page of a list of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPage {
    /// The sessions. A page also ends early when it holds about 4 MiB.
    pub sessions: Vec<Session>,
    /// Where to continue. `None`: this was the last page.
    pub next: Option<SessionId>,
}

/// Counts sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountSessions {
    /// Only this owner's.
    pub owner: Option<String>,
}
message!(Chat, CountSessions => u64, |m| m.owner.as_deref().map_or(0, str::len));

/// Deletes a session with its messages; answers whether it was there. Forks keep theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteSession {
    /// Which.
    pub session: SessionId,
}
message!(Chat, DeleteSession => bool, |m| m.session.as_str().len());

/// Deletes all messages of a session and keeps its description; answers how many there were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearSession {
    /// Which.
    pub session: SessionId,
}
message!(Chat, ClearSession => u64, |m| m.session.as_str().len());

/// Makes a new session of another's beginning, a slice of 4,000 messages at a time: about 20 ms of the writer's.
///
/// The messages are stored once: both sessions share them under the same ids, and a change in one does not show in the
/// other. The description is copied. `into` must not exist; sending it twice is a conflict. Nobody sees the new session before
/// its last slice; a change that is made to the first one between two slices may or may not be in it. A fork that nobody
/// goes on with for an hour is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkSession {
    /// Which; one that is not there is [`NotFound`](crate::Error::NotFound).
    pub session: SessionId,
    /// The last message that both have. `None`: all.
    pub through: Option<MessageId>,
    /// The new one.
    pub into: SessionId,
    /// Where to go on: the earlier slice's [`next`](Forked::next). `None`: begin.
    pub progress: Option<ForkProgress>,
}
message!(Chat, ForkSession => Forked, |m| m.session.as_str().len() + m.into.as_str().len());

/// What one slice of a fork did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forked {
    /// How many messages the new session has so far.
    pub message_count: u64,
    /// Where to go on. `None`: the new session is there.
    pub next: Option<ForkProgress>,
}

/// Between two slices of a fork: rows of the store's own. It is only of use to the store that answered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkProgress {
    /// The session that is forked.
    pub source: i64,
    /// The new one.
    pub fork: i64,
    /// The newest message that both have so far.
    pub copied: MessageId,
    /// The last message that both are to have.
    pub last: MessageId,
}

/// Where a search looks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchScope {
    /// In every session.
    #[default]
    All,
    /// In these sessions; at most [`SEARCH_SESSIONS_MAX`](crate::limits::SEARCH_SESSIONS_MAX).
    Sessions(Vec<SessionId>),
    /// In one owner's sessions.
    Owner(String),
}

/// Finds messages that hold every word of a query, best first.
///
/// The query is plain text: nothing in it is syntax. What a word is, is a setting of the store (see
/// [`Tokenizer`](crate::Tokenizer)); the last one matches as a beginning where `prefix` says so. A query without any word
/// finds nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchMessages {
    /// What to look for; at most [`QUERY_BYTES_MAX`](crate::limits::QUERY_BYTES_MAX) bytes.
    pub query: String,
    /// Whether the last word is only the beginning of one.
    pub prefix: bool,
    /// Where.
    pub scope: SearchScope,
    /// Only messages of this role.
    pub role: Option<Role>,
    /// Only messages created from then on.
    pub since: Option<Timestamp>,
    /// Only messages created before then.
    pub until: Option<Timestamp>,
    /// Only messages whose metadata is so; a message without any has every field missing.
    pub filter: Option<Filter>,
    /// Whether archived messages are found.
    pub include_archived: bool,
    /// How many of the best to leave out, for the next page.
    pub offset: usize,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX); it ends early at about 4 MiB of messages.
    pub limit: usize,
}
message!(Chat, SearchMessages => Vec<SearchHit>, |m| m.query.len() + m.filter.as_ref().map_or(0, Filter::size_bytes));

/// A message that a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchHit {
    /// In which session; a message that forks share is found in each.
    pub session: SessionId,
    /// The message.
    pub message: StoredMessage,
    /// The part of its text around the words, each word between `[` and `]`; `…` where text is left out.
    pub snippet: String,
    /// How well it fits: larger is better (BM25, negated as SQLite gives it).
    pub score: f64,
}

//! Messages about the messages of one session: append, read, change, delete.
//!
//! Start at [`AppendMessages`] and [`GetWindow`].
//!
//! Always true: a session exists from its first message on, or from when it was described; a read of a session that does
//! not exist answers nothing, and a change of a message that does not exist changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ChatMessage, ChatWindow, MessageId, StoredMessage, TokenCounts, TokenLimit, WindowPolicy};
use crate::message::message;
use crate::names::SessionId;

/// Appends messages to a session in order, all or none. The session is created where it is missing.
///
/// A message whose client id is in the session already is not stored again: its earlier id is answered, or a conflict
/// when the contents differ. Without client ids, sending it twice appends twice, unless both carry one idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendMessages {
    /// To which session.
    pub session: SessionId,
    /// What, oldest first; 1 to [`APPEND_MESSAGES_MAX`](crate::limits::APPEND_MESSAGES_MAX), each at most `message_bytes_max`
    /// bytes, a setting of the store.
    pub messages: Vec<ChatMessage>,
    /// Their counts. `None`: they are counted when a window first needs them.
    pub counts: Option<TokenCounts>,
}
message!(Chat, AppendMessages => Appended, |m| m.messages.iter().map(ChatMessage::size_bytes).sum::<usize>(), said (&m.session, &m.messages));

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// The messages' ids, in order.
    pub ids: Vec<MessageId>,
    /// How many of them were new; the others were there under their client ids.
    pub new_count: u64,
}

/// Reads the newest messages that fit a token limit.
///
/// It answers `None` only where [`may_take_long`](Self::may_take_long) is false and it would: send it again with `true`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetWindow {
    /// Of which session. One that does not exist has an empty window.
    pub session: SessionId,
    /// By which rules.
    pub policy: WindowPolicy,
    /// How many tokens.
    pub limit: TokenLimit,
    /// Tokens that are taken already, by what is sent beside the window.
    pub initial_tokens: u64,
    /// Tokens that the model's message format costs a message, beside its content; used by the strict policy.
    pub overhead_tokens_per_message: u64,
    /// Whether the answer may take long, on a reader thread: messages whose counts are missing, or by another counter, are
    /// counted for it, and any number of messages is read. `false`: it is read in place, or not at all.
    pub may_take_long: bool,
}
message!(Chat, GetWindow => Option<ChatWindow>, |m| m.session.as_str().len());

/// In which order a page of messages goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageOrder {
    /// From the first message on.
    #[default]
    OldestFirst,
    /// From the last message back.
    NewestFirst,
}

/// Reads one page of a session's messages, at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMessages {
    /// Of which session.
    pub session: SessionId,
    /// In which order.
    pub order: MessageOrder,
    /// Continue behind this message, in that order.
    pub after: Option<MessageId>,
    /// Whether archived messages are in it.
    pub include_archived: bool,
    /// Most messages to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Chat, ListMessages => MessagePage, |m| m.session.as_str().len());

/// One page of a session's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagePage {
    /// The messages. A page also ends early when it holds about 4 MiB.
    pub messages: Vec<StoredMessage>,
    /// Where to continue. `None`: this was the last page.
    pub next: Option<MessageId>,
}

/// Replaces a message's content in this session; forks that share it keep what they have.
///
/// Its place, its pin and its archiving stay. Sending it twice leaves the same state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditMessage {
    /// In which session.
    pub session: SessionId,
    /// Which; one that is not there is [`NotFound`](crate::Error::NotFound).
    pub id: MessageId,
    /// The new content. `created` and `client_id` stay as they were where they are `None`.
    pub message: ChatMessage,
    /// Its count. `None`: it is counted when a window first needs it.
    pub counts: Option<TokenCounts>,
}
message!(Chat, EditMessage => (), |m| m.message.size_bytes(), said (&m.session, m.id, &m.message));

/// Deletes messages from a session; answers how many were there. Forks keep theirs.
///
/// A tool call's results are not deleted with it; windows leave a result without its call out and report it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteMessages {
    /// From which session.
    pub session: SessionId,
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub ids: Vec<MessageId>,
}
message!(Chat, DeleteMessages => u64, |m| ids_bytes(&m.ids));

/// Takes messages out of windows, or back in; they stay listed and searchable. Answers how many changed.
///
/// A tool call and its results go together, whichever of them is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveMessages {
    /// In which session.
    pub session: SessionId,
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub ids: Vec<MessageId>,
    /// `false`: back into windows.
    pub archived: bool,
}
message!(Chat, ArchiveMessages => u64, |m| ids_bytes(&m.ids));

/// Makes a message part of every strict window, or no longer; answers whether it was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinMessage {
    /// In which session.
    pub session: SessionId,
    /// Which.
    pub id: MessageId,
    /// `false`: no longer.
    pub pinned: bool,
}
message!(Chat, PinMessage => bool, |m| m.session.as_str().len());

/// Stores the summary of what fell out of a session's windows, replacing the earlier one; answers its id.
///
/// Strict windows carry it in front of their turns. The originals stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutSummary {
    /// Of which session.
    pub session: SessionId,
    /// The summary, as it is to be sent to the model.
    pub message: ChatMessage,
    /// The newest message that it covers.
    pub through: MessageId,
    /// Its count. `None`: it is counted when a window first needs it.
    pub counts: Option<TokenCounts>,
}
message!(Chat, PutSummary => MessageId, |m| m.message.size_bytes(), said (&m.session, &m.message, m.through));

/// Which messages a [`TrimSession`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Retention {
    /// Those created at most this long ago.
    Age(Duration),
    /// The newest, this many.
    Count(u64),
    /// The newest, as many as cost at most these tokens, by their stored counts.
    Tokens(u64),
}

/// Deletes a session's oldest messages beyond what is to be kept, a slice at a time: about 10 ms of the writer's.
///
/// System, developer and pinned messages and the summary are kept, and not counted. It goes from the oldest message on, so
/// that whoever reads between two slices sees the newest messages without a gap. Sending it twice deletes nothing more, but
/// for what has aged meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrimSession {
    /// Of which session.
    pub session: SessionId,
    /// What to keep.
    pub keep: Retention,
    /// Continue behind this message: the earlier slice's [`next`](Trimmed::next).
    pub after: Option<MessageId>,
}
message!(Chat, TrimSession => Trimmed, |m| m.session.as_str().len());

/// What one slice of a trim did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trimmed {
    /// How many messages it deleted.
    pub deleted_count: u64,
    /// Where the next slice goes on. `None`: everything that is left is to be kept.
    pub next: Option<MessageId>,
}

/// Reads messages whose counts are missing or by another counter than the store's, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListUncounted {
    /// Of which session.
    pub session: SessionId,
    /// Most messages to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX); it ends early at about 4 MiB.
    pub limit: usize,
}
message!(Chat, ListUncounted => Vec<StoredMessage>, |m| m.session.as_str().len());

/// Stores counts of messages that are there already, unless they were edited meanwhile; answers how many were stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutCounts {
    /// Of which session.
    pub session: SessionId,
    /// The messages, each with the revision that was counted; as many as there are counts.
    pub counted: Vec<(MessageId, u64)>,
    /// Their counts, in the same order.
    pub counts: TokenCounts,
}
message!(Chat, PutCounts => u64, |m| m.counted.len() * 64);

fn ids_bytes(ids: &[MessageId]) -> usize {
    size_of_val(ids)
}

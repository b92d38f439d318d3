//! Chat memory: what a message is, and what a window of messages is.
//!
//! Start at [`ChatMessage`]; [`ChatWindow`] is what a token-limited read answers. What the store can be asked is in
//! [`AppendMessages`] and the messages beside it.
//!
//! Always true: everything survives bincode and postcard (no map of unknown shape, no recursion), and a message read
//! from OpenAI-shaped JSON writes the same JSON again.

mod messages;
mod openai;
mod sessions;
mod tokens;
mod window;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::json_text::JsonText;
use crate::names::ClientMessageId;
use crate::time::Timestamp;

pub use crate::media::MediaReference;
pub use messages::{
    AppendMessages, Appended, ArchiveMessages, DeleteMessages, EditMessage, GetWindow, ListMessages, ListUncounted,
    MessageOrder, MessagePage, PinMessage, PutCounts, PutSummary, Retention, TrimSession, Trimmed,
};
pub use sessions::{
    ClearSession, CountSessions, DeleteSession, ForkProgress, ForkSession, Forked, GetSession, ListSessions,
    PutSession, SearchHit, SearchMessages, SearchScope, Session, SessionPage,
};
pub use tokens::{MessageTokens, TokenCounts};
pub use window::{ChatWindow, LeftOut, OrphanResult, TokenLimit, WindowPolicy};

/// Who speaks. In rows, JSON and every codec it is the role's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Role {
    /// Instructions to the model; always part of a strict window.
    System,
    /// Instructions by the developer, OpenAI's later name for `system`; always part of a strict window.
    Developer,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// The result of a function call, OpenAI's earlier name for `tool`.
    Function,
    /// Any other role, by name.
    Other(String),
}

impl Role {
    /// Returns the role's name as it stands in JSON and in rows.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Function => "function",
            Self::Other(name) => name,
        }
    }

    /// Returns whether messages of this role instruct the model, so that a window may never lose them.
    #[must_use]
    pub fn instructs(&self) -> bool {
        matches!(self, Self::System | Self::Developer)
    }

    /// Returns whether messages of this role answer something before them, so that none may open a conversation.
    ///
    /// True for assistant, tool and function, and for `model` and `chatbot`, other vendors' names for the assistant.
    #[must_use]
    pub fn answers(&self) -> bool {
        match self {
            Self::Assistant | Self::Tool | Self::Function => true,
            Self::Other(name) => matches!(name.as_str(), "model" | "chatbot"),
            Self::System | Self::Developer | Self::User => false,
        }
    }
}

impl From<&str> for Role {
    fn from(name: &str) -> Self {
        match name {
            "system" => Self::System,
            "developer" => Self::Developer,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" => Self::Tool,
            "function" => Self::Function,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl From<String> for Role {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        match role {
            Role::Other(name) => name,
            named => named.as_str().to_owned(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One part of a message's content.
///
/// `extra` is always a JSON object: the fields of the part it was read from that have no place of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ContentBlock {
    /// Plain text.
    Text {
        /// The text; may be empty.
        text: String,
        /// Other fields of the part. `Some("{}")` on a message's only text: it was an array of one part.
        extra: Option<JsonText>,
    },
    /// An image.
    Image {
        /// Where it is.
        source: MediaReference,
        /// Other fields of the part.
        extra: Option<JsonText>,
    },
    /// A sound.
    Audio {
        /// Where it is.
        source: MediaReference,
        /// Other fields of the part.
        extra: Option<JsonText>,
    },
    /// A document.
    Document {
        /// Where it is.
        source: MediaReference,
        /// Other fields of the part.
        extra: Option<JsonText>,
    },
    /// The model asks for a tool to be run.
    ToolCall {
        /// The call's id, which its result names. Empty: the call has none (OpenAI's earlier `function_call`).
        id: String,
        /// The tool's name.
        name: String,
        /// The arguments, as the model wrote them: meant to be JSON, not checked.
        arguments: String,
        /// Other fields of the call.
        extra: Option<JsonText>,
    },
    /// What a tool answered.
    ToolResult {
        /// The id of the call that this answers.
        call_id: String,
        /// The answer's text; several text parts are joined by a newline.
        text: String,
        /// Whether the tool failed.
        is_error: bool,
        /// What `text` cannot say, such as the parts of an answer that is not plain text.
        extra: Option<JsonText>,
    },
    /// The model's reasoning.
    Thinking {
        /// The text.
        text: String,
        /// Other fields of the part, such as its signature.
        extra: Option<JsonText>,
    },
    /// A part that larder does not know, kept as it is.
    Unknown(JsonText),
}

impl ContentBlock {
    /// Returns a text block.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), extra: None }
    }

    /// Returns an image block for a URL.
    pub fn image_url(url: impl Into<String>) -> Self {
        Self::Image { source: MediaReference::Url(url.into()), extra: None }
    }

    /// Returns a tool call block.
    pub fn tool_call(id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self::ToolCall { id: id.into(), name: name.into(), arguments: arguments.into(), extra: None }
    }

    /// Returns a tool result block.
    pub fn tool_result(call_id: impl Into<String>, text: impl Into<String>) -> Self {
        Self::ToolResult { call_id: call_id.into(), text: text.into(), is_error: false, extra: None }
    }

    fn heap_bytes(&self) -> usize {
        let json = |json: &Option<JsonText>| json.as_ref().map_or(0, |json| json.as_str().len());
        match self {
            Self::Text { text, extra } | Self::Thinking { text, extra } => text.len() + json(extra),
            Self::Image { source, extra } | Self::Audio { source, extra } | Self::Document { source, extra } => {
                source.heap_bytes() + json(extra)
            }
            Self::ToolCall { id, name, arguments, extra } => id.len() + name.len() + arguments.len() + json(extra),
            Self::ToolResult { call_id, text, extra, .. } => call_id.len() + text.len() + json(extra),
            Self::Unknown(json) => json.as_str().len(),
        }
    }

    /// Returns the text of a text or tool result block: what windows count as the message's text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. } | Self::ToolResult { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// One message of a conversation.
///
/// # Examples
/// ```
/// use larder_protocol::chat::{ChatMessage, ContentBlock};
///
/// let question = ChatMessage::user("What did the report say?").with_name("alice");
/// let call = ChatMessage::assistant("").with_block(ContentBlock::tool_call("call_1", "read", r#"{"file":"report"}"#));
/// let result = ChatMessage::tool_result("call_1", "Sales rose.");
/// assert_eq!(question.text().as_deref(), Some("What did the report say?"));
/// assert_eq!(call.call_ids().collect::<Vec<_>>(), result.answered_ids().collect::<Vec<_>>());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// The content, in order; may be empty.
    pub blocks: Vec<ContentBlock>,
    /// The speaker's name, where several share a role.
    pub name: Option<String>,
    /// The program's own facts about the message: a JSON object, which filters can read.
    pub metadata: Option<JsonText>,
    /// Fields of the OpenAI-shaped message it was read from that have no place here: a JSON object. Where it names a
    /// field that `blocks` would also write, this one is written.
    pub extra: Option<JsonText>,
    /// When it was written. `None`: when the store receives it.
    pub created: Option<Timestamp>,
    /// The program's id for the message, unique in its session: appending it twice stores it once.
    pub client_id: Option<ClientMessageId>,
}

impl ChatMessage {
    /// Returns a message with one text block.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self::from_blocks(role, vec![ContentBlock::text(text)])
    }

    /// Returns a message with these blocks.
    #[must_use]
    pub fn from_blocks(role: Role, blocks: Vec<ContentBlock>) -> Self {
        Self { role, blocks, name: None, metadata: None, extra: None, created: None, client_id: None }
    }

    /// Returns a system message.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, text)
    }

    /// Returns a developer message.
    pub fn developer(text: impl Into<String>) -> Self {
        Self::new(Role::Developer, text)
    }

    /// Returns a user message.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, text)
    }

    /// Returns an assistant message.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, text)
    }

    /// Returns a tool message that answers the call `call_id`.
    pub fn tool_result(call_id: impl Into<String>, text: impl Into<String>) -> Self {
        Self::from_blocks(Role::Tool, vec![ContentBlock::tool_result(call_id, text)])
    }

    /// Returns the message with one more block.
    #[must_use]
    pub fn with_block(mut self, block: ContentBlock) -> Self {
        self.blocks.push(block);
        self
    }

    /// Returns the message with a speaker's name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Returns the message with metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: JsonText) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Returns the message with a time of its own.
    #[must_use]
    pub fn with_created(mut self, created: Timestamp) -> Self {
        self.created = Some(created);
        self
    }

    /// Returns the message with the program's id for it.
    #[must_use]
    pub fn with_client_id(mut self, client_id: ClientMessageId) -> Self {
        self.client_id = Some(client_id);
        self
    }

    /// Returns the texts of text and tool result blocks joined by a newline. `None`: it has no such block, which is
    /// not the same as an empty text.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let mut texts = self.blocks.iter().filter_map(ContentBlock::as_text);
        let mut joined = texts.next()?.to_owned();
        for text in texts {
            joined.push('\n');
            joined.push_str(text);
        }
        Some(joined)
    }

    /// Returns about how many bytes the message holds in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let json = |json: &Option<JsonText>| json.as_ref().map_or(0, |json| json.as_str().len());
        let name = self.name.as_deref().map_or(0, str::len);
        let blocks = self.blocks.iter().map(|block| size_of::<ContentBlock>() + block.heap_bytes()).sum::<usize>();
        size_of::<Self>() + self.role.as_str().len() + name + blocks + json(&self.metadata) + json(&self.extra)
    }

    /// Returns the ids of the tool calls it makes, in order; an empty id is a call without one.
    pub fn call_ids(&self) -> impl Iterator<Item = &str> {
        self.blocks.iter().filter_map(|block| match block {
            ContentBlock::ToolCall { id, .. } => Some(id.as_str()),
            _ => None,
        })
    }

    /// Returns the ids of the tool calls whose results it holds, in order.
    pub fn answered_ids(&self) -> impl Iterator<Item = &str> {
        self.blocks.iter().filter_map(|block| match block {
            ContentBlock::ToolResult { call_id, .. } => Some(call_id.as_str()),
            _ => None,
        })
    }
}

/// A stored message's id; later messages of a session have larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub u64);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A message as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// Its id.
    pub id: MessageId,
    /// What was appended, with `created` filled in.
    pub message: ChatMessage,
    /// Changes when the message is edited.
    pub revision: u64,
    /// The tokens it costs in a strict window, without the overhead per message. `None`: it was not counted yet.
    pub tokens: Option<u64>,
    /// Whether the program pinned it, so that every strict window holds it.
    pub pinned: bool,
    /// Whether it is the session's summary and no message of the conversation.
    pub summary: bool,
    /// Whether it has left the window for good; it stays searchable.
    pub archived: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_block_survives_every_codec() {
        let json = || Some(JsonText::new(r#"{"a":[1,2.5,null]}"#).unwrap());
        let media = [
            MediaReference::Url("https://x".into()),
            MediaReference::FileId("f".into()),
            MediaReference::Base64 { data: "AA".into(), format: Some("wav".into()) },
        ];
        let [url, file, data] = media;
        let message = ChatMessage::from_blocks(
            Role::Other("critic".into()),
            vec![
                ContentBlock::Text { text: "t".into(), extra: json() },
                ContentBlock::Image { source: url, extra: json() },
                ContentBlock::Document { source: file, extra: None },
                ContentBlock::Audio { source: data, extra: None },
                ContentBlock::tool_call("c", "n", "{}"),
                ContentBlock::tool_result("c", "r"),
                ContentBlock::Thinking { text: "hm".into(), extra: json() },
                ContentBlock::Unknown(JsonText::new("[null]").unwrap()),
            ],
        )
        .with_name("n")
        .with_metadata(JsonText::new("{}").unwrap())
        .with_created(Timestamp(5))
        .with_client_id(ClientMessageId::new("m1").unwrap());

        let bytes = postcard::to_stdvec(&message).unwrap();
        assert_eq!(postcard::from_bytes::<ChatMessage>(&bytes).unwrap(), message);
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<ChatMessage>(&text).unwrap(), message);
        #[cfg(feature = "bincode")]
        {
            let config = bincode::config::standard();
            let bytes = bincode::serde::encode_to_vec(&message, config).unwrap();
            let (decoded, _) = bincode::serde::decode_from_slice::<ChatMessage, _>(&bytes, config).unwrap();
            assert_eq!(decoded, message);
        }
    }

    #[test]
    fn no_text_is_not_empty_text() {
        assert_eq!(ChatMessage::from_blocks(Role::User, vec![]).text(), None);
        assert_eq!(ChatMessage::user("").text().as_deref(), Some(""));
        assert_eq!(ChatMessage::user("").with_block(ContentBlock::text("")).text().as_deref(), Some("\n"));
    }
}

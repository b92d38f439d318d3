//! Intents: what is about to be done to a document in several stores, each of which has a file of its own.
//!
//! Start at [`BeginIngests`], whose commit decides that it will be done, and [`FinishIntents`], which says that it was. Between
//! the two an intent is open, and whoever finds that its holder's process is dead takes it over ([`TakeIntent`]) and does it
//! again from its payload. Nothing is ever undone.
//!
//! Always true: a subject has at most one open intent, in all processes together; who finishes one holds it still.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{DocumentOutcome, PutDocument};
use crate::error::Error;
use crate::lease::Fencing;
use crate::message::message;
use crate::names::{ContextName, DocumentId, NodeId, SessionId};
use crate::time::Timestamp;

/// An intent's number: that of the write that recorded it; it never comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IntentId(pub u64);

/// What an intent is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentSubject {
    /// One document.
    Document(DocumentId),
    /// A conversation, and the documents that were ingested in it.
    Session(SessionId),
    /// An owner's conversations and documents.
    Owner(String),
}

impl IntentSubject {
    /// Returns the subject's own name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Document(id) => id.as_str(),
            Self::Session(id) => id.as_str(),
            Self::Owner(owner) => owner,
        }
    }

    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.as_str().len()
    }
}

impl std::fmt::Display for IntentSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Document(id) => write!(f, "document {:?}", id.as_str()),
            Self::Session(id) => write!(f, "session {:?}", id.as_str()),
            Self::Owner(owner) => write!(f, "owner {owner:?}"),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentKind {
    /// The document's nodes are committed; other stores follow.
    Ingest,
    /// Other stores forget the subject first, the documents store last.
    Forget,
}

/// An open intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its number.
    pub id: IntentId,
    /// Of which context.
    pub context: ContextName,
    /// About what.
    pub subject: IntentSubject,
    /// What is to be done.
    pub kind: IntentKind,
    /// Nodes that the commit took from the document, of which other stores may still know.
    pub leaving: Vec<NodeId>,
    /// Whether the process that holds it is dead.
    pub is_abandoned: bool,
    /// Whether it is held by the process that asks.
    pub is_own_process: bool,
    /// When it was recorded.
    pub created: Timestamp,
}

/// An intent that is the caller's to finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunIntent {
    /// Its number.
    pub id: IntentId,
    /// Which holding of it: it is finished under this number alone.
    pub fencing: Fencing,
    /// Nodes that the commit took from the document.
    pub leaving: Vec<NodeId>,
}

/// What became of one beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beginning {
    /// It is recorded, and for an ingest the document with its nodes is committed; everything else is to follow.
    Begun {
        /// To be finished by the caller.
        intent: BegunIntent,
        /// What putting the document did. `None`: something is to be forgotten.
        outcome: Option<DocumentOutcome>,
    },
    /// Nothing: there is an open intent, which comes first.
    Held,
    /// Nothing: nodes would change that the payload says nothing of; the document was changed since it was looked at.
    Outdated,
    /// Nothing: this document is refused; others are not.
    Refused(Error),
}

/// Puts documents as [`PutDocuments`](super::PutDocuments) does, each with an intent that says what is to follow in other
/// stores; answers for each, in their order. What is refused is refused alone.
///
/// They belong to the context from then on; a document of another context is a conflict. Sent twice, the second finds the
/// first's intents open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginIngests {
    /// Of which context.
    pub context: ContextName,
    /// Which, each document once; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX), and so many nodes in all.
    pub ingests: Vec<NewIngest>,
}
message!(Documents, BeginIngests => Vec<Beginning>, |m| m.ingests.iter().map(NewIngest::size_bytes).sum::<usize>());

/// One document of a [`BeginIngests`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewIngest {
    /// The document with its nodes.
    pub put: PutDocument,
    /// The nodes that the payload says everything of. Should any other node be new or changed, the answer is
    /// [`Outdated`](Beginning::Outdated). `None`: all of them.
    pub covered: Option<Vec<NodeId>>,
    /// Whose it is, in the program's words: [`Owner`](IntentSubject::Owner) forgets by it.
    pub owner: Option<String>,
    /// In which conversation it came: [`Session`](IntentSubject::Session) forgets by it.
    pub session: Option<SessionId>,
    /// All that is needed to do it again, in parts; kept with a checksum until the intent is finished.
    pub payload: Vec<Bytes>,
}

impl NewIngest {
    fn size_bytes(&self) -> usize {
        let ids = |ids: &[NodeId]| ids.iter().map(|id| size_of::<NodeId>() + id.as_str().len()).sum::<usize>();
        let named = self.owner.as_deref().map_or(0, str::len) + self.covered.as_deref().map_or(0, ids);
        let payload: usize = self.payload.iter().map(Bytes::len).sum();
        crate::Message::size_bytes(&self.put) + size_of::<Self>() + named + payload
    }
}

/// Records that subjects are to be forgotten; answers for each, in their order. A subject that is not there is begun as well:
/// another store may know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginForgets {
    /// Of which context; a document of another one is a conflict.
    pub context: ContextName,
    /// Which, each once; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub subjects: Vec<IntentSubject>,
}
message!(Documents, BeginForgets => Vec<Beginning>, |m| m.subjects.iter().map(IntentSubject::size_bytes).sum::<usize>());

/// Takes over a subject's open intent, if its holder's process is dead or is the caller's own.
///
/// The caller sees to it that nobody else in its process is at work on it. Sent twice, the first holding is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeIntent {
    /// About what.
    pub subject: IntentSubject,
    /// To do what.
    pub purpose: TakePurpose,
}
message!(Documents, TakeIntent => TakenIntent, |m| m.subject.size_bytes());

/// What an intent is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TakePurpose {
    /// To do what was recorded.
    Finish,
    /// To do an ingest again from the document itself, whatever state the payload is in.
    Redo,
    /// To forget the subject: an ingest becomes a forget in the same commit, and its payload goes.
    Forget,
}

/// What became of taking an intent over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakenIntent {
    /// There is none.
    None,
    /// A process that lives holds it.
    Held,
    /// Its payload is damaged, and it is as it was.
    Damaged(Intent),
    /// It is the caller's.
    Taken {
        /// What it is.
        intent: Intent,
        /// Which holding of it.
        fencing: Fencing,
        /// What was recorded with it; nothing, where it was taken without.
        payload: Vec<Bytes>,
    },
}

/// Deletes intents whose work is done, and with those that forget a document the document; answers how many nodes went, for each.
/// `None`: the holding is not the current one any more, and nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishIntents {
    /// Which, with the numbers they are held under; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub intents: Vec<(IntentId, Fencing)>,
}
message!(Documents, FinishIntents => Vec<Option<u64>>, |m| size_of_val(&*m.intents));

/// Lists open intents in the order in which they were recorded. Those that are damaged are left out: [`ListDamagedIntents`] names
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListIntents {
    /// Of which context. `None`: of all.
    pub context: Option<ContextName>,
    /// Continue behind this one.
    pub after: Option<IntentId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Documents, ListIntents => Vec<Intent>, |m| m.context.as_ref().map_or(0, |name| name.as_str().len()));

/// An intent whose row is not what was written: what was begun is not known for certain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedIntent {
    /// Its number.
    pub id: IntentId,
    /// About what, as it stands there. `None`: what stands there can be no name.
    pub subject: Option<IntentSubject>,
}

/// Lists damaged intents that may be a context's: about a document of it, or, where no context has that document, recorded for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDamagedIntents {
    /// Which context.
    pub context: ContextName,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Documents, ListDamagedIntents => Vec<DamagedIntent>, |m| m.context.as_str().len());

/// Deletes those of these intents that are damaged, and every payload that belongs to no intent; answers how many rows went.
///
/// The caller has done again whatever they may have been about. Sent twice, nothing is left for the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropDamagedIntents {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub ids: Vec<IntentId>,
}
message!(Documents, DropDamagedIntents => u64, |m| size_of_val(&*m.ids));

//! The chat store's handles: [`Chat`] for the store, [`ChatSession`] for one conversation.
//!
//! Always true: a method only builds a message; what it means is said at the message. Appends and edits are counted
//! before they are sent.

mod counted;
mod window;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use larder_actors::chat::Chat as ChatStore;
use larder_actors::store::Notices;
use larder_actors::{Error, Result};
use larder_protocol::chat::{
    AppendMessages, ArchiveMessages, ChatMessage, ClearSession, CountSessions, DeleteMessages, DeleteSession,
    EditMessage, ForkSession, Forked, GetSession, ListMessages, ListSessions, ListUncounted, MessageId, MessageOrder,
    MessagePage, PinMessage, PutCounts, PutSession, PutSummary, Retention, Role, SearchMessages, SearchScope,
    StoredMessage, TrimSession,
};
use larder_protocol::filter::Filter;
use larder_protocol::{Error as Kind, JsonText, Sequence, SessionId, Timestamp};

use super::STREAM_PAGE_ROWS;
use crate::larder::Larder;
use crate::request::Request;

pub use counted::Counted;
pub use window::{SummarisedWindow, Window};

/// Messages that are counted again at once.
const RECOUNT_ROWS: usize = 1_000;

/// The chat store.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::ChatMessage;
///
/// # let larder = larder::Larder::temporary().await?;
/// let chat = larder.chat();
/// for name in ["a", "b", "c"] {
///     chat.session(name).describe().owner("ann").title(name).await?;
/// }
/// chat.session("b").append([ChatMessage::user("Where is the warehouse?")]).await?;
///
/// let page = chat.sessions().owner("ann").archived(false).limit(2).await?;
/// assert_eq!(page.sessions.iter().map(|session| session.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
/// let rest = chat.sessions().after(page.next.ok_or("there is more")?).await?;
/// assert_eq!((rest.sessions.len(), rest.next), (1, None));
/// assert_eq!(chat.count(Some("ann")).await?, 3);
/// let hits = chat.search("ware").prefix().owner("ann").await?;
/// assert_eq!(hits[0].snippet, "Where is the [warehouse]?");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Chat {
    larder: Larder,
}

impl Chat {
    pub(crate) fn new(larder: Larder) -> Self {
        Self { larder }
    }

    /// Returns a conversation. Nothing is created before its first message; an id that cannot be used is an error of
    /// the first request.
    #[must_use]
    pub fn session(&self, id: impl AsRef<str>) -> ChatSession {
        ChatSession { larder: self.larder.clone(), name: SessionId::new(id) }
    }

    /// Lists sessions in the order of their ids, a page at a time. Default: the first 256.
    pub fn sessions(&self) -> Request<ListSessions> {
        let message = ListSessions { owner: None, archived: None, filter: None, after: None, limit: STREAM_PAGE_ROWS };
        Request::new(self.larder.clone(), Ok(message), Ok)
    }

    /// Counts sessions, all or one owner's.
    pub fn count(&self, owner: Option<&str>) -> Request<CountSessions> {
        Request::new(self.larder.clone(), Ok(CountSessions { owner: owner.map(str::to_owned) }), Ok)
    }

    /// Searches every session. See [`SearchMessages`].
    pub fn search(&self, query: impl Into<String>) -> Request<SearchMessages> {
        Request::new(self.larder.clone(), Ok(search_in(SearchScope::All, query.into())), Ok)
    }

    /// Returns a stream of what is committed to the store after `sequence`, by this process and others.
    ///
    /// # Errors
    /// When the store cannot be started.
    pub async fn subscribe(&self, after: Sequence) -> Result<Notices> {
        self.larder.subscribe::<ChatStore>(after).await
    }
}

/// One conversation.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::ChatMessage;
///
/// # let larder = larder::Larder::temporary().await?;
/// let chat = larder.chat().session("alice");
/// chat.append([ChatMessage::user("What did the report say?"), ChatMessage::assistant("Sales rose.")]).await?;
///
/// let window = chat.window(8_192).await?;
/// assert_eq!(window.messages.len(), 2);
/// assert_eq!(chat.search("report").await?.len(), 1);
/// # Ok(())
/// # }
/// ```
///
/// Everything else that can be done with messages:
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use futures::TryStreamExt;
/// use larder::ChatMessage;
/// use larder::protocol::chat::Retention;
///
/// # let larder = larder::Larder::temporary().await?;
/// let chat = larder.chat().session("alice");
/// let said = ["one", "two", "three", "four"].map(ChatMessage::user);
/// let ids = chat.append(said).idempotency_key("request-7").await?.ids;
/// chat.edit(ids[0], ChatMessage::user("the first")).await?;
/// assert!(chat.pin(ids[0]).await? && chat.unpin(ids[0]).await?);
/// assert_eq!(chat.archive([ids[1]]).await?, 1); // No window holds it, searches find it.
/// assert_eq!(chat.page(10).newest_first().await?.messages.len(), 3);
/// assert_eq!(chat.unarchive([ids[1]]).await?, 1);
///
/// assert_eq!(chat.fork_at(ids[2], "what if").await?, 3); // Stored once.
/// let all: Vec<_> = larder.chat().session("what if").export().try_collect().await?;
/// assert_eq!(all[0].message.text().as_deref(), Some("the first"));
///
/// assert_eq!(chat.delete([ids[3]]).await?, 1);
/// assert_eq!(chat.trim(Retention::Count(2)).await?, 1);
/// assert_eq!(chat.description().await?.ok_or("it is there")?.message_count, 2);
/// assert_eq!(chat.clear().await?, 2);
/// assert!(chat.delete_session().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ChatSession {
    larder: Larder,
    name: Result<SessionId, Kind>,
}

impl ChatSession {
    /// Appends messages in order, all or none. See [`AppendMessages`].
    pub fn append(&self, messages: impl IntoIterator<Item = ChatMessage>) -> Counted<AppendMessages> {
        let messages = messages.into_iter().collect();
        let message = self.name.clone().map(|session| AppendMessages { session, messages, counts: None });
        Counted::new(self.larder.clone(), message)
    }

    /// Reads the newest messages that fit `limit` tokens. Default: the strict rules.
    pub fn window(&self, limit: u64) -> Window {
        Window::new(self.clone(), limit)
    }

    /// Reads a page of at most `limit` messages, the oldest first unless told otherwise.
    pub fn page(&self, limit: usize) -> Request<ListMessages, MessagePage> {
        let order = MessageOrder::default();
        self.request(|session| ListMessages { session, order, after: None, include_archived: false, limit })
    }

    /// Reads on to the end, archived messages too, page by page: a message present throughout is seen exactly once.
    #[must_use]
    pub fn export(&self) -> BoxStream<'static, Result<StoredMessage>> {
        let (larder, name) = (self.larder.clone(), self.name.clone());
        let pages = futures::stream::try_unfold(Some(None), move |next| {
            let (larder, name) = (larder.clone(), name.clone());
            async move {
                let Some(after) = next else { return Ok::<_, Error>(None) };
                let (order, limit) = (MessageOrder::OldestFirst, STREAM_PAGE_ROWS);
                let list = ListMessages { session: name?, order, after, include_archived: true, limit };
                let MessagePage { messages, next } = larder.ask(list).await?;
                Ok(Some((messages, next.map(Some))))
            }
        });
        pages.map_ok(|messages| futures::stream::iter(messages).map(Ok)).try_flatten().boxed()
    }

    /// Replaces a message's content. See [`EditMessage`].
    pub fn edit(&self, id: MessageId, message: ChatMessage) -> Counted<EditMessage> {
        let message = self.name.clone().map(|session| EditMessage { session, id, message, counts: None });
        Counted::new(self.larder.clone(), message)
    }

    /// Deletes messages; answers how many were there.
    pub fn delete(&self, ids: impl IntoIterator<Item = MessageId>) -> Request<DeleteMessages> {
        self.request(|session| DeleteMessages { session, ids: ids.into_iter().collect() })
    }

    /// Takes messages out of windows; they stay listed and searchable. See [`ArchiveMessages`].
    pub fn archive(&self, ids: impl IntoIterator<Item = MessageId>) -> Request<ArchiveMessages> {
        self.request(|session| ArchiveMessages { session, ids: ids.into_iter().collect(), archived: true })
    }

    /// Takes archived messages back into windows.
    pub fn unarchive(&self, ids: impl IntoIterator<Item = MessageId>) -> Request<ArchiveMessages> {
        self.request(|session| ArchiveMessages { session, ids: ids.into_iter().collect(), archived: false })
    }

    /// Makes a message part of every strict window; answers whether it was there.
    pub fn pin(&self, id: MessageId) -> Request<PinMessage> {
        self.request(|session| PinMessage { session, id, pinned: true })
    }

    /// Makes a pinned message an ordinary one again; answers whether it was there.
    pub fn unpin(&self, id: MessageId) -> Request<PinMessage> {
        self.request(|session| PinMessage { session, id, pinned: false })
    }

    /// Stores a summary of everything up to `through`. See [`PutSummary`]; [`Window::summarised_by`] does so by itself.
    pub fn put_summary(&self, message: ChatMessage, through: MessageId) -> Counted<PutSummary> {
        let message = self.name.clone().map(|session| PutSummary { session, message, through, counts: None });
        Counted::new(self.larder.clone(), message)
    }

    /// Makes a new session of this one's messages up to `through`, which both share; answers how many. It does so in slices,
    /// between which other writes go on, and shows with the last of them: see [`ForkSession`].
    ///
    /// # Errors
    /// `NotFound` when the session or the message is not there, `Conflict` when `into` is; or when a slice fails.
    pub async fn fork_at(&self, through: MessageId, into: impl AsRef<str>) -> Result<u64> {
        self.fork_through(Some(through), into.as_ref()).await
    }

    /// Makes a new session of all of this one's messages, which both share, as [`fork_at`](Self::fork_at) does.
    ///
    /// # Errors
    /// As there.
    pub async fn fork(&self, into: impl AsRef<str>) -> Result<u64> {
        self.fork_through(None, into.as_ref()).await
    }

    /// Searches this session. See [`SearchMessages`].
    pub fn search(&self, query: impl Into<String>) -> Request<SearchMessages> {
        self.request(|session| search_in(SearchScope::Sessions(vec![session]), query.into()))
    }

    /// Deletes the oldest messages beyond what is to be kept; answers how many. It does so in slices, between which other
    /// writes go on: see [`TrimSession`]. Repeat it after an error.
    ///
    /// # Errors
    /// When a slice fails; the slices before it stay done.
    pub async fn trim(&self, keep: Retention) -> Result<u64> {
        let session = self.name.clone()?;
        let (mut deleted_count, mut after) = (0, None);
        loop {
            let trimmed = self.larder.ask(TrimSession { session: session.clone(), keep, after }).await?;
            deleted_count += trimmed.deleted_count;
            after = trimmed.next;
            if after.is_none() {
                return Ok(deleted_count);
            }
        }
    }

    /// Deletes all messages and keeps the session's description; answers how many there were.
    pub fn clear(&self) -> Request<ClearSession> {
        self.request(|session| ClearSession { session })
    }

    /// Deletes the session; answers whether it was there.
    pub fn delete_session(&self) -> Request<DeleteSession> {
        self.request(|session| DeleteSession { session })
    }

    /// Describes the session, replacing what was said before: what is not set is empty. Answers whether it was created.
    pub fn describe(&self) -> Request<PutSession> {
        self.request(|session| PutSession { session, title: None, owner: None, metadata: None, archived: false })
    }

    /// Reads what is said of the session, and its counts.
    pub fn description(&self) -> Request<GetSession> {
        self.request(|session| GetSession { session })
    }

    /// Counts messages whose counts are missing or by another counter than the store's; answers how many. A window that
    /// meets such messages starts this in the background.
    ///
    /// # Errors
    /// When the counter panics, or the counts cannot be stored.
    pub async fn recount(&self) -> Result<u64> {
        let session = self.name.clone()?;
        let mut total = 0;
        loop {
            let list = ListUncounted { session: session.clone(), limit: RECOUNT_ROWS };
            let messages = self.larder.ask(list).await?;
            if messages.is_empty() {
                return Ok(total);
            }
            let counted = messages.iter().map(|message| (message.id, message.revision)).collect();
            let messages = messages.into_iter().map(|message| message.message).collect();
            let counts = counted::count_off_thread(&self.larder, messages).await?;
            total += self.larder.ask(PutCounts { session: session.clone(), counted, counts }).await?;
        }
    }

    async fn fork_through(&self, through: Option<MessageId>, into: &str) -> Result<u64> {
        let (session, into) = (self.name.clone()?, SessionId::new(into)?);
        let mut progress = None;
        loop {
            let slice = ForkSession { session: session.clone(), through, into: into.clone(), progress };
            let Forked { message_count, next } = self.larder.ask(slice).await?;
            if next.is_none() {
                return Ok(message_count);
            }
            progress = next;
        }
    }

    fn request<M: larder_protocol::Message>(&self, message: impl FnOnce(SessionId) -> M) -> Request<M> {
        Request::new(self.larder.clone(), self.name.clone().map(message), Ok)
    }
}

fn search_in(scope: SearchScope, query: String) -> SearchMessages {
    SearchMessages {
        query,
        prefix: false,
        scope,
        role: None,
        since: None,
        until: None,
        filter: None,
        include_archived: true,
        offset: 0,
        limit: 20,
    }
}

/// Options of a page.
impl<T> Request<ListMessages, T> {
    /// From the last message back.
    pub fn newest_first(self) -> Self {
        self.set(|list| list.order = MessageOrder::NewestFirst)
    }

    /// Continues behind a message, in the page's order.
    pub fn after(self, id: MessageId) -> Self {
        self.set(|list| list.after = Some(id))
    }

    /// Archived messages are in it too.
    pub fn with_archived(self) -> Self {
        self.set(|list| list.include_archived = true)
    }
}

/// Options of a list of sessions.
impl<T> Request<ListSessions, T> {
    /// Only this owner's.
    pub fn owner(self, owner: impl Into<String>) -> Self {
        self.set(|list| list.owner = Some(owner.into()))
    }

    /// Only those that are put away, or only those that are not.
    pub fn archived(self, archived: bool) -> Self {
        self.set(|list| list.archived = Some(archived))
    }

    /// Only those whose metadata is so.
    pub fn filter(self, filter: Filter) -> Self {
        self.set(|list| list.filter = Some(filter))
    }

    /// Continues behind a session.
    pub fn after(self, id: SessionId) -> Self {
        self.set(|list| list.after = Some(id))
    }

    /// Most to return: 1 to 10,000. Default 256. A page also ends early at about 4 MiB.
    pub fn limit(self, limit: usize) -> Self {
        self.set(|list| list.limit = limit)
    }
}

/// Options of a search.
impl<T> Request<SearchMessages, T> {
    /// The last word may be only the beginning of one.
    pub fn prefix(self) -> Self {
        self.set(|search| search.prefix = true)
    }

    /// Only in these sessions.
    pub fn sessions(self, sessions: impl IntoIterator<Item = SessionId>) -> Self {
        self.set(|search| search.scope = SearchScope::Sessions(sessions.into_iter().collect()))
    }

    /// Only in one owner's sessions.
    pub fn owner(self, owner: impl Into<String>) -> Self {
        self.set(|search| search.scope = SearchScope::Owner(owner.into()))
    }

    /// Only messages of this role.
    pub fn role(self, role: Role) -> Self {
        self.set(|search| search.role = Some(role))
    }

    /// Only messages created from then on.
    pub fn since(self, time: Timestamp) -> Self {
        self.set(|search| search.since = Some(time))
    }

    /// Only messages created before then.
    pub fn until(self, time: Timestamp) -> Self {
        self.set(|search| search.until = Some(time))
    }

    /// Only messages whose metadata is so.
    pub fn filter(self, filter: Filter) -> Self {
        self.set(|search| search.filter = Some(filter))
    }

    /// Archived messages are not found. Default: they are.
    pub fn without_archived(self) -> Self {
        self.set(|search| search.include_archived = false)
    }

    /// Leaves out so many of the best, for the next page.
    pub fn offset(self, offset: usize) -> Self {
        self.set(|search| search.offset = offset)
    }

    /// Most to return: 1 to 10,000. Default 20. It ends early at about 4 MiB of messages.
    pub fn limit(self, limit: usize) -> Self {
        self.set(|search| search.limit = limit)
    }
}

/// What is said of a session.
impl<T> Request<PutSession, T> {
    /// What it is called.
    pub fn title(self, title: impl Into<String>) -> Self {
        self.set(|session| session.title = Some(title.into()))
    }

    /// Whose it is.
    pub fn owner(self, owner: impl Into<String>) -> Self {
        self.set(|session| session.owner = Some(owner.into()))
    }

    /// The program's own facts about it: a JSON object.
    pub fn metadata(self, metadata: JsonText) -> Self {
        self.set(|session| session.metadata = Some(metadata))
    }

    /// It is put away.
    pub fn archived(self) -> Self {
        self.set(|session| session.archived = true)
    }
}

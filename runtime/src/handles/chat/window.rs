//! A window in the making, and the summary of what falls out of it.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use futures::future::BoxFuture;
use larder_actors::Result;
use larder_protocol::Error as Kind;
use larder_protocol::chat::{
    ChatMessage, ChatWindow, DeleteMessages, GetSession, GetWindow, ListMessages, MessageId, MessageOrder, PutSummary,
    StoredMessage, TokenLimit, WindowPolicy,
};

use super::ChatSession;

/// Messages that one summary takes in at most; what is left over is for the next window.
const SUMMARISED_MAX: usize = 1_000;

/// A window in the making: options are chained, then it is awaited as it stands.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::{ChatMessage, WindowPolicy};
///
/// # let larder = larder::Larder::temporary().await?;
/// let chat = larder.chat().session("alice");
/// chat.append([ChatMessage::user("a long question"), ChatMessage::assistant("a long answer")]).await?;
/// chat.append([ChatMessage::user("and now?")]).await?;
///
/// let window = chat.window(8_192).initial_tokens(100).overhead_per_message(4).await?;
/// assert_eq!((window.messages.len(), window.left_out.through), (3, None));
/// // A quarter of a model's context, by LlamaIndex's rules.
/// let buffer = chat.window(0).ratio(16, 0.25).policy(WindowPolicy::ChatMemoryBuffer).await?;
/// assert_eq!(buffer.messages.len(), 1);
/// // What falls out is summarised by the program, and the window carries the summary.
/// let summarise = |_earlier, fallen: Vec<_>| async move { Ok::<_, String>(format!("{} before", fallen.len())) };
/// let summarised = chat.window(6).summarised_by(summarise).await?;
/// assert_eq!(summarised.failure, None);
/// assert_eq!(summarised.window.messages[0].message.text().as_deref(), Some("2 before"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a window is only read when it is awaited"]
pub struct Window {
    session: ChatSession,
    message: Result<GetWindow, Kind>,
}

/// A window, and whether the summary of what fell out could be made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SummarisedWindow {
    /// The window.
    pub window: ChatWindow,
    /// Why there is no newer summary. `None`: there is one, or none was needed.
    pub failure: Option<String>,
}

impl Window {
    pub(super) fn new(session: ChatSession, limit: u64) -> Self {
        let message = session.name.clone().map(|name| GetWindow {
            session: name,
            policy: WindowPolicy::default(),
            limit: TokenLimit::Tokens(limit),
            initial_tokens: 0,
            overhead_tokens_per_message: 0,
            may_take_long: false,
        });
        Self { session, message }
    }

    /// Sets the rules. Default: strict.
    pub fn policy(self, policy: WindowPolicy) -> Self {
        self.change(|window| window.policy = policy)
    }

    /// Limits the window to a share of the model's context instead.
    pub fn ratio(self, context_tokens: u64, ratio: f64) -> Self {
        self.change(|window| window.limit = TokenLimit::Ratio { context_tokens, ratio })
    }

    /// Says how many tokens are taken already, by what is sent beside the window. Default 0.
    pub fn initial_tokens(self, tokens: u64) -> Self {
        self.change(|window| window.initial_tokens = tokens)
    }

    /// Says what the model's message format costs a message. Default 0.
    pub fn overhead_per_message(self, tokens: u64) -> Self {
        self.change(|window| window.overhead_tokens_per_message = tokens)
    }

    fn change(mut self, change: impl FnOnce(&mut GetWindow)) -> Self {
        if let Ok(message) = &mut self.message {
            change(message);
        }
        self
    }

    /// Reads the window, and has what fell out of it summarised; the summary is stored, and the window carries it.
    ///
    /// `summarise` gets the earlier summary, if there is one, and the messages that it does not cover yet, oldest first, at
    /// most 1,000; it answers the new summary's text. When it fails, panics, or answers a text that does not fit, nothing
    /// is lost: the window is answered as it would be without, and the next one tries again.
    ///
    /// # Errors
    /// When the window cannot be read or the summary not be stored.
    pub async fn summarised_by<F, E>(
        self,
        summarise: impl FnOnce(Option<StoredMessage>, Vec<StoredMessage>) -> F + Send,
    ) -> Result<SummarisedWindow>
    where
        F: Future<Output = Result<String, E>> + Send,
        E: std::fmt::Display,
    {
        let window = self.clone().await?;
        let Some(through) = window.left_out.through else { return Ok(SummarisedWindow { window, failure: None }) };
        let earlier = window.messages.iter().find(|message| message.summary).cloned();
        let fallen = self.fallen(through).await?;
        let Some(last) = fallen.last().map(|message| message.id) else {
            return Ok(SummarisedWindow { window, failure: None });
        };
        // Both the call and the future may panic.
        let summary = AssertUnwindSafe(async move { summarise(earlier, fallen).await }).catch_unwind().await;
        let failure = match summary {
            Ok(Ok(text)) => return self.with_summary(window, last, text).await,
            Ok(Err(error)) => error.to_string(),
            Err(_panic) => "the summariser panicked".to_owned(),
        };
        Ok(SummarisedWindow { window, failure: Some(failure) })
    }

    /// Returns what fell out and no summary covers: system and pinned messages are in every window.
    async fn fallen(&self, through: MessageId) -> Result<Vec<StoredMessage>> {
        let (larder, session) = (&self.session.larder, self.session.name.clone()?);
        let described = larder.ask(GetSession { session: session.clone() }).await?;
        let mut after = described.and_then(|described| described.summary_through);
        let mut fallen = Vec::new();
        while fallen.len() < SUMMARISED_MAX {
            let limit = SUMMARISED_MAX - fallen.len();
            let order = MessageOrder::OldestFirst;
            let list = ListMessages { session: session.clone(), order, after, include_archived: false, limit };
            let page = larder.ask(list).await?;
            let is_out =
                |message: &StoredMessage| message.id <= through && !message.pinned && !message.message.role.instructs();
            let is_past = page.messages.last().is_some_and(|message| message.id > through);
            fallen.extend(page.messages.into_iter().filter(is_out));
            after = page.next;
            if is_past || after.is_none() {
                break;
            }
        }
        Ok(fallen)
    }

    /// Stores the summary and reads the window with it; one that does not fit is taken out again.
    async fn with_summary(self, window: ChatWindow, through: MessageId, text: String) -> Result<SummarisedWindow> {
        let session = self.session.name.clone()?;
        let summary =
            PutSummary { session: session.clone(), message: ChatMessage::system(text), through, counts: None };
        let id = super::Counted::new(self.session.larder.clone(), Ok(summary)).await?;
        let larder = self.session.larder.clone();
        match self.await {
            Ok(window) => Ok(SummarisedWindow { window, failure: None }),
            Err(error) if matches!(error.kind(), Kind::WindowTooSmall { .. }) => {
                larder.ask(DeleteMessages { session, ids: vec![id] }).await?;
                Ok(SummarisedWindow { window, failure: Some("the summary does not fit the window".to_owned()) })
            }
            Err(error) => Err(error),
        }
    }
}

impl IntoFuture for Window {
    type Output = Result<ChatWindow>;
    type IntoFuture = BoxFuture<'static, Result<ChatWindow>>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let message = self.message?;
            let larder = self.session.larder.clone();
            if let Some(window) = larder.ask(message.clone()).await? {
                return Ok(window);
            }
            // It is long, or counts are missing or by another counter: this answer is for a reader thread.
            let window = larder.ask(GetWindow { may_take_long: true, ..message }).await?;
            let window = window.ok_or_else(|| Kind::invalid("window", "it was not read though it might take long"))?;
            if window.uncounted_count > 0 {
                let session = self.session;
                // The next answers need not count.
                larder.in_background(async move {
                    if let Err(error) = session.recount().await {
                        tracing::warn!(%error, "the counts of a session could not be brought up to date");
                    }
                });
            }
            Ok(window)
        }
        .boxed()
    }
}

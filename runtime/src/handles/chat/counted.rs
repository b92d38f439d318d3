//! Requests whose messages are counted before they are sent, never on the store's own thread.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use larder_actors::chat::{Chat as ChatStore, Counter};
use larder_actors::store::Ask;
use larder_actors::{Error, Result};
use larder_protocol::chat::{AppendMessages, ChatMessage, EditMessage, MessageTokens, PutSummary, TokenCounts};
use larder_protocol::{Error as Kind, Message};

use crate::larder::Larder;
use crate::request::Request;

/// A write with messages to be counted, which is sent when it is awaited.
#[derive(Debug, Clone)]
#[must_use = "a request is only sent when it is awaited"]
pub struct Counted<M: Message> {
    larder: Larder,
    message: Result<M, Kind>,
    deadline: Option<Duration>,
    idempotency_key: Option<String>,
}

/// A message that carries counts.
pub trait Countable: Ask<Store = ChatStore> {
    #[doc(hidden)]
    fn to_count(&self) -> Vec<ChatMessage>;
    #[doc(hidden)]
    fn bytes(&self) -> usize;
    #[doc(hidden)]
    fn set_counts(&mut self, counts: TokenCounts);
}

impl Countable for AppendMessages {
    fn to_count(&self) -> Vec<ChatMessage> {
        self.messages.clone()
    }

    fn bytes(&self) -> usize {
        self.messages.iter().map(ChatMessage::size_bytes).sum()
    }

    fn set_counts(&mut self, counts: TokenCounts) {
        self.counts = Some(counts);
    }
}

impl Countable for EditMessage {
    fn to_count(&self) -> Vec<ChatMessage> {
        vec![self.message.clone()]
    }

    fn bytes(&self) -> usize {
        self.message.size_bytes()
    }

    fn set_counts(&mut self, counts: TokenCounts) {
        self.counts = Some(counts);
    }
}

impl Countable for PutSummary {
    fn to_count(&self) -> Vec<ChatMessage> {
        vec![self.message.clone()]
    }

    fn bytes(&self) -> usize {
        self.message.size_bytes()
    }

    fn set_counts(&mut self, counts: TokenCounts) {
        self.counts = Some(counts);
    }
}

impl<M: Message> Counted<M> {
    pub(super) fn new(larder: Larder, message: Result<M, Kind>) -> Self {
        Self { larder, message, deadline: None, idempotency_key: None }
    }

    /// Sets how long to wait for the answer, once the messages are counted. Default: the store's `deadline` setting.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Names the write: repeating it under the same key returns the first outcome.
    pub fn idempotency_key(mut self, key: impl AsRef<str>) -> Self {
        self.idempotency_key = Some(key.as_ref().to_owned());
        self
    }
}

impl<M: Countable> IntoFuture for Counted<M> {
    type Output = Result<M::Reply>;
    type IntoFuture = BoxFuture<'static, Result<M::Reply>>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let mut message = self.message?;
            // What the store would refuse by its size is not counted first: that could take seconds.
            if message.bytes() <= self.larder.settings().chat.common.queue_bytes_max {
                let counter = self.larder.settings().chat.own.counter.clone();
                let counts = if counter.is_quick(message.bytes()) {
                    count(&counter, &message.to_count())?
                } else {
                    count_off_thread(&self.larder, message.to_count()).await?
                };
                message.set_counts(counts);
            }
            let mut request = Request::new(self.larder, Ok(message), Ok);
            if let Some(deadline) = self.deadline {
                request = request.deadline(deadline);
            }
            if let Some(key) = self.idempotency_key {
                request = request.idempotency_key(key);
            }
            request.await
        }
        .boxed()
    }
}

fn count(counter: &Counter, messages: &[ChatMessage]) -> Result<TokenCounts, Kind> {
    let tokens = messages.iter().map(|message| counter.count(message)).collect::<Result<Vec<MessageTokens>, Kind>>()?;
    Ok(TokenCounts { counter: counter.id().to_owned(), tokens })
}

pub(super) async fn count_off_thread(larder: &Larder, messages: Vec<ChatMessage>) -> Result<TokenCounts> {
    let counter = larder.settings().chat.own.counter.clone();
    let counted = larder.off_thread(move || count(&counter, &messages)).await;
    let lost = || Error::from(Kind::invalid("token counter", "the runtime ended before it had counted"));
    Ok(counted.ok_or_else(lost)??)
}

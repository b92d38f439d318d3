//! A request in the making: options are chained, then it is awaited as it stands.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use larder_actors::Result;
use larder_actors::store::Ask;
use larder_protocol::{Error as Kind, IdempotencyKey, Message, RequestOptions};

use crate::larder::Larder;
use crate::stores::Hosted;

/// A message with its options, which is sent when it is awaited. `T` is what the caller gets out of the reply.
#[derive(Debug, Clone)]
#[must_use = "a request is only sent when it is awaited"]
pub struct Request<M: Message, T = <M as Message>::Reply> {
    larder: Larder,
    /// A name that cannot be used is answered when the request is awaited.
    message: Result<M, Kind>,
    options: RequestOptions,
    read_reply: fn(M::Reply) -> Result<T>,
}

impl<M: Message, T> Request<M, T> {
    pub(crate) fn new(larder: Larder, message: Result<M, Kind>, read_reply: fn(M::Reply) -> Result<T>) -> Self {
        Self { larder, message, options: RequestOptions::default(), read_reply }
    }

    /// Sets how long to wait for the answer. Default: the store's `deadline` setting.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Names the write: repeating it under the same key returns the first outcome. Reads ignore it.
    pub fn idempotency_key(mut self, key: impl AsRef<str>) -> Self {
        match IdempotencyKey::new(key) {
            Ok(key) => self.options.idempotency_key = Some(key),
            Err(error) => self.message = self.message.and(Err(error)),
        }
        self
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut M) -> Result<(), Kind>) -> Self {
        self.message = self.message.and_then(|mut message| change(&mut message).map(|()| message));
        self
    }

    /// Returns the request for another message, made from this one.
    pub(crate) fn into_message<N: Message>(self, make: impl FnOnce(M) -> N) -> Request<N> {
        let Self { larder, message, options, .. } = self;
        Request { larder, message: message.map(make), options, read_reply: Ok }
    }

    pub(crate) fn set(self, set: impl FnOnce(&mut M)) -> Self {
        self.change(|message| {
            set(message);
            Ok(())
        })
    }
}

impl<M: Ask<Store: Hosted>, T: Send + 'static> IntoFuture for Request<M, T> {
    type Output = Result<T>;
    type IntoFuture = BoxFuture<'static, Result<T>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { larder, message, options, read_reply } = self;
        async move { read_reply(larder.send(message?, options).await?) }.boxed()
    }
}

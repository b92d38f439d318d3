//! What makes a struct a message.

use std::fmt::Debug;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::names::{IdempotencyKey, StoreName};

/// A request to one store, which names the type of its own reply.
///
/// Messages are plain data: a binding, a test or another engine can build, send and store them.
pub trait Message: Debug + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What the store answers when it succeeds.
    type Reply: Debug + Clone + Serialize + DeserializeOwned + Send + 'static;

    /// The store that answers.
    const STORE: StoreName;

    /// The message's name in traces and errors, such as `kv.PutValue`.
    const NAME: &'static str;

    /// Returns about how many bytes the message holds in memory, for admission; heap content counts.
    fn size_bytes(&self) -> usize;

    /// Returns what the caller said, which is what tells two writes under one idempotency key apart: all of it, but for what a
    /// handle worked out from the rest, such as token counts.
    fn said(&self) -> impl Serialize {
        self
    }
}

/// What a caller may say beside a message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RequestOptions {
    /// How long the caller is willing to wait for the answer. `None`: the runtime's default.
    pub deadline: Option<Duration>,
    /// For writes: repeating the same write under this key returns the first outcome. Reads ignore it.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// Implements [`Message`]: store, reply, and the sum of what the struct holds on the heap; then, where that is not all of it,
/// what the caller said.
macro_rules! message {
    ($store:ident, $name:ident => $reply:ty, |$message:ident| $heap_bytes:expr $(, said $said:expr)?) => {
        impl $crate::Message for $name {
            type Reply = $reply;
            const STORE: $crate::StoreName = $crate::StoreName::$store;
            const NAME: &'static str = concat!(stringify!($store), ".", stringify!($name));
            fn size_bytes(&self) -> usize {
                let $message = self;
                size_of::<Self>() + $heap_bytes
            }
            $(fn said(&self) -> impl serde::Serialize {
                let $message = self;
                $said
            })?
        }
    };
}
pub(crate) use message;

//! The counter that a program chose, as a setting.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_protocol::chat::{ChatMessage, MessageTokens};
use larder_protocol::{Error, Result};
use serde::{Deserialize, Serialize};

use super::tokens::{self, Estimate, FunctionCounter, TokenCounter};

/// A token counter, cheap to clone. In serde it is its id, so a counter of the program's own is set in code.
///
/// # Examples
/// ```
/// use larder_actors::chat::Counter;
///
/// let words = Counter::function("words-1", |text| text.split_whitespace().count() as u64);
/// assert_eq!(words.id(), "words-1");
/// assert!(Counter::named("no such counter").is_err());
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Counter(Arc<Inner>);

struct Inner<T: ?Sized = dyn TokenCounter> {
    /// larder's own, whose time is known.
    is_own: bool,
    /// It counted before, so that its vocabulary is loaded.
    is_warm: AtomicBool,
    counter: T,
}

/// Texts up to this size are counted in about 0.3 ms.
const QUICK_BYTES_MAX: usize = 4 << 10;

impl Counter {
    /// Returns a counter of the program's own.
    pub fn new(counter: impl TokenCounter + 'static) -> Self {
        Self(Arc::new(Inner { is_own: false, is_warm: AtomicBool::new(false), counter }))
    }

    fn own(counter: impl TokenCounter + 'static) -> Self {
        Self(Arc::new(Inner { is_own: true, is_warm: AtomicBool::new(false), counter }))
    }

    /// Returns the program's own function as a counter. One that counts differently needs another id.
    pub fn function(id: impl Into<String>, function: impl Fn(&str) -> u64 + Send + Sync + 'static) -> Self {
        Self::new(FunctionCounter::new(id, function))
    }

    /// Returns larder's counter of this id: `cl100k_base` and `o200k_base` with the feature `tokenizers`, and `estimate-1`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other id.
    pub fn named(id: &str) -> Result<Self> {
        let estimate = Self::own(Estimate);
        match id {
            #[cfg(feature = "tokenizers")]
            "cl100k_base" => Ok(Self::own(tokens::Cl100kBase)),
            #[cfg(feature = "tokenizers")]
            "o200k_base" => Ok(Self::own(tokens::O200kBase)),
            id if id == estimate.id() => Ok(estimate),
            other => Err(Error::invalid("token counter", format!("there is none of the id {other:?} in this build"))),
        }
    }

    /// Returns its lasting id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.counter.id()
    }

    /// Returns the counter itself.
    #[must_use]
    pub fn counter(&self) -> &dyn TokenCounter {
        &self.0.counter
    }

    /// Counts a message; never on a store's own thread.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the counter panics.
    pub fn count(&self, message: &ChatMessage) -> Result<MessageTokens> {
        let tokens = tokens::count_message(&self.0.counter, message)?;
        self.0.is_warm.store(true, Ordering::Relaxed);
        Ok(tokens)
    }

    /// Returns whether so many bytes may be counted on a caller's async thread.
    #[must_use]
    pub fn is_quick(&self, bytes: usize) -> bool {
        self.0.is_own && bytes <= QUICK_BYTES_MAX && self.0.is_warm.load(Ordering::Relaxed)
    }
}

impl Default for Counter {
    fn default() -> Self {
        #[cfg(feature = "tokenizers")]
        return Self::own(tokens::Cl100kBase);
        #[cfg(not(feature = "tokenizers"))]
        return Self::own(Estimate);
    }
}

/// Counters of one id count alike.
impl PartialEq for Counter {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Counter {}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl TryFrom<String> for Counter {
    type Error = Error;
    fn try_from(id: String) -> Result<Self> {
        Self::named(&id)
    }
}

impl From<Counter> for String {
    fn from(counter: Counter) -> Self {
        counter.id().to_owned()
    }
}

//! An embedding model, as a program names it.

use std::borrow::Cow;
use std::ops::Deref;

use larder_protocol::Error as Kind;
use larder_protocol::embed_cache::{CacheKey, Input, Producer, ProducerHash};

/// An embedding model: its name, and the parameters that change what it makes. Made once, it saves checking the name, and hashing
/// it, again.
///
/// # Examples
/// ```
/// use larder::Model;
///
/// let model = Model::new("text-embedding-3-small")?.with_parameters("dimensions=512")?;
/// # Ok::<(), larder::ErrorKind>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Model {
    producer: Producer,
    hash: ProducerHash,
}

impl Model {
    /// Returns a model without parameters.
    ///
    /// # Errors
    /// When the name cannot be used.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Kind> {
        Producer::model(name).map(Self::of)
    }

    /// Returns the model with parameters, in any form of the program's own: with others, it is another model.
    ///
    /// # Errors
    /// When they are over 4,096 bytes.
    pub fn with_parameters(self, parameters: impl Into<String>) -> Result<Self, Kind> {
        self.producer.with_parameters(parameters).map(Self::of)
    }

    fn of(producer: Producer) -> Self {
        Self { hash: producer.to_hash(), producer }
    }

    /// Returns the key of what the model makes of `input`.
    pub fn key<'a>(&self, input: impl Into<Input<'a>>) -> CacheKey {
        self.hash.key(input)
    }
}

impl Deref for Model {
    type Target = Producer;

    fn deref(&self) -> &Producer {
        &self.producer
    }
}

/// What names a model: a [`Model`], or its name where it has no parameters.
pub trait AsModel {
    /// Returns the model.
    ///
    /// # Errors
    /// When the name cannot be used.
    fn as_model(&self) -> Result<Cow<'_, Model>, Kind>;
}

impl AsModel for Model {
    fn as_model(&self) -> Result<Cow<'_, Model>, Kind> {
        Ok(Cow::Borrowed(self))
    }
}

impl AsModel for str {
    fn as_model(&self) -> Result<Cow<'_, Model>, Kind> {
        Model::new(self).map(Cow::Owned)
    }
}

impl AsModel for String {
    fn as_model(&self) -> Result<Cow<'_, Model>, Kind> {
        self.as_str().as_model()
    }
}

impl<M: AsModel + ?Sized> AsModel for &M {
    fn as_model(&self) -> Result<Cow<'_, Model>, Kind> {
        (**self).as_model()
    }
}

//! Memoised functions: any serde value by what it was computed from.

use std::marker::PhantomData;
use std::time::Duration;

use larder_actors::Result;
use larder_protocol::codec::Codec;
use larder_protocol::embed_cache::{CacheKey, Cached, CachedValue, Input, Producer};
use larder_protocol::{Error as Kind, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Distinct, EmbedCache, failed, values};

/// The results of one function, computed once as vectors are. Made by [`EmbedCache::memo`].
///
/// A value that no longer decodes as a `T` is an error: a function that changed gets another [`version`](Self::version).
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let larder = larder::Larder::temporary().await?;
/// let summaries = larder.embed_cache().memo::<String>("summarise").version("2");
/// let summary = summaries.get_or_compute("a long text", || async { Ok::<_, std::io::Error>("short".to_owned()) }).await?;
/// assert_eq!(summary, "short");
/// assert_eq!(summaries.get("a long text").await?.as_deref(), Some("short"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Memo<T> {
    cache: EmbedCache,
    function: Result<Producer, Kind>,
    codec: Codec,
    values: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Memo<T> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), function: self.function.clone(), codec: self.codec, values: PhantomData }
    }
}

impl<T> Memo<T> {
    pub(super) fn new(cache: EmbedCache, function: Result<Producer, Kind>) -> Self {
        Self { cache, function, codec: Codec::default(), values: PhantomData }
    }

    /// Sets the function's version: with another one, nothing of it is cached yet. At most 4,096 bytes.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.function = self.function.and_then(|function| function.with_parameters(version));
        self
    }

    /// As [`EmbedCache::ttl`].
    #[must_use]
    pub fn ttl(mut self, time_to_live: Duration) -> Self {
        self.cache = self.cache.ttl(time_to_live);
        self
    }

    /// As [`EmbedCache::tags`].
    #[must_use]
    pub fn tags<L: AsRef<str>>(mut self, tags: impl IntoIterator<Item = L>) -> Self {
        self.cache = self.cache.tags(tags);
        self
    }

    /// As [`EmbedCache::deadline`].
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.cache = self.cache.deadline(deadline);
        self
    }

    /// Sets how new values are encoded; each is read by what it was stored with.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Removes results; answers how many were there.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn remove<'i, I: Into<Input<'i>>>(&self, inputs: impl IntoIterator<Item = I>) -> Result<u64> {
        let hash = self.function()?.to_hash();
        let keys = inputs.into_iter().map(|input| hash.key(input)).collect();
        self.cache.remove_keys(keys).await
    }

    /// Removes every result of this version of the function; answers how many there were.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn clear(&self) -> Result<u64> {
        let function = self.function()?.clone();
        self.cache.remove_produced(function).await
    }

    /// Sets when results expire: the [`ttl`](Self::ttl) from now, or never; answers how many were there.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn touch<'i, I: Into<Input<'i>>>(&self, inputs: impl IntoIterator<Item = I>) -> Result<u64> {
        let hash = self.function()?.to_hash();
        let keys = inputs.into_iter().map(|input| hash.key(input)).collect();
        self.cache.touch_keys(keys).await
    }

    /// Returns whether the result for `input` is there. It is no use of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn contains<'i>(&self, input: impl Into<Input<'i>>) -> Result<bool> {
        let key = self.key(input)?;
        Ok(self.cache.contains_keys(&[key]).await?.first() == Some(&true))
    }

    fn function(&self) -> Result<&Producer> {
        Ok(self.function.as_ref().map_err(Kind::clone)?)
    }

    fn key<'i>(&self, input: impl Into<Input<'i>>) -> Result<CacheKey> {
        Ok(self.function()?.key(input))
    }
}

impl<T: Serialize + DeserializeOwned> Memo<T> {
    /// Returns the function's result for `input`: from the cache, from somebody who is computing it just now, or from
    /// `compute`. See [`EmbedCache::get_or_compute`].
    ///
    /// # Errors
    /// As there; [`Invalid`](Kind::Invalid) also when the value cannot be encoded, or what is stored is no `T`.
    pub async fn get_or_compute<'i, F, Fut, E>(&self, input: impl Into<Input<'i>>, compute: F) -> Result<T>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (function, key) = (self.function()?, self.key(input)?);
        let computed = self.cache.resolve_one(function, key, || {
            let computation = compute();
            async move { self.encode(&computation.await.map_err(|error| failed(function, error))?) }
        });
        decode(computed.await?)
    }

    /// Returns the function's results for `inputs`, in their order. See [`EmbedCache::get_or_compute_many`].
    ///
    /// # Errors
    /// As [`get_or_compute`](Self::get_or_compute).
    pub async fn get_or_compute_many<'i, I, F, Fut, E>(
        &self,
        inputs: impl IntoIterator<Item = I>,
        mut compute: F,
    ) -> Result<Vec<T>>
    where
        I: Into<Input<'i>> + Clone,
        F: FnMut(Vec<I>) -> Fut,
        Fut: Future<Output = Result<Vec<T>, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let function = self.function()?;
        let hash = function.to_hash();
        let inputs: Vec<I> = inputs.into_iter().collect();
        let distinct = Distinct::of(inputs.iter().map(|input| hash.key(input.clone())));
        let resolved = Box::pin(self.cache.resolve(function, distinct.keys.clone(), |missing| {
            let missing = missing.iter().filter_map(|index| inputs.get(*distinct.first.get(*index)?).cloned());
            let computation = compute(missing.collect());
            async move {
                let values = computation.await.map_err(|error| failed(function, error))?;
                values.iter().map(|value| self.encode(value)).collect()
            }
        }));
        distinct.spread(&resolved.await?)?.into_iter().map(decode).collect()
    }

    /// Returns the function's result for `input`, if it is there.
    ///
    /// # Errors
    /// When the store cannot be read; [`Invalid`](Kind::Invalid) when what is stored is no `T`.
    pub async fn get<'i>(&self, input: impl Into<Input<'i>>) -> Result<Option<T>> {
        let key = self.key(input)?;
        self.cache.find(&key).await?.map(decode).transpose()
    }

    /// Stores the function's result for `input`, replacing any other.
    ///
    /// # Errors
    /// [`Invalid`](Kind::Invalid) when it cannot be encoded; or the store's own.
    pub async fn put<'i>(&self, input: impl Into<Input<'i>>, value: &T) -> Result<()> {
        let put = values::put(self.key(input)?, self.encode(value)?);
        self.cache.store(self.function()?, vec![put]).await.map(drop)
    }

    fn encode(&self, value: &T) -> Result<CachedValue> {
        Ok(CachedValue::Encoded(codec::encode(self.codec, value)?))
    }
}

fn decode<T: DeserializeOwned>(cached: Cached) -> Result<T> {
    match cached.value {
        CachedValue::Encoded(bytes) => Ok(codec::decode(&bytes, bytes.len())?),
        // Keys of models and functions differ.
        CachedValue::Vector(_) => Err(Kind::invalid("value", "it is a vector").into()),
    }
}

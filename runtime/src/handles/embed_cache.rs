//! The embedding cache's handles: [`EmbedCache`] for vectors, [`Memo`] for any serde value.
//!
//! Start at [`EmbedCache::get_or_compute`]; how one computation serves everybody stands in `single_flight`, and which
//! callers of this process wait for each other in `flights`.
//!
//! Always true: a computation runs in its caller's own future; what failed, panicked or was cancelled is not cached.

mod flights;
mod memo;
mod model;
mod single_flight;
mod statistics;
mod values;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use larder_actors::embed_cache::{Backend, EmbedCache as Store, EmbedCacheSettings, MemoryCache};
use larder_actors::store::Notices;
use larder_actors::{Error, Result};
use larder_protocol::embed_cache::{CacheKey, Cached, CachedValue, Input, ListValues, Producer};
use larder_protocol::vectors::Vector;
use larder_protocol::{Error as Kind, Sequence, Tag};

pub use memo::Memo;
pub use model::{AsModel, Model};
pub use statistics::CacheStatistics;

use crate::larder::Larder;
use crate::request::Request;
use flights::Flights;
use statistics::Counters;

/// What the cache keeps in this process beside its store.
#[derive(Debug)]
pub(crate) struct CacheState {
    flights: Flights,
    counters: Counters,
    /// The values, where the backend is memory alone.
    memory: Option<MemoryCache>,
}

impl CacheState {
    pub(crate) fn new(settings: &EmbedCacheSettings) -> Self {
        let memory = || MemoryCache::new(settings.memory_bytes, settings.value_bytes_max);
        Self {
            flights: Flights::default(),
            counters: Counters::default(),
            memory: (settings.backend == Backend::Memory).then(memory),
        }
    }
}

/// The embedding cache: what is dear to compute is computed once, by one task of one process.
///
/// A handle carries options, which hold for what is done through it: [`ttl`](Self::ttl), [`tags`](Self::tags) and
/// [`deadline`](Self::deadline).
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # async fn embed(text: &str) -> Result<Vec<f32>, std::io::Error> { Ok(vec![text.len() as f32, 1.0]) }
/// # let larder = larder::Larder::temporary().await?;
/// let cache = larder.embed_cache();
/// let first = cache.get_or_compute("minilm", "a text", || embed("a text")).await?;
/// let again = cache.get_or_compute("minilm", "a text", || async { Err("it is there") }).await?;
/// assert_eq!(first, again);
/// assert_eq!(cache.statistics().await?.computed, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EmbedCache {
    larder: Larder,
    time_to_live: Option<Duration>,
    tags: Result<Vec<Tag>, Kind>,
    /// Labels of single values, in the place of those of all.
    tags_by_key: Option<Arc<HashMap<CacheKey, Vec<Tag>>>>,
    deadline: Option<Duration>,
}

impl EmbedCache {
    pub(crate) fn new(larder: Larder) -> Self {
        Self { larder, time_to_live: None, tags: Ok(Vec::new()), tags_by_key: None, deadline: None }
    }

    /// Labels what is put through this handle by its key; what is not among them is not labelled.
    pub(crate) fn tags_by_key(mut self, tags: HashMap<CacheKey, Vec<Tag>>) -> Self {
        self.tags_by_key = Some(Arc::new(tags));
        self
    }

    /// Hides what is put through this handle once `time_to_live` has passed.
    #[must_use]
    pub fn ttl(mut self, time_to_live: Duration) -> Self {
        self.time_to_live = Some(time_to_live);
        self
    }

    /// Labels what is put through this handle, so that it can be [removed together](Self::remove_tagged).
    #[must_use]
    pub fn tags<T: AsRef<str>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Tag::new).collect();
        self
    }

    /// Sets how long requests through this handle wait: for the store, and for the computations of others. Default: the
    /// store's `deadline`, and `compute_time_max`.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Returns the memoised results of the function `name`: any serde values.
    #[must_use]
    pub fn memo<T>(&self, name: impl AsRef<str>) -> Memo<T> {
        Memo::new(self.clone(), Producer::function(name))
    }

    /// Returns the vector that `model` makes of `input`: from the cache, from somebody who is computing it just now, or from
    /// `compute`.
    ///
    /// Of all callers with the same model and input, in all processes on the folder, one computes; the others wait for its
    /// result. If it fails, panics, is dropped, dies with its process or takes longer than `compute_time_max`, the next one
    /// tries. A file that cannot be read or written is no reason to fail: then the result is not kept.
    ///
    /// # Errors
    /// [`Computation`](Kind::Computation) with the cause as source when `compute` fails; [`Invalid`](Kind::Invalid) when its
    /// result has other dimensions than the model's vectors, or a component that is not finite, or when `compute` asks the
    /// cache for what it computes; [`DeadlineExceeded`](Kind::DeadlineExceeded) when another caller's computation outlasts
    /// the deadline; [`Full`](Kind::Full) when the policy is to evict none. Nothing is cached then.
    pub async fn get_or_compute<'i, F, Fut, E>(
        &self,
        model: impl AsModel,
        input: impl Into<Input<'i>>,
        compute: F,
    ) -> Result<Vector>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Vec<f32>, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let model = model.as_model()?;
        let key = model.key(input);
        let producer = &model;
        let computed = self.resolve_one(producer, key, || {
            let computation = compute();
            async move {
                let components = computation.await.map_err(|error| failed(producer, error))?;
                Ok(CachedValue::Vector(Vector::new(components)?))
            }
        });
        vector(computed.await?)
    }

    /// Returns the vectors that `model` makes of `inputs`, in their order: from the cache where they are there, and else from
    /// `compute`, which gets the inputs that are missing, each once, and returns a vector for each.
    ///
    /// What other callers compute meanwhile is waited for and not computed here; if they fail, `compute` is called again
    /// with that.
    ///
    /// # Errors
    /// As [`get_or_compute`](Self::get_or_compute); [`Invalid`](Kind::Invalid) also when `compute` returns another number of
    /// vectors than it got inputs.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let larder = larder::Larder::temporary().await?;
    /// let cache = larder.embed_cache();
    /// let embed = |texts: Vec<&'static str>| async move {
    ///     Ok::<_, std::io::Error>(texts.iter().map(|text| vec![text.len() as f32]).collect())
    /// };
    /// let vectors = cache.get_or_compute_many("minilm", ["a", "bb", "a"], embed).await?;
    /// assert_eq!(vectors[1].as_slice(), [2.0]);
    /// assert_eq!(cache.statistics().await?.computed, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_compute_many<'i, I, F, Fut, E>(
        &self,
        model: impl AsModel,
        inputs: impl IntoIterator<Item = I>,
        mut compute: F,
    ) -> Result<Vec<Vector>>
    where
        I: Into<Input<'i>> + Clone,
        F: FnMut(Vec<I>) -> Fut,
        Fut: Future<Output = Result<Vec<Vec<f32>>, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let model = model.as_model()?;
        let inputs: Vec<I> = inputs.into_iter().collect();
        let distinct = Distinct::of(inputs.iter().map(|input| model.key(input.clone())));
        let resolved = Box::pin(self.resolve(&model, distinct.keys.clone(), |missing| {
            let missing = missing.iter().filter_map(|index| inputs.get(*distinct.first.get(*index)?).cloned());
            let (computation, model) = (compute(missing.collect()), &model);
            async move {
                let vectors = computation.await.map_err(|error| failed(model, error))?;
                vectors.into_iter().map(|vector| Ok(CachedValue::Vector(Vector::new(vector)?))).collect()
            }
        }));
        let vectors = resolved.await?.into_iter().map(vector).collect::<Result<Vec<_>>>()?;
        distinct.spread(&vectors)
    }

    /// Returns the vector that `model` made of `input`, if it is there.
    ///
    /// # Errors
    /// When the store cannot be read. A damaged file is no error: it is set aside, and nothing is there.
    pub async fn get<'i>(&self, model: impl AsModel, input: impl Into<Input<'i>>) -> Result<Option<Vector>> {
        let key = model.as_model()?.key(input);
        self.find(&key).await?.map(vector).transpose()
    }

    /// Returns the vectors that `model` made of `inputs`, in their order, where they are there.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_many<'i, I: Into<Input<'i>>>(
        &self,
        model: impl AsModel,
        inputs: impl IntoIterator<Item = I>,
    ) -> Result<Vec<Option<Vector>>> {
        let model = model.as_model()?;
        let keys: Vec<CacheKey> = inputs.into_iter().map(|input| model.key(input)).collect();
        drop(model);
        let found = self.find_many(&keys).await?;
        found.into_iter().map(|cached| cached.map(vector).transpose()).collect()
    }

    /// Stores a vector that `model` made of `input`, replacing any other.
    ///
    /// # Errors
    /// [`Invalid`](Kind::Invalid) when it has other dimensions than the model's vectors or a component that is not finite;
    /// [`Full`](Kind::Full) when the policy is to evict none; or the store's own.
    pub async fn put<'i>(
        &self,
        model: impl AsModel,
        input: impl Into<Input<'i>>,
        vector: impl Into<Vec<f32>>,
    ) -> Result<()> {
        let (model, value) = (model.as_model()?, Vector::new(vector)?);
        let key = model.key(input);
        self.store(&model, vec![values::put(key, CachedValue::Vector(value))]).await.map(drop)
    }

    /// Stores many vectors, all or none.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_many<'i, I: Into<Input<'i>>, V: Into<Vec<f32>>>(
        &self,
        model: impl AsModel,
        vectors: impl IntoIterator<Item = (I, V)>,
    ) -> Result<()> {
        let model = model.as_model()?;
        let put =
            |(input, vector): (I, V)| Ok(values::put(model.key(input), CachedValue::Vector(Vector::new(vector)?)));
        let puts = vectors.into_iter().map(put).collect::<Result<Vec<_>, Kind>>()?;
        self.store(&model, puts).await.map(drop)
    }

    /// Returns whether the vector that `model` made of `input` is there. It is no use of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn contains<'i>(&self, model: impl AsModel, input: impl Into<Input<'i>>) -> Result<bool> {
        let key = model.as_model()?.key(input);
        Ok(self.contains_keys(&[key]).await?.first() == Some(&true))
    }

    /// Removes vectors that `model` made; answers how many were there. It goes in writes of 100: what fails or is cancelled in
    /// the middle leaves the rest. In another process one that is in memory is gone within
    /// its `maintenance_interval`.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn remove<'i, I: Into<Input<'i>>>(
        &self,
        model: impl AsModel,
        inputs: impl IntoIterator<Item = I>,
    ) -> Result<u64> {
        let model = model.as_model()?;
        let keys = inputs.into_iter().map(|input| model.key(input)).collect();
        self.remove_keys(keys).await
    }

    /// Removes every vector of a model, and forgets how many dimensions it has; answers how many there were. It goes in writes of
    /// 100, as [`remove`](Self::remove) does; what is put meanwhile may stay, and then the dimensions do too.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn remove_model(&self, model: impl AsModel) -> Result<u64> {
        let producer = Producer::clone(&*model.as_model()?);
        self.remove_produced(producer).await
    }

    /// Sets when vectors expire: the handle's [`ttl`](Self::ttl) from now, or never; answers how many were there.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn touch<'i, I: Into<Input<'i>>>(
        &self,
        model: impl AsModel,
        inputs: impl IntoIterator<Item = I>,
    ) -> Result<u64> {
        let model = model.as_model()?;
        let keys = inputs.into_iter().map(|input| model.key(input)).collect();
        self.touch_keys(keys).await
    }

    /// Returns a page of everything that is cached, in the order of the keys. See [`ListValues`].
    pub fn list(&self, after: Option<CacheKey>, limit: usize) -> Request<ListValues> {
        Request::new(self.larder.clone(), Ok(ListValues { after, limit }), Ok)
    }

    /// Returns the sequence of the newest commit, by this process or another.
    ///
    /// # Errors
    /// When the store cannot be started or read.
    pub async fn sequence(&self) -> Result<Sequence> {
        self.larder.sequence::<Store>().await
    }

    /// Returns a stream of what is committed to the store after `sequence`, by this process and others. Puts of new values
    /// and evictions name no keys.
    ///
    /// # Errors
    /// When the store cannot be started.
    pub async fn subscribe(&self, after: Sequence) -> Result<Notices> {
        self.larder.subscribe::<Store>(after).await
    }
}

/// Keys without repetitions, and where each of the caller's stands among them.
struct Distinct {
    keys: Vec<CacheKey>,
    /// By distinct key: the caller's first place with it.
    first: Vec<usize>,
    /// By the caller's place: which distinct key.
    places: Vec<usize>,
}

impl Distinct {
    fn of(all: impl Iterator<Item = CacheKey>) -> Self {
        let mut distinct = Self { keys: Vec::new(), first: Vec::new(), places: Vec::new() };
        let mut known = HashMap::new();
        for (at, key) in all.enumerate() {
            let place = *known.entry(key).or_insert_with(|| {
                distinct.keys.push(key);
                distinct.first.push(at);
                distinct.keys.len() - 1
            });
            distinct.places.push(place);
        }
        distinct
    }

    /// Returns what stands for each of the caller's places.
    fn spread<T: Clone>(&self, values: &[T]) -> Result<Vec<T>> {
        self.places.iter().map(|place| values.get(*place).cloned().ok_or_else(nothing_found)).collect()
    }
}

/// Takes a vector out of what the cache answers.
fn vector(cached: Cached) -> Result<Vector> {
    match cached.value {
        CachedValue::Vector(vector) => Ok(vector),
        // Keys of models and functions differ.
        CachedValue::Encoded(_) => Err(Kind::invalid("value", "it is no vector").into()),
    }
}

/// Returns the error of a computation that failed; the program's own is its source.
fn failed(producer: &Producer, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let cause = Cause(error.into());
    Error::caused_by(Kind::Computation { producer: producer.to_string(), cause: cause.to_string() }, cause)
}

fn nothing_found() -> Error {
    Kind::invalid("computation", "it returned nothing").into()
}

/// A program's own error, of any type.
#[derive(Debug)]
struct Cause(Box<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Itself, so that a program finds its own type there.
        Some(self.0.as_ref())
    }
}

//! What a program plugs in: the model that embeds texts, and what finds facts in them.
//!
//! Start at [`Embedder`]. What a program returns is checked before it is used: how many vectors, of which length, of finite
//! numbers.

use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;
use larder_protocol::documents::Node;
use larder_protocol::graph::NewRelation;

/// Any error, as the program's own functions return it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A model that embeds texts.
///
/// # Examples
/// ```
/// use larder::{BoxError, Embedder};
///
/// struct Lengths;
///
/// impl Embedder for Lengths {
///     fn model(&self) -> &str {
///         "lengths-1"
///     }
///
///     fn dimensions(&self) -> usize {
///         2
///     }
///
///     async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, BoxError> {
///         Ok(texts.iter().map(|text| vec![text.len() as f32, 1.0]).collect())
///     }
/// }
/// ```
pub trait Embedder: Send + Sync + 'static {
    /// Returns the model's lasting name: another model, another name. Embeddings are cached under it, and a context is bound to
    /// it.
    fn model(&self) -> &str;

    /// Returns how many components its vectors have: 1 to 8,192.
    fn dimensions(&self) -> usize;

    /// Returns a vector for each of the texts, in their order.
    ///
    /// # Errors
    /// Whatever the program says. Texts that came in one call are then tried again document by document, so that only the
    /// documents fail whose texts are at fault.
    fn embed(&self, texts: &[&str]) -> impl Future<Output = Result<Vec<Vec<f32>>, BoxError>> + Send;

    /// Returns the vector of a question, for models that embed questions otherwise. By default it is embedded as any text.
    ///
    /// # Errors
    /// Whatever the program says.
    fn embed_query(&self, text: &str) -> impl Future<Output = Result<Vec<f32>, BoxError>> + Send {
        async move {
            let mut vectors = self.embed(&[text]).await?;
            match (vectors.pop(), vectors.is_empty()) {
                (Some(vector), true) => Ok(vector),
                _ => Err("the embedder returned another number of vectors than one for a question".into()),
            }
        }
    }
}

/// Finds facts in passages: what the graph is made of.
///
/// # Examples
/// ```
/// use larder::{BoxError, Extractor, NewRelation, Node};
///
/// /// "X uses Y" is a fact.
/// struct Uses;
///
/// impl Extractor for Uses {
///     async fn extract(&self, node: &Node) -> Result<Vec<NewRelation>, BoxError> {
///         let words: Vec<&str> = node.content.text().unwrap_or_default().split_whitespace().collect();
///         let facts = words.windows(3).filter(|three| three[1] == "uses");
///         facts.map(|three| Ok(NewRelation::new(three[0], "uses", three[2])?)).collect()
///     }
/// }
/// ```
pub trait Extractor: Send + Sync + 'static {
    /// Returns the facts that a passage says. Their sources are of no account: the passage is the source. A fact with a name that
    /// means several entities, or a number that means none, is left out.
    ///
    /// # Errors
    /// Whatever the program says; the passage's document fails then.
    fn extract(&self, node: &Node) -> impl Future<Output = Result<Vec<NewRelation>, BoxError>> + Send;
}

/// An [`Embedder`] of any type.
pub(super) trait AnyEmbedder: Send + Sync {
    fn model(&self) -> &str;
    fn dimensions(&self) -> usize;
    fn embed<'a>(&'a self, texts: &'a [&'a str]) -> BoxFuture<'a, Result<Vec<Vec<f32>>, BoxError>>;
    fn embed_query<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Vec<f32>, BoxError>>;
}

impl<E: Embedder> AnyEmbedder for E {
    fn model(&self) -> &str {
        Embedder::model(self)
    }

    fn dimensions(&self) -> usize {
        Embedder::dimensions(self)
    }

    fn embed<'a>(&'a self, texts: &'a [&'a str]) -> BoxFuture<'a, Result<Vec<Vec<f32>>, BoxError>> {
        Embedder::embed(self, texts).boxed()
    }

    fn embed_query<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Vec<f32>, BoxError>> {
        Embedder::embed_query(self, text).boxed()
    }
}

impl fmt::Debug for dyn AnyEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedder").field("model", &self.model()).field("dimensions", &self.dimensions()).finish()
    }
}

/// An [`Extractor`] of any type.
pub(super) trait AnyExtractor: Send + Sync {
    fn extract<'a>(&'a self, node: &'a Node) -> BoxFuture<'a, Result<Vec<NewRelation>, BoxError>>;
}

impl<E: Extractor> AnyExtractor for E {
    fn extract<'a>(&'a self, node: &'a Node) -> BoxFuture<'a, Result<Vec<NewRelation>, BoxError>> {
        Extractor::extract(self, node).boxed()
    }
}

impl fmt::Debug for dyn AnyExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extractor")
    }
}

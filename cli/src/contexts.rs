//! Which context a command works on, and what embeds its texts here.
//!
//! Start at [`choose`] and [`open`].
//!
//! Always true: a context is bound to one embedder, by name, when it is made; another one is refused.

use clap::ValueEnum;
use larder::protocol::IndexId;
use larder::{Context, Embedder, HashingEmbedder, Larder};

use crate::failure::Failure;
use crate::output::Output;

/// The context that is made where none is named.
pub(crate) const DEFAULT: &str = "default";
/// What the names of the hashing embedder's models begin with; the dimensions follow.
const HASHING: &str = "larder-hashing-1-";
/// What a context without vectors says of its model.
pub(crate) const NONE: &str = "none";

/// What makes vectors of passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Embeddings {
    /// Simple, offline, for trying things out: hashes words, and knows nothing of meaning
    Hashing,
    /// None: passages are found by their words alone
    None,
}

impl Embeddings {
    /// Returns its name, which the folder keeps.
    pub(crate) fn model(self) -> String {
        match self {
            Self::Hashing => HashingEmbedder::default().model().to_owned(),
            Self::None => NONE.to_owned(),
        }
    }
}

/// A context as this tool has it.
pub(crate) struct Opened {
    pub(crate) context: Context,
    /// The embedder that it is bound to.
    pub(crate) model: String,
    /// Whether its vectors say anything that this tool can ask.
    pub(crate) has_vectors: bool,
}

/// Returns the context that is meant: the one that is named, the only one, or the one that the tool makes; `None` where there is
/// none.
pub(crate) async fn choose(
    larder: &Larder,
    named: Option<String>,
    output: &mut Output,
) -> Result<Option<String>, Failure> {
    let names: Vec<String> = larder.contexts().await?.iter().map(ToString::to_string).collect();
    let is_there = |name: &str| names.iter().any(|there| there == name);
    let said = || names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    match (named, names.as_slice()) {
        (Some(name), _) if is_there(&name) => Ok(Some(name)),
        (Some(name), []) => Err(Failure::not_found(format!("context {name:?} is not there, nor is any other"))
            .with_hint("make one with `larder ingest`")),
        (Some(name), _) => {
            Err(Failure::not_found(format!("context {name:?} is not there")).with_hint(format!("there are {}", said())))
        }
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(only.clone())),
        (None, _) if is_there(DEFAULT) => {
            output.note(format!(
                "this is about the context {DEFAULT:?} alone, of {}; name another with --context",
                said()
            ));
            Ok(Some(DEFAULT.to_owned()))
        }
        (None, _) => {
            Err(Failure::usage(format!("there are several contexts: {}", said())).with_hint("name one with --context"))
        }
    }
}

/// Opens a context that is there, with its embedder where this tool has it.
pub(crate) async fn open(larder: &Larder, name: &str) -> Result<Opened, Failure> {
    let model = bound_model(larder, name).await?.unwrap_or_default();
    let builder = larder.context(name).uncached();
    let dimensions = model.strip_prefix(HASHING).and_then(|dimensions| dimensions.parse().ok());
    let (builder, has_vectors) = match dimensions {
        Some(dimensions) => (builder.embedder(HashingEmbedder::new(dimensions)), true),
        None if model == NONE => (builder.without_vectors(), false),
        None => (builder, false),
    };
    Ok(Opened { context: builder.open().await?, model, has_vectors })
}

/// Opens a context to ingest, and makes it where it is not there.
pub(crate) async fn open_to_ingest(
    larder: &Larder,
    name: &str,
    embeddings: Option<Embeddings>,
) -> Result<Opened, Failure> {
    let bound = bound_model(larder, name).await?;
    let embeddings = match (embeddings, bound.as_deref()) {
        (Some(wanted), Some(bound)) if bound != wanted.model() => return Err(other_embedder(name, bound)),
        (Some(wanted), _) => wanted,
        (None, None) => Embeddings::Hashing,
        (None, Some(NONE)) => Embeddings::None,
        (None, Some(bound)) if bound == Embeddings::Hashing.model() => Embeddings::Hashing,
        (None, Some(bound)) => return Err(other_embedder(name, bound)),
    };
    // To hash words costs less than to look into a cache.
    let builder = larder.context(name).uncached();
    let context = match embeddings {
        Embeddings::Hashing => builder.embedder(HashingEmbedder::default()).open().await?,
        Embeddings::None => builder.without_vectors().open().await?,
    };
    Ok(Opened { context, model: embeddings.model(), has_vectors: embeddings == Embeddings::Hashing })
}

fn other_embedder(name: &str, bound: &str) -> Failure {
    Failure::refused(format!("context {name:?} has embeddings by {bound:?}, and others cannot be mixed in"))
        .with_hint("ingest into another one with --context, or with the application that made this one")
}

/// Returns the model that a context is bound to, as its record in the documents store says.
async fn bound_model(larder: &Larder, name: &str) -> Result<Option<String>, Failure> {
    let id = IndexId::new(format!("larder.context/{name}"))?;
    let Some(record) = larder.documents().index(id).await? else { return Ok(None) };
    Ok(record.content.to_value().get("model").and_then(|model| model.as_str()).map(str::to_owned))
}

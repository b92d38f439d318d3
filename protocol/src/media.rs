//! References to media, which larder keeps and never fetches.

use serde::{Deserialize, Serialize};

/// Where an image, a sound or a document is. larder keeps the reference, and never fetches it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaReference {
    /// A URL, `data:` URLs included.
    Url(String),
    /// A file's id at the model's provider.
    FileId(String),
    /// The content itself, in base64, and its format (such as `wav`) where that is told apart.
    Base64 {
        /// The content.
        data: String,
        /// Its format, such as `wav`.
        format: Option<String>,
    },
}

impl MediaReference {
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Url(text) | Self::FileId(text) => text.len(),
            Self::Base64 { data, format } => data.len() + format.as_deref().map_or(0, str::len),
        }
    }
}

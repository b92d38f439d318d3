//! From a folder to documents, and from a document to passages.

use std::path::{Path, PathBuf};

use larder::{Document, ErrorKind, JsonText, Node};
use text_splitter::MarkdownSplitter;

/// Characters of a passage at most.
const PASSAGE_CHARS: usize = 800;

/// Lists the texts below a folder, in the order of their names. Symbolic links are not followed.
pub(crate) fn texts(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let (kind, path) = entry.and_then(|entry| Ok((entry.file_type()?, entry.path())))?;
            let is_text = path.extension().is_some_and(|end| ["md", "txt", "rst"].iter().any(|text| end == *text));
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && is_text {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Returns a file as a document; `None` when it is no text that can be read.
#[expect(clippy::disallowed_methods, reason = "reads the user's files, never a store's")]
pub(crate) fn document(folder: &Path, file: &Path) -> Option<Document> {
    let id = file.strip_prefix(folder).ok()?.to_str()?;
    let text = std::fs::read_to_string(file).ok()?;
    Some(Document::new(id).ok()?.with_text(text))
}

/// Cuts a document into passages, at headings and paragraphs where that is possible.
pub(crate) fn passages(document: &Document) -> Result<Vec<Node>, ErrorKind> {
    let text = document.text.as_deref().unwrap_or_default();
    let metadata = serde_json::json!({ "file": document.id.as_str() }).to_string();
    let pieces = MarkdownSplitter::new(PASSAGE_CHARS);
    let node = |(number, piece): (usize, &str)| {
        Ok(Node::text(format!("{}#{number}", document.id), piece)?.with_metadata(JsonText::new(metadata.as_str())?))
    };
    pieces.chunks(text).enumerate().map(node).collect()
}

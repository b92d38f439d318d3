//! Content hashes: what counts for them, and in which form.
//!
//! Start at [`Node::hash`]. The form is part of the file format: `docs/decisions/0011-content-hash.md`.
//!
//! Always true: equal contents have equal hashes in every build, whatever the order of a JSON object's members.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Document, Node, NodeContent};
use crate::error::Error;
use crate::media::MediaReference;

/// A BLAKE3 hash of a content, 32 bytes; as text, 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash(pub [u8; 32]);

impl Node {
    /// Returns the hash of the node's content and metadata: not of its id, place, span or relationships, so that equal
    /// contents are found under one hash.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        Self::hash_of(&self.content, self.metadata.as_ref().map(crate::JsonText::to_value).as_ref())
    }

    /// Returns the hash of a content whose metadata is parsed already.
    #[must_use]
    pub fn hash_of(content: &NodeContent, metadata: Option<&Value>) -> ContentHash {
        let mut form = Form::of("larder node 1");
        match content {
            NodeContent::Text(text) => {
                form.tag(b'T');
                form.text(text);
            }
            NodeContent::Image { source, caption } => {
                form.tag(b'M');
                form.media(source);
                form.optional(caption.as_deref(), Form::text);
            }
            NodeContent::Index { text, target } => {
                form.tag(b'X');
                form.text(text);
                form.text(target);
            }
            NodeContent::Plain(json) => {
                form.tag(b'P');
                form.json(&json.to_value());
            }
        }
        form.optional(metadata, Form::json);
        form.hash()
    }
}

impl Document {
    /// Returns the hash of the document's text, fingerprint and metadata.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        let mut form = Form::of("larder document 1");
        form.optional(self.text.as_deref(), Form::text);
        form.optional(self.fingerprint.as_deref(), Form::text);
        form.optional(self.metadata.as_ref().map(crate::JsonText::to_value).as_ref(), Form::json);
        form.hash()
    }
}

/// The canonical form of a content, as it is hashed: each part behind a tag, each text behind its length.
struct Form(blake3::Hasher);

impl Form {
    fn of(kind: &str) -> Self {
        let mut form = Self(blake3::Hasher::new());
        form.text(kind);
        form
    }

    fn hash(&self) -> ContentHash {
        ContentHash(*self.0.finalize().as_bytes())
    }

    fn tag(&mut self, tag: u8) {
        self.0.update(&[tag]);
    }

    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }

    fn optional<T: ?Sized>(&mut self, part: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        match part {
            None => self.tag(b'-'),
            Some(part) => {
                self.tag(b'+');
                write(self, part);
            }
        }
    }

    fn media(&mut self, media: &MediaReference) {
        match media {
            MediaReference::Url(url) => {
                self.tag(b'U');
                self.text(url);
            }
            MediaReference::FileId(id) => {
                self.tag(b'F');
                self.text(id);
            }
            MediaReference::Base64 { data, format } => {
                self.tag(b'B');
                self.text(data);
                self.optional(format.as_deref(), Self::text);
            }
        }
    }

    /// Writes a value that `serde_json` has parsed, so that it is at most 128 deep.
    fn json(&mut self, value: &Value) {
        match value {
            Value::Null => self.tag(b'n'),
            Value::Bool(false) => self.tag(b'f'),
            Value::Bool(true) => self.tag(b't'),
            Value::Number(number) => self.number(number),
            Value::String(text) => {
                self.tag(b's');
                self.text(text);
            }
            Value::Array(items) => {
                self.tag(b'a');
                self.count(items.len());
                items.iter().for_each(|item| self.json(item));
            }
            Value::Object(members) => {
                self.tag(b'o');
                self.count(members.len());
                // An application may turn on serde_json's `preserve_order`.
                let mut members: Vec<_> = members.iter().collect();
                members.sort_unstable_by_key(|(name, _)| name.as_bytes());
                for (name, value) in members {
                    self.text(name);
                    self.json(value);
                }
            }
        }
    }

    /// An integer and a float of the same value differ: they are written differently, and read back as they were.
    fn number(&mut self, number: &serde_json::Number) {
        if let Some(integer) = number.as_i64() {
            self.tag(b'i');
            self.0.update(&integer.to_le_bytes());
        } else if let Some(integer) = number.as_u64() {
            self.tag(b'u');
            self.0.update(&integer.to_le_bytes());
        } else {
            self.tag(b'd');
            self.0.update(&number.as_f64().unwrap_or(f64::NAN).to_bits().to_le_bytes());
        }
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for ContentHash {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        let hash = blake3::Hash::from_hex(&text);
        hash.map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| Error::invalid("content hash", "it is not 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JsonText;

    fn node(metadata: &str) -> Node {
        Node::text("n", "x").unwrap().with_metadata(JsonText::new(metadata).unwrap())
    }

    #[test]
    fn order_and_spacing_of_members_do_not_count_and_everything_else_does() {
        let hash = |metadata: &str| node(metadata).hash();
        assert_eq!(hash(r#"{"a": 1, "b": {"d": [2.5], "c": null}}"#), hash(r#"{"b":{"c":null,"d":[25e-1]},"a":1}"#));
        let different =
            ["{}", r#"{"a":1}"#, r#"{"a":1.0}"#, r#"{"a":"1"}"#, r#"{"a":true}"#, r#"{"a":[1]}"#, r#"{"a":[]}"#];
        for (at, one) in different.iter().enumerate() {
            for other in different.iter().skip(at + 1) {
                assert_ne!(hash(one), hash(other), "{one} {other}");
            }
        }
        assert_ne!(Node::text("n", "x").unwrap().hash(), hash("{}"));
    }

    /// Two texts whose parts run together must not have one hash.
    #[test]
    fn parts_do_not_run_together() {
        let index = |text: &str, target: &str| {
            Node::new("n", NodeContent::Index { text: text.into(), target: target.into() }).unwrap().hash()
        };
        assert_ne!(index("ab", "c"), index("a", "bc"));
        let document = Document::new("d").unwrap();
        assert_ne!(document.clone().with_text("a").hash(), document.with_fingerprint("a").hash());
    }

    #[test]
    fn id_span_and_relationships_do_not_count() {
        let mut other = node("{}").with_span(1, 2);
        other.relationships.next = Some(crate::NodeId::new("m").unwrap());
        other.id = crate::NodeId::new("other").unwrap();
        assert_eq!(other.hash(), node("{}").hash());
    }

    /// The form is kept in files: this hash must never change.
    #[test]
    fn the_form_is_pinned() {
        let node = node(r#"{"b": [1, 2.5, "é", null, true], "a": 18446744073709551615}"#);
        assert_eq!(node.hash().to_string(), "07c0458e45d114574d06932cd2f29a71ffb7d05249621acc254382a1805b052d");
        let document = Document::new("d").unwrap().with_text("x").with_fingerprint("1");
        assert_eq!(document.hash().to_string(), "a93ebbaa8405415aabfcd8843364f03308ef8c7e8571d06ad7508f8164b511cd");
        assert_eq!(ContentHash::try_from(node.hash().to_string()).unwrap(), node.hash());
        assert!(ContentHash::try_from("xyz".to_owned()).is_err());
    }
}

//! JSON kept as text, so that it passes through codecs that cannot describe themselves.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;

/// JSON that larder keeps but does not read, as checked text.
///
/// bincode and postcard cannot decode a [`serde_json::Value`]: it asks the input what comes next, and they cannot
/// say. Text passes through every codec, and JSON in, JSON out is exact (numbers included).
///
/// # Examples
/// ```
/// use larder_protocol::JsonText;
///
/// let kept = JsonText::new(r#"{"cache": [1, 2.5e-3]}"#)?;
/// assert_eq!(kept.to_value(), serde_json::json!({"cache": [1, 0.0025]}));
/// assert!(JsonText::new("{not json").is_err());
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JsonText(String);

impl JsonText {
    /// Returns the checked text, as written.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not one JSON value, or is nested more than 127 deep.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        match serde_json::from_str::<Value>(&text) {
            Ok(_) => Ok(Self(text)),
            // The position, not the parser's message, which may quote the content.
            Err(e) => Err(Error::invalid("JSON", format!("it is malformed or too deep at column {}", e.column()))),
        }
    }

    /// Returns a text that this type has checked before it was stored, without parsing it again: that takes longer than
    /// reading the row it is in. The caller vouches for it with a checksum.
    ///
    /// # Examples
    /// ```
    /// use larder_protocol::JsonText;
    ///
    /// let kept = JsonText::new(r#"{"page": 1}"#)?;
    /// assert_eq!(JsonText::from_stored(kept.as_str()), kept);
    /// # Ok::<(), larder_protocol::Error>(())
    /// ```
    #[must_use]
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text of `value`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is nested more than 127 deep, since such text could not be read again.
    pub fn from_value(value: &Value) -> Result<Self, Error> {
        Self::new(value.to_string())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value that the text describes.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // The text was parsed when it was first made, so this cannot fail; `Null` only keeps the type simple.
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }
}

impl fmt::Display for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for JsonText {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl From<JsonText> for String {
    fn from(json: JsonText) -> Self {
        json.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_checks_the_text() {
        let bytes = postcard::to_stdvec("{").unwrap();
        assert!(postcard::from_bytes::<JsonText>(&bytes).is_err());
    }

    #[test]
    fn too_deep_json_is_refused_not_lost() {
        let deep = (0..200).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        assert!(matches!(JsonText::from_value(&deep), Err(Error::Invalid { .. })));
    }
}

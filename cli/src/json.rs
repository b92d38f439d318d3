//! JSON as the tool prints it: a line a value, and nothing in it that a terminal would act upon.
//!
//! Start at [`line()`] and [`exact`].
//!
//! Always true: a line holds no line break; stored JSON keeps its numbers digit by digit.

use std::fmt::Write;

use larder::JsonText;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::text;

/// Returns a value as one line of JSON.
pub(crate) fn line(value: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(value);
    let json = json.map_err(|error| Failure::refused(format!("an answer has no form in JSON: {error}")))?;
    Ok(without_hostile(json))
}

/// Escapes what may steer a terminal: outside of strings JSON has no such character, and inside it may be written so.
fn without_hostile(json: String) -> String {
    if !json.chars().any(text::is_hostile) {
        return json;
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if text::is_hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // To a string, which takes everything.
                _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Returns stored JSON as part of an answer: as it was stored, but without white space between its tokens.
pub(crate) fn exact(json: &str) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(compact(json))
}

/// As [`exact`], for JSON that was checked when it was stored.
pub(crate) fn stored(json: Option<&JsonText>) -> Option<Box<RawValue>> {
    json.and_then(|json| exact(json.as_str()).ok())
}

fn compact(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    let (mut is_in_string, mut is_escaped) = (false, false);
    for c in json.chars() {
        if is_in_string || !c.is_ascii_whitespace() {
            shown.push(c);
        }
        let ends = c == '"' && !is_escaped;
        is_escaped = is_in_string && c == '\\' && !is_escaped;
        is_in_string ^= ends;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_json_is_one_line_and_keeps_every_digit() {
        let json = "{ \"a b\" :\n 123456789012345678901234567890.0 , \"c\\\" \\\\\" : [ ] }";
        assert_eq!(exact(json).unwrap().get(), "{\"a b\":123456789012345678901234567890.0,\"c\\\" \\\\\":[]}");
        assert!(exact("{").is_err());
    }

    #[test]
    fn hostile_characters_are_escapes_that_mean_the_same() {
        let name = "a\u{1b}\u{9b}\u{202e}\u{e0001}\nb";
        let line = line(&name).unwrap();
        assert!(line.is_ascii() && !line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), name);
    }
}

//! The check that JSON text passes before it is stored, and how filters read it.
//!
//! Start at [`read_json`].
//!
//! Always true: for text that passes, SQLite's JSON functions and the returned value agree on every member and number.

use larder_protocol::{Error, Result};
use serde_json::Value;

/// Longest number token. Past it an exponent could outweigh SQLite's cap of 10,000; 309 digits write any finite float.
const NUMBER_BYTES_MAX: usize = 4_096;

/// SQLite reads digits of a number into 64 bits until the value has reached this (`sqlite3AtoF`), and takes the rest for
/// zeros. Copying that makes both sides round to the same float; without it they differ by one unit in the last place
/// for about one in 2,400 numbers of 60 digits (2,101 of 5,000,000).
const SQLITE_DIGITS_FULL: u64 = (u64::MAX - 9) / 10;

/// Returns the document in `text` as filters see it.
///
/// Every store calls this before it stores JSON that filters may read, and stores `text` as given. It is a little
/// stricter than JSON, where the answer would otherwise depend on who reads it: an object must not name a member twice
/// (SQLite takes the first, `serde_json` the last), nor have a NUL in a name (SQLite compares names up to it).
///
/// # Errors
/// [`Error::Invalid`] when the text is not JSON of that kind, is nested deeper than 128, or has a number beyond 64-bit
/// floats or written with more than 4,096 bytes.
///
/// # Examples
/// ```
/// use larder_actors::filter::{matches, read_json};
/// use larder_protocol::filter::field;
///
/// let document = read_json(br#"{"lang": "en", "year": 2024}"#)?;
/// assert!(matches(&field("year").gt(2020.5), &document));
/// assert!(read_json(br#"{"a": 1, "a": 2}"#).is_err());
/// # Ok::<(), larder_protocol::Error>(())
/// ```
pub fn read_json(text: &[u8]) -> Result<Value> {
    // The position is enough; serde_json's own text may quote the value, and errors never hold stored values.
    let parse = |text: &[u8]| {
        serde_json::from_slice::<Value>(text)
            .map_err(|e| invalid(format!("it is not JSON that can be read (line {}, column {})", e.line(), e.column())))
    };
    let mut document = parse(text)?;
    let scan = scan(text)?;
    if let Some(text) = scan.rounded {
        document = parse(&text)?;
    }
    if count_members(&document)? != scan.member_count {
        return Err(invalid("an object in it names a member twice"));
    }
    Ok(document)
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::invalid("JSON", reason)
}

struct Scan {
    /// Members of all objects, by their colons.
    member_count: usize,
    /// The text with the digits that SQLite ignores as zeros; `None` when there is no such digit.
    rounded: Option<Vec<u8>>,
}

/// Walks over text that is known to be JSON: strings are skipped, colons counted, numbers looked at.
fn scan(text: &[u8]) -> Result<Scan> {
    let mut found = Scan { member_count: 0, rounded: None };
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at += string_bytes(text.get(at..).unwrap_or_default()),
            b'-' | b'0'..=b'9' => {
                let token = number_token(text.get(at..).unwrap_or_default());
                if token.len() > NUMBER_BYTES_MAX {
                    return Err(invalid(format!("a number in it is longer than {NUMBER_BYTES_MAX} bytes")));
                }
                if let Some(rounded) = round_as_sqlite(token) {
                    let copy = found.rounded.get_or_insert_with(|| text.to_vec());
                    if let Some(place) = copy.get_mut(at..at + rounded.len()) {
                        place.copy_from_slice(&rounded);
                    }
                }
                at += token.len();
            }
            b':' => {
                found.member_count += 1;
                at += 1;
            }
            _ => at += 1,
        }
    }
    Ok(found)
}

/// Returns the length of the string that `text` starts with, quotes included.
fn string_bytes(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn number_token(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    text.get(..end.unwrap_or(text.len())).unwrap_or(text)
}

/// Returns the number with the digits that SQLite does not read as zeros; `None` when it reads them all.
fn round_as_sqlite(token: &[u8]) -> Option<Vec<u8>> {
    // Fewer digits always fit; this spares nearly every number the walk.
    if token.len() < 19 {
        return None;
    }
    let mut digits = 0_u64;
    let mut rounded = token.to_vec();
    for byte in &mut rounded {
        match byte {
            b'e' | b'E' => break,
            b'0'..=b'9' if digits < SQLITE_DIGITS_FULL => digits = digits * 10 + u64::from(*byte - b'0'),
            b'0'..=b'9' => *byte = b'0',
            _ => {}
        }
    }
    (rounded != token).then_some(rounded)
}

/// Counts the members of all objects in `document`, which serde_json nests at most 128 deep.
fn count_members(document: &Value) -> Result<usize> {
    let mut open = vec![document];
    let mut count = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if members.keys().any(|name| name.contains('\0')) {
                    return Err(invalid("an object in it has a member with a NUL character in its name"));
                }
                count += members.len();
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            // An application may turn on serde_json's `arbitrary_precision`, which reads numbers of any size.
            Value::Number(number) if number.as_f64().is_none() => {
                return Err(invalid("a number in it is beyond 64-bit floats"));
            }
            Value::Number(_) | Value::String(_) | Value::Bool(_) | Value::Null => {}
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(text: &str) -> bool {
        matches!(read_json(text.as_bytes()), Err(Error::Invalid { .. }))
    }

    #[test]
    fn ambiguous_json_is_refused() {
        assert!(refuses(r#"{"a":1,"a":2}"#));
        assert!(refuses(r#"[{"b":{"a":1,"\u0061":2}}]"#));
        assert!(refuses(r#"{"a\u0000b":1}"#));
        assert!(refuses("1e400"));
        assert!(refuses(&format!("0.{}", "1".repeat(5_000))));
        assert!(refuses("{"));
        assert!(refuses(r#""\ud800""#));
        assert!(refuses("NaN"));
        assert!(refuses(&"[".repeat(200)));
    }

    #[test]
    fn colons_and_digits_in_strings_are_text() {
        for text in [r#"{"a:b":"c:\":\\","d":[":"],"e":{"f":":"}}"#, r#"["99999999999999999999999","\\",":"]"#] {
            assert_eq!(read_json(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        }
    }

    #[test]
    fn long_numbers_lose_the_digits_that_sqlite_ignores() {
        let rounded = |token: &str| round_as_sqlite(token.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(rounded("9223372036854775807"), None);
        assert_eq!(rounded("-9223372036854775808"), None);
        assert_eq!(rounded("0.00000000000000000000000000001"), None);
        assert_eq!(rounded("5013241732453585408.109e-5"), Some("5013241732453585408.000e-5".to_owned()));
        assert_eq!(rounded("-0.12345678901234567890123"), Some("-0.12345678901234567890000".to_owned()));
    }
}

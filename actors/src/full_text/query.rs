//! What a user typed, as an FTS5 query.

use larder_protocol::limits::{QUERY_BYTES_MAX, QUERY_WORDS_MAX};
use larder_protocol::{Error, Result};

/// Returns the FTS5 query for texts that hold every word of `text`; `None` when it has no word, which finds nothing.
///
/// `prefix`: the last word may be only the beginning of one.
///
/// # Errors
/// [`Error::TooLarge`] when the text is over [`QUERY_BYTES_MAX`].
///
/// # Examples
/// ```
/// use larder_actors::full_text::plain_query;
///
/// assert_eq!(plain_query("cats AND (dogs", false)?.as_deref(), Some(r#""cats" "AND" "dogs""#));
/// assert_eq!(plain_query("repo", true)?.as_deref(), Some(r#""repo"*"#));
/// assert_eq!(plain_query("\" * --", false)?, None);
/// # Ok::<(), larder_protocol::Error>(())
/// ```
pub fn plain_query(text: &str, prefix: bool) -> Result<Option<String>> {
    if text.len() > QUERY_BYTES_MAX {
        let (bytes, bytes_max) = (text.len() as u64, QUERY_BYTES_MAX as u64);
        return Err(Error::TooLarge { what: "search query".to_owned(), bytes, bytes_max });
    }
    // Inside quotes FTS5 knows no syntax but the quote, and a quote is no letter.
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let quoted: Vec<String> = words.take(QUERY_WORDS_MAX).map(|word| format!("\"{word}\"")).collect();
    if quoted.is_empty() {
        return Ok(None);
    }
    let star = if prefix { "*" } else { "" };
    Ok(Some(quoted.join(" ") + star))
}

#[cfg(test)]
mod tests {
    use larder_protocol::Tokenizer;
    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::super::index::fts5_name;
    use super::*;

    proptest! {
        #[test]
        fn no_text_is_a_syntax_error(
            text in "[\"'*^:(){}+-AND OR NOT NEAR,a-z\\PC\\x00]{0,40}",
            prefix: bool,
            tokenizer in prop::sample::select(vec![Tokenizer::Unicode, Tokenizer::Porter, Tokenizer::Trigram]),
        ) {
            let connection = Connection::open_in_memory().unwrap();
            let create = format!("CREATE VIRTUAL TABLE t USING fts5(text, tokenize = '{}')", fts5_name(tokenizer));
            connection.execute_batch(&create).unwrap();
            connection.execute("INSERT INTO t (text) VALUES (?1)", [&text]).unwrap();
            if let Some(query) = plain_query(&text, prefix).unwrap() {
                let found: rusqlite::Result<i64> =
                    connection.query_row("SELECT count(*) FROM t WHERE t MATCH ?1", [&query], |row| row.get(0));
                prop_assert!(found.is_ok(), "{query}: {found:?}");
            }
        }
    }
}

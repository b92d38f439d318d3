//! What a user typed, or a program put together, as an FTS5 query.

use larder_protocol::full_text::{Term, TextQuery};
use larder_protocol::limits::{QUERY_BYTES_MAX, QUERY_WORDS_MAX};
use larder_protocol::{Error, Result, Tokenizer};

/// A trigram index knows nothing shorter.
const TRIGRAM_CHARS: usize = 3;

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
    let quoted: Vec<String> = words(text).take(QUERY_WORDS_MAX).map(|word| format!("\"{word}\"")).collect();
    if quoted.is_empty() {
        return Ok(None);
    }
    let star = if prefix { "*" } else { "" };
    Ok(Some(quoted.join(" ") + star))
}

/// Returns the FTS5 query for `query` on an index of this tokenizer; `None` when it has no word to look for.
///
/// Words past [`QUERY_WORDS_MAX`] are left out, and so are parts without a word that the index could know.
///
/// # Errors
/// [`Error::TooLarge`] when its texts are over [`QUERY_BYTES_MAX`].
///
/// # Examples
/// ```
/// use larder_actors::full_text::typed_query;
/// use larder_protocol::Tokenizer;
/// use larder_protocol::full_text::TextQuery;
///
/// let query = TextQuery::words("sales OR").phrase("last \"year").either_words(["a", "b"]).without_words("draft");
/// let expected = r#"(("sales" AND "OR") AND ("last  year") AND (("a") OR ("b"))) NOT (("draft"))"#;
/// assert_eq!(typed_query(&query, Tokenizer::Unicode)?.as_deref(), Some(expected));
/// assert_eq!(typed_query(&TextQuery::default().without_words("draft"), Tokenizer::Unicode)?, None);
/// # Ok::<(), larder_protocol::Error>(())
/// ```
pub fn typed_query(query: &TextQuery, tokenizer: Tokenizer) -> Result<Option<String>> {
    query.check()?;
    let mut compiler = Compiler { tokenizer, words_left: QUERY_WORDS_MAX };
    let mut positive = compiler.terms(&query.required);
    let alternatives = compiler.terms(&query.alternatives);
    if !alternatives.is_empty() {
        positive.push(format!("({})", alternatives.join(" OR ")));
    }
    if positive.is_empty() {
        return Ok(None);
    }
    let positive = positive.join(" AND ");
    let excluded = compiler.terms(&query.excluded);
    if excluded.is_empty() {
        Ok(Some(positive))
    } else {
        Ok(Some(format!("({positive}) NOT ({})", excluded.join(" OR "))))
    }
}

struct Compiler {
    tokenizer: Tokenizer,
    words_left: usize,
}

impl Compiler {
    fn terms(&mut self, terms: &[Term]) -> Vec<String> {
        terms.iter().filter_map(|term| self.term(term)).collect()
    }

    /// Returns one term in parentheses; `None` when it has no word.
    fn term(&mut self, term: &Term) -> Option<String> {
        let word_count = words(term.text()).count().min(self.words_left);
        self.words_left -= word_count;
        if word_count == 0 {
            return None;
        }
        match term {
            Term::Words(text) => {
                let known = words(text).take(word_count).filter(|word| self.is_known(word));
                let quoted: Vec<String> = known.map(|word| format!("\"{word}\"")).collect();
                (!quoted.is_empty()).then(|| format!("({})", quoted.join(" AND ")))
            }
            Term::Phrase(text) => self.phrase(text, ""),
            Term::Prefix(text) => self.phrase(text, "*"),
            // A term of a newer protocol; leaving it out would find too much.
            _ => Some("(\"\")".to_owned()),
        }
    }

    fn phrase(&self, text: &str, star: &str) -> Option<String> {
        // Inside quotes FTS5 knows no syntax but the quote; a NUL would end the query's text.
        let text = text.replace(['"', '\0'], " ");
        let text = text.trim();
        self.is_known(text).then(|| format!("(\"{text}\"{star})"))
    }

    fn is_known(&self, text: &str) -> bool {
        self.tokenizer != Tokenizer::Trigram || text.chars().nth(TRIGRAM_CHARS - 1).is_some()
    }
}

/// Returns the words of a text: runs of letters and digits, with the accents that stand behind their letter.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    words_with_places(text).map(|(_, word)| word)
}

/// The same, each with the byte at which it begins.
pub(super) fn words_with_places(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '\u{300}'..='\u{36f}');
    let mut at = 0;
    let pieces = text.split_inclusive(move |c: char| !is_part(c)).map(move |piece| {
        let start = at;
        at += piece.len();
        (start, piece.strip_suffix(|c: char| !is_part(c)).unwrap_or(piece))
    });
    // An accent alone is no word. Inside quotes FTS5 knows no syntax but the quote, and a quote is no letter.
    pieces.filter(|(_, word)| word.contains(char::is_alphanumeric))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::super::index::fts5_name;
    use super::*;

    const TOKENIZERS: [Tokenizer; 3] = [Tokenizer::Unicode, Tokenizer::Porter, Tokenizer::Trigram];

    fn index(tokenizer: Tokenizer, texts: &[&str]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        let create = format!("CREATE VIRTUAL TABLE t USING fts5(text, tokenize = '{}')", fts5_name(tokenizer));
        connection.execute_batch(&create).unwrap();
        for text in texts {
            connection.execute("INSERT INTO t (text) VALUES (?1)", [text]).unwrap();
        }
        connection
    }

    fn find(connection: &Connection, query: &str) -> rusqlite::Result<Vec<i64>> {
        let mut statement = connection.prepare("SELECT rowid FROM t WHERE t MATCH ?1 ORDER BY rowid")?;
        statement.query_map([query], |row| row.get(0))?.collect()
    }

    fn found(connection: &Connection, query: impl Into<TextQuery>, tokenizer: Tokenizer) -> Vec<i64> {
        let query = typed_query(&query.into(), tokenizer).unwrap();
        query.map_or(Vec::new(), |query| find(connection, &query).unwrap())
    }

    const HOSTILE: &str = "[\"'*^:(){}+-AND OR NOT NEAR,a-z\\PC\\x00\u{301}]{0,40}";

    proptest! {
        #[test]
        fn no_text_is_a_syntax_error(
            text in HOSTILE,
            prefix: bool,
            tokenizer in prop::sample::select(TOKENIZERS.to_vec()),
        ) {
            let connection = index(tokenizer, &[&text]);
            if let Some(query) = plain_query(&text, prefix).unwrap() {
                let found = find(&connection, &query);
                prop_assert!(found.is_ok(), "{query}: {found:?}");
            }
        }

        #[test]
        fn no_typed_query_is_a_syntax_error(texts in prop::collection::vec((0..3_u8, 0..3_u8, HOSTILE), 0..8)) {
            let mut query = TextQuery::default();
            for (list, kind, text) in &texts {
                let term = [Term::Words, Term::Phrase, Term::Prefix][usize::from(*kind)](text.clone());
                [&mut query.required, &mut query.alternatives, &mut query.excluded][usize::from(*list)].push(term);
            }
            for tokenizer in TOKENIZERS {
                let connection = index(tokenizer, &["some text"]);
                if let Some(query) = typed_query(&query, tokenizer).unwrap() {
                    let found = find(&connection, &query);
                    prop_assert!(found.is_ok(), "{query}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn terms_mean_what_they_say() {
        let texts = ["the sales of last year", "last sales: the year", "sale draft of the year", "resumes"];
        let connection = index(Tokenizer::Unicode, &texts);
        let found = |query: TextQuery| found(&connection, query, Tokenizer::Unicode);
        assert_eq!(found("YEAR sales".into()), [1, 2]);
        assert_eq!(found(TextQuery::default().phrase("last year")), [1]);
        assert_eq!(found(TextQuery::default().prefix("sal")), [1, 2, 3]);
        assert_eq!(found(TextQuery::default().prefix("of the ye")), [3]);
        assert_eq!(found(TextQuery::begun("year sal")), [1, 2, 3]);
        assert_eq!(found(TextQuery::words("year").without_words("draft of")), [1, 2]);
        assert_eq!(found(TextQuery::words("year").either_words(["draft", "last"])), [1, 2, 3]);
        assert_eq!(found(TextQuery::default().either_words(["draft", "last sales"])), [1, 2, 3]);
        assert_eq!(found(TextQuery::words("year NOT draft")), [0_i64; 0]);
        // An accent may stand behind its letter as a character of its own.
        assert_eq!(found("re\u{301}sume\u{301}s".into()), [4]);
    }

    #[test]
    fn porter_finds_the_stem_and_trigrams_the_middle() {
        let texts = ["connected cats", "reconnects"];
        let porter = index(Tokenizer::Porter, &texts);
        assert_eq!(found(&porter, "connection cat", Tokenizer::Porter), [1]);
        let trigram = index(Tokenizer::Trigram, &texts);
        assert_eq!(found(&trigram, "CONNECT", Tokenizer::Trigram), [1, 2]);
        // Two letters are no trigram: the word is left out rather than everything missed.
        assert_eq!(found(&trigram, "connect ca", Tokenizer::Trigram), [1, 2]);
        assert_eq!(found(&trigram, "ca", Tokenizer::Trigram), [0_i64; 0]);
        assert_eq!(found(&trigram, TextQuery::default().phrase("d c"), Tokenizer::Trigram), [1]);
    }
}

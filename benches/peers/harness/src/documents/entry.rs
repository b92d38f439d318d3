//! The texts: words of a language of their own, as often as words of a language are.

use super::CHUNKS;
use crate::random::Random;

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub id: String,
    pub text: String,
    /// JSON: an object.
    pub metadata: String,
    /// Where it is in the document, in characters.
    pub span: (u64, u64),
}

const WORDS: u64 = 100;
const VOCABULARY: u64 = 20_000;

/// The word of a rank, the most frequent first; none is the beginning of another that is drawn with it.
#[must_use]
pub fn word(rank: u64) -> String {
    const SYLLABLES: [&str; 20] = [
        "ka", "lo", "mi", "ren", "su", "ta", "vo", "zel", "nar", "pi", "dor", "fe", "gu", "hal", "jo", "bri", "cas",
        "den", "el", "wim",
    ];
    let mut rest = rank;
    let mut word = String::from("q");
    loop {
        word.push_str(SYLLABLES[usize::try_from(rest % 20).unwrap_or(0)]);
        rest /= 20;
        if rest == 0 {
            return word;
        }
    }
}

/// A document's id.
#[must_use]
pub fn document(number: u64) -> String {
    format!("documents/{number:06}.md")
}

/// A word that is in one chunk alone.
#[must_use]
pub fn own_word(document: u64, chunk: u64) -> String {
    format!("x{document}y{chunk}")
}

/// The chunks of a document.
#[must_use]
pub fn chunks(document: u64) -> Vec<Chunk> {
    (0..CHUNKS).map(|chunk| self::chunk(document, chunk)).collect()
}

/// One chunk.
#[must_use]
pub fn chunk(document_number: u64, chunk: u64) -> Chunk {
    let mut random = Random::new(document_number, chunk);
    let mut text = own_word(document_number, chunk);
    for _ in 0..WORDS {
        // About as words of a language: the rank times the frequency is nearly the same for all.
        let bound = 1 + random.below(VOCABULARY);
        let bound = 1 + random.below(bound);
        text.push(' ');
        text.push_str(&word(random.below(bound)));
    }
    let id = format!("{}#{chunk}", document(document_number));
    let start = chunk * 700;
    let metadata = format!(r#"{{"source":"{}","chunk":{chunk},"lang":"en"}}"#, document(document_number));
    let span = (start, start + text.len() as u64);
    Chunk { id, text, metadata, span }
}

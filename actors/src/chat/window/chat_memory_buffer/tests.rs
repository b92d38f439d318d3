//! Agreement with LlamaIndex's own class on the recorded cases of `tests/fixtures/chat_memory_buffer/`.

use std::collections::HashMap;

use larder_protocol::chat::{ChatMessage, ContentBlock};
use serde::Deserialize;

use super::super::rows::{Rows, row};
use super::*;
use crate::chat::tokens::{Estimate, FunctionCounter, MessageTokens, TEXT_OF_NONE, ends_blank};

#[derive(Deserialize)]
struct Header {
    texts: Vec<String>,
}

#[derive(Deserialize)]
struct Case {
    m: Vec<(String, Vec<usize>, u64, u64)>,
    j: Vec<u64>,
    l: u64,
    i: u64,
    n: Option<usize>,
    e: Option<String>,
}

fn recorded() -> (Vec<String>, Vec<Case>) {
    let file = include_str!("../../../../../tests/fixtures/chat_memory_buffer/recorded.jsonl");
    let (header, cases) = file.split_once('\n').unwrap();
    let header: Header = serde_json::from_str(header).unwrap();
    let cases: Vec<Case> = cases.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() >= 2_000);
    (header.texts, cases)
}

impl Case {
    fn messages(&self, pool: &[String]) -> Vec<ChatMessage> {
        let blocks = |places: &[usize]| places.iter().map(|&at| ContentBlock::text(&pool[at])).collect();
        self.m.iter().map(|(role, places, ..)| ChatMessage::from_blocks(role.as_str().into(), blocks(places))).collect()
    }

    /// The rows by the recorded counts, so that no tokenizer is needed.
    fn rows(&self, pool: &[String]) -> Rows {
        let mut rows = Rows::default();
        for (message, &(ref role, _, text_tokens, spaced_text)) in self.messages(pool).iter().zip(&self.m) {
            let text = message.text().unwrap_or_else(|| TEXT_OF_NONE.to_owned());
            let mut row = row(rows.rows.len(), role, 0);
            row.tokens = MessageTokens {
                text: text_tokens,
                spaced_text,
                cost: 0,
                ends_blank: ends_blank(&text),
                holds_control_token: text.contains("<|"),
            };
            rows.push(row, text);
        }
        rows
    }

    /// A counter that knows the counts of this case's joined texts and nothing else.
    fn counter(&self, rows: &Rows, joining: Joining) -> impl TokenCounter + use<> {
        let joined = (1..=rows.texts.len()).map(|count| rows.texts[rows.texts.len() - count..].join(" "));
        let known: HashMap<String, u64> = joined.zip(self.j.iter().copied()).collect();
        FunctionCounter::new("recorded", move |text: &str| known[text]).with_joining(joining)
    }

    fn agrees(&self, mut rows: Rows, counter: &dyn TokenCounter) -> bool {
        let all = rows.rows.clone();
        match (chat_memory_buffer(&mut rows, counter, self.l, self.i), self.n, self.e.as_deref()) {
            (Ok(window), Some(n), None) => {
                let tokens = self.i + n.checked_sub(1).map_or(0, |at| self.j[at]);
                window.rows == all[all.len() - n..] && window.tokens == tokens
            }
            (Err(WindowError::InitialOverLimit { .. }), None, Some("initial")) => true,
            (Err(WindowError::TooSmall { limit: 0, .. }), None, Some("limit")) => true,
            _ => false,
        }
    }
}

#[cfg(feature = "tokenizers")]
#[test]
fn agrees_with_llamaindex_counting_by_itself() {
    use crate::chat::tokens::Cl100kBase;
    let (pool, cases) = recorded();
    for (at, case) in cases.iter().enumerate() {
        let rows = Rows::of(&Cl100kBase, &case.messages(&pool));
        for (row, (_, _, text, spaced)) in rows.rows.iter().zip(&case.m) {
            assert_eq!((row.tokens.text, row.tokens.spaced_text), (*text, *spaced), "case {at}, message {}", row.id);
        }
        assert!(case.agrees(rows, &Cl100kBase), "case {at}");
    }
}

#[test]
fn agrees_with_llamaindex_on_recorded_counts_of_joined_texts() {
    let (pool, cases) = recorded();
    for (at, case) in cases.iter().enumerate() {
        let rows = case.rows(&pool);
        assert!(case.agrees(rows.clone(), &case.counter(&rows, Joining::Unknown)), "case {at}");
        if case.j.is_sorted() {
            assert!(case.agrees(rows.clone(), &case.counter(&rows, Joining::Grows)), "case {at}, searched");
        }
    }
}

#[test]
fn agrees_with_llamaindex_on_stored_counts_alone() {
    let (pool, cases) = recorded();
    let unused = FunctionCounter::new("unused", |_: &str| panic!("no text needs to be counted again"));
    let unused = unused.with_joining(Joining::SplitsAtWords);
    let additive = |rows: &Rows| rows.rows.iter().all(|row| !row.tokens.ends_blank && !row.tokens.holds_control_token);
    let cases: Vec<_> = cases.iter().map(|case| (case, case.rows(&pool))).filter(|(_, rows)| additive(rows)).collect();
    assert!(cases.len() >= 1_000, "{}", cases.len());
    for (at, (case, rows)) in cases.into_iter().enumerate() {
        assert!(case.agrees(rows, &unused), "case {at}");
    }
}

/// The controls: each of these shortcuts gives other windows, and the recorded cases show it.
#[cfg(feature = "tokenizers")]
#[test]
fn the_recorded_cases_catch_every_shortcut() {
    use crate::chat::tokens::Cl100kBase;
    let (pool, cases) = recorded();
    let disagreements = |change: &dyn Fn(&mut MessageTokens)| {
        let changed = |case: &Case| {
            let mut rows = case.rows(&pool);
            rows.rows.iter_mut().for_each(|row| change(&mut row.tokens));
            let window = chat_memory_buffer(&mut rows, &Cl100kBase, case.l, case.i);
            window.is_ok_and(|window| Some(window.rows.len()) != case.n)
        };
        cases.iter().filter(|case| changed(case)).count()
    };
    assert_eq!(disagreements(&|_| ()), 0);
    assert!(disagreements(&|tokens| tokens.spaced_text = tokens.text) > 100, "one count a message");
    assert!(disagreements(&|tokens| tokens.ends_blank = false) > 50, "seams not counted again");
    assert!(disagreements(&|tokens| tokens.holds_control_token = false) > 10, "control tokens as text");

    let searched = |case: &&Case| {
        let rows = case.rows(&pool);
        !case.agrees(rows.clone(), &case.counter(&rows, Joining::Grows))
    };
    assert!(cases.iter().filter(searched).count() > 5, "the first join that does not fit taken as the last");
}

/// Rows are read until no more can fit, and not one further than it takes to know.
#[test]
fn reads_only_what_the_window_needs() {
    let messages: Vec<_> = (0..10_000).map(|at| ChatMessage::user(format!("word {at}"))).collect();
    let mut rows = Rows::of(&Estimate, &messages);
    let window = chat_memory_buffer(&mut rows, &Estimate, 60, 0).unwrap();
    assert_eq!((window.rows.len(), window.tokens), (20, 60));
    assert!(rows.read <= 23, "{}", rows.read);

    // A caller's own function: twice as many at most, since the join is doubled.
    let words = FunctionCounter::new("words", |text: &str| text.split_whitespace().count() as u64);
    let mut rows = Rows::of(&words, &messages);
    let window = chat_memory_buffer(&mut rows, &words, 60, 0).unwrap();
    assert_eq!((window.rows.len(), window.tokens), (30, 60));
    assert!(rows.read <= 64, "{}", rows.read);
}

/// Thousands of blank messages would count the same blanks again and again; the budget ends that.
#[cfg(feature = "tokenizers")]
#[test]
fn blank_histories_are_bounded() {
    use crate::chat::tokens::Cl100kBase;
    for text in ["", "\n", "。\n"] {
        let mut rows = Rows::of(&Cl100kBase, &vec![ChatMessage::user(text); 20_000]);
        let window = chat_memory_buffer(&mut rows, &Cl100kBase, 1_000, 0).unwrap();
        assert!(window.rows.len() > 100 && window.tokens <= 1_000);
        assert!(rows.read < 10_000, "{} rows read for {text:?}", rows.read);
    }
}

#[test]
fn a_text_that_ends_blank_is_counted_again_only_at_the_seam() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    let bytes = AtomicUsize::new(0);
    let counter = FunctionCounter::new("counting", |text: &str| {
        bytes.fetch_add(text.len(), Relaxed);
        Estimate.count(text)
    })
    .with_joining(Joining::SplitsAtWords);
    let messages: Vec<_> =
        (0..1_000).map(|at| ChatMessage::user(format!("{} {at}.\n", "many words ".repeat(50)))).collect();
    let mut rows = Rows::of(&Estimate, &messages);
    let window = chat_memory_buffer(&mut rows, &counter, 2_000, 0).unwrap();
    assert!(window.rows.len() > 10);
    let per_seam = bytes.load(Relaxed) / window.rows.len();
    assert!(per_seam < 64, "{per_seam} bytes a seam");
}

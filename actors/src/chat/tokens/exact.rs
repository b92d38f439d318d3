//! The exact counts of OpenAI's encodings.
//!
//! Always true: a vocabulary is decompressed at the first count and stays for the life of the process (16 MB of memory
//! for cl100k_base, 22 MB for o200k_base); naming a counter costs nothing.

use tiktoken::CoreBpe;

use super::{Joining, TokenCounter};

/// cl100k_base, the encoding of GPT-3.5 Turbo and GPT-4, and the one LlamaIndex counts with unless told otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cl100kBase;

/// o200k_base, the encoding of GPT-4o and later.
#[derive(Debug, Clone, Copy, Default)]
pub struct O200kBase;

impl TokenCounter for Cl100kBase {
    fn id(&self) -> &'static str {
        "cl100k_base"
    }

    fn count(&self, text: &str) -> u64 {
        encoding("cl100k_base").count(text) as u64
    }

    fn count_with_control_tokens(&self, text: &str) -> u64 {
        encoding("cl100k_base").count_with_special_tokens(text) as u64
    }

    fn holds_control_token(&self, text: &str) -> bool {
        may_hold_control_token(text)
    }

    fn joining(&self) -> Joining {
        Joining::SplitsAtWords
    }
}

impl TokenCounter for O200kBase {
    fn id(&self) -> &'static str {
        "o200k_base"
    }

    fn count(&self, text: &str) -> u64 {
        encoding("o200k_base").count(text) as u64
    }

    fn count_with_control_tokens(&self, text: &str) -> u64 {
        encoding("o200k_base").count_with_special_tokens(text) as u64
    }

    fn holds_control_token(&self, text: &str) -> bool {
        may_hold_control_token(text)
    }

    fn joining(&self) -> Joining {
        Joining::SplitsAtWords
    }
}

/// The crate keeps one of each for the process and builds it when it is first asked for.
#[expect(clippy::expect_used, reason = "the text states the invariant")]
fn encoding(name: &'static str) -> &'static CoreBpe {
    tiktoken::get_encoding(name).expect("the workspace compiles both vocabularies in")
}

/// All control tokens of both encodings are written `<|…|>`. Saying yes too often only costs a recount.
fn may_hold_control_token(text: &str) -> bool {
    text.contains("<|")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::splits;
    use super::*;

    #[test]
    fn counts_of_known_texts() {
        assert_eq!(Cl100kBase.count("hello world"), 2);
        assert_eq!(O200kBase.count("hello world"), 2);
        assert_eq!(Cl100kBase.count(""), 0);
    }

    #[test]
    fn a_control_token_is_text_unless_asked() {
        assert_eq!(Cl100kBase.count_with_control_tokens("a<|endoftext|>b"), 3);
        assert!(Cl100kBase.count("a<|endoftext|>b") > 3);
        assert_eq!(O200kBase.count_with_control_tokens("a<|endofprompt|>"), 2);
    }

    #[test]
    fn a_text_that_ends_blank_does_not_split() {
        assert_eq!(Cl100kBase.count("\n \n"), 1);
        assert_eq!(Cl100kBase.count("\n") + Cl100kBase.count(" \n"), 2);
    }

    /// Texts of what tokenizers treat specially: blanks of every kind, marks, contractions, digits, other scripts.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                " ",
                "  ",
                "\n",
                "\r\n",
                "\t",
                "\u{a0}",
                "\u{3000}",
                "\u{85}",
                ".",
                "!\n",
                "/",
                "'s",
                "'LL",
                "a",
                "Ab",
                "hello",
                "12",
                "345",
                "日本",
                "한",
                "é",
                "e\u{301}",
                "😀",
                "\u{200d}",
                "ſ",
                "<|endoftext|>",
                "<|",
                "constexpr",
                "\0",
            ])
            .prop_map(str::to_owned),
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn both_split_at_words(text in text()) {
            for at in splits(&text) {
                let (head, tail) = text.split_at(at);
                for counter in [&Cl100kBase as &dyn TokenCounter, &O200kBase] {
                    prop_assert_eq!(counter.count(&text), counter.count(head) + counter.count(tail));
                    let count = |text: &str| counter.count_with_control_tokens(text);
                    prop_assert_eq!(count(&text), count(head) + count(tail));
                }
            }
        }
    }
}

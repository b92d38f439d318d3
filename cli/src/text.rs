//! Stored texts on their way to a terminal: whatever they hold, they only show themselves.
//!
//! Start at [`line()`] and [`block`].

use std::borrow::Cow;
use std::fmt::Write;

/// Returns whether a character may do something else than show itself: control a terminal, turn the direction of what
/// stands beside it, or be there unseen.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns a text for one line: line breaks and tabs are escaped too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hostile)
}

/// Returns a text that may have several lines.
pub(crate) fn block(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hostile(c) && !matches!(c, '\n' | '\t'))
}

/// Returns a text as a word that a shell takes as it is, as far as one line can say it.
pub(crate) fn word(text: &str) -> String {
    let is_plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_./:#@%+,".contains(c));
    if is_plain { text.to_owned() } else { format!("'{}'", line(text).replace('\'', r"'\''")) }
}

/// Returns the beginning of a text for one line, with `…` where something is left out.
pub(crate) fn preview(text: &str, chars_max: usize) -> String {
    // A text of megabytes is not read to its end for this.
    let mut chars = text.trim_start().chars();
    let start: String = chars.by_ref().take(chars_max).collect();
    let words = start.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = line(&words).into_owned();
    if chars.next().is_some() { format!("{shown}…") } else { shown }
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            _ if !is_escaped(c) => shown.push(c),
            '\n' | '\r' | '\t' => shown.extend(c.escape_default()),
            // To a string, which takes everything.
            _ => _ = write!(shown, "{}", c.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_and_not_done() {
        assert_eq!(line("a\u{1b}[31mb\u{7}\u{9b}c\nd\te\rf\u{7f}"), r"a\u{1b}[31mb\u{7}\u{9b}c\nd\te\rf\u{7f}");
        assert_eq!(block("a\u{1b}[2J\nb\tc\r"), "a\\u{1b}[2J\nb\tc\\r");
        assert_eq!(line("gpj.\u{202e}exe"), r"gpj.\u{202e}exe");
    }

    #[test]
    fn texts_of_every_script_stay_as_they_are() {
        for text in ["déjà vu", "ノート", "👩\u{200d}🔬", "می\u{200c}خواهم", ""] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn preview_is_one_line_and_says_that_there_is_more() {
        assert_eq!(preview("  a\n b  c", 60), "a b c");
        assert_eq!(preview("abcdef", 3), "abc…");
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(word("a.md#3"), "a.md#3");
        assert_eq!(word("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(word(""), "''");
    }
}

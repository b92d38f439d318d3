//! Cutting a text into passages: a paragraph or some, whole where that can be.
//!
//! Start at [`cut`]. Our own, since `text-splitter` 0.33 took 9.4 s for 4 MiB of Markdown: a text of 100 MB must be cut in seconds,
//! whatever is in it.
//!
//! Always true: the work grows with the text's length alone; passages are in order, share nothing, and hold all of the text but
//! white space between them; no document has more than [`PASSAGES_MAX`].

/// Characters of a passage, at most, where the text is not so long that there would be too many.
const PASSAGE_CHARS_MAX: usize = 1_000;
/// A document holds at most 100,000 nodes.
const PASSAGES_MAX: usize = 80_000;
/// A heading begins a passage, unless what stands before it is shorter than this part of one.
const LEAST_PART: usize = 4;

/// What documents' fingerprints say of how they were cut: cut otherwise, they are ingested anew.
pub(crate) const VERSION: &str = "passages-1";

/// A part of a text, with its place in it in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage<'a> {
    pub(crate) text: &'a str,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// How good it is to cut before a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Break {
    /// In the middle of a line.
    Sentence,
    Line,
    Paragraph,
    Heading,
}

/// A line, or a part of a long one: what is never cut.
#[derive(Debug, Clone, Copy)]
struct Unit<'a> {
    text: &'a str,
    chars: usize,
    before: Break,
}

/// Cuts a text into passages.
pub(crate) fn cut(text: &str, is_markdown: bool) -> Vec<Passage<'_>> {
    let chars = text.chars().count();
    // At least a quarter of the characters of a full one are in each passage but the last.
    let chars_max = PASSAGE_CHARS_MAX.max(chars.div_ceil(PASSAGES_MAX / LEAST_PART));
    let units = units(text, is_markdown, chars_max);
    let mut passages = Vec::new();
    let (mut at, mut rest, mut start) = (0, text, 0);
    while at < units.len() {
        let count = passage_units(units.get(at..).unwrap_or_default(), chars_max);
        let taken = units.get(at..at + count).unwrap_or_default();
        let (bytes, chars) =
            taken.iter().fold((0, 0), |(bytes, chars), unit| (bytes + unit.text.len(), chars + unit.chars));
        let (passage, behind) = rest.split_at(bytes);
        passages.extend(trimmed(passage, start));
        (at, rest, start) = (at + count, behind, start + chars);
    }
    passages
}

/// Returns a passage without the white space around it; none where there is nothing else.
fn trimmed(text: &str, start: usize) -> Option<Passage<'_>> {
    // Spaces before a first line are part of it, in code above all.
    let blank = text.len() - text.trim_start().len();
    let begin = text.get(..blank)?.rfind('\n').map_or(0, |line_end| line_end + 1);
    let kept = text.get(begin..)?.trim_end();
    let start = start + text.get(..begin)?.chars().count();
    (!kept.is_empty()).then(|| Passage { text: kept, start, end: start + kept.chars().count() })
}

/// Returns how many units go into the next passage: as many as fit, back to the best place to cut in its second half.
fn passage_units(units: &[Unit<'_>], chars_max: usize) -> usize {
    let (mut chars, mut best) = (0, None::<(Break, usize)>);
    for (at, unit) in units.iter().enumerate() {
        if at > 0 && unit.before == Break::Heading && chars >= chars_max / LEAST_PART {
            return at;
        }
        if at > 0 && chars >= chars_max / 2 && best.is_none_or(|(found, _)| unit.before >= found) {
            best = Some((unit.before, at));
        }
        if at > 0 && chars + unit.chars > chars_max {
            return best.map_or(at, |(_, at)| at);
        }
        chars += unit.chars;
    }
    units.len()
}

fn units(text: &str, is_markdown: bool, chars_max: usize) -> Vec<Unit<'_>> {
    let (mut units, mut is_in_code, mut is_behind_blank) = (Vec::new(), false, true);
    for line in text.split_inclusive('\n') {
        let is_fence = is_markdown && ["```", "~~~"].iter().any(|fence| line.trim_start().starts_with(fence));
        let is_heading = is_markdown && !is_in_code && is_heading(line);
        let is_blank = line.trim().is_empty();
        let before = match () {
            () if is_heading => Break::Heading,
            () if is_behind_blank && !is_blank && !is_in_code => Break::Paragraph,
            () => Break::Line,
        };
        is_in_code ^= is_fence;
        is_behind_blank = is_blank;
        add_line(&mut units, line, before, chars_max);
    }
    units
}

fn is_heading(line: &str) -> bool {
    let text = line.trim_start_matches('#');
    (1..=6).contains(&(line.len() - text.len())) && text.starts_with([' ', '\t'])
}

/// Adds a line, a long one in parts of at most half a passage, so that passages can be filled.
fn add_line<'a>(units: &mut Vec<Unit<'a>>, line: &'a str, before: Break, chars_max: usize) {
    let (mut rest, mut before) = (line, before);
    let part_max = (chars_max / 2).max(1);
    loop {
        let Some((limit, _)) = rest.char_indices().nth(part_max) else {
            if !rest.is_empty() {
                units.push(Unit { text: rest, chars: rest.chars().count(), before });
            }
            return;
        };
        let (part, behind) = rest.split_at(best_end(rest.get(..limit).unwrap_or(rest)));
        units.push(Unit { text: part, chars: part.chars().count(), before });
        (rest, before) = (behind, Break::Sentence);
    }
}

/// Returns where a part of a line ends best: behind its last sentence, or else its last word; in scripts that set no spaces, at
/// its end.
fn best_end(part: &str) -> usize {
    let half = part.len() / 2;
    let behind = |ends: &dyn Fn(char, char) -> bool| {
        let pairs = part.char_indices().rev().zip(part.chars().rev().skip(1));
        let ends = pairs.filter(|((_, c), earlier)| ends(*earlier, *c)).map(|((at, c), _)| at + c.len_utf8());
        ends.take_while(|end| *end > half).next()
    };
    behind(&|earlier, c| matches!(earlier, '.' | '!' | '?') && c.is_whitespace())
        .or_else(|| behind(&|_, c| matches!(c, '。' | '！' | '？')))
        .or_else(|| behind(&|_, c| c.is_whitespace()))
        .unwrap_or(part.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks what always holds, and returns the passages' texts.
    fn checked(text: &str, is_markdown: bool) -> Vec<&str> {
        let chars: Vec<char> = text.chars().collect();
        let passages = cut(text, is_markdown);
        let mut end = 0;
        for passage in &passages {
            assert!(passage.start >= end && passage.end > passage.start, "{passage:?}");
            assert!(chars[end..passage.start].iter().all(|c| c.is_whitespace()), "text is lost before {passage:?}");
            assert_eq!(chars[passage.start..passage.end].iter().collect::<String>(), passage.text);
            end = passage.end;
        }
        assert!(chars[end..].iter().all(|c| c.is_whitespace()), "text is lost at the end");
        assert!(passages.len() <= PASSAGES_MAX + 1);
        passages.iter().map(|passage| passage.text).collect()
    }

    #[test]
    fn short_text_is_one_passage_and_nothing_is_none() {
        assert_eq!(checked("  One\n\nTwo \n", true), ["  One\n\nTwo"]);
        assert!(checked(" \n\n", true).is_empty() && checked("", false).is_empty());
    }

    #[test]
    fn paragraphs_stay_whole() {
        let paragraph = |letter: char| format!("{}.", letter.to_string().repeat(400));
        let text = ['a', 'b', 'c', 'd', 'e'].map(paragraph).join("\n\n");
        let passages = checked(&text, false);
        assert_eq!(passages.len(), 3);
        assert!(passages.iter().all(|passage| passage.split("\n\n").all(|part| part.len() == 401)), "{passages:?}");
    }

    #[test]
    fn headings_begin_passages_but_not_in_code() {
        let body = "word ".repeat(80);
        let text = format!("# One\n\n{body}\n\n```sh\n# no heading\n{body}\n```\n\n## Two\n\n{body}\n");
        let passages = checked(&text, true);
        assert_eq!(passages.len(), 2);
        assert!(passages[0].contains("# no heading") && passages[1].starts_with("## Two"));
        assert!(
            checked(&text, false).iter().all(|passage| !passage.starts_with("## Two")),
            "plain text has no headings"
        );
    }

    #[test]
    fn long_lines_are_cut_behind_sentences_or_words_or_anywhere() {
        let sentences = "This is a sentence of some length. ".repeat(200);
        assert!(checked(&sentences, false).iter().all(|passage| passage.ends_with('.')));
        let words = "word ".repeat(2_000);
        assert!(checked(&words, false).iter().all(|passage| passage.ends_with("word")));
        for letters in ["x".repeat(5_000), "漢".repeat(5_000), "é\u{301}".repeat(3_000)] {
            let passages = checked(&letters, false);
            assert!(passages.iter().all(|passage| passage.chars().count() <= PASSAGE_CHARS_MAX));
        }
    }

    #[test]
    fn any_text_is_cut_without_loss() {
        let parts =
            ["a", " ", "\n", "\n\n", "# H\n", ". ", "```\n", "漢字", "\r\n", "\t", "word word word. ", "\u{feff}"];
        let mut state = 1_u64;
        for _ in 0..200 {
            let mut text = String::new();
            for _ in 0..800 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(parts[(state >> 33) as usize % parts.len()]);
            }
            checked(&text, true);
            checked(&text, false);
        }
    }

    #[test]
    fn long_document_has_no_more_passages_than_a_document_may() {
        let text = format!("# H\n{}\n", "x".repeat(260)).repeat(100_000);
        let passages = cut(&text, true);
        assert!(passages.len() <= PASSAGES_MAX && passages.len() > PASSAGES_MAX / 8, "{}", passages.len());
    }
}

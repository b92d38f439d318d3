//! The count of texts joined by spaces, built up from the newest text to older ones out of stored counts.
//!
//! Start at [`JoinedTexts::put_in_front`].
//!
//! Always true: the counter [splits at words](crate::chat::tokens::Joining::SplitsAtWords); so counts of two
//! neighbours add up unless the older text ends blank, and then only the words on both sides of the seam have to be
//! counted again.

use super::{History, Row};
use crate::chat::tokens::{TokenCounter, first_split, last_split};

/// Most bytes that one window counts again at blank seams. Past it seams are taken as if they added up, which can be off
/// by a token or so a seam: only histories of hundreds of consecutive blank messages, or of blank-ended texts of
/// tens of kilobytes without one space, get there, and they may not stall a reader for seconds.
const RECOUNTED_BYTES_MAX: usize = 128 * 1024;

/// The joined texts of the newest messages.
#[derive(Debug)]
pub(super) struct JoinedTexts<'a> {
    counter: &'a dyn TokenCounter,
    /// The rows, newest first.
    rows: Vec<Row>,
    /// Tokens of one space and the joined texts.
    spaced: u64,
    /// The same without the part that a blank text in front could change; known once it was needed.
    behind_head: Option<u64>,
    recounted_bytes: usize,
}

impl<'a> JoinedTexts<'a> {
    pub(super) fn new(counter: &'a dyn TokenCounter) -> Self {
        Self { counter, rows: Vec::new(), spaced: 0, behind_head: None, recounted_bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns the newest `count` rows, oldest first.
    pub(super) fn into_newest(mut self, count: usize) -> Vec<Row> {
        self.rows.truncate(count);
        self.rows.reverse();
        self.rows
    }

    /// Puts an older text in front and returns the tokens of all texts joined.
    pub(super) fn put_in_front<H: History>(&mut self, row: Row, history: &mut H) -> Result<u64, H::Error> {
        let (plain, spaced) = self.counts(&row, history)?;
        let (plain, spaced) = if row.tokens.ends_blank && !self.rows.is_empty() {
            let seam = self.seam(&row, history)?;
            (plain.saturating_add_signed(seam.plain), spaced.saturating_add_signed(seam.spaced))
        } else {
            (plain, spaced)
        };
        let joined = plain.saturating_add(self.spaced);
        self.spaced = spaced.saturating_add(self.spaced);
        self.behind_head = None;
        self.rows.push(row);
        Ok(joined)
    }

    /// Returns the fewest tokens that any longer join can have, when `next` is the next text in front.
    ///
    /// Nothing in front can change what stands behind a split, so that much is always there.
    pub(super) fn least_with<H: History>(&mut self, next: &Row, history: &mut H) -> Result<u64, H::Error> {
        if !next.tokens.ends_blank || self.rows.is_empty() {
            return Ok(self.spaced);
        }
        if self.behind_head.is_none() {
            let head = self.head(history)?;
            let head_tokens = if self.may_recount(head.len()) { self.recount(&head) } else { 0 };
            self.behind_head = Some(self.spaced.saturating_sub(head_tokens));
        }
        Ok(self.behind_head.unwrap_or_default())
    }

    /// Stored counts take control tokens as text; LlamaIndex does not, so texts that hold one are counted again.
    fn counts<H: History>(&mut self, row: &Row, history: &mut H) -> Result<(u64, u64), H::Error> {
        if !row.tokens.holds_control_token {
            return Ok((row.tokens.text, row.tokens.spaced_text));
        }
        let text = history.text(row)?;
        let count = |text: &str| self.counter.count_with_control_tokens(text);
        Ok((count(&text), count(&format!(" {text}"))))
    }

    /// Returns by how much the seam between `row`, which ends blank, and the texts behind it changes the sum, for `row`
    /// as it is and for `row` behind a space.
    fn seam<H: History>(&mut self, row: &Row, history: &mut H) -> Result<Seam, H::Error> {
        let head = self.head(history)?;
        let text = history.text(row)?.into_owned();
        let tail = text.get(last_split(&text).unwrap_or(0)..).unwrap_or_default();
        if !self.may_recount(2 * (tail.len() + head.len())) {
            return Ok(Seam::default());
        }
        let plain = self.change(tail, &head);
        // Behind a split the space in front of the whole text is too far away to matter.
        let spaced = if last_split(&text).is_some() { plain } else { self.change(&format!(" {tail}"), &head) };
        Ok(Seam { plain, spaced })
    }

    fn change(&mut self, tail: &str, head: &str) -> i64 {
        let joined = self.recount(&format!("{tail}{head}"));
        let apart = self.recount(tail).saturating_add(self.recount(head));
        joined.checked_signed_diff(apart).unwrap_or_default()
    }

    /// Returns the joined texts up to their first split, with the space in front.
    fn head<H: History>(&self, history: &mut H) -> Result<String, H::Error> {
        let mut head = String::new();
        for row in self.rows.iter().rev() {
            let from = head.len();
            head.push(' ');
            head.push_str(&history.text(row)?);
            if let Some(split) = head.get(from..).and_then(first_split) {
                head.truncate(from + split);
                break;
            }
            // The space of the next text is a split itself; an endless blank head is not worth collecting.
            if !row.tokens.ends_blank || !self.has_room(head.len()) {
                break;
            }
        }
        Ok(head)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.recounted_bytes.saturating_add(bytes) <= RECOUNTED_BYTES_MAX
    }

    /// Once something was too large nothing is recounted any more, so that the sums stay consistent.
    fn may_recount(&mut self, bytes: usize) -> bool {
        if !self.has_room(bytes) {
            self.recounted_bytes = usize::MAX;
            return false;
        }
        true
    }

    fn recount(&mut self, text: &str) -> u64 {
        self.recounted_bytes = self.recounted_bytes.saturating_add(text.len());
        self.counter.count_with_control_tokens(text)
    }
}

/// By how much a seam changes the sum of the counts on both sides.
#[derive(Debug, Default)]
struct Seam {
    plain: i64,
    spaced: i64,
}

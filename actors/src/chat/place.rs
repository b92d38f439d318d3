//! A message's place in a session: its row, with its token counts, and the checksum that every read verifies.
//!
//! Always true: a change of any field of [`Place`] changes the checksum with it. Not covered are the session's
//! id, since a fork copies places as they are, and what stands elsewhere too: `mandatory` and `client_id`.

use larder_protocol::ClientMessageId;
use larder_protocol::chat::{ChatMessage, MessageTokens};
use rusqlite::{Connection, Row, params};
use xxhash_rust::xxh3::xxh3_64;

/// How many columns [`Place::read`] decodes.
pub(super) const COLUMN_COUNT: usize = 9;

// The bits of the column `flags`. One column, since a window decodes a hundred places and each column of each costs it 20 ns.
const PINNED: i64 = 1;
const SUMMARY: i64 = 2;
const ENDS_BLANK: i64 = 4;
const HOLDS_CONTROL_TOKEN: i64 = 8;

/// The SQL condition for places of the conversation itself.
pub(super) const IS_NO_SUMMARY: &str = "place.flags & 2 = 0";
/// The SQL condition for the place of the session's summary.
pub(super) const IS_SUMMARY: &str = "place.flags & 2 = 2";

/// A message's place, as its row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: u64,
    pub(super) body_id: u64,
    pub(super) archived: bool,
    pub(super) pinned: bool,
    pub(super) summary: bool,
    /// Who counted. `None`: it was not counted yet.
    pub(super) counter_id: Option<i64>,
    pub(super) tokens: MessageTokens,
}

impl Place {
    /// Decodes the first columns of [`row::COLUMNS`](super::row::COLUMNS), which begin at `first`; `None` when they do not
    /// match their checksum.
    #[inline]
    pub(super) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Self>> {
        let flags: i64 = row.get(first + 3)?;
        let place = Self {
            id: row.get(first)?,
            body_id: row.get(first + 1)?,
            archived: row.get(first + 2)?,
            pinned: flags & PINNED != 0,
            summary: flags & SUMMARY != 0,
            counter_id: row.get(first + 4)?,
            tokens: MessageTokens {
                text: row.get(first + 5)?,
                spaced_text: row.get(first + 6)?,
                cost: row.get(first + 7)?,
                ends_blank: flags & ENDS_BLANK != 0,
                holds_control_token: flags & HOLDS_CONTROL_TOKEN != 0,
            },
        };
        let is_intact = place.checksum(flags) == row.get::<_, i64>(first + 8)?;
        Ok(is_intact.then_some(place))
    }

    /// Returns whether every strict window holds the message.
    pub(super) fn is_mandatory(&self, message: &ChatMessage) -> bool {
        self.pinned || self.summary || message.role.instructs()
    }

    fn flags(&self) -> i64 {
        let Self { pinned, summary, tokens, .. } = self;
        let bit = |is_set: bool, bit| if is_set { bit } else { 0 };
        bit(*pinned, PINNED)
            | bit(*summary, SUMMARY)
            | bit(tokens.ends_blank, ENDS_BLANK)
            | bit(tokens.holds_control_token, HOLDS_CONTROL_TOKEN)
    }

    /// `flags` as they stand in the row: bits that mean nothing are covered, too.
    fn checksum(&self, flags: i64) -> i64 {
        let MessageTokens { text, spaced_text, cost, .. } = self.tokens;
        // Counters' ids begin at 1.
        let counter_id = self.counter_id.unwrap_or(0).cast_unsigned();
        let numbers =
            [self.id, self.body_id, self.archived.into(), flags.cast_unsigned(), counter_id, text, spaced_text, cost];
        let mut bytes = [0; 8 * 8];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        xxh3_64(&bytes).cast_signed()
    }

    /// Stores a new place of `message`.
    pub(super) fn insert(
        &self,
        connection: &Connection,
        session_id: i64,
        message: &ChatMessage,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT INTO place (session_id, archived, id, body_id, flags, mandatory, counter_id, text_tokens,
                 spaced_text_tokens, cost_tokens, client_id, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        self.write(connection, sql, session_id, message)
    }

    /// Stores what changed of the place, which holds `message` now; not its archiving: see [`move_to`](Self::move_to).
    pub(super) fn update(
        &self,
        connection: &Connection,
        session_id: i64,
        message: &ChatMessage,
    ) -> rusqlite::Result<()> {
        let sql = "UPDATE place SET body_id = ?4, flags = ?5, mandatory = ?6, counter_id = ?7, text_tokens = ?8,
                 spaced_text_tokens = ?9, cost_tokens = ?10, client_id = ?11, checksum = ?12
             WHERE session_id = ?1 AND archived = ?2 AND id = ?3";
        self.write(connection, sql, session_id, message)
    }

    fn write(
        &self,
        connection: &Connection,
        sql: &'static str,
        session_id: i64,
        message: &ChatMessage,
    ) -> rusqlite::Result<()> {
        let Self { id, body_id, archived, counter_id, tokens, .. } = self;
        let flags = self.flags();
        connection.prepare_cached(sql)?.execute(params![
            session_id,
            archived,
            id,
            body_id,
            flags,
            self.is_mandatory(message),
            counter_id,
            tokens.text,
            tokens.spaced_text,
            tokens.cost,
            message.client_id.as_ref().map(ClientMessageId::as_str),
            self.checksum(flags),
        ])?;
        Ok(())
    }

    /// Archives the message, or takes it back.
    pub(super) fn move_to(mut self, connection: &Connection, session_id: i64, archived: bool) -> rusqlite::Result<()> {
        let was_archived = std::mem::replace(&mut self.archived, archived);
        connection
            .prepare_cached(
                "UPDATE place SET archived = ?3, checksum = ?4 WHERE session_id = ?1 AND archived = ?5 AND id = ?2",
            )?
            .execute(params![session_id, self.id, archived, self.checksum(self.flags()), was_archived])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts_in_the_checksum() {
        let tokens = MessageTokens { text: 1, spaced_text: 2, cost: 3, ends_blank: false, holds_control_token: false };
        let place =
            Place { id: 4, body_id: 5, archived: false, pinned: false, summary: false, counter_id: Some(6), tokens };
        let tokens_of = |change: fn(&mut MessageTokens)| {
            let mut changed = place;
            change(&mut changed.tokens);
            changed
        };
        let changed = [
            Place { id: 7, ..place },
            Place { body_id: 7, ..place },
            Place { archived: true, ..place },
            Place { pinned: true, ..place },
            Place { summary: true, ..place },
            Place { counter_id: None, ..place },
            Place { counter_id: Some(7), ..place },
            tokens_of(|tokens| tokens.text = 7),
            tokens_of(|tokens| tokens.spaced_text = 7),
            tokens_of(|tokens| tokens.cost = 7),
            tokens_of(|tokens| tokens.ends_blank = true),
            tokens_of(|tokens| tokens.holds_control_token = true),
        ];
        let mut checksums: Vec<i64> =
            changed.iter().chain([&place]).map(|place| place.checksum(place.flags())).collect();
        checksums.push(place.checksum(place.flags() | 1 << 40));
        checksums.sort_unstable();
        checksums.dedup();
        assert_eq!(checksums.len(), changed.len() + 2);
    }
}

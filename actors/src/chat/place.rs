//! A message's place in a session: its row, with its token counts, and the checksum that every read verifies.
//!
//! Always true: a change of any field of [`Place`] changes the checksum with it. Not covered are the session's
//! id, since a fork copies places as they are, and what stands elsewhere too: `mandatory` and `client_id`.

use larder_protocol::ClientMessageId;
use larder_protocol::chat::{ChatMessage, MessageTokens};
use rusqlite::{Connection, Row, params};
use xxhash_rust::xxh3::xxh3_64;

/// How many columns [`Place::read`] decodes.
pub(super) const COLUMN_COUNT: usize = 12;

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
        let place = Self {
            id: row.get(first)?,
            body_id: row.get(first + 1)?,
            archived: row.get(first + 2)?,
            pinned: row.get(first + 3)?,
            summary: row.get(first + 4)?,
            counter_id: row.get(first + 5)?,
            tokens: MessageTokens {
                text: row.get(first + 6)?,
                spaced_text: row.get(first + 7)?,
                cost: row.get(first + 8)?,
                ends_blank: row.get(first + 9)?,
                holds_control_token: row.get(first + 10)?,
            },
        };
        let is_intact = place.checksum() == row.get::<_, i64>(first + 11)?;
        Ok(is_intact.then_some(place))
    }

    /// Returns whether every strict window holds the message.
    pub(super) fn is_mandatory(&self, message: &ChatMessage) -> bool {
        self.pinned || self.summary || message.role.instructs()
    }

    fn checksum(&self) -> i64 {
        let MessageTokens { text, spaced_text, cost, ends_blank, holds_control_token } = self.tokens;
        let flags = [self.archived, self.pinned, self.summary, ends_blank, holds_control_token];
        let flags = flags.iter().fold(0, |bits, &flag| bits << 1 | u64::from(flag));
        // Counters' ids begin at 1.
        let counter_id = self.counter_id.unwrap_or(0).cast_unsigned();
        let numbers = [self.id, self.body_id, counter_id, text, spaced_text, cost, flags];
        let mut bytes = [0; 8 * 7];
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
        let sql =
            "INSERT INTO place (session_id, archived, id, body_id, pinned, summary, mandatory, counter_id, text_tokens,
                 spaced_text_tokens, cost_tokens, ends_blank, holds_control_token, client_id, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        self.write(connection, sql, session_id, message)
    }

    /// Stores what changed of the place, which holds `message` now; not its archiving: see [`move_to`](Self::move_to).
    pub(super) fn update(
        &self,
        connection: &Connection,
        session_id: i64,
        message: &ChatMessage,
    ) -> rusqlite::Result<()> {
        let sql = "UPDATE place SET body_id = ?4, pinned = ?5, summary = ?6, mandatory = ?7, counter_id = ?8, text_tokens = ?9,
                 spaced_text_tokens = ?10, cost_tokens = ?11, ends_blank = ?12, holds_control_token = ?13, client_id = ?14,
                 checksum = ?15
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
        let Self { id, body_id, archived, pinned, summary, counter_id, tokens } = self;
        connection.prepare_cached(sql)?.execute(params![
            session_id,
            archived,
            id,
            body_id,
            pinned,
            summary,
            self.is_mandatory(message),
            counter_id,
            tokens.text,
            tokens.spaced_text,
            tokens.cost,
            tokens.ends_blank,
            tokens.holds_control_token,
            message.client_id.as_ref().map(ClientMessageId::as_str),
            self.checksum(),
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
            .execute(params![session_id, self.id, archived, self.checksum(), was_archived])?;
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
        let mut checksums: Vec<i64> = changed.iter().chain([&place]).map(Place::checksum).collect();
        checksums.sort_unstable();
        checksums.dedup();
        assert_eq!(checksums.len(), changed.len() + 1);
    }
}

//! What the machinery needs to know of the chat store, and what the store can be asked.

use larder_protocol::change::Change;
use larder_protocol::chat::{
    AppendMessages, ArchiveMessages, ClearSession, CountSessions, DeleteMessages, DeleteSession, EditMessage,
    ForkSession, GetSession, GetWindow, ListMessages, ListSessions, ListUncounted, PinMessage, PutCounts, PutSession,
    PutSummary, SearchMessages, TrimSession,
};
use larder_protocol::{StoreName, Tokenizer};
use serde::{Deserialize, Serialize};

use super::counter::Counter;
use super::{append, check, edit, fork, history, list, sessions, trim};
use crate::full_text::TextIndex;
use crate::handlers;
use crate::sqlite::migration::FileSchema;
use crate::store::{MACHINERY_TABLES, Outcome, ReadContext, Store, StoreDefaults, StoreSettings, WriteContext};

/// The chat store.
#[derive(Debug)]
pub enum Chat {}

/// What a write works in.
pub(super) type Writing<'a> = WriteContext<'a, Chat>;
/// What a read sees.
pub(super) type Reading<'a> = ReadContext<'a, Chat>;

/// What a program may set about the chat store alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatSettings {
    /// Who counts tokens. Default cl100k_base, or the estimate in a build without the feature `tokenizers`. Another one
    /// counts what is stored again where a window needs it.
    pub counter: Counter,
    /// Largest message in bytes, 1 KiB to 64 MiB. Default 4 MiB. Higher: a window or page can hold that much for each.
    pub message_bytes_max: usize,
    /// How searches take texts apart. Default [`Tokenizer::Unicode`]. Another one makes the index anew at the next opening.
    pub tokenizer: Tokenizer,
    /// Whether deleted text is overwritten in the file. Default `false`. Set: deletes write more, and the WAL, which holds older
    /// pages, is emptied whenever the store is idle (`checkpoint.kept_frames` is 0 then). Snapshots keep what they have.
    pub secure_delete: bool,
}

impl StoreDefaults for ChatSettings {}

impl Default for ChatSettings {
    fn default() -> Self {
        Self {
            counter: Counter::default(),
            message_bytes_max: 4 << 20,
            tokenizer: Tokenizer::default(),
            secure_delete: false,
        }
    }
}

impl Store for Chat {
    const NAME: StoreName = StoreName::Chat;
    const SCHEMA: FileSchema = FileSchema {
        application_id: 0x4C72_6368, // "Lrch"
        page_bytes: 4096,
        migrations: &[MACHINERY_TABLES, include_str!("migrations/0001_messages.sql")],
    };

    type Settings = ChatSettings;
    type Memory = ();

    fn text_index(settings: &ChatSettings) -> Option<TextIndex> {
        Some(TextIndex {
            table: "body_text",
            columns: "text",
            content: "body",
            key: "id",
            rows: "SELECT id, text FROM body WHERE text IS NOT NULL",
            tokenizer: settings.tokenizer,
        })
    }

    fn set_tokenizer(settings: &mut ChatSettings, tokenizer: Tokenizer) {
        settings.tokenizer = tokenizer;
    }

    fn adjust(common: &mut StoreSettings, own: &ChatSettings) {
        if own.secure_delete {
            common.checkpoint.kept_frames = 0;
        }
    }

    fn memory(_settings: &ChatSettings, _exclusive: bool) {}

    fn committed(_memory: &(), _changes: &[Change]) {}

    fn forget(_memory: &()) {}

    fn sweep(context: &mut WriteContext<'_, Self>, rows_max: usize) -> Outcome<usize> {
        sessions::sweep(context, rows_max)
    }

    fn check(context: &ReadContext<'_, Self>, found: &mut dyn FnMut(String)) -> Outcome<()> {
        check::check(context, found)
    }
}

/// Up to this many messages are read on the caller's thread: about 3 µs each.
const PAGE_IN_PLACE_MAX: usize = 64;

handlers! {
    Chat {
        write AppendMessages => append::append;
        write EditMessage => append::edit;
        write PutSummary => append::put_summary;
        write PutCounts => append::put_counts;
        make_room DeleteMessages => edit::delete;
        write ArchiveMessages => edit::archive;
        write PinMessage => edit::pin;
        make_room TrimSession => trim::trim;
        write PutSession => sessions::put;
        write ForkSession => fork::fork;
        make_room DeleteSession => sessions::delete;
        make_room ClearSession => sessions::clear;
        sized GetWindow where |message| !message.may_take_long => history::window;
        sized ListMessages where |message| message.limit <= PAGE_IN_PLACE_MAX => list::page;
        on_thread ListUncounted => list::uncounted;
        on_thread SearchMessages => list::search;
        in_place GetSession => sessions::get;
        on_thread ListSessions => sessions::list;
        on_thread CountSessions => sessions::count;
    }
}

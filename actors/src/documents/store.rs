//! What the machinery needs to know of the documents store, and what the store can be asked.

use larder_protocol::change::Change;
use larder_protocol::documents::{
    BeginForgets, BeginIngests, CountDocuments, CountNodes, DeclareMetadataField, DeleteDocument, DeleteIndexRecord,
    DeleteMissing, DeleteNodes, DropDamagedIntents, FindDocumentsByHash, FindNodesByHash, FinishIntents, GetDocument,
    GetDocumentText, GetIndexRecord, GetNode, GetNodeHashes, GetNodes, ListContextDocuments, ListContextNodes,
    ListDamagedIntents, ListDocuments, ListIndexRecords, ListIntents, ListNodeIds, ListNodes, ListRelated,
    MarkIngestion, MoveNodes, PlanContext, PlanIngestion, PutDocument, PutDocuments, PutIndexRecord, ReadPassages,
    SearchNodes, SearchPassages, TakeIntent, UpsertNodes,
};
use larder_protocol::{StoreName, Tokenizer};
use serde::{Deserialize, Serialize};

use super::{check, delete, index_records, ingestion, intents, list, members, nodes, put, search, sources, text_index};
use crate::full_text::TextIndex;
use crate::handlers;
use crate::sqlite::migration::FileSchema;
use crate::store::{MACHINERY_TABLES, Outcome, ReadContext, Store, StoreDefaults, WriteContext};

/// The documents store.
#[derive(Debug)]
pub enum Documents {}

/// What a write works in.
pub(super) type Writing<'a> = WriteContext<'a, Documents>;
/// What a read sees.
pub(super) type Reading<'a> = ReadContext<'a, Documents>;

/// What a program may set about the documents store alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DocumentsSettings {
    /// How searches take texts apart. Default [`Tokenizer::Unicode`]. Another one makes the index anew at the next opening.
    pub tokenizer: Tokenizer,
    /// Largest node in bytes, 1 KiB to 64 MiB. Default 4 MiB. Higher: a page can hold that much for each.
    pub node_bytes_max: usize,
    /// Largest document in bytes, without its nodes, 1 KiB to 256 MiB. Default 32 MiB. Higher: one can take that much of
    /// the queue's budget.
    pub document_bytes_max: usize,
}

impl StoreDefaults for DocumentsSettings {}

impl Default for DocumentsSettings {
    fn default() -> Self {
        Self { tokenizer: Tokenizer::default(), node_bytes_max: 4 << 20, document_bytes_max: 32 << 20 }
    }
}

impl Store for Documents {
    const NAME: StoreName = StoreName::Documents;
    const SCHEMA: FileSchema = FileSchema {
        application_id: 0x4C72_646F, // "Lrdo"
        page_bytes: 4096,
        migrations: &[
            MACHINERY_TABLES,
            include_str!("migrations/0001_documents.sql"),
            include_str!("migrations/0002_contexts.sql"),
        ],
    };

    type Settings = DocumentsSettings;
    type Memory = ();

    fn text_index(settings: &DocumentsSettings) -> Option<TextIndex> {
        Some(text_index::declaration(settings))
    }

    fn set_tokenizer(settings: &mut DocumentsSettings, tokenizer: Tokenizer) {
        settings.tokenizer = tokenizer;
    }

    fn memory(_settings: &DocumentsSettings, _exclusive: bool) {}

    fn committed(_memory: &(), _changes: &[Change]) {}

    fn forget(_memory: &()) {}

    fn sweep(context: &mut WriteContext<'_, Self>, rows_max: usize) -> Outcome<usize> {
        delete::sweep(context, rows_max)
    }

    fn check(context: &ReadContext<'_, Self>, found: &mut dyn FnMut(String)) -> Outcome<()> {
        check::check(context, found)
    }

    fn is_run_time_object(name: &str, sql: &str) -> bool {
        list::NODE_FIELDS.is_field_index(name, sql)
    }
}

/// Up to this many nodes are read on the caller's thread: about 4 µs each.
const NODES_IN_PLACE_MAX: usize = 32;

handlers! {
    Documents {
        write PutDocument => put::put;
        write PutDocuments => put::put_many;
        write UpsertNodes => nodes::upsert;
        write MoveNodes => nodes::move_nodes;
        make_room DeleteNodes => delete::delete_nodes;
        make_room DeleteDocument => delete::delete_document;
        make_room DeleteMissing => delete::delete_missing;
        write MarkIngestion => ingestion::mark;
        write BeginIngests => intents::begin_ingests;
        make_room BeginForgets => intents::begin_forgets;
        make_room TakeIntent => intents::take;
        make_room FinishIntents => intents::finish;
        make_room DropDamagedIntents => intents::drop_damaged;
        write PutIndexRecord => index_records::put;
        make_room DeleteIndexRecord => index_records::delete;
        write DeclareMetadataField => list::declare;
        in_place GetNode => list::get;
        sized GetNodes where |message| message.ids.len() <= NODES_IN_PLACE_MAX => list::get_many;
        on_thread GetNodeHashes => list::hashes;
        on_thread FindNodesByHash => list::nodes_by_hash;
        on_thread FindDocumentsByHash => list::documents_by_hash;
        on_thread ListNodes => list::nodes;
        on_thread ListNodeIds => list::node_ids;
        on_thread CountNodes => list::count_nodes;
        on_thread ListRelated => list::related;
        in_place GetDocument => sources::get;
        on_thread GetDocumentText => sources::get_text;
        on_thread ListDocuments => list::documents;
        on_thread CountDocuments => list::count_documents;
        on_thread PlanIngestion => ingestion::plan;
        on_thread PlanContext => members::plan;
        on_thread ListContextDocuments => members::documents;
        on_thread ListContextNodes => members::nodes;
        sized ReadPassages where |message| message.ids.len() <= NODES_IN_PLACE_MAX => members::read_passages;
        on_thread SearchPassages => members::search;
        on_thread ListIntents => intents::list;
        on_thread ListDamagedIntents => intents::list_damaged;
        on_thread SearchNodes => search::search;
        in_place GetIndexRecord => index_records::get;
        on_thread ListIndexRecords => index_records::list;
    }
}

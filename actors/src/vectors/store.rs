//! What the machinery needs to know of the vectors store, and what the store can be asked.

use larder_protocol::change::Change;
use larder_protocol::vectors::{
    ClearCollection, CountPoints, DeclareMetadataField, DeletePoints, DeletePointsByDocument, DeletePointsByFilter,
    DescribeCollection, DropCollection, ExplainSearch, GetPoint, GetPoints, ListCollections, ListPoints,
    OpenCollection, ReplacePoints, SearchManyPoints, SearchPoints, UpsertPoints,
};
use larder_protocol::{StoreName, Tokenizer};
use serde::{Deserialize, Serialize};

use super::memory::VectorsMemory;
use super::{check, collections, points, search};
use crate::full_text::TextIndex;
use crate::handlers;
use crate::sqlite::migration::FileSchema;
use crate::store::{MACHINERY_TABLES, Outcome, ReadContext, Store, StoreDefaults, WriteContext};

/// The vectors store.
#[derive(Debug)]
pub enum Vectors {}

/// What a write works in.
pub(super) type Writing<'a> = WriteContext<'a, Vectors>;
/// What a read sees.
pub(super) type Reading<'a> = ReadContext<'a, Vectors>;

/// What a program may set about the vectors store alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VectorsSettings {
    /// Largest metadata and text of a point in bytes, together, 1 KiB to 64 MiB. Default 1 MiB. Higher: a page can hold
    /// that much for each.
    pub payload_bytes_max: usize,
    /// How texts are split into what can be found. Default [`Tokenizer::Unicode`]. With another one than before, the next
    /// opening makes the full-text index anew.
    pub tokenizer: Tokenizer,
    /// Most memory for the indexes of all collections in bytes, 1 MiB to 1 TiB. Default 4 GiB. A vector takes its
    /// dimensions in bytes, an eighth of that, and about 28. Where it does not suffice, the index that was used least
    /// recently is given up and loaded again when it is needed; a collection that alone takes more cannot be searched.
    pub index_bytes_max: u64,
    /// Of that, most memory for vectors as they are, for each collection, 0 to 1 TiB. Default 64 MiB. Higher: the last
    /// step of a search reads less from the file.
    pub vector_bytes_max: u64,
    /// Threads that one search uses at most, 1 to 64. Default 2. A search takes more than one from 65,536 vectors on.
    pub search_threads: usize,
}

impl StoreDefaults for VectorsSettings {}

impl Default for VectorsSettings {
    fn default() -> Self {
        Self {
            payload_bytes_max: 1 << 20,
            tokenizer: Tokenizer::default(),
            index_bytes_max: 4 << 30,
            vector_bytes_max: 64 << 20,
            search_threads: 2,
        }
    }
}

impl Store for Vectors {
    const NAME: StoreName = StoreName::Vectors;
    const SCHEMA: FileSchema = FileSchema {
        application_id: 0x4C72_7665, // "Lrve"
        // Five vectors of 768 dimensions fill a page of 16 KiB, where two of 8 KiB would leave a quarter empty.
        page_bytes: 16_384,
        migrations: &[MACHINERY_TABLES, include_str!("migrations/0001_vectors.sql")],
    };

    type Settings = VectorsSettings;
    type Memory = VectorsMemory;

    fn text_index(settings: &VectorsSettings) -> Option<TextIndex> {
        Some(TextIndex {
            table: "point_text",
            columns: "text",
            content: "point",
            key: "slot",
            rows: "SELECT slot, text FROM point WHERE text IS NOT NULL",
            tokenizer: settings.tokenizer,
        })
    }

    fn set_tokenizer(settings: &mut VectorsSettings, tokenizer: Tokenizer) {
        settings.tokenizer = tokenizer;
    }

    fn memory(settings: &VectorsSettings, _exclusive: bool) -> VectorsMemory {
        VectorsMemory::new(settings)
    }

    /// Indexes follow what was committed when they are next searched, as they follow other processes.
    fn committed(memory: &VectorsMemory, changes: &[Change]) {
        memory.forget_dropped(changes);
    }

    fn forget(memory: &VectorsMemory) {
        memory.forget();
    }

    fn sweep(context: &mut WriteContext<'_, Self>, rows_max: usize) -> Outcome<usize> {
        collections::sweep(context, rows_max)
    }

    fn is_run_time_object(name: &str, sql: &str) -> bool {
        points::FIELDS.is_field_index(name, sql)
    }

    fn check(context: &ReadContext<'_, Self>, found: &mut dyn FnMut(String)) -> Outcome<()> {
        check::check(context, found)
    }
}

/// Up to this many points are read on the caller's thread: about 5 µs each.
const POINTS_IN_PLACE_MAX: usize = 32;

handlers! {
    Vectors {
        write OpenCollection => collections::open;
        make_room ClearCollection => collections::clear;
        make_room DropCollection => collections::drop_collection;
        in_place DescribeCollection => collections::describe;
        on_thread ListCollections => collections::list;
        write DeclareMetadataField => points::declare;
        write UpsertPoints => points::upsert;
        write ReplacePoints => points::replace;
        make_room DeletePoints => points::delete;
        make_room DeletePointsByDocument => points::delete_by_document;
        make_room DeletePointsByFilter => points::delete_by_filter;
        in_place GetPoint => points::get;
        sized GetPoints where |message| message.ids.len() <= POINTS_IN_PLACE_MAX => points::get_many;
        on_thread ListPoints => points::list;
        on_thread CountPoints => points::count;
        in_place SearchPoints => search::search;
        on_thread SearchManyPoints => search::search_many;
        on_thread ExplainSearch => search::explain;
    }
}

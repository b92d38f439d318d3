//! What the machinery needs to know of the graph store, and what the store can be asked.

use larder_protocol::change::Change;
use larder_protocol::graph::{
    AddAlias, CountGraph, DeclareEntityField, DeleteEntities, DeleteRelations, DeleteTriplet, DescribeSchema,
    FindMentions, FindNeighborhood, FindNeighbors, FindPaths, FindRelations, FindShortestPath, FindSimilarEntities,
    GetDegree, GetEmbedding, GetEntities, GetRelations, InvalidateRelations, ListEntities, ListSources, LookUpEntities,
    MapRelations, MergeEntities, RankEntities, RemoveAlias, RemoveSource, RenameEntity, ReplaceSources, SelectSubgraph,
    UndoMerge, UpsertEntities, UpsertRelations,
};
use larder_protocol::{StoreName, Tokenizer};
use serde::{Deserialize, Serialize};

use super::memory::GraphMemory;
use super::{
    check, delete, embeddings, entities, lookup, mentions, merge, names, relations, similar, sources, traversal,
};
use crate::full_text::TextIndex;
use crate::handlers;
use crate::sqlite::migration::FileSchema;
use crate::store::{MACHINERY_TABLES, Outcome, ReadContext, Store, StoreDefaults, WriteContext};

/// The graph store.
#[derive(Debug)]
pub enum Graph {}

/// What a write works in.
pub(super) type Writing<'a> = WriteContext<'a, Graph>;
/// What a read sees.
pub(super) type Reading<'a> = ReadContext<'a, Graph>;

/// What a program may set about the graph store alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GraphSettings {
    /// Largest description and properties of an entity, or properties of a relation, in bytes, together, 1 KiB to 64 MiB.
    /// Default 1 MiB. Higher: a page can hold that much for each.
    pub payload_bytes_max: usize,
    /// How names and descriptions are split into what can be found. Default [`Tokenizer::Unicode`]. With another one than before,
    /// the next opening makes the full-text index anew.
    pub tokenizer: Tokenizer,
    /// Most memory for the graph that traversals walk, 0 to 1 TiB. Default 2 GiB. A relation takes about 50 bytes, an entity 40 and
    /// its name. A graph that takes more is walked over rows, about fifty times slower. Names that writes have met lately take up to
    /// a sixty-fourth of it beside.
    pub index_bytes_max: u64,
}

impl Default for GraphSettings {
    fn default() -> Self {
        Self { payload_bytes_max: 1 << 20, tokenizer: Tokenizer::default(), index_bytes_max: 2 << 30 }
    }
}

impl StoreDefaults for GraphSettings {}

impl Store for Graph {
    const NAME: StoreName = StoreName::Graph;
    const SCHEMA: FileSchema = FileSchema {
        application_id: 0x4C72_6772, // "Lrgr"
        page_bytes: 4_096,
        migrations: &[MACHINERY_TABLES, include_str!("migrations/0001_graph.sql")],
    };

    type Settings = GraphSettings;
    type Memory = GraphMemory;

    fn text_index(settings: &GraphSettings) -> Option<TextIndex> {
        Some(TextIndex {
            table: entities::TEXT_INDEX,
            columns: "text",
            content: "entity_document",
            key: "key",
            rows: "SELECT key, text FROM entity_document",
            tokenizer: settings.tokenizer,
        })
    }

    fn set_tokenizer(settings: &mut GraphSettings, tokenizer: Tokenizer) {
        settings.tokenizer = tokenizer;
    }

    fn memory(settings: &GraphSettings, _exclusive: bool) -> GraphMemory {
        GraphMemory::new(settings)
    }

    /// The graph in memory follows what was committed when it is next asked, as it follows other processes.
    fn committed(_memory: &GraphMemory, _changes: &[Change]) {}

    fn forget(memory: &GraphMemory) {
        memory.forget();
    }

    fn sweep(context: &mut WriteContext<'_, Self>, rows_max: usize) -> Outcome<usize> {
        delete::sweep(context, rows_max)
    }

    fn is_run_time_object(name: &str, sql: &str) -> bool {
        entities::FIELDS.is_field_index(name, sql)
    }

    fn check(context: &ReadContext<'_, Self>, found: &mut dyn FnMut(String)) -> Outcome<()> {
        check::check(context, found)
    }
}

/// Up to this many rows are read on the caller's thread: about 5 µs each.
const ROWS_IN_PLACE_MAX: usize = 32;

handlers! {
    Graph {
        write UpsertEntities => entities::upsert;
        sized GetEntities where |message| message.entities.len() <= ROWS_IN_PLACE_MAX => entities::get_many;
        in_place GetEmbedding => embeddings::get;
        on_thread ListEntities => entities::list;
        write DeclareEntityField => entities::declare;
        write RenameEntity => names::rename;
        write AddAlias => names::add_alias;
        make_room RemoveAlias => names::remove_alias;
        write MergeEntities => merge::merge;
        write UndoMerge => merge::undo;
        make_room DeleteEntities => delete::delete_entities;
        write UpsertRelations => relations::upsert;
        sized GetRelations where |message| message.ids.len() <= ROWS_IN_PLACE_MAX => relations::get_many;
        on_thread FindRelations => relations::find;
        write InvalidateRelations => relations::invalidate;
        make_room DeleteRelations => relations::delete_many;
        make_room DeleteTriplet => relations::delete_triplet;
        make_room RemoveSource => sources::remove;
        write ReplaceSources => sources::replace;
        on_thread ListSources => sources::list;
        on_thread FindMentions => mentions::find;
        on_thread LookUpEntities => lookup::look_up;
        on_thread FindSimilarEntities => similar::find;
        in_place FindNeighbors => traversal::neighbors;
        in_place FindNeighborhood => traversal::neighborhood;
        in_place MapRelations => traversal::map_relations;
        in_place FindShortestPath => traversal::shortest_path;
        in_place GetDegree => traversal::degree;
        on_thread FindPaths => traversal::paths;
        on_thread RankEntities => traversal::rank_entities;
        on_thread SelectSubgraph => traversal::select_subgraph;
        on_thread DescribeSchema => traversal::describe_schema;
        on_thread CountGraph => entities::count;
    }
}

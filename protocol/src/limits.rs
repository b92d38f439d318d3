//! The fixed bounds of names and values. Bounds that a program may set live in its settings instead.

/// Longest collection name, in bytes of UTF-8.
pub const COLLECTION_NAME_BYTES_MAX: usize = 128;
/// Longest key, in bytes of UTF-8. A key is repeated in an index page, so long ones cost every neighbour.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest tag, in bytes of UTF-8.
pub const TAG_BYTES_MAX: usize = 256;
/// Most tags on one entry.
pub const TAGS_PER_ENTRY_MAX: usize = 64;
/// Longest idempotency key, in bytes of UTF-8.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Longest name of a lease, in bytes of UTF-8.
pub const LEASE_NAME_BYTES_MAX: usize = 1024;
/// Most items in one message (a batch, a list of keys, a transaction's operations).
pub const BATCH_ITEMS_MAX: usize = 100_000;
/// Most messages in one append: each holds the chat store's writer for about 30 µs, nearly all of it the full-text index.
pub const APPEND_MESSAGES_MAX: usize = 10_000;
/// Most rows in one page of a list or scan.
pub const PAGE_ROWS_MAX: usize = 10_000;
/// Most bytes of values that one request for several keys answers.
pub const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Deepest nesting of a filter's groups.
pub const FILTER_DEPTH_MAX: usize = 64;
/// Most nodes in one filter.
pub const FILTER_NODES_MAX: usize = 1_024;
/// Most list items (operands of `in`, `nin`, `any`, `all`) in one filter. Each is a bound parameter of the compiled
/// condition, and SQLite takes 32,766 of those.
pub const FILTER_LIST_ITEMS_MAX: usize = 16_384;
/// Most keys in one field path of a filter.
pub const FILTER_PATH_KEYS_MAX: usize = 64;
/// Deepest nesting of an encoded value, in serde's terms (options, sequences, structs and enums count one each).
/// The stack of a small thread (2 MiB) must hold it in an unoptimised build.
pub const ENCODED_DEPTH_MAX: usize = 256;
/// How many more items than bytes an encoded value may hold: items such as `()` take no bytes.
pub const ENCODED_FREE_ITEMS_MAX: usize = 65_536;
/// Longest session id, in bytes of UTF-8.
pub const SESSION_ID_BYTES_MAX: usize = 256;
/// Longest client message id, in bytes of UTF-8.
pub const CLIENT_MESSAGE_ID_BYTES_MAX: usize = 256;
/// Longest role name, in bytes of UTF-8.
pub const ROLE_BYTES_MAX: usize = 64;
/// Longest title of a session, in bytes of UTF-8.
pub const SESSION_TITLE_BYTES_MAX: usize = 4_096;
/// Longest owner of a session, in bytes of UTF-8.
pub const OWNER_BYTES_MAX: usize = 256;
/// Largest metadata of a session, in bytes of JSON.
pub const SESSION_METADATA_BYTES_MAX: usize = 1 << 20;
/// Longest search query, in bytes of UTF-8.
pub const QUERY_BYTES_MAX: usize = 4_096;
/// Most words in a search query; further ones are left out.
pub const QUERY_WORDS_MAX: usize = 64;
/// Most sessions that one search names. Each is a bound parameter.
pub const SEARCH_SESSIONS_MAX: usize = 1_000;
/// Longest id of a token counter, in bytes of UTF-8.
pub const COUNTER_ID_BYTES_MAX: usize = 128;
/// Longest document id, in bytes of UTF-8: a path of Linux's usual limit fits in part, a URL nearly always.
pub const DOCUMENT_ID_BYTES_MAX: usize = 1024;
/// Longest node id, in bytes of UTF-8. It is repeated in an index page, so long ones cost every neighbour.
pub const NODE_ID_BYTES_MAX: usize = 1024;
/// Longest id of an index record, in bytes of UTF-8.
pub const INDEX_ID_BYTES_MAX: usize = 256;
/// Longest fingerprint of a document, in bytes of UTF-8.
pub const FINGERPRINT_BYTES_MAX: usize = 1024;
/// Longest reason of a failed ingestion, in bytes of UTF-8; a longer one is cut.
pub const FAILURE_BYTES_MAX: usize = 4_096;
/// Longest name of a context, in bytes of UTF-8.
pub const CONTEXT_NAME_BYTES_MAX: usize = 128;
/// Largest content of an index record, in bytes of JSON.
pub const INDEX_RECORD_BYTES_MAX: usize = 1 << 20;
/// Longest type of an index record, in bytes of UTF-8.
pub const INDEX_KIND_BYTES_MAX: usize = 256;
/// Most documents that one search names. Each is a bound parameter.
pub const SEARCH_DOCUMENTS_MAX: usize = 1_000;
/// Longest point id, in bytes of UTF-8. It is repeated in an index page, so long ones cost every neighbour.
pub const POINT_ID_BYTES_MAX: usize = 1024;
/// Longest name of a model or function whose values are cached, in bytes of UTF-8.
pub const PRODUCER_NAME_BYTES_MAX: usize = 256;
/// Longest parameters of a model, or version of a function, in bytes of UTF-8.
pub const PRODUCER_PARAMETERS_BYTES_MAX: usize = 4_096;
/// Most components of a vector.
pub const DIMENSIONS_MAX: usize = 8_192;
/// Largest absolute value of a vector's component: the sum of 8,192 squares is far from the largest float.
pub const COMPONENT_MAX: f32 = 1e15;
/// Most points that a search finds (`k`), and most that it leaves out before them (`offset`).
pub const SEARCH_POINTS_MAX: usize = 10_000;
/// Most points that a diverse search chooses from: each choice compares with all that are left.
pub const DIVERSITY_CANDIDATES_MAX: usize = 1_000;
/// Most vectors that one message looks for.
pub const SEARCH_QUERIES_MAX: usize = 1_000;
/// Longest name of an entity, in bytes of UTF-8. It is repeated in an index page, so long ones cost every neighbour.
pub const ENTITY_NAME_BYTES_MAX: usize = 1024;
/// Longest label of an entity or a relation, in bytes of UTF-8.
pub const LABEL_BYTES_MAX: usize = 256;
/// Longest qualifier of a relation, in bytes of UTF-8.
pub const QUALIFIER_BYTES_MAX: usize = 256;
/// Longest id of a source, in bytes of UTF-8.
pub const SOURCE_ID_BYTES_MAX: usize = 1024;
/// Most names by which one message looks for what is said about entities.
pub const MENTIONED_NAMES_MAX: usize = 1_000;
/// Most sources that one message names for one relation.
pub const SOURCES_PER_RELATION_MAX: usize = 1_000;
/// Most hops that a question about a graph goes.
pub const HOPS_MAX: usize = 64;
/// Most entities that a neighbourhood answers.
pub const NEIGHBORHOOD_MAX: usize = 100_000;
/// Most entities that a question about a graph starts from.
pub const SEEDS_MAX: usize = 1_000;
/// Most labels that a question about a graph names.
pub const LABELS_PER_QUESTION_MAX: usize = 1_000;
/// Most paths that one question enumerates.
pub const PATHS_MAX: usize = 10_000;
/// Most edges that an enumeration of paths looks at; past that it answers with what it found.
pub const PATH_STEPS_MAX: usize = 10_000_000;

//! The embedding cache, of which `larder export` and `larder stats` tell.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::{Stream, TryStreamExt};
use larder::Larder;
use larder::protocol::embed_cache::{CachedValue, ListValues, ListedValue, ProducerKind};
use serde::Serialize;

use crate::failure::Failure;
use crate::list::{self, PAGE_ROWS};

/// Returns every entry, in the order of their keys.
pub(crate) fn values(larder: &Larder) -> impl Stream<Item = Result<ValueRow, Failure>> {
    let values = list::pages(None, move |after| {
        let larder = larder.clone();
        async move { larder.ask(ListValues { after, limit: PAGE_ROWS }).await.map(|page| (page.entries, page.next)) }
    });
    values.map_ok(ValueRow::from)
}

/// An entry as it is exported.
#[derive(Debug, Serialize)]
pub(crate) struct ValueRow {
    key: String,
    producer_kind: ProducerKind,
    producer: String,
    parameters: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    compute_time_us: u64,
    stored_ms: i64,
    expires_ms: Option<i64>,
    tags: Vec<String>,
}

impl From<ListedValue> for ValueRow {
    fn from(listed: ListedValue) -> Self {
        let ListedValue { key, producer, cached, tags } = listed;
        let (vector, value_base64) = match cached.value {
            CachedValue::Vector(vector) => (Some(vector.as_slice().to_vec()), None),
            CachedValue::Encoded(bytes) => (None, Some(BASE64_STANDARD.encode(bytes))),
        };
        Self {
            key: key.to_string(),
            producer_kind: producer.kind,
            producer: producer.name.to_string(),
            parameters: producer.parameters,
            vector,
            value_base64,
            compute_time_us: u64::try_from(cached.compute_time.as_micros()).unwrap_or(u64::MAX),
            stored_ms: cached.stored.0,
            expires_ms: cached.expires.map(|time| time.0),
            tags: tags.iter().map(ToString::to_string).collect(),
        }
    }
}

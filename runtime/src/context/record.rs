//! What a context is bound to, kept beside its documents as an index record.

use larder_actors::Result;
use larder_protocol::documents::{GetIndexRecord, ListIndexRecords, PutIndexRecord};
use larder_protocol::limits::PAGE_ROWS_MAX;
use larder_protocol::vectors::{Metric, OpenCollection};
use larder_protocol::{CollectionName, ContextName, Error as Kind, IndexId, JsonText};
use serde::{Deserialize, Serialize};

use crate::larder::Larder;

/// The type of the record.
const KIND: &str = "larder.context";
/// What its id begins with.
const PREFIX: &str = "larder.context/";
/// The model of a context that has no vectors.
const NO_MODEL: &str = "none";

/// What a context is bound to. It is part of the file format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The vectors' collection.
    pub(super) collection: CollectionName,
    /// Components of each vector; 0 where there are none.
    pub(super) dimensions: usize,
    /// How vectors are compared.
    pub(super) metric: Metric,
    /// The embedding model.
    pub(super) model: String,
    /// Whether facts were ever extracted, so that a graph may know of its passages.
    pub(super) has_facts: bool,
}

impl Record {
    pub(super) async fn load(larder: &Larder, name: &ContextName) -> Result<Option<Self>> {
        let Some(record) = larder.ask(GetIndexRecord { id: id(name)? }).await? else { return Ok(None) };
        let read = serde_json::from_str(record.content.as_str());
        read.map(Some).map_err(|error| unreadable(name, &error).into())
    }

    pub(super) async fn store(&self, larder: &Larder, name: &ContextName) -> Result<()> {
        let content = JsonText::new(serde_json::to_string(self).map_err(|error| unreadable(name, &error))?)?;
        larder.ask(PutIndexRecord { id: id(name)?, kind: KIND.to_owned(), content }).await.map(drop)
    }

    /// Returns the binding of a context that has no vectors.
    pub(super) fn without_vectors(collection: CollectionName) -> Self {
        Self { collection, dimensions: 0, metric: Metric::default(), model: NO_MODEL.to_owned(), has_facts: false }
    }

    pub(super) fn has_vectors(&self) -> bool {
        self.dimensions > 0
    }

    /// Makes the vectors' collection, or checks that the one that is there is like this.
    pub(super) async fn open_collection(&self, larder: &Larder) -> Result<()> {
        if !self.has_vectors() {
            return Ok(());
        }
        let Self { collection, dimensions, metric, .. } = self.clone();
        larder.ask(OpenCollection { collection, dimensions, metric }).await.map(drop)
    }

    /// Refuses to serve under another binding than before.
    pub(super) fn require(&self, name: &ContextName, wanted: &Self) -> Result<(), Kind> {
        let shown = |record: &Self| {
            let Self { collection, dimensions, metric, model, .. } = record;
            format!("{model:?} with {dimensions} dimensions by {} in {collection:?}", metric.as_str())
        };
        if (Self { has_facts: self.has_facts, ..wanted.clone() }) == *self {
            return Ok(());
        }
        let what = format!("embeddings of the context {:?}", name.as_str());
        Err(Kind::Conflict { what, expected: shown(wanted), found: shown(self) })
    }
}

/// Lists every context of a larder, in the order of their names.
pub(crate) async fn names(larder: &Larder) -> Result<Vec<ContextName>> {
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = larder.ask(ListIndexRecords { after: after.take(), limit: PAGE_ROWS_MAX }).await?;
        let Some(last) = page.last() else { return Ok(names) };
        after = Some(last.id.clone());
        let named = page.iter().filter(|record| record.kind == KIND);
        names.extend(named.filter_map(|record| ContextName::new(record.id.as_str().strip_prefix(PREFIX)?).ok()));
    }
}

fn id(name: &ContextName) -> Result<IndexId, Kind> {
    IndexId::new(format!("{PREFIX}{name}"))
}

fn unreadable(name: &ContextName, error: &serde_json::Error) -> Kind {
    Kind::invalid(format!("record of the context {:?}", name.as_str()), error.to_string())
}

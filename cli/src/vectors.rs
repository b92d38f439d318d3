//! `larder vectors`: collections of vectors.
//!
//! Start at [`Command`]; [`CollectionRow`] and [`PointRow`] are what is printed and exported.

use clap::{Args, Subcommand};
use futures::{Stream, TryStreamExt};
use larder::protocol::vectors::{CollectionInfo, Hit, ListCollections, ListPoints, PointFields};
use larder::protocol::{CollectionName, PointId, StoreName};
use larder::{Larder, Metric};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::arguments::Page;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::json;
use crate::list::{self, PAGE_ROWS, Row};
use crate::output::Output;
use crate::table::Column;
use crate::text;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the collections, or the points of one
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Of which the points are listed; without it the collections are
    collection: Option<String>,
    #[command(flatten)]
    page: Page,
}

pub(crate) async fn run(Command::List(list): Command, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let Some(larder) = folder.open_store(StoreName::Vectors).await? else {
        return match list.collection {
            Some(name) => Err(Failure::not_found(format!("vector collection {name:?} is not there"))
                .with_hint("see `larder vectors list`")),
            None => Ok(()),
        };
    };
    let listed = print(list, &larder, output).await;
    larder.close().await;
    listed
}

async fn print(list: List, larder: &Larder, output: &mut Output) -> Result<(), Failure> {
    let List { collection, page } = list;
    let Some(collection) = collection else {
        let after = page.after.map(CollectionName::new).transpose()?;
        return list::print(output, page.limit, collections(larder, after)).await;
    };
    let (collection, after) = (CollectionName::new(collection)?, page.after.map(PointId::new).transpose()?);
    // The numbers of a vector say nothing to people; `export` has them.
    let fields = PointFields { vector: false, ..PointFields::ALL };
    list::print(output, page.limit, points(larder, collection, fields, after)).await
}

/// Returns every collection behind one, in the order of their names.
pub(crate) fn collections(
    larder: &Larder,
    after: Option<CollectionName>,
) -> impl Stream<Item = Result<CollectionRow, Failure>> {
    let collections = list::pages(after, move |after| {
        let larder = larder.clone();
        async move {
            let page = larder.ask(ListCollections { after, limit: PAGE_ROWS }).await?;
            let next = page.last().map(|last| last.name.clone());
            Ok((page, next))
        }
    });
    collections.map_ok(CollectionRow::from)
}

/// Returns every point of a collection behind one, in the order of their ids.
pub(crate) fn points(
    larder: &Larder,
    collection: CollectionName,
    fields: PointFields,
    after: Option<PointId>,
) -> impl Stream<Item = Result<PointRow, Failure>> {
    let name = collection.to_string();
    let points = list::pages(after, move |after| {
        let (larder, collection) = (larder.clone(), collection.clone());
        let list = ListPoints { collection, filter: None, document: None, fields, after, limit: PAGE_ROWS };
        async move { larder.ask(list).await.map(|page| (page.points, page.next)) }
    });
    points.map_ok(move |point| PointRow::of(&name, point))
}

/// A collection as it is printed and exported.
#[derive(Debug, Serialize)]
pub(crate) struct CollectionRow {
    pub(crate) name: String,
    dimensions: usize,
    metric: Metric,
    pub(crate) point_count: u64,
}

impl From<CollectionInfo> for CollectionRow {
    fn from(info: CollectionInfo) -> Self {
        let CollectionInfo { name, dimensions, metric, point_count } = info;
        Self { name: name.to_string(), dimensions, metric, point_count }
    }
}

impl Row for CollectionRow {
    const COLUMNS: &'static [Column] =
        &[Column::text("COLLECTION"), Column::number("POINTS"), Column::number("DIMENSIONS"), Column::text("METRIC")];

    fn cells(&self) -> Vec<String> {
        let Self { name, dimensions, metric, point_count } = self;
        vec![name.clone(), point_count.to_string(), dimensions.to_string(), metric.as_str().to_owned()]
    }

    fn cursor(&self) -> String {
        self.name.clone()
    }
}

/// A point as it is printed and exported.
#[derive(Debug, Serialize)]
pub(crate) struct PointRow {
    collection: String,
    id: String,
    document: Option<String>,
    metadata: Option<Box<RawValue>>,
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
}

impl PointRow {
    fn of(collection: &str, point: Hit) -> Self {
        Self {
            collection: collection.to_owned(),
            id: point.id.to_string(),
            document: point.document.map(|id| id.to_string()),
            metadata: json::stored(point.metadata.as_ref()),
            text: point.text,
            vector: point.vector.map(|vector| vector.as_slice().to_vec()),
        }
    }
}

impl Row for PointRow {
    const COLUMNS: &'static [Column] =
        &[Column::text("POINT"), Column::text("DOCUMENT"), Column::text("METADATA"), Column::text("TEXT")];

    fn cells(&self) -> Vec<String> {
        let metadata = self.metadata.as_ref().map_or("", |json| json.get());
        let text = self.text.as_deref().unwrap_or_default();
        let document = self.document.clone().unwrap_or_default();
        vec![self.id.clone(), document, text::preview(metadata, 40), text::preview(text, 60)]
    }

    fn cursor(&self) -> String {
        self.id.clone()
    }
}

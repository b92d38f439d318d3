//! No reader ever sees a point whose document is gone.

use std::sync::atomic::AtomicBool;

use larder::protocol::vectors::PointFields;

use super::*;
use crate::support::{number_from_environment, within};

/// Looks on: which documents are gone, and only then which points there are. Answers points of documents that are gone.
async fn look_on(larder: Larder, ids: Vec<String>, is_over: Arc<AtomicBool>) -> (u64, Vec<String>) {
    let points = larder.vectors().collection("notes").open().await.unwrap();
    let (mut looks, mut seen) = (0, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let mut gone = BTreeSet::new();
        for id in &ids {
            if larder.documents().document(id).await.unwrap().is_none() {
                gone.insert(id.as_str());
            }
        }
        let page =
            points.search(vector_of("anything")).k(1_000).fields(PointFields { document: true, ..PointFields::NONE });
        for hit in page.await.unwrap() {
            let document = hit.document.unwrap();
            if gone.contains(document.as_str()) {
                seen.push(format!("the point {} of {document}", hit.id));
            }
        }
        looks += 1;
    }
    (looks, seen)
}

/// How documents are forgotten.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    AsContextsDo,
    /// The control: the document first, as one would without thinking.
    DocumentFirst,
}

async fn forget_under_readers(order: Order) -> Vec<String> {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let ids: Vec<String> = (0..number_from_environment("LARDER_FORGETS", 60)).map(|n| format!("d{n:03}")).collect();
    let transform = |source: &Document| Ok::<_, larder::Error>(version(source.id.as_str(), 3));
    context.ingest(ids.iter().map(|id| document(id, 3))).run(transform).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> =
        (0..2).map(|_| tokio::spawn(look_on(larder.clone(), ids.clone(), Arc::clone(&is_over)))).collect();
    let points = larder.vectors().collection("notes").open().await.unwrap();
    for id in &ids {
        match order {
            Order::AsContextsDo => drop(within(context.forget(id)).await.unwrap()),
            Order::DocumentFirst => {
                larder.documents().delete_document(id).await.unwrap();
                points.delete_by_document(id).await.unwrap();
            }
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let (mut looks, mut seen) = (0, Vec::new());
    for reader in readers {
        let (count, found) = within(reader).await.unwrap();
        looks += count;
        seen.extend(found);
    }
    assert!(looks > 2, "{looks} looks");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn no_point_is_seen_whose_document_is_gone() {
    assert_eq!(forget_under_readers(Order::AsContextsDo).await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_control_sees_points_of_documents_that_went_first() {
    // Whether a reader looks in between is chance.
    for _ in 0..20 {
        if !forget_under_readers(Order::DocumentFirst).await.is_empty() {
            return;
        }
    }
    panic!("points of documents that are gone were never seen");
}

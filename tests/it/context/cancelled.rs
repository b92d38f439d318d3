//! Callers who go away leave a document as it was or as it is to be.

use std::time::Duration;

use super::*;
use crate::support::{number_from_environment, within};
use crate::torture::Random;

/// Drops what is begun after a random time.
async fn cut_off<T>(random: &mut Random, work: impl IntoFuture<Output = T>) -> Option<T> {
    let time = Duration::from_micros(random.below(6_000));
    tokio::time::timeout(time, work.into_future()).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_calls_leave_each_document_whole() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let mut random = Random::of(7, 7);
    let (mut cut, mut before) = (0, None);
    let rounds = number_from_environment("LARDER_CANCELS", 60);
    for n in 1..=rounds {
        let (is_forget, after) = match n % 4 {
            0 => (true, None),
            _ => (false, Some(n)),
        };
        let is_cut = if is_forget {
            cut_off(&mut random, context.forget("d")).await.is_none()
        } else {
            cut_off(&mut random, context.put(document("d", n), version("d", n))).await.is_none()
        };
        cut += u64::from(is_cut);
        within(context.settle()).await;
        let seen = stored(&larder).await;
        let nodes = |version_of: Option<u64>| version_of.map_or_else(Vec::new, |n| version("d", n));
        let is_as = |version_of| disagreement(&seen, "d", &nodes(version_of)).is_none();
        let wrong = [before, after].map(|version_of| disagreement(&seen, "d", &nodes(version_of)));
        let open = context.check().await.unwrap();
        assert!(is_as(after) || (is_cut && is_as(before)), "round {n}, cut off: {is_cut}, {open:?}: {wrong:?}");
        assert_eq!(context.check().await.unwrap(), []);
        before = if is_as(after) { after } else { before };
    }
    println!("{cut} of {rounds} calls were cut off");
    assert!(cut > rounds / 10, "{cut} of {rounds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ingestion_that_is_cut_off_goes_on_where_it_was() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let mut random = Random::of(8, 8);
    let ids: Vec<String> = (0..200).map(|n| format!("d{n:03}")).collect();
    let sources = || ids.iter().map(|id| document(id, 2));
    let transform = |source: &Document| Ok::<_, larder::Error>(version(source.id.as_str(), 2));
    for _ in 0..20 {
        let ingestion = context.ingest(sources()).concurrency(2).run(transform);
        let time = Duration::from_micros(random.below(40_000));
        let _ = tokio::time::timeout(time, ingestion).await;
    }
    let report = within(context.ingest(sources()).run(transform)).await.unwrap();
    assert_eq!(report.inserted + report.updated + report.unchanged, 200);
    let corpus: Corpus = ids.iter().map(|id| (id.clone(), version(id, 2))).collect();
    assert_none(&disagreements(&context, &corpus).await);
}

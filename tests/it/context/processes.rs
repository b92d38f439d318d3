//! Several real processes on one context.

use std::path::Path;
use std::time::Duration;

use larder::{Class, Failpoint, FailpointAction, protocol::StoreName};

use super::*;
use crate::support::child::{Child, hear, tell};
use crate::support::{assert_refused, within};

fn on_a_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work);
}

const DOCUMENTS: usize = 120;

fn ids() -> Vec<String> {
    (0..DOCUMENTS).map(|n| format!("d{n:03}")).collect()
}

/// A child that ingests the same documents as others, in an order of its own, when it is told to.
pub(crate) fn ingest_when_told(mut arguments: impl Iterator<Item = String>) {
    let (folder, is_backwards) = (arguments.next().unwrap(), arguments.next().unwrap() == "backwards");
    on_a_runtime(async {
        let larder = Larder::open(Path::new(&folder)).await.unwrap();
        let embedder = Testing::default();
        let context = larder.context("notes").embedder(embedder.clone()).extractor(Uses).open().await.unwrap();
        tell("READY");
        hear();
        for n in 1..=3 {
            let mut sources: Vec<Document> = ids().iter().map(|id| document(id, n)).collect();
            if is_backwards {
                sources.reverse();
            }
            let transform = |source: &Document| Ok::<_, larder::Error>(version(source.id.as_str(), n));
            let report = context.ingest(sources).run(transform).await.unwrap();
            assert_eq!(report.failed, []);
            tell("ROUND");
            // Both have ingested this version before either goes on to the next.
            hear();
        }
        tell(&format!("EMBEDDED {}", embedder.count()));
        larder.close().await;
        tell("DONE");
    });
}

#[tokio::test]
async fn two_processes_that_ingest_the_same_folder_agree() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut children = ["forwards", "backwards"].map(|order| Child::spawn("co-ingester", [path, order]));
    for child in &children {
        child.wait_for("READY");
    }
    for _ in 0..3 {
        for child in &mut children {
            child.say("go");
        }
        for child in &children {
            child.wait_for("ROUND");
        }
    }
    children.iter_mut().for_each(|child| child.say("go"));
    let embedded: Vec<u64> = children.iter().map(|child| child.wait_for("EMBEDDED").parse().unwrap()).collect();
    children.iter().for_each(|child| drop(child.wait_for("DONE")));
    let larder = Larder::open(folder.path()).await.unwrap();
    let context = open(&larder).await;
    let corpus: Corpus = ids().iter().map(|id| (id.clone(), version(id, 3))).collect();
    assert_none(&disagreements(&context, &corpus).await);
    // The cache sees to it that a text is embedded once by both together.
    let texts: BTreeSet<String> = (1..=3)
        .flat_map(|n| ids().into_iter().flat_map(move |id| version(&id, n)))
        .map(|node| node.content.text().unwrap().to_owned())
        .collect();
    assert_eq!(embedded.iter().sum::<u64>(), texts.len() as u64, "{embedded:?}");
    larder.close().await;
}

/// A child whose vectors store fails, so that it lives on with an intent that it cannot finish.
pub(crate) fn hold_an_intent(mut arguments: impl Iterator<Item = String>) {
    let folder = arguments.next().unwrap();
    on_a_runtime(async {
        let larder = Larder::open(Path::new(&folder)).await.unwrap();
        let context = open(&larder).await;
        context.put(document("d", 2), version("d", 2)).await.unwrap();
        larder.set_failpoint(StoreName::Vectors, Failpoint::Commit, FailpointAction::Fail, 1_000_000);
        context.put(document("d", 3), version("d", 3)).await.unwrap_err();
        tell("HELD");
        hear();
    });
}

#[tokio::test]
async fn intent_of_a_process_that_lives_is_waited_for_and_that_of_a_dead_one_finished() {
    let folder = tempfile::tempdir().unwrap();
    let child = Child::spawn("intent-holder", [folder.path().to_str().unwrap()]);
    child.wait_for("HELD");
    let larder = Larder::open(folder.path()).await.unwrap();
    let builder = || larder.context("notes").embedder(Testing::default()).extractor(Uses);
    let context = builder().wait_max(Duration::from_millis(100)).open().await.unwrap();
    assert_refused(context.put(document("d", 4), version("d", 4)).await, Class::Deadline, &["same document"]);
    assert_refused(context.forget("d").await, Class::Deadline, &["same document"]);
    context.put(document("e", 1), version("e", 1)).await.unwrap();
    assert_eq!(context.recover().await.unwrap(), 0);
    assert_eq!(context.check().await.unwrap(), [], "what somebody is at work on is no finding");
    child.kill();
    // One call waits no longer, and does first what was begun.
    within(context.put(document("d", 5), version("d", 5))).await.unwrap();
    let corpus: Corpus = [("d", 5), ("e", 1)].map(|(id, n)| (id.to_owned(), version(id, n))).into();
    assert_none(&disagreements(&context, &corpus).await);
    larder.close().await;
}

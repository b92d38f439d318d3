//! What each operation does, and what survives a reopening.

use larder::protocol::documents::{IngestionState, UpsertOutcome};
use larder::{ChatMessage, Class, Error, IngestOutcome, Reason, Written, field};

use super::*;
use crate::support::{assert_refused, within};

#[tokio::test]
async fn ingest_puts_a_document_into_every_store_and_again_costs_nothing() {
    let larder = Larder::temporary().await.unwrap();
    let embedder = Testing::default();
    let context = larder.context("notes").embedder(embedder.clone()).extractor(Uses).open().await.unwrap();
    let sources = || (0..30).map(|n| document(&format!("d{n:02}"), 3));
    let mut told = Vec::new();
    let report = context.ingest(sources()).on_progress(|progress| {
        told.push((progress.document.to_string(), progress.outcome.clone(), progress.documents_done));
    });
    let report = report.run(|source| Ok::<_, Error>(version(source.id.as_str(), 3))).await.unwrap();
    assert_eq!((report.inserted, report.updated, report.unchanged, report.nodes.inserted), (30, 0, 0, 150));
    assert!(told.iter().all(|(_, outcome, _)| *outcome == IngestOutcome::Inserted));
    assert_eq!(told.iter().map(|(.., done)| *done).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    let corpus: Corpus = (0..30).map(|n| format!("d{n:02}")).map(|id| (id.clone(), version(&id, 3))).collect();
    assert_none(&disagreements(&context, &corpus).await);
    assert_eq!(embedder.count(), 150);

    let sequences = (larder.vectors().sequence().await.unwrap(), larder.graph().sequence().await.unwrap());
    let documents = larder.documents().sequence().await.unwrap();
    let again = context.ingest(sources()).run(|_| Err::<Vec<Node>, _>("nobody asks for nodes"));
    assert_eq!(again.await.unwrap().unchanged, 30);
    assert_eq!(sequences, (larder.vectors().sequence().await.unwrap(), larder.graph().sequence().await.unwrap()));
    assert_eq!(documents, larder.documents().sequence().await.unwrap(), "nothing was written");
    assert_eq!(embedder.count(), 150);
}

/// A server spawns what it does: the futures are `Send`.
#[tokio::test(flavor = "multi_thread")]
async fn every_call_can_be_spawned() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let all = async move {
        let ingestion = context.ingest(["a", "b"].map(|id| document(id, 1)));
        ingestion.run(|source| Ok::<_, Error>(version(source.id.as_str(), 1))).await.unwrap();
        context.put(document("c", 1), version("c", 1)).await.unwrap();
        context.forget("a").await.unwrap();
        context.retrieve("b").await.unwrap();
        context.repair().await.unwrap()
    };
    assert_eq!(within(tokio::spawn(all)).await.unwrap(), []);
}

#[tokio::test]
async fn changed_document_is_replaced_and_only_what_changed_is_embedded() {
    let larder = Larder::temporary().await.unwrap();
    let embedder = Testing::default();
    let context = larder.context("notes").embedder(embedder.clone()).extractor(Uses).uncached().open().await.unwrap();
    for (n, embedded) in [(2, 4), (3, 4 + 2), (7, 6 + 4), (4, 10 + 1), (4, 11)] {
        let outcome = within(context.put(document("a/b", n), version("a/b", n))).await.unwrap();
        let corpus = Corpus::from([("a/b".to_owned(), version("a/b", n))]);
        assert_none(&disagreements(&context, &corpus).await);
        assert_eq!(embedder.count(), embedded, "version {n}");
        let is_new = outcome.outcome == UpsertOutcome::Inserted;
        assert_eq!(is_new, n == 2, "{outcome:?}");
    }
}

#[tokio::test]
async fn metadata_of_a_node_that_changes_alone_reaches_its_point() {
    let larder = Larder::temporary().await.unwrap();
    let embedder = Testing::default();
    let context = larder.context("notes").embedder(embedder.clone()).open().await.unwrap();
    for (n, lang) in ["en", "de"].into_iter().enumerate() {
        let node = Node::text("n", "text").unwrap().with_metadata(json(&format!(r#"{{"lang": "{lang}"}}"#)));
        context.put(document("d", n as u64), [node]).await.unwrap();
        let found = context.retrieve("text").without_words().filter(field("lang").eq(lang)).await.unwrap();
        assert_eq!(found.passages.len(), 1, "{lang}");
    }
    // The passage once, from the cache then, and the question once.
    assert_eq!(embedder.count(), 2);
}

#[tokio::test]
async fn forget_removes_a_document_everywhere_and_says_what_went() {
    let larder = Larder::temporary().await.unwrap();
    let embedder = Testing::default();
    let context = larder.context("notes").embedder(embedder.clone()).extractor(Uses).open().await.unwrap();
    context.put(document("a", 2), version("a", 2)).await.unwrap();
    let same = pieces("b", ["a always uses itself", "b stays"]);
    context.put(document("b", 1), same.clone()).await.unwrap();
    let receipt = within(context.forget("a")).await.unwrap();
    assert_eq!((receipt.documents, receipt.nodes, receipt.points), (1, 4, 4));
    // "always uses itself" is said by the other document, too.
    assert_eq!((receipt.facts, receipt.facts_kept), (1, 1));
    assert_eq!(receipt.embeddings, 4);
    let corpus = Corpus::from([("b".to_owned(), same)]);
    assert_none(&disagreements(&context, &corpus).await);
    assert_eq!(larder.graph().get("version2").await.unwrap(), None, "an entity that nothing else speaks of goes");
    assert!(larder.graph().get("itself").await.unwrap().is_some());
    let nothing = context.forget("a").await.unwrap();
    assert_eq!((nothing.documents, nothing.nodes, nothing.points, nothing.facts), (0, 0, 0, 0));
    // What was forgotten is embedded again, and not found in the cache.
    let embedded = embedder.count();
    context.put(document("a", 2), version("a", 2)).await.unwrap();
    assert_eq!(embedder.count(), embedded + 4);
}

#[tokio::test]
async fn embeddings_of_what_a_document_held_before_are_forgotten_with_it() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    context.put(document("d", 1), pieces("d", ["first secret"])).await.unwrap();
    context.put(document("d", 2), pieces("d", ["something else"])).await.unwrap();
    assert!(larder.embed_cache().contains("testing", "first secret").await.unwrap());
    assert_eq!(context.forget("d").await.unwrap().embeddings, 2);
    assert!(!larder.embed_cache().contains("testing", "first secret").await.unwrap());
}

#[tokio::test]
async fn session_and_owner_are_forgotten_with_their_documents_and_conversations() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let ingest = async |id: &str, owner: &str, session: &str| {
        let session = larder::protocol::SessionId::new(session).unwrap();
        let ingestion = context.ingest([document(id, 1)]).owner(owner).session(session.clone());
        ingestion.run(|source| Ok::<_, Error>(version(source.id.as_str(), 1))).await.unwrap();
        let chat = larder.chat().session(&session);
        chat.append([ChatMessage::user(format!("about {id}"))]).await.unwrap();
        chat.describe().owner(owner).await.unwrap();
    };
    for (id, owner, session) in [("a1", "ann", "s1"), ("a2", "ann", "s2"), ("b1", "bob", "s3"), ("b2", "bob", "s3")] {
        ingest(id, owner, session).await;
    }
    context.put(document("c", 1), version("c", 1)).await.unwrap();
    let receipt = within(context.forget_session("s2")).await.unwrap();
    assert_eq!((receipt.documents, receipt.sessions), (1, 1));
    let receipt = within(context.forget_owner("bob")).await.unwrap();
    assert_eq!((receipt.documents, receipt.sessions, receipt.points), (2, 1, 6));
    let corpus: Corpus = ["a1", "c"].map(|id| (id.to_owned(), version(id, 1))).into();
    assert_none(&disagreements(&context, &corpus).await);
    let left: Vec<String> = larder.chat().sessions().await.unwrap().sessions.iter().map(|s| s.id.to_string()).collect();
    assert_eq!(left, ["s1"]);
    assert_refused(context.forget_owner("").await, Class::InvalidInput, &["owner"]);
    assert_refused(context.forget_owner("x".repeat(10_000)).await, Class::InvalidInput, &["owner"]);
}

#[tokio::test]
async fn document_that_gets_another_owner_is_ingested_again() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    for owner in ["ann", "bob"] {
        let ingestion = context.ingest([document("d", 1)]).owner(owner);
        let report = ingestion.run(|_| Ok::<_, Error>(version("d", 1))).await.unwrap();
        assert_eq!(report.unchanged, 0);
    }
    assert_eq!(context.forget_owner("ann").await.unwrap().documents, 0);
    assert_eq!(context.forget_owner("bob").await.unwrap().documents, 1);
}

#[tokio::test]
async fn documents_that_are_no_source_any_more_are_forgotten_where_that_is_wanted() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let ingest = async |ids: &[&str], below: Option<&str>| {
        let ingestion = context.ingest(ids.iter().map(|id| document(id, 1)));
        let ingestion = match below {
            Some(prefix) => ingestion.forget_missing(prefix),
            None => ingestion,
        };
        ingestion.run(|source| Ok::<_, Error>(version(source.id.as_str(), 1))).await.unwrap().forgotten.documents
    };
    assert_eq!(ingest(&["x/1", "x/2", "x/3", "y/1"], None).await, 0);
    assert_eq!(ingest(&["x/2"], Some("x/")).await, 2);
    let corpus: Corpus = ["x/2", "y/1"].map(|id| (id.to_owned(), version(id, 1))).into();
    assert_none(&disagreements(&context, &corpus).await);
    assert_eq!(ingest(&[], Some("")).await, 2);
    assert_none(&disagreements(&context, &Corpus::new()).await);
}

#[tokio::test]
async fn source_that_stands_twice_is_ingested_in_the_order_it_comes() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let sources = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2)].map(|(id, n)| document(id, n));
    let transform = |source: &Document| {
        let n = source.fingerprint.as_deref().unwrap().parse().unwrap();
        Ok::<_, Error>(version(source.id.as_str(), n))
    };
    let report = within(context.ingest(sources).run(transform)).await.unwrap();
    assert_eq!((report.inserted, report.updated), (2, 3));
    let corpus: Corpus = [("a", 3), ("b", 2)].map(|(id, n)| (id.to_owned(), version(id, n))).into();
    assert_none(&disagreements(&context, &corpus).await);
}

#[tokio::test]
async fn everything_is_there_after_a_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let context = open(&larder).await;
    context.put(document("d", 5), version("d", 5)).await.unwrap();
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(larder.contexts().await.unwrap().len(), 1);
    let context = open(&larder).await;
    assert_none(&disagreements(&context, &Corpus::from([("d".to_owned(), version("d", 5))])).await);
    let outcome = context.put(document("d", 5), version("d", 5)).await.unwrap();
    assert_eq!(outcome.outcome, UpsertOutcome::Unchanged);
    larder.close().await;
}

#[tokio::test]
async fn context_is_bound_to_its_model_and_its_dimensions() {
    struct Other;
    impl Embedder for Other {
        fn model(&self) -> &'static str {
            "other"
        }
        fn dimensions(&self) -> usize {
            DIMENSIONS
        }
        async fn embed(&self, _: &[&str]) -> Result<Vec<Vec<f32>>, BoxError> {
            Err("never asked".into())
        }
    }
    let larder = Larder::temporary().await.unwrap();
    assert_refused(larder.context("notes").open().await, Class::NotFound, &["notes"]);
    open(&larder).await.put(document("d", 1), version("d", 1)).await.unwrap();
    let other = larder.context("notes").embedder(Other).open().await;
    assert_refused(other, Class::Conflict, &["testing", "other"]);
    assert_refused(larder.context("").embedder(Other).open().await, Class::InvalidInput, &["context name"]);
    // Without a model there are words and facts, and nothing can be put.
    let reader = larder.context("notes").open().await.unwrap();
    let found = reader.retrieve("what uses version1?").await.unwrap();
    assert_eq!(found.passages[0].node.id.as_str(), "d#0");
    assert_refused(reader.put(document("e", 1), version("e", 1)).await, Class::Refused, &["without an embedder"]);
    assert_eq!(reader.forget("d").await.unwrap().points, 3);
}

#[tokio::test]
async fn contexts_of_one_folder_do_not_see_each_other() {
    let larder = Larder::temporary().await.unwrap();
    let notes = open(&larder).await;
    let mail = larder.context("mail").embedder(Testing::default()).open().await.unwrap();
    notes.put(document("a", 1), pieces("a", ["common words of notes"])).await.unwrap();
    mail.put(document("b", 1), pieces("b", ["common words of mail"])).await.unwrap();
    assert_eq!(retrieved(&notes, "common words").await, ["a#0"]);
    assert_eq!(retrieved(&mail, "common words").await, ["b#0"]);
    let taken = notes.put(document("b", 2), pieces("b", ["other"])).await;
    assert_refused(taken, Class::Conflict, &["\"b\"", "mail"]);
    let report = notes.ingest([document("b", 2)]).run(|_| Ok::<_, Error>(pieces("b", ["other"]))).await.unwrap();
    assert_eq!(report.failed.len(), 1);
    let state = larder.documents().document("b").await.unwrap().unwrap().state;
    assert_eq!(state, IngestionState::Done, "the other context's document is as it was");
    assert_refused(notes.forget("b").await, Class::Conflict, &["mail"]);
    assert_eq!(notes.check().await.unwrap(), []);
    assert_eq!(mail.check().await.unwrap(), []);
    assert_eq!(retrieved(&mail, "common words").await, ["b#0"]);
}

#[tokio::test]
async fn retrieval_fuses_three_ways_and_says_why() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let texts = ["Larder uses SQLite", "nothing of the kind", "a shelf for jam", "SQLite is a library"];
    context.put(document("d", 1), pieces("d", texts)).await.unwrap();
    let found = context.retrieve("does larder use jam?").vector(vector_of(texts[1])).k(4).await.unwrap();
    let reasons: BTreeMap<&str, &[Reason]> =
        found.passages.iter().map(|passage| (passage.node.id.as_str(), passage.reasons.as_slice())).collect();
    assert_eq!(reasons.len(), 4);
    assert!(matches!(reasons["d#1"], [Reason::Vector { rank: 1, score }] if *score > 0.999), "{reasons:?}");
    let by_words = |id: &str| reasons[id].iter().any(|reason| matches!(reason, Reason::Words { .. }));
    assert!(by_words("d#0") && by_words("d#2") && !by_words("d#3"), "{reasons:?}");
    let fact = reasons["d#0"].iter().find_map(|reason| match reason {
        Reason::Fact { rank: 1, fact, .. } => Some(fact),
        _ => None,
    });
    assert_eq!(fact, Some(&("Larder".to_owned(), "uses".to_owned(), "SQLite".to_owned())));
    assert_eq!(found.passages[0].node.id.as_str(), "d#0", "what all ways find comes first");
    let scores: Vec<f64> = found.passages.iter().map(|passage| passage.score).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert_eq!(context.retrieve("does larder use jam?").k(0).await.unwrap().passages, []);
    assert_eq!(context.retrieve("").await.unwrap().passages, []);
    let words = context.retrieve("jam").without_vectors().without_facts().await.unwrap();
    assert_eq!(words.passages.len(), 1);
}

#[tokio::test]
async fn filter_holds_for_every_way() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let texts = ["larder uses jam", "larder uses honey", "larder uses bread"];
    let nodes = pieces("d", texts).into_iter().enumerate();
    let nodes: Vec<Node> = nodes.map(|(n, node)| node.with_metadata(json(&format!(r#"{{"n": {n}}}"#)))).collect();
    context.put(document("d", 1), nodes).await.unwrap();
    for (change, what) in [
        (larder::Retrieve::without_words as fn(larder::Retrieve) -> larder::Retrieve, "words"),
        (larder::Retrieve::without_vectors, "vectors"),
        (|retrieve| retrieve.without_vectors().without_words(), "both"),
    ] {
        let found = change(context.retrieve("larder uses what")).filter(field("n").gte(1)).await.unwrap();
        let mut ids: Vec<String> = found.passages.iter().map(|passage| passage.node.id.to_string()).collect();
        ids.sort();
        assert_eq!(ids, ["d#1", "d#2"], "without {what}");
    }
}

#[tokio::test]
async fn budget_of_tokens_takes_the_best_that_fit() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let long = "jam ".repeat(200);
    context.put(document("d", 1), pieces("d", [long.as_str(), "jam jar", "some jam"])).await.unwrap();
    let all = context.retrieve("jam").without_vectors().token_budget(10_000).await.unwrap();
    assert_eq!((all.passages.len(), all.left_out), (3, 0));
    let sum: u64 = all.passages.iter().map(|passage| passage.tokens.unwrap()).sum();
    assert_eq!(all.tokens, Some(sum));
    let few = context.retrieve("jam").without_vectors().token_budget(10).await.unwrap();
    assert_eq!((few.passages.len(), few.left_out), (2, 1));
    assert!(few.tokens.unwrap() <= 10);
    assert_eq!(context.retrieve("jam").token_budget(0).await.unwrap().passages.len(), 0);
}

#[tokio::test]
async fn point_whose_node_is_gone_is_passed_over_and_the_next_takes_its_place() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let texts: Vec<String> = (0..60).map(|n| format!("passage {n}")).collect();
    context.put(document("d", 1), pieces("d", &texts)).await.unwrap();
    let question = vector_of("passage 7");
    let before = context.retrieve("x").vector(question.clone()).without_words().k(60).await.unwrap();
    let ids: Vec<String> = before.passages.iter().map(|passage| passage.node.id.to_string()).collect();
    // Behind the context's back: the points of the best forty stay.
    larder.documents().delete(&ids[..40]).await.unwrap();
    let after = context.retrieve("x").vector(question).without_words().k(5).await.unwrap();
    let found: Vec<String> = after.passages.iter().map(|passage| passage.node.id.to_string()).collect();
    assert_eq!(found, ids[40..45]);
}

#[tokio::test]
async fn failed_document_is_as_it_was_and_is_tried_again() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let ingest = async |n: u64, texts: &'static [&'static str]| {
        let ingestion = context.ingest([document("d", n)]);
        ingestion.run(|_| Ok::<_, Error>(pieces("d", texts))).await.unwrap()
    };
    assert_eq!(ingest(1, &["good uses text"]).await.inserted, 1);
    let failed = ingest(2, &["another text", "FAIL"]).await.failed;
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.contains("the model says no"), "{failed:?}");
    let corpus = Corpus::from([("d".to_owned(), pieces("d", ["good uses text"]))]);
    assert_none(&disagreements(&context, &corpus).await);
    let state = larder.documents().document("d").await.unwrap().unwrap().state;
    assert!(matches!(state, IngestionState::Failed { failure_count: 1, .. }), "{state:?}");
    assert_eq!(ingest(2, &["another text", "mended"]).await.updated, 1);
    let corpus = Corpus::from([("d".to_owned(), pieces("d", ["another text", "mended"]))]);
    assert_none(&disagreements(&context, &corpus).await);
    let error = context.put(document("d", 3), pieces("d", ["FAIL"])).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Computation, Written::NotApplied));
    // Of one that was never ingested nothing but the failure is known: it is forgotten, too.
    context.put(document("never", 1), pieces("never", ["FAIL"])).await.unwrap_err();
    assert!(larder.documents().document("never").await.unwrap().is_some());
    context.forget("never").await.unwrap();
    assert!(larder.documents().document("never").await.unwrap().is_none());
}

#[tokio::test]
async fn context_without_vectors_is_found_by_words_and_facts_alone() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let builder = || larder.context("words").without_vectors().extractor(Uses);
    let context = builder().open().await.unwrap();
    let transform = |source: &Document| Ok::<_, larder::Error>(version(source.id.as_str(), 3));
    let sources = || ["a", "b"].map(|id| document(id, 3));
    assert_eq!(context.ingest(sources()).run(transform).await.unwrap().inserted, 2);
    assert_eq!(context.ingest(sources()).run(transform).await.unwrap().unchanged, 2);
    context.put(document("a", 4), version("a", 4)).await.unwrap();
    let found = context.retrieve("who uses version4?").k(1).await.unwrap().passages;
    assert_eq!(found[0].node.id.as_str(), "a#0");
    assert!(found[0].reasons.iter().all(|reason| !matches!(reason, larder::Reason::Vector { .. })), "{found:?}");
    assert_eq!(context.check().await.unwrap(), []);
    assert_eq!(within(context.repair()).await.unwrap(), []);
    assert!(!folder.path().join("vectors.db").exists(), "a store that nobody needs is not made");
    let embedded = larder.context("words").embedder(Testing::default()).open().await;
    assert_refused(embedded, Class::Conflict, &["\"none\" with 0 dimensions"]);
    let receipt = context.forget("a").await.unwrap();
    assert_eq!((receipt.documents, receipt.points), (1, 0));
    open(&larder).await;
    assert_refused(larder.context("notes").without_vectors().open().await, Class::Conflict, &["\"testing\""]);
    let both = larder.context("other").without_vectors().embedder(Testing::default()).open().await;
    assert_refused(both, Class::InvalidInput, &["embedder"]);
    larder.close().await;
}

//! What each operation does, and what is left of it after a reopen.

use futures::TryStreamExt;
use larder::protocol::documents::{IngestionState, NodeCounts, Relationships, UpsertOutcome};
use larder::protocol::{DocumentId, IndexId, MediaReference, NodeId};
use larder::{Class, Larder, Node, NodeContent, Relationship, field};

use super::{assert_sound, document, found, ids, json, node, nodes_of, pieces, texts};
use crate::support::{assert_refused, integrity_check};

fn counts(inserted: u64, updated: u64, unchanged: u64, deleted: u64) -> NodeCounts {
    NodeCounts { inserted, updated, unchanged, deleted }
}

#[tokio::test]
async fn documents_and_nodes_survive_a_reopen_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let id = |id: &str| NodeId::new(id).unwrap();
    let source = document("a").with_text("All of it.").with_fingerprint("v1").with_metadata(json(r#"{"lang": "en"}"#));
    let nodes = vec![
        node("t", "a text").with_span(0, 6).with_metadata(json(r#"{"a.b": {"\"": [1, 2.50]}}"#)).with_relationships(
            Relationships {
                previous: None,
                next: Some(id("i")),
                parent: Some(id("nowhere")),
                children: vec![id("x"), id("p")],
            },
        ),
        Node::new("i", NodeContent::Image { source: MediaReference::FileId("f".into()), caption: None }).unwrap(),
        Node::new("x", NodeContent::Index { text: "a table".into(), target: "tables/1".into() }).unwrap(),
        Node::new("p", NodeContent::Plain(json("[null, 1e2]"))).unwrap(),
        node("nul", "a\0b é"),
    ];
    let larder = Larder::open(folder.path()).await.unwrap();
    larder.documents().put(source.clone(), nodes.clone()).await.unwrap();
    larder.documents().upsert([node("alone", "stands alone")]).await.unwrap();
    larder.documents().put_index("shape", "tree", json(r#"{"root": 1}"#)).await.unwrap();
    assert!(larder.close().await.is_clean());
    assert_eq!(integrity_check(&folder.path().join("documents.db")), ["ok"]);

    let larder = Larder::open(folder.path()).await.unwrap();
    let stored = nodes_of(&larder, "a").await;
    assert_eq!(stored.iter().map(|stored| stored.node.clone()).collect::<Vec<_>>(), nodes);
    for (at, stored) in stored.iter().enumerate() {
        assert_eq!((stored.position, stored.hash), (at as u64, stored.node.hash()));
        assert_eq!(stored.document.as_ref().map(DocumentId::as_str), Some("a"));
        assert_eq!(larder.documents().get(stored.node.id.as_str()).await.unwrap().as_ref(), Some(stored));
    }
    let said = larder.documents().document("a").await.unwrap().unwrap();
    assert_eq!((said.hash, said.state, said.node_count), (Some(source.hash()), IngestionState::Done, 5));
    assert_eq!((said.fingerprint, said.metadata), (source.fingerprint, source.metadata));
    assert_eq!(larder.documents().document_text("a").await.unwrap().as_deref(), Some("All of it."));
    let alone = larder.documents().get("alone").await.unwrap().unwrap();
    assert_eq!((alone.document, alone.node), (None, node("alone", "stands alone")));
    let record = larder.documents().index("shape").await.unwrap().unwrap();
    assert_eq!((record.kind.as_str(), record.content), ("tree", json(r#"{"root": 1}"#)));
    assert_sound(&larder).await;
}

#[tokio::test]
async fn putting_tells_what_became_of_document_and_nodes() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let put = |text: &str, nodes| documents.put(document("a").with_text(text), nodes);
    let outcome = put("1", pieces("a", &["x", "y", "z"])).await.unwrap();
    assert_eq!((outcome.outcome, outcome.nodes), (UpsertOutcome::Inserted, counts(3, 0, 0, 0)));
    let outcome = put("1", pieces("a", &["x", "y", "z"])).await.unwrap();
    assert_eq!((outcome.outcome, outcome.nodes), (UpsertOutcome::Unchanged, counts(0, 0, 3, 0)));
    // The text, some nodes, and one more.
    let outcome = put("2", pieces("a", &["x", "Y", "z", "new"])).await.unwrap();
    assert_eq!((outcome.outcome, outcome.nodes), (UpsertOutcome::Updated, counts(1, 1, 2, 0)));
    assert_eq!(texts(&nodes_of(&larder, "a").await), ["x", "Y", "z", "new"]);
    // Only the text; only the order.
    assert_eq!(put("3", pieces("a", &["x", "Y", "z", "new"])).await.unwrap().nodes, counts(0, 0, 4, 0));
    let mut turned = pieces("a", &["x", "Y", "z", "new"]);
    turned.swap(0, 3);
    assert_eq!(put("3", turned).await.unwrap().nodes, counts(0, 2, 2, 0));
    assert_eq!(texts(&nodes_of(&larder, "a").await), ["new", "Y", "z", "x"]);
    assert_eq!(put("3", pieces("a", &["x"])).await.unwrap().nodes, counts(0, 1, 0, 3));
    assert_eq!(put("3", vec![]).await.unwrap().nodes, counts(0, 0, 0, 1));
    assert_eq!(documents.count().await.unwrap(), 0);
    assert_eq!(documents.document("a").await.unwrap().unwrap().node_count, 0);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn many_documents_are_put_all_or_none() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let batch = || [(document("a"), pieces("a", &["x", "y"])), (document("b"), pieces("b", &["z"]))];
    let outcomes = documents.put_many(batch()).await.unwrap();
    assert_eq!(outcomes.iter().map(|outcome| outcome.nodes.inserted).collect::<Vec<_>>(), [2, 1]);
    let again = documents.put_many(batch()).await.unwrap();
    assert!(again.iter().all(|outcome| outcome.outcome == UpsertOutcome::Unchanged));
    // The second takes a node of the first, which is already planned.
    let stolen = [(document("c"), pieces("c", &["x"])), (document("d"), vec![node("c#0", "y")])];
    assert_refused(documents.put_many(stolen).await, Class::InvalidInput, &["c#0", "twice"]);
    assert_eq!(documents.count_documents().await.unwrap(), 2);
}

#[tokio::test]
async fn updates_that_are_not_allowed_are_conflicts() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.put(document("a"), pieces("a", &["x"])).await.unwrap();
    documents.put(document("a"), pieces("a", &["x"])).without_update().await.unwrap();
    let changed = documents.put(document("a"), pieces("a", &["y"])).without_update().await;
    assert_refused(changed, Class::Conflict, &["\"a\"", "another content"]);
    let changed = documents.put(document("a").with_fingerprint("2"), pieces("a", &["x"])).without_update().await;
    assert_refused(changed, Class::Conflict, &["\"a\""]);
    documents.upsert([node("n", "x")]).await.unwrap();
    let mixed = documents.upsert([node("m", "new"), node("n", "y")]).without_update().await;
    assert_refused(mixed, Class::Conflict, &["\"n\""]);
    assert_eq!(ids(&documents.page().await.unwrap().nodes), ["a#0", "n"]);
    let same = documents.upsert([node("m", "new"), node("n", "x")]).without_update().await.unwrap();
    assert_eq!(same, [UpsertOutcome::Inserted, UpsertOutcome::Unchanged]);
}

#[tokio::test]
async fn nodes_are_upserted_one_by_one() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let into_nothing = documents.upsert([node("n", "x")]).into_document("a").await;
    assert_refused(into_nothing, Class::NotFound, &["\"a\""]);
    documents.put(document("a"), pieces("a", &["x", "y"])).await.unwrap();
    let nodes = [node("a#1", "Y"), node("a#new", "z"), node("a#0", "x")];
    let outcomes = documents.upsert(nodes).into_document("a").await.unwrap();
    assert_eq!(outcomes, [UpsertOutcome::Updated, UpsertOutcome::Inserted, UpsertOutcome::Unchanged]);
    assert_eq!(texts(&nodes_of(&larder, "a").await), ["x", "Y", "z"]);
    assert_eq!(found(&larder, "y").await, ["a#1"]);
    assert_eq!(documents.document("a").await.unwrap().unwrap().node_count, 3);
    assert_eq!(documents.count().of_document("a").await.unwrap(), 3);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn nodes_move_between_documents_by_name_only() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.put(document("a"), pieces("a", &["one", "two", "three"])).await.unwrap();
    documents.put(document("b"), pieces("b", &["four"])).await.unwrap();
    // An id is never taken away from a document by the way.
    for taken in [
        documents.put(document("b"), vec![node("a#1", "two")]).await.map(drop),
        documents.upsert([node("a#1", "two")]).into_document("b").await.map(drop),
        documents.upsert([node("a#1", "two")]).await.map(drop),
    ] {
        assert_refused(taken, Class::Conflict, &["a#1", "in document \"a\""]);
    }
    let b = DocumentId::new("b").unwrap();
    assert_eq!(documents.move_nodes(["a#1", "b#0", "nowhere", "a#1"], Some(&b)).await.unwrap(), 1);
    assert_eq!(texts(&nodes_of(&larder, "a").await), ["one", "three"]);
    assert_eq!(texts(&nodes_of(&larder, "b").await), ["four", "two"]);
    assert_eq!(documents.move_nodes(["a#0"], None).await.unwrap(), 1);
    assert_eq!(ids(&documents.nodes_alone().await.unwrap().nodes), ["a#0"]);
    for (id, count) in [("a", 1), ("b", 2)] {
        assert_eq!(documents.document(id).await.unwrap().unwrap().node_count, count);
    }
    documents.delete_document("a").await.unwrap();
    assert_eq!(found(&larder, "one").await, ["a#0"]);
    assert_refused(documents.move_nodes(["a#0"], Some(&"gone".try_into().unwrap())).await, Class::NotFound, &["gone"]);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn deleting_a_document_deletes_its_nodes_everywhere() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.put(document("a").with_text("kept"), pieces("a", &["alpha", "beta"])).await.unwrap();
    documents.put(document("b"), pieces("b", &["alpha"])).await.unwrap();
    assert!(documents.delete_document("a").await.unwrap());
    assert!(!documents.delete_document("a").await.unwrap());
    assert_eq!(documents.document("a").await.unwrap(), None);
    assert_eq!(documents.document_text("a").await.unwrap(), None);
    assert_eq!(
        documents.get_many(["a#0", "b#0"]).await.unwrap().iter().map(Option::is_some).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(found(&larder, "alpha").await, ["b#0"]);
    assert_eq!(ids(&documents.page().await.unwrap().nodes), ["b#0"]);
    assert_eq!(documents.nodes_by_hash(node("x", "alpha").hash(), None, 10).await.unwrap().len(), 1);
    assert_eq!(documents.delete(["b#0", "b#0", "nothing"]).await.unwrap(), 1);
    assert_eq!(documents.document("b").await.unwrap().unwrap().node_count, 0);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn many_nodes_are_read_in_the_order_asked_for() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.put(document("a"), pieces("a", &["x", "y", "z"])).await.unwrap();
    let asked = ["a#2", "nothing", "a#0", "a#2"];
    let read = documents.get_many(asked).await.unwrap();
    let read: Vec<_> = read.iter().map(|one| one.as_ref().map(|stored| stored.node.id.as_str())).collect();
    assert_eq!(read, [Some("a#2"), None, Some("a#0"), Some("a#2")]);
    let hash = |text| Some(node("n", text).hash());
    let hashes = documents.hashes(asked).await.unwrap();
    assert_eq!(hashes, [hash("z"), None, hash("x"), hash("z")]);
    // More than are read in place.
    let many = documents.get_many((0..1_000).map(|n| format!("a#{}", n % 4))).await.unwrap();
    assert_eq!(many.iter().flatten().count(), 750);
}

#[tokio::test]
async fn related_nodes_are_read_one_step_away() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let id = |id: &str| NodeId::new(id).unwrap();
    let of = |previous: Option<&str>, next: Option<&str>, parent: Option<&str>, children: &[&str]| Relationships {
        previous: previous.map(id),
        next: next.map(id),
        parent: parent.map(id),
        children: children.iter().copied().map(id).collect(),
    };
    let nodes = [
        node("root", "r").with_relationships(of(None, None, None, &["b", "missing", "a"])),
        node("a", "a").with_relationships(of(None, Some("b"), Some("root"), &[])),
        node("b", "b").with_relationships(of(Some("a"), None, Some("root"), &[])),
        node("c", "c").with_relationships(of(None, None, Some("root"), &[])),
        // A cycle, and a node that is everything to itself.
        node("d", "d").with_relationships(of(Some("d"), Some("e"), Some("d"), &["d", "e"])),
        node("e", "e").with_relationships(of(Some("d"), Some("d"), Some("d"), &["d"])),
    ];
    documents.put(document("x"), nodes).await.unwrap();
    let related = |id: &'static str, relationship| {
        let related = documents.related(id, relationship);
        async move { ids(&related.await.unwrap()).join(" ") }
    };
    assert_eq!(related("root", Relationship::Child).await, "b a c");
    assert_eq!(related("a", Relationship::Next).await, "b");
    assert_eq!(related("b", Relationship::Previous).await, "a");
    assert_eq!(related("c", Relationship::Parent).await, "root");
    assert_eq!(related("c", Relationship::Next).await, "");
    assert_eq!(related("d", Relationship::Child).await, "d e");
    assert_eq!(related("d", Relationship::Parent).await, "d");
    assert_eq!(related("e", Relationship::Next).await, "d");
    assert_eq!(ids(&documents.related("root", Relationship::Child).limit(2).await.unwrap()), ["b", "a"]);
    assert_refused(documents.related("nothing", Relationship::Next).await, Class::NotFound, &["nothing"]);
}

#[tokio::test]
async fn pages_go_on_where_they_ended() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    for name in ["a", "b", "c/1", "c/2", "d"] {
        documents.put(document(name), pieces(name, &["0", "1", "2", "3", "4"])).await.unwrap();
    }
    let mut all = Vec::new();
    let mut page = documents.page().limit(4).await.unwrap();
    loop {
        all.extend(page.nodes.iter().map(|stored| stored.node.id.to_string()));
        let Some(next) = page.next else { break };
        page = documents.page().limit(4).after(next).await.unwrap();
    }
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!((all.len(), &all), (25, &sorted));
    let in_order: Vec<_> = documents.nodes("b").limit(2).stream().try_collect().await.unwrap();
    assert_eq!(ids(&in_order), ["b#0", "b#1", "b#2", "b#3", "b#4"]);
    let places = documents.node_ids("b", Some(1), 2).await.unwrap();
    assert_eq!(places.iter().map(|place| place.id.as_str()).collect::<Vec<_>>(), ["b#2", "b#3"]);
    assert_eq!(documents.node_ids("nothing", None, 2).await.unwrap(), []);
    let listed = |listed: Vec<larder::protocol::documents::StoredDocument>| {
        listed.into_iter().map(|one| one.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(documents.documents().below("c/").await.unwrap()), ["c/1", "c/2"]);
    assert_eq!(
        listed(documents.documents().limit(2).stream().try_collect().await.unwrap()),
        ["a", "b", "c/1", "c/2", "d"]
    );
    assert_eq!(documents.count_documents().below("c/").await.unwrap(), 2);
    assert_eq!(documents.count().await.unwrap(), 25);
    for limit in [0, 10_001] {
        assert_refused(documents.page().limit(limit).await, Class::InvalidInput, &["limit"]);
        assert_refused(documents.documents().limit(limit).await, Class::InvalidInput, &["limit"]);
    }
}

#[tokio::test]
async fn filters_narrow_pages_counts_and_documents() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let with = |n: u32| {
        node(&format!("n{n}"), "x").with_metadata(json(&format!(r#"{{"n": {n}, "even": {}}}"#, n.is_multiple_of(2))))
    };
    documents.put(document("a").with_metadata(json(r#"{"lang": "en"}"#)), (0..6).map(with)).await.unwrap();
    documents.put(document("b"), (6..10).map(with)).await.unwrap();
    documents.upsert([node("bare", "x")]).await.unwrap();
    let even = || field("even").eq(true);
    for is_declared in [false, true] {
        assert_eq!(documents.declare_field(field("even")).await.unwrap(), !is_declared);
        assert_eq!(ids(&documents.filter(even()).await.unwrap().nodes), ["n0", "n2", "n4", "n6", "n8"]);
        assert_eq!(ids(&documents.nodes("b").matching(even()).await.unwrap().nodes), ["n6", "n8"]);
        assert_eq!(documents.count().matching(even().not()).await.unwrap(), 6);
        assert_eq!(documents.count().of_document("a").matching(field("n").gte(3)).await.unwrap(), 3);
        let hits = documents.search("x").filter(field("n").lt(4).and(even())).await.unwrap();
        assert_eq!(hits.len(), 2);
    }
    assert_eq!(documents.documents().matching(field("lang").eq("en")).await.unwrap().len(), 1);
    assert_eq!(documents.documents().matching(field("lang").is_empty()).await.unwrap()[0].id.as_str(), "b");
}

#[tokio::test]
async fn declared_fields_survive_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    larder.documents().declare_field(field("author").key("name")).await.unwrap();
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    assert!(!larder.documents().declare_field(field("author").key("name")).await.unwrap());
    let refused = larder.documents().declare_field(field("it's")).await;
    assert_refused(refused, Class::InvalidInput, &["declared field"]);
}

#[tokio::test]
async fn index_records_are_put_read_listed_and_deleted() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    assert!(documents.put_index("b", "list", json("[1]")).await.unwrap());
    assert!(!documents.put_index("b", "list", json("[1]")).await.unwrap());
    assert!(documents.put_index("b", "list", json("[2]")).await.unwrap());
    assert!(documents.put_index("a", "tree", json("{}")).await.unwrap());
    assert_eq!(documents.index("b").await.unwrap().unwrap().content, json("[2]"));
    let all = documents.indexes(None, 10).await.unwrap();
    assert_eq!(all.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(documents.indexes(Some(&IndexId::new("a").unwrap()), 10).await.unwrap().len(), 1);
    assert!(documents.delete_index("b").await.unwrap());
    assert!(!documents.delete_index("b").await.unwrap());
    assert_eq!(documents.index("b").await.unwrap(), None);
}

/// Unchanged input costs no page: neither in the WAL nor in the change log.
#[tokio::test]
async fn unchanged_input_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::builder(folder.path())
        .settings(|settings| settings.maintenance_interval = std::time::Duration::from_secs(3600))
        .open()
        .await
        .unwrap();
    let documents = larder.documents();
    let nodes = || {
        (0..500).map(|n| {
            // The members' order is no change.
            node(&format!("n{n}"), &format!("text number {n}")).with_metadata(json(r#"{"a": 1, "b": [2.5]}"#))
        })
    };
    let source = || document("a").with_text("source").with_metadata(json(r#"{"x": 1, "y": 2}"#));
    documents.put(source(), nodes()).await.unwrap();
    documents.put_index("i", "list", json("[1]")).await.unwrap();
    let wal = folder.path().join("documents.db-wal");
    let state = || (wal.metadata().unwrap().len(), wal.metadata().unwrap().modified().unwrap());
    let (before, sequence) = (state(), documents.sequence().await.unwrap());

    let turned = nodes().map(|node| node.with_metadata(json(r#"{ "b": [25e-1], "a": 1 }"#)));
    let turned_source = source().with_metadata(json(r#"{"y": 2, "x": 1}"#));
    assert_eq!(documents.put(turned_source, turned).await.unwrap().nodes, counts(0, 0, 500, 0));
    documents.put_many([(source(), nodes().collect())]).await.unwrap();
    documents.upsert(nodes()).into_document("a").await.unwrap();
    documents.mark_begun(&source()).await.unwrap();
    documents.put_index("i", "list", json("[1]")).await.unwrap();
    documents.delete(["nothing"]).await.unwrap();
    documents.delete_missing(["a"]).await.unwrap();
    documents.ingest([source()]).run(async |_| Err::<Vec<Node>, _>("never asked")).await.unwrap();
    assert_eq!((state(), documents.sequence().await.unwrap()), (before, sequence));
}

#[tokio::test]
async fn changes_name_documents_and_nodes() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let mut notices = documents.subscribe(documents.sequence().await.unwrap()).await.unwrap();
    documents.put(document("a"), pieces("a", &["x", "y"])).await.unwrap();
    documents.put(document("a"), pieces("a", &["x"])).await.unwrap();
    documents.delete_document("a").await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let notice = crate::support::within(futures::StreamExt::next(&mut notices)).await.unwrap().unwrap();
        let larder::Notice::Commit(commit) = notice else { panic!("{notice:?}") };
        seen.extend(
            commit
                .changes
                .into_iter()
                .map(|change| format!("{} {} {}", change.kind, change.scope, change.ids.join(","))),
        );
    }
    assert_eq!(seen, ["put a a#0,a#1", "document  a", "delete a a#1", "document  a", "delete a "]);
}

#[tokio::test]
async fn repeated_writes_under_one_idempotency_key_have_one_outcome() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let put = || documents.put(document("a"), pieces("a", &["x"])).idempotency_key("k1");
    let first = put().await.unwrap();
    documents.delete_document("a").await.unwrap();
    assert_eq!(put().await.unwrap(), first);
    assert_eq!(documents.count().await.unwrap(), 0);
    let other = documents.put(document("a"), pieces("a", &["y"])).idempotency_key("k1").await;
    assert_refused(other, Class::Conflict, &["k1"]);
}

//! What cannot be used is refused with a typed error, changes nothing, and harms no neighbour.

use larder::protocol::documents::{CharSpan, PutDocument};
use larder::{Class, Document, DocumentsSettings, Larder, Node, NodeContent, Settings, TextQuery, field};

use super::{assert_sound, document, found, ids, json, node, nodes_of, pieces};
use crate::support::assert_refused;

#[tokio::test]
async fn empty_bodies_are_kept_and_found_by_nothing() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.put(document("a").with_text(""), [node("n", ""), node("blank", " \n\t")]).await.unwrap();
    documents.put(document("none"), []).await.unwrap();
    assert_eq!(documents.document_text("a").await.unwrap().as_deref(), Some(""));
    assert_eq!(nodes_of(&larder, "a").await.len(), 2);
    assert_eq!(nodes_of(&larder, "none").await.len(), 0);
    assert_eq!(documents.put_many([]).await.unwrap(), []);
    assert_eq!(documents.upsert([]).await.unwrap(), []);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn huge_bodies_are_stored_up_to_the_limit() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let text = "some words of a long text ".repeat(100_000);
    documents.put(document("a").with_text(&text), [node("n", &text)]).await.unwrap();
    assert_eq!(documents.get("n").await.unwrap().unwrap().node.content.text(), Some(text.as_str()));
    assert_eq!(documents.document_text("a").await.unwrap().as_ref(), Some(&text));
    let hits = documents.search("LONG").await.unwrap();
    assert!(hits[0].snippet.starts_with("some words of a [long] text some"), "{}", hits[0].snippet);
    let too_large = documents.put(document("b"), [node("fine", "x"), node("m", &text.repeat(2))]).await;
    assert_refused(too_large, Class::InvalidInput, &["\"m\"", "4194304"]);
    let too_large = documents.put(document("b").with_text(text.repeat(20)), []).await;
    assert_refused(too_large, Class::InvalidInput, &["too large"]);
    let too_large = documents.put(document("b").with_fingerprint("x".repeat(1_025)), []).await;
    assert_refused(too_large, Class::InvalidInput, &["fingerprint"]);
    assert_eq!(documents.count_documents().await.unwrap(), 1);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn limits_are_settings_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let own = DocumentsSettings { node_bytes_max: 2_000, document_bytes_max: 1_024, ..DocumentsSettings::default() };
    let larder = Larder::builder(folder.path()).documents(|documents| documents.own = own).open().await.unwrap();
    let put = |id: &'static str, text: usize| larder.documents().put(document(id).with_text("x".repeat(text)), []);
    put("a", 500).await.unwrap();
    assert_refused(put("b", 1_024).await, Class::InvalidInput, &["1024"]);
    assert_refused(larder.documents().upsert([node("n", &"x".repeat(2_000))]).await, Class::InvalidInput, &["2000"]);
    let mut settings = Settings::at(folder.path().join("other"));
    settings.documents.own.node_bytes_max = 1;
    assert!(settings.check().unwrap_err().to_string().contains("node_bytes_max"));
    let parsed: Settings = serde_json::from_str(r#"{"documents": {"own": {"tokenizer": "porter"}}}"#).unwrap();
    assert_eq!(parsed.documents.own.tokenizer, larder::Tokenizer::Porter);
}

#[tokio::test]
async fn invalid_utf8_never_becomes_a_text() {
    for bytes in [&b"\xff"[..], b"ab\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"truncated \xe2\x82"] {
        let refused = Node::text_from_bytes("n", bytes.to_vec()).unwrap_err();
        assert!(refused.to_string().contains("UTF-8"), "{refused}");
    }
    let larder = Larder::temporary().await.unwrap();
    let kept = Node::text_from_bytes("n", "héllo\0 wörld \u{10ffff}".into()).unwrap();
    larder.documents().upsert([kept.clone()]).await.unwrap();
    assert_eq!(larder.documents().get("n").await.unwrap().unwrap().node, kept);
    assert_eq!(found(&larder, "world").await, ["n"]);
}

#[tokio::test]
async fn odd_metadata_is_kept_as_given_and_found_by_its_keys() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let keys = ["a.b", "\"", "'", "$", "[0]", "", "é", "\u{1F600}", "\\", "a\nb", "NULL", "--", "key with blanks"];
    for (n, key) in keys.iter().enumerate() {
        let metadata = serde_json::json!({ *key: { "inner": n } }).to_string();
        documents.upsert([node(&format!("n{n}"), "x").with_metadata(json(&metadata))]).await.unwrap();
    }
    for (n, key) in keys.iter().enumerate() {
        let page = documents.filter(field(*key).key("inner").eq(i64::try_from(n).unwrap())).await.unwrap();
        assert_eq!(ids(&page.nodes), [format!("n{n}")], "{key:?}");
    }
    let deep = (0..120).fold("1".to_owned(), |inner, _| format!(r#"{{"d": {inner}}}"#));
    documents.upsert([node("deep", "x").with_metadata(json(&deep))]).await.unwrap();
    assert_eq!(documents.get("deep").await.unwrap().unwrap().node.metadata, Some(json(&deep)));
    let too_deep = (0..200).fold("1".to_owned(), |inner, _| format!("[{inner}]"));
    assert!(larder::JsonText::new(too_deep).is_err());
    for bad in ["[1]", "1", "null", "\"x\"", r#"{"a": 1, "a": 2}"#, r#"{"a\u0000": 1}"#] {
        let refused = documents.upsert([node("bad", "x").with_metadata(json(bad))]).await;
        assert_refused(refused, Class::InvalidInput, &["JSON"]);
        let refused = documents.put(document("bad").with_metadata(json(bad)), []).await;
        assert_refused(refused, Class::InvalidInput, &["JSON"]);
    }
    assert_eq!(documents.get("bad").await.unwrap(), None);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn the_same_id_twice_in_a_batch_is_refused_whole() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    for second in ["x", "y"] {
        let twice = || [node("other", "z"), node("n", "x"), node("n", second)];
        assert_refused(documents.upsert(twice()).await, Class::InvalidInput, &["\"n\"", "twice"]);
        assert_refused(documents.put(document("a"), twice()).await, Class::InvalidInput, &["\"n\"", "twice"]);
    }
    let twice = documents.put_many([(document("a"), vec![]), (document("a"), vec![])]).await;
    assert_refused(twice, Class::InvalidInput, &["\"a\"", "twice"]);
    assert_eq!((documents.count().await.unwrap(), documents.count_documents().await.unwrap()), (0, 0));
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_or_nothing() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    assert_eq!(documents.get("n").await.unwrap(), None);
    assert_eq!(documents.delete(["n"]).await.unwrap(), 0);
    assert!(!documents.delete_document("a").await.unwrap());
    assert!(!documents.delete_index("i").await.unwrap());
    assert_eq!(documents.document("a").await.unwrap(), None);
    assert_eq!(documents.document_text("a").await.unwrap(), None);
    assert_eq!(documents.nodes("a").await.unwrap().nodes, []);
    assert_eq!(documents.count().of_document("a").await.unwrap(), 0);
    assert_eq!(documents.count().of_document("a").matching(field("x").is_empty()).await.unwrap(), 0);
}

#[tokio::test]
async fn ids_are_data_with_bounds() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let names = ["'; DROP TABLE node --", "../../etc/passwd", "a\nb", "%", "☃", "NULL", "\"", &"n".repeat(1_024)];
    for name in names {
        documents.put(document(name), [node(name, "x")]).await.unwrap();
        documents.put_index(&name[..name.len().min(200)], "k", json("1")).await.unwrap();
        assert_eq!(ids(&nodes_of(&larder, name).await), [name]);
        assert_eq!(documents.search("x").in_documents([name]).await.unwrap().len(), 1);
    }
    assert_eq!(documents.count().await.unwrap(), names.len() as u64);
    for name in ["", "a\0b", &"n".repeat(1_025)] {
        assert!(Document::new(name).is_err() && Node::text(name, "x").is_err(), "{name:?}");
        assert_refused(documents.get(name).await, Class::InvalidInput, &["node id"]);
        assert_refused(documents.delete_document(name).await, Class::InvalidInput, &["document id"]);
    }
    assert_sound(&larder).await;
}

#[tokio::test]
async fn spans_end_behind_their_start() {
    let larder = Larder::temporary().await.unwrap();
    let mut bad = node("n", "x");
    bad.span = Some(CharSpan { start: 2, end: 1 });
    assert_refused(larder.documents().upsert([bad.clone()]).await, Class::InvalidInput, &["span"]);
    bad.span = Some(CharSpan { start: 0, end: u64::MAX });
    assert_refused(larder.documents().upsert([bad]).await, Class::InvalidInput, &["span"]);
}

#[tokio::test]
async fn too_many_items_are_refused() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let too_many = (0..100_001).map(|n| node(&n.to_string(), ""));
    assert_refused(documents.put(document("a"), too_many).await, Class::InvalidInput, &["100000"]);
    assert_refused(documents.delete((0..100_001).map(|n| n.to_string())).await, Class::InvalidInput, &["100000"]);
    assert_refused(documents.get_many((0..10_001).map(|n| n.to_string())).await, Class::InvalidInput, &["10000"]);
}

#[tokio::test]
async fn deep_filters_are_bounded() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.upsert([node("n", "x").with_metadata(json(r#"{"a": 1}"#))]).await.unwrap();
    let nested = |depth: usize| {
        (0..depth).fold(field("a").eq(1), |filter, level| {
            if level % 2 == 0 { filter.and(field("b").is_empty()) } else { filter.or(field("c").eq(2)) }
        })
    };
    assert_eq!(documents.filter(nested(50)).await.unwrap().nodes.len(), 1);
    assert_eq!(documents.search("x").filter(nested(50)).await.unwrap().len(), 1);
    assert_eq!(documents.count().matching(nested(50).not()).await.unwrap(), 0);
    for refused in
        [documents.filter(nested(100)).await.map(drop), documents.search("x").filter(nested(100)).await.map(drop)]
    {
        assert_refused(refused, Class::InvalidInput, &["filter", "deep"]);
    }
}

#[tokio::test]
async fn hostile_search_texts_are_plain_text() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.upsert([node("n", "cats and dogs NEAR the house")]).await.unwrap();
    for query in [
        "cats AND",
        "\"cats",
        "cats)",
        "(dogs",
        "text:cats",
        "-cats",
        "^cats",
        "cats*",
        "cats + dogs",
        "NEAR",
        "c\0ats",
        "NEAR(cats dogs)",
        "{text}: cats",
        "cats\"\"",
        "'cats",
        "; DROP TABLE node",
        "\u{301}",
    ] {
        documents.search(query).await.unwrap_or_else(|e| panic!("{query:?}: {e}"));
        for typed in [
            TextQuery::default().phrase(query),
            TextQuery::default().prefix(query),
            TextQuery::words("cats").without_words(query),
            TextQuery::default().either_words([query, "cats"]),
            TextQuery::begun(query),
        ] {
            documents.search(typed).await.unwrap_or_else(|e| panic!("{query:?}: {e}"));
        }
    }
    assert_eq!(found(&larder, "dogs \"CATS\"").await, ["n"]);
    for nothing in ["", " ", "\"*()", "\0", "cats OR birds"] {
        assert_eq!(found(&larder, nothing).await, [""; 0], "{nothing:?}");
    }
    let megabyte = "cats ".repeat(1 << 18);
    assert_refused(documents.search(megabyte.as_str()).await, Class::InvalidInput, &["search query", "4096"]);
    assert_refused(
        documents.search(TextQuery::default().phrase(megabyte)).await,
        Class::InvalidInput,
        &["search query"],
    );
    assert_eq!(found(&larder, "cats").await, ["n"]);
}

/// A refused put and its neighbours in one group: they commit, and nothing of it is left.
#[tokio::test]
async fn a_refused_put_harms_no_neighbour() {
    let larder = Larder::temporary().await.unwrap();
    let puts = (0..200).map(|n| {
        let larder = larder.clone();
        async move {
            let id = format!("d{n}");
            // Every third fails half way: its last node belongs to another document, or its metadata is bad.
            let last = match n % 6 {
                0 => node("owned", "stolen"),
                3 => node(&format!("{id}#last"), "x").with_metadata(json("[]")),
                _ => node(&format!("{id}#last"), "x"),
            };
            let nodes = pieces(&id, &["a", "b"]).into_iter().chain([last]);
            let result =
                larder.ask(PutDocument { document: document(&id), nodes: nodes.collect(), may_update: true }).await;
            (n, result)
        }
    });
    larder.documents().upsert([node("owned", "mine")]).await.unwrap();
    for (n, result) in futures::future::join_all(puts).await {
        assert_eq!(result.is_ok(), n % 3 != 0, "{n}: {result:?}");
    }
    assert_eq!(larder.documents().count_documents().await.unwrap(), 133);
    assert_eq!(larder.documents().count().await.unwrap(), 133 * 3 + 1);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn plain_nodes_may_hold_any_json() {
    let larder = Larder::temporary().await.unwrap();
    for (n, content) in ["null", "0", "[]", r#"{"a": {"a": 1}}"#, "1e300", "\"\\u0000\""].iter().enumerate() {
        let plain = Node::new(format!("n{n}"), NodeContent::Plain(json(content))).unwrap();
        larder.documents().upsert([plain.clone()]).await.unwrap();
        assert_eq!(larder.documents().get(format!("n{n}")).await.unwrap().unwrap().node, plain);
    }
}

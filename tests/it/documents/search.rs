//! Full-text search: what is found, in which order, and with what beside.

use std::time::Duration;

use larder::{Class, DocumentsSettings, Larder, TextQuery, Tokenizer, field};

use super::{assert_sound, document, found, json, node, pieces};
use crate::support::{assert_refused, within};

async fn with_tokenizer(folder: &std::path::Path, tokenizer: Tokenizer) -> Larder {
    let own = DocumentsSettings { tokenizer, ..DocumentsSettings::default() };
    Larder::builder(folder).documents(|documents| documents.own = own).open().await.unwrap()
}

#[tokio::test]
async fn the_best_are_found_first_with_snippets() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let long = format!("{}A cake at the end. {}", "many other words ".repeat(30), "and more ".repeat(30));
    documents
        .put(document("a"), pieces("a", &["Cake! The cake of all cakes is a cake.", &long, "no pie"]))
        .await
        .unwrap();
    let hits = documents.search("CAKE").await.unwrap();
    assert_eq!(hits.len(), 2);
    assert_eq!(hits[0].found.node.id.as_str(), "a#0");
    assert!(hits[0].score > hits[1].score && hits[1].score > 0.0);
    assert!(hits[0].snippet.starts_with("[Cake]! The [cake] of"), "{}", hits[0].snippet);
    assert!(hits[1].snippet.contains("A [cake] at") && hits[1].snippet.contains('…'), "{}", hits[1].snippet);
    assert!(hits[1].snippet.len() < 200);
    let second = documents.search("cake").offset(1).limit(1).await.unwrap();
    assert_eq!(second, hits[1..]);
    assert_eq!(documents.search("cake").in_documents(["b"]).await.unwrap(), []);
    assert_eq!(documents.search("cake").in_documents(["b", "a"]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn typed_queries_combine_words_phrases_and_prefixes() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let texts = ["sales of last year", "last sales of the year", "draft: sales of last year", "Größe résumé"];
    documents.put(document("a"), pieces("a", &texts)).await.unwrap();
    let find = |query: TextQuery| {
        let documents = documents.clone();
        async move {
            let hits = documents.search(query).await.unwrap();
            let mut ids: Vec<_> = hits.iter().map(|hit| hit.found.position).collect();
            ids.sort_unstable();
            ids
        }
    };
    assert_eq!(find(TextQuery::words("year sales")).await, [0, 1, 2]);
    assert_eq!(find(TextQuery::words("sales").phrase("last year").without_words("draft")).await, [0]);
    assert_eq!(find(TextQuery::default().either_words(["draft", "the"])).await, [1, 2]);
    assert_eq!(find(TextQuery::begun("sales dra")).await, [2]);
    assert_eq!(find(TextQuery::words("grosse RESUME")).await, [0_u64; 0]);
    assert_eq!(find(TextQuery::words("GRÖßE resume")).await, [3]);
    assert_eq!(find(TextQuery::default().without_words("draft")).await, [0_u64; 0]);
}

#[tokio::test]
async fn nested_filters_narrow_a_search_without_changing_its_order() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let nodes = (0..200).map(|n| {
        let text = format!("{} {}", "apple ".repeat(1 + n % 7), "pear ".repeat(n % 5));
        let metadata = format!(r#"{{"n": {n}, "tags": ["t{}"], "deep": {{"a.b": {{"\"": {}}}}}}}"#, n % 3, n % 2);
        node(&format!("n{n}"), &text).with_metadata(json(&metadata))
    });
    documents.put(document("a"), nodes).await.unwrap();
    let filter = field("tags")
        .contains("t1")
        .and(field("deep").key("a.b").key("\"").eq(1).or(field("n").lt(50).and(field("n").one_of([4, 10]).not())));
    let all = documents.search("apple").limit(1_000).await.unwrap();
    let narrowed = documents.search("apple").filter(filter).limit(1_000).await.unwrap();
    let expected: Vec<_> = all
        .iter()
        .filter(|hit| {
            let n = hit.found.position;
            n % 3 == 1 && (n % 2 == 1 || n < 50 && n != 4 && n != 10)
        })
        .collect();
    assert!(!expected.is_empty() && expected.len() < all.len());
    assert_eq!(narrowed.iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn captions_and_index_texts_are_found_and_plain_content_is_not() {
    use larder::protocol::MediaReference;
    use larder::{Node, NodeContent};
    let larder = Larder::temporary().await.unwrap();
    let image =
        NodeContent::Image { source: MediaReference::Url("https://apple".into()), caption: Some("an apple".into()) };
    let nodes = [
        Node::new("image", image).unwrap(),
        Node::new("index", NodeContent::Index { text: "apples and an apple".into(), target: "apple".into() }).unwrap(),
        Node::new("plain", NodeContent::Plain(json(r#""apple""#))).unwrap(),
    ];
    larder.documents().upsert(nodes).await.unwrap();
    assert_eq!(found(&larder, "apple").await, ["image", "index"]);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn changed_and_deleted_texts_are_found_as_they_are_now() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.put(document("a"), pieces("a", &["red", "green", "blue"])).await.unwrap();
    documents.put(document("a"), pieces("a", &["red", "yellow"])).await.unwrap();
    for (word, expected) in [("red", vec!["a#0"]), ("green", vec![]), ("blue", vec![]), ("yellow", vec!["a#1"])] {
        assert_eq!(found(&larder, word).await, expected, "{word}");
    }
    documents.upsert([node("a#1", "green")]).into_document("a").await.unwrap();
    documents.delete(["a#0"]).await.unwrap();
    for (word, expected) in [("red", vec![]), ("green", vec!["a#1"]), ("yellow", vec![])] {
        assert_eq!(found(&larder, word).await, expected, "{word}");
    }
    assert_sound(&larder).await;
}

#[tokio::test]
async fn the_tokenizer_is_the_one_that_was_set() {
    for (tokenizer, stem, part) in
        [(Tokenizer::Unicode, false, false), (Tokenizer::Porter, true, false), (Tokenizer::Trigram, false, true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let larder = with_tokenizer(folder.path(), tokenizer).await;
        larder.documents().upsert([node("n", "reconnected cables")]).await.unwrap();
        assert_eq!(found(&larder, "cables").await.len(), 1, "{tokenizer:?}");
        assert_eq!(found(&larder, "reconnecting").await.len(), usize::from(stem), "{tokenizer:?}");
        assert_eq!(found(&larder, "connect").await.len(), usize::from(part), "{tokenizer:?}");
        assert_sound(&larder).await;
    }
}

#[tokio::test]
async fn another_tokenizer_holds_from_the_next_opening_on() {
    let folder = tempfile::tempdir().unwrap();
    let larder = with_tokenizer(folder.path(), Tokenizer::Unicode).await;
    larder.documents().put(document("a"), pieces("a", &["connected", "x"])).await.unwrap();
    larder.close().await;
    let larder = with_tokenizer(folder.path(), Tokenizer::Porter).await;
    larder.documents().put(document("b"), pieces("b", &["connects"])).await.unwrap();
    assert_eq!(found(&larder, "connection").await, ["a#0", "b#0"]);
    larder.documents().put(document("a"), pieces("a", &["disconnected"])).await.unwrap();
    assert_eq!(found(&larder, "connection").await, ["b#0"]);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn searching_an_empty_store_finds_nothing() {
    let larder = Larder::temporary().await.unwrap();
    assert_eq!(larder.documents().search("x").await.unwrap(), []);
    assert_refused(larder.documents().search("x").limit(0).await, Class::InvalidInput, &["limit"]);
    let too_many = (0..1_001).map(|n| n.to_string());
    assert_refused(larder.documents().search("x").in_documents(too_many).await, Class::InvalidInput, &["1000"]);
}

#[expect(clippy::disallowed_methods, reason = "a look from outside, through SQLite")]
fn segment_count(folder: &std::path::Path) -> u64 {
    let connection = rusqlite::Connection::open(folder.join("documents.db")).unwrap();
    connection.query_row("SELECT count(DISTINCT segid) FROM node_text_idx", [], |row| row.get(0)).unwrap()
}

/// A search reads every segment of the index, and each write makes one.
#[tokio::test]
async fn the_index_is_put_in_order_once_nobody_writes() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path());
    let larder =
        builder.settings(|settings| settings.maintenance_interval = Duration::from_millis(10)).open().await.unwrap();
    for number in 0..40 {
        larder.documents().upsert([node(&format!("n{number}"), "apple")]).await.unwrap();
    }
    let in_order = async {
        while segment_count(folder.path()) > 3 {
            // A request as others: no write.
            assert_eq!(found(&larder, "apple").await.len(), 40);
        }
    };
    within(in_order).await;
    assert_sound(&larder).await;
}

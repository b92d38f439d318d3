//! Full-text search: ranks, scopes, filters, snippets, and the tokenizer that a setting names.

use larder::protocol::{JsonText, SessionId};
use larder::{ChatMessage, Class, Larder, Role, Timestamp, Tokenizer, field};

use super::texts;

#[tokio::test]
async fn search_ranks_filters_and_shows_where() {
    let larder = Larder::temporary().await.unwrap();
    let (ann, bob) = (larder.chat().session("ann-1"), larder.chat().session("bob-1"));
    ann.describe().owner("ann").await.unwrap();
    let cake = ChatMessage::user("A cake. The cake of all cakes is a cake.").with_created(Timestamp(10));
    let long = format!("{} the Café serves cake {}", "before ".repeat(40), "after ".repeat(40));
    let ids = ann.append([cake, ChatMessage::assistant(long).with_created(Timestamp(20))]).await.unwrap().ids;
    bob.append([ChatMessage::user("no cake here")]).await.unwrap();
    let hits = larder.chat().search("cake").await.unwrap();
    assert_eq!(hits.len(), 3);
    assert_eq!(hits.windows(2).filter(|pair| pair[0].score < pair[1].score).count(), 0);
    let hits = larder.chat().search("CAFE").await.unwrap();
    assert!(hits[0].snippet.contains("[Café]") && hits[0].snippet.starts_with('…'), "{}", hits[0].snippet);
    assert_eq!(larder.chat().search("cake").owner("ann").await.unwrap().len(), 2);
    assert_eq!(larder.chat().search("cake").role(Role::Assistant).await.unwrap()[0].message.id, ids[1]);
    assert_eq!(larder.chat().search("cake").since(Timestamp(10)).until(Timestamp(20)).await.unwrap().len(), 1);
    assert_eq!(larder.chat().search("ca").prefix().limit(2).await.unwrap().len(), 2);
    assert_eq!(larder.chat().search("ca").prefix().limit(2).offset(2).await.unwrap().len(), 1);
    let in_bob = larder.chat().search("cake").sessions([SessionId::new("bob-1").unwrap()]).await.unwrap();
    assert_eq!(texts(&[in_bob[0].message.clone()]), ["no cake here"]);
    ann.archive([ids[0]]).await.unwrap();
    assert_eq!(ann.search("cake").await.unwrap().len(), 2);
    assert_eq!(ann.search("cake").without_archived().await.unwrap().len(), 1);
}

/// FTS5's own snippet takes the square of how often a word is in the text: of this one, hours, which no deadline allows.
#[tokio::test]
async fn snippet_of_a_text_of_nothing_but_hits_is_made_in_one_pass() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    chat.append([ChatMessage::user("a ".repeat(1_500_000))]).await.unwrap();
    let hits = chat.search("a").await.unwrap();
    assert_eq!(hits[0].snippet, format!("{}…", ["[a]"; 16].join(" ")));
    // Which of both made a snippet shows where they differ: FTS5 knows that ï is an i.
    let fill = "word ".repeat(4_000);
    let said = [format!("{fill}Naïve, Naive {fill}"), "a Naïve".to_owned()].map(ChatMessage::user);
    let ids = chat.append(said).await.unwrap().ids;
    for (query, long) in [("na", "[Naïve], [Naive]"), ("naive", "Naïve, [Naive]")] {
        let hits = chat.search(query).prefix().await.unwrap();
        let of = |id| &hits.iter().find(|hit| hit.message.id == id).unwrap().snippet;
        assert_eq!(of(ids[1]), "a [Naïve]");
        assert!(of(ids[0]).contains(&format!("word {long} word")), "{}", of(ids[0]));
    }
}

#[tokio::test]
async fn metadata_filters_search_and_lists_of_sessions() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    let json = |text: &str| JsonText::new(text).unwrap();
    let cakes = [
        ChatMessage::user("cake one").with_metadata(json(r#"{"lang": "en", "year": 2020}"#)),
        ChatMessage::user("cake two").with_metadata(json(r#"{"lang": "de", "tags": ["x", "y"]}"#)),
        ChatMessage::user("cake three"),
    ];
    chat.append(cakes).await.unwrap();
    let found = async |filter| {
        let hits = chat.search("cake").filter(filter).await.unwrap();
        let mut found: Vec<String> = hits.iter().map(|hit| hit.message.message.text().unwrap()).collect();
        found.sort();
        found
    };
    assert_eq!(found(field("lang").eq("en").and(field("year").gte(2020))).await, ["cake one"]);
    assert_eq!(found(field("tags").contains("y")).await, ["cake two"]);
    // Without metadata every field is missing, and `!=` is the negation of `==`.
    assert_eq!(found(field("lang").ne("en")).await, ["cake three", "cake two"]);
    assert_eq!(found(field("lang").is_empty()).await, ["cake three"]);
    assert_eq!(found(field("'; DROP TABLE body --").eq(1)).await, Vec::<String>::new());
    for name in ["b", "c"] {
        let metadata = json(&format!(r#"{{"team": "{name}"}}"#));
        larder.chat().session(name).describe().metadata(metadata).await.unwrap();
    }
    let listed = larder.chat().sessions().filter(field("team").eq("c")).await.unwrap().sessions;
    assert_eq!(listed.iter().map(|session| session.id.as_str()).collect::<Vec<_>>(), ["c"]);
    // Filters read what both of their ways read alike, so that much is refused.
    let twice = ChatMessage::user("x").with_metadata(json(r#"{"k": 1, "k": 2}"#));
    assert_eq!(chat.append([twice]).await.unwrap_err().class(), Class::InvalidInput);
    let refused = larder.chat().session("d").describe().metadata(json("[]")).await.unwrap_err();
    assert_eq!(refused.class(), Class::InvalidInput);
}

#[tokio::test]
async fn another_tokenizer_makes_the_index_anew() {
    let folder = tempfile::tempdir().unwrap();
    let said = [
        ChatMessage::user("she was running through the Café"),
        ChatMessage::from_blocks(Role::User, vec![]),
        ChatMessage::assistant("東京都の天気"),
    ];
    // Which of the messages each query finds; the tokenizers in an order that goes both ways.
    let cases = [
        (Tokenizer::Unicode, [("run", 0), ("running cafe", 1), ("unnin", 0), ("京都の", 0)]),
        (Tokenizer::Porter, [("run", 1), ("runs cafe", 1), ("unnin", 0), ("京都の", 0)]),
        (Tokenizer::Trigram, [("run", 1), ("RUN cafe", 1), ("unnin", 1), ("京都の", 1)]),
        (Tokenizer::Unicode, [("run", 0), ("running cafe", 1), ("unnin", 0), ("京都の", 0)]),
    ];
    for (at, (tokenizer, queries)) in cases.into_iter().enumerate() {
        let larder = Larder::builder(folder.path()).chat(|chat| chat.own.tokenizer = tokenizer).open().await.unwrap();
        let chat = larder.chat().session("a");
        if at == 0 {
            chat.append(said.clone()).await.unwrap();
        }
        for (query, count) in queries {
            assert_eq!(chat.search(query).await.unwrap().len(), count, "{tokenizer:?}: {query}");
        }
        // The index goes on being kept in step.
        let ids = chat.append([ChatMessage::user(format!("extra number {at}"))]).await.unwrap().ids;
        assert_eq!(chat.search("extra").await.unwrap().len(), 1, "{tokenizer:?}");
        chat.delete(ids).await.unwrap();
        assert_eq!(chat.search("extra").await.unwrap().len(), 0, "{tokenizer:?}");
        assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty(), "{tokenizer:?}");
        larder.close().await;
    }
}

#[tokio::test]
async fn trigrams_find_inside_words_and_leave_short_words_out() {
    let folder = tempfile::tempdir().unwrap();
    let trigrams = Larder::builder(folder.path()).chat(|chat| chat.own.tokenizer = Tokenizer::Trigram);
    let larder = trigrams.open().await.unwrap();
    let chat = larder.chat().session("a");
    let long = format!("{} the elephant in the room {}", "before ".repeat(20), "after ".repeat(20));
    chat.append([ChatMessage::user(long)]).await.unwrap();
    let hits = chat.search("lepha in").await.unwrap();
    assert_eq!(hits.len(), 1);
    assert!(hits[0].snippet.contains("[lepha]"), "{}", hits[0].snippet);
    assert!(hits[0].snippet.contains("the e[lepha]nt in"), "{}", hits[0].snippet);
    assert_eq!(chat.search("in").await.unwrap().len(), 0);
    assert_eq!(chat.search("elep").prefix().await.unwrap().len(), 1);
    larder.close().await;
}

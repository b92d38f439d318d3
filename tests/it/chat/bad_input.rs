//! What cannot be used is refused with a typed error, changes nothing, and harms no neighbour.

use larder::protocol::{ClientMessageId, JsonText};
use larder::{ChatMessage, Class, Counter, Larder, Role, WindowPolicy};

use super::{all, counting_words, words};

#[tokio::test]
async fn empty_messages_are_kept_and_batches_of_none_or_too_many_refused() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    assert_eq!(chat.append([]).await.unwrap_err().class(), Class::InvalidInput);
    let too_many = (0..10_001).map(|_| ChatMessage::user(""));
    assert_eq!(chat.append(too_many).await.unwrap_err().class(), Class::InvalidInput);
    assert!(chat.description().await.unwrap().is_none());
    let nothing = ChatMessage::from_blocks(Role::User, vec![]);
    chat.append([nothing.clone(), ChatMessage::user("")]).await.unwrap();
    let page = chat.page(10).await.unwrap();
    assert_eq!(page.messages[0].message.blocks, nothing.blocks);
    assert_eq!(page.messages[1].message.text().as_deref(), Some(""));
    assert_eq!(chat.window(100).await.unwrap().messages.len(), 2);
}

#[tokio::test]
async fn megabyte_messages_are_stored_up_to_the_limit() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    let text = "some words of a long text ".repeat(40_000);
    chat.append([ChatMessage::user(&text)]).await.unwrap();
    assert_eq!(all(&chat).await, [text.as_str()]);
    let too_long = text.repeat(5);
    let refused = chat.append([ChatMessage::user("fine"), ChatMessage::user(too_long)]).await.unwrap_err();
    assert_eq!(refused.class(), Class::InvalidInput);
    assert_eq!(all(&chat).await.len(), 1);
}

/// Ten thousand rows of a megabyte each would be more memory than there is.
#[tokio::test]
async fn lists_and_searches_end_early_by_their_bytes() {
    let larder = Larder::temporary().await.unwrap();
    let metadata = JsonText::new(format!(r#"{{"m": "{}"}}"#, "x".repeat(1 << 19))).unwrap();
    for n in 0..12 {
        let chat = larder.chat().session(format!("s{n:02}"));
        chat.describe().metadata(metadata.clone()).await.unwrap();
        chat.append([ChatMessage::user(format!("found {}", "word ".repeat(100_000)))]).await.unwrap();
    }
    let page = larder.chat().sessions().await.unwrap();
    assert_eq!(page.sessions.len(), 8);
    let rest = larder.chat().sessions().after(page.next.unwrap()).await.unwrap();
    assert_eq!((rest.sessions.len(), rest.next), (4, None));
    let (mut found, mut pages) = (std::collections::BTreeSet::new(), Vec::new());
    loop {
        let hits = larder.chat().search("found").limit(100).offset(found.len()).await.unwrap();
        if hits.is_empty() {
            break;
        }
        pages.push(hits.len());
        found.extend(hits.into_iter().map(|hit| hit.session));
    }
    assert_eq!((found.len(), pages), (12, vec![9, 3]));
}

#[tokio::test]
async fn roles_have_bounds_and_no_list() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    for role in ["", "r\0", &"r".repeat(65)] {
        let refused = chat.append([ChatMessage::new(Role::from(role), "x")]).await.unwrap_err();
        assert_eq!(refused.class(), Class::InvalidInput, "{role:?}");
    }
    chat.append([ChatMessage::new(Role::from("робот"), "x")]).await.unwrap();
    assert_eq!(chat.page(1).await.unwrap().messages[0].message.role, Role::from("робот"));
}

#[tokio::test]
async fn duplicate_client_ids_store_once_or_conflict() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    let named = |text: &str| ChatMessage::user(text).with_client_id(ClientMessageId::new("m1").unwrap());
    let first = chat.append([named("x"), named("x")]).await.unwrap();
    assert_eq!((first.new_count, first.ids[0]), (1, first.ids[1]));
    let again = chat.append([ChatMessage::user("before"), named("x")]).await.unwrap();
    assert_eq!((again.new_count, again.ids[1]), (1, first.ids[0]));
    let refused = chat.append([ChatMessage::user("not stored"), named("y")]).await.unwrap_err();
    assert_eq!(refused.class(), Class::Conflict);
    assert_eq!(all(&chat).await, ["x", "before"]);
    // Another session has ids of its own.
    assert_eq!(larder.chat().session("b").append([named("y")]).await.unwrap().new_count, 1);
    let other = chat.edit(again.ids[0], named("before")).await.unwrap_err();
    assert_eq!(other.class(), Class::Conflict);
}

#[tokio::test]
async fn idempotency_key_stores_once() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    let append = || chat.append([ChatMessage::user("x")]).idempotency_key("k1");
    assert_eq!(append().await.unwrap(), append().await.unwrap());
    assert_eq!(all(&chat).await, ["x"]);
}

/// Token counts are worked out from what was said, so another counter's must not make another write of it.
#[tokio::test]
async fn writes_repeated_under_their_key_by_another_counter_are_the_first_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = None;
    for counter in [words(), Counter::function("letters-1", |text| text.chars().count() as u64)] {
        let larder = Larder::builder(folder.path()).chat(|chat| chat.own.counter = counter).open().await.unwrap();
        let chat = larder.chat().session("a");
        let appended = chat.append([ChatMessage::user("one two")]).idempotency_key("append").await.unwrap();
        let id = appended.ids[0];
        chat.edit(id, ChatMessage::user("three")).idempotency_key("edit").await.unwrap();
        let summary = chat.put_summary(ChatMessage::system("numbers"), id).idempotency_key("summary").await.unwrap();
        assert_eq!(*first.get_or_insert((appended.clone(), summary)), (appended, summary));
        assert_eq!(all(&chat).await, ["three"]);
        let other = chat.append([ChatMessage::user("one")]).idempotency_key("append").await.unwrap_err();
        assert_eq!(other.class(), Class::Conflict);
        larder.close().await;
    }
}

#[tokio::test]
async fn hostile_session_names_are_data() {
    let larder = Larder::temporary().await.unwrap();
    let names = ["'; DROP TABLE message --", "../../etc/passwd", "a\nb", "%", "☃", "NULL", "\"", &"n".repeat(256)];
    for name in names {
        let chat = larder.chat().session(name);
        chat.append([ChatMessage::user("x")]).await.unwrap();
        assert_eq!(all(&chat).await, ["x"], "{name:?}");
        assert_eq!(chat.search("x").await.unwrap().len(), 1);
    }
    assert_eq!(larder.chat().count(None).await.unwrap(), names.len() as u64);
    for name in ["", "a\0b", &"n".repeat(257)] {
        let refused = larder.chat().session(name).append([ChatMessage::user("x")]).await.unwrap_err();
        assert_eq!(refused.class(), Class::InvalidInput, "{name:?}");
    }
}

#[tokio::test]
async fn full_text_syntax_in_searches_is_plain_text() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    chat.append([ChatMessage::user("cats and dogs NEAR the house")]).await.unwrap();
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
    ] {
        assert!(chat.search(query).await.is_ok(), "{query:?}");
    }
    assert_eq!(chat.search("dogs \"CATS\"").await.unwrap().len(), 1);
    assert_eq!(chat.search("cats OR birds").await.unwrap().len(), 0);
    for nothing in ["", " ", "\"*()", "\0"] {
        assert_eq!(chat.search(nothing).await.unwrap().len(), 0, "{nothing:?}");
    }
    assert_eq!(chat.search("x".repeat(5_000)).await.unwrap_err().class(), Class::InvalidInput);
    assert_eq!(chat.search("x").limit(0).await.unwrap_err().class(), Class::InvalidInput);
}

#[tokio::test]
async fn limits_that_hold_nothing_are_refused() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    assert_eq!(chat.window(0).await.unwrap().messages.len(), 0);
    chat.append([ChatMessage::user("one two three")]).await.unwrap();
    for (limit, policy) in [(0, WindowPolicy::Strict), (2, WindowPolicy::Strict), (0, WindowPolicy::ChatMemoryBuffer)] {
        let refused = chat.window(limit).policy(policy).await.unwrap_err();
        assert_eq!(refused.class(), Class::InvalidInput, "{limit}");
    }
    let over = chat.window(5).initial_tokens(6).policy(WindowPolicy::ChatMemoryBuffer).await.unwrap_err();
    assert_eq!(over.class(), Class::InvalidInput);
}

#[tokio::test]
async fn counter_that_panics_refuses_the_append_alone() {
    let folder = tempfile::tempdir().unwrap();
    let counter = Counter::function("picky-1", |text| if text.contains("bad") { panic!("a bug") } else { 1 });
    let larder = Larder::builder(folder.path()).chat(|chat| chat.own.counter = counter).open().await.unwrap();
    let chat = larder.chat().session("a");
    let refused = chat.append([ChatMessage::user("bad")]).await.unwrap_err();
    assert_eq!(refused.class(), Class::InvalidInput);
    chat.append([ChatMessage::user("good")]).await.unwrap();
    assert_eq!(all(&chat).await, ["good"]);
    larder.close().await;
}

/// The counter waits until a neighbour's append is answered: were it run by the store, that would never be.
#[tokio::test]
async fn slow_counter_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let counter = Counter::function("slow-1", move |text| {
        if text.trim() == "slow" {
            // An error: the sender is gone, which is what it waits for.
            let _ = released.lock().unwrap().recv();
        }
        1
    });
    let larder = Larder::builder(folder.path()).chat(|chat| chat.own.counter = counter).open().await.unwrap();
    let chat = larder.chat().session("a");
    let slow = tokio::spawn(chat.append([ChatMessage::user("slow")]).into_future());
    chat.append([ChatMessage::user("quick")]).await.unwrap();
    assert_eq!(chat.window(10).await.unwrap().messages.len(), 1);
    drop(release);
    slow.await.unwrap().unwrap();
    assert_eq!(all(&chat).await, ["quick", "slow"]);
    larder.close().await;
}

#[tokio::test]
async fn ten_thousand_sessions_are_listed_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path());
    let larder = builder.chat(|chat| chat.common.durability = larder::Durability::Relaxed).open().await.unwrap();
    let mut appends = Vec::new();
    for n in 0..10_000 {
        let chat = larder.chat().session(format!("s{n:05}"));
        appends.push(tokio::spawn(async move { chat.append([ChatMessage::user("hello")]).await }));
    }
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert_eq!(larder.chat().count(None).await.unwrap(), 10_000);
    let (mut listed, mut after) = (0, None);
    loop {
        let mut request = larder.chat().sessions().limit(3_000);
        if let Some(after) = after.take() {
            request = request.after(after);
        }
        let page = request.await.unwrap();
        listed += page.sessions.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, 10_000);
    larder.close().await;
}

//! Chat memory through the public API: every operation, bad input, and what survives a reopen.

mod bad_input;
mod damage;
mod model;
mod recorded;
mod search;
mod windows;

use futures::TryStreamExt;
use larder::protocol::chat::{ForkProgress, ForkSession, Forked, Retention, StoredMessage};
use larder::protocol::{ClientMessageId, JsonText, SessionId, Timestamp};
use larder::{ChatMessage, Class, ContentBlock, Counter, Larder, Role};

use crate::support::within;

/// A larder that counts words, so that tests can tell costs at a glance; its folder goes with it.
struct Counting {
    larder: Larder,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for Counting {
    type Target = Larder;
    fn deref(&self) -> &Larder {
        &self.larder
    }
}

async fn counting_words() -> Counting {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::builder(folder.path()).chat(|chat| chat.own.counter = words()).open().await.unwrap();
    Counting { larder, _folder: folder }
}

fn words() -> Counter {
    Counter::function("words-1", |text| text.split_whitespace().count() as u64)
}

fn texts(messages: &[StoredMessage]) -> Vec<String> {
    messages.iter().map(|message| message.message.text().unwrap_or_default()).collect()
}

async fn all(chat: &larder::ChatSession) -> Vec<String> {
    texts(&chat.export().try_collect::<Vec<_>>().await.unwrap())
}

#[tokio::test]
async fn messages_survive_a_reopen_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let message = ChatMessage::from_blocks(
        Role::Other("critic".into()),
        vec![
            ContentBlock::text("see"),
            ContentBlock::image_url("https://x"),
            ContentBlock::tool_call("c", "n", "{}"),
            ContentBlock::Unknown(JsonText::new(r#"{"odd":[1,2.5e-3]}"#).unwrap()),
        ],
    )
    .with_name("n")
    .with_metadata(JsonText::new(r#"{"k":1}"#).unwrap())
    .with_created(Timestamp(5))
    .with_client_id(ClientMessageId::new("m1").unwrap());
    let larder = Larder::open(folder.path()).await.unwrap();
    larder.chat().session("a").append([message.clone(), ChatMessage::user("hello")]).await.unwrap();
    assert!(larder.close().await.is_clean());
    let larder = Larder::open(folder.path()).await.unwrap();
    let page = larder.chat().session("a").page(10).await.unwrap();
    assert_eq!(page.messages[0].message, message);
    assert_eq!(texts(&page.messages), ["see", "hello"]);
    assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty());
    larder.close().await;
}

#[tokio::test]
async fn sixty_four_callers_append_at_once_and_each_batch_stays_whole() {
    let larder = Larder::temporary().await.unwrap();
    let callers = (0..64).map(|caller| {
        let chat = larder.chat().session("shared");
        tokio::spawn(async move {
            for batch in 0..8 {
                let batch = (0..3).map(|part| ChatMessage::user(format!("{caller} {batch} {part}")));
                chat.append(batch).await.unwrap();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let found = all(&larder.chat().session("shared")).await;
    assert_eq!(found.len(), 64 * 8 * 3);
    for batch in found.chunks(3) {
        let head = batch[0].strip_suffix(" 0").unwrap();
        assert_eq!(batch[1..], [format!("{head} 1"), format!("{head} 2")]);
    }
    let described = larder.chat().session("shared").description().await.unwrap().unwrap();
    assert_eq!(described.message_count, 64 * 8 * 3);
    assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn page_goes_both_ways_and_on() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    let appended = chat.append((0..10).map(|n| ChatMessage::user(n.to_string()))).await.unwrap();
    chat.archive([appended.ids[1]]).await.unwrap();
    let page = chat.page(4).await.unwrap();
    assert_eq!(texts(&page.messages), ["0", "2", "3", "4"]);
    let page = chat.page(4).with_archived().await.unwrap();
    assert_eq!(texts(&page.messages), ["0", "1", "2", "3"]);
    let page = chat.page(10).after(page.next.unwrap()).with_archived().await.unwrap();
    assert_eq!(texts(&page.messages), ["4", "5", "6", "7", "8", "9"]);
    assert_eq!(page.next, None);
    let page = chat.page(3).newest_first().await.unwrap();
    assert_eq!(texts(&page.messages), ["9", "8", "7"]);
    let page = chat.page(7).newest_first().after(page.next.unwrap()).with_archived().await.unwrap();
    assert_eq!(texts(&page.messages), ["6", "5", "4", "3", "2", "1", "0"]);
}

#[tokio::test]
async fn edit_keeps_the_place_and_replaces_search_and_count() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    let ids = chat.append(["one", "two words", "three"].map(ChatMessage::user)).await.unwrap().ids;
    chat.edit(ids[1], ChatMessage::user("now four words here")).await.unwrap();
    assert_eq!(all(&chat).await, ["one", "now four words here", "three"]);
    assert_eq!(chat.search("two").await.unwrap().len(), 0);
    assert_eq!(chat.search("four").await.unwrap()[0].message.id, ids[1]);
    assert_eq!(chat.description().await.unwrap().unwrap().token_count, 6);
    let error = chat.edit(larder::MessageId(999), ChatMessage::user("x")).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn deleted_message_is_gone_from_lists_search_and_counts() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    let ids = chat.append(["one", "two words", "three"].map(ChatMessage::user)).await.unwrap().ids;
    assert_eq!(chat.delete([ids[1], ids[1], larder::MessageId(77)]).await.unwrap(), 1);
    assert_eq!(all(&chat).await, ["one", "three"]);
    assert_eq!(chat.search("two").await.unwrap().len(), 0);
    let described = chat.description().await.unwrap().unwrap();
    assert_eq!((described.message_count, described.token_count), (2, 2));
    // An id never comes back.
    chat.delete([ids[2]]).await.unwrap();
    assert!(chat.append([ChatMessage::user("four")]).await.unwrap().ids[0] > ids[2]);
    assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn fork_shares_messages_and_each_changes_alone() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    let ids = chat.append(["one", "two", "three"].map(ChatMessage::user)).await.unwrap().ids;
    assert_eq!(chat.fork_at(ids[1], "b").await.unwrap(), 2);
    let fork = larder.chat().session("b");
    assert_eq!(all(&fork).await, ["one", "two"]);
    chat.edit(ids[0], ChatMessage::user("changed")).await.unwrap();
    fork.delete([ids[1]]).await.unwrap();
    fork.append([ChatMessage::user("else")]).await.unwrap();
    assert_eq!(all(&chat).await, ["changed", "two", "three"]);
    assert_eq!(all(&fork).await, ["one", "else"]);
    assert_eq!(chat.fork("b").await.unwrap_err().class(), Class::Conflict);
    assert_eq!(larder.chat().session("none").fork("c").await.unwrap_err().class(), Class::NotFound);
    // The originals can go; what the fork shares stays.
    assert!(chat.delete_session().await.unwrap());
    assert!(!chat.delete_session().await.unwrap());
    assert_eq!(all(&fork).await, ["one", "else"]);
    assert_eq!(larder.chat().search("one").await.unwrap().len(), 1);
    assert_eq!(larder.chat().search("three").await.unwrap().len(), 0);
    assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn cleared_session_keeps_its_description() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    assert!(chat.describe().title("About").owner("ann").await.unwrap());
    chat.append((0..1_500).map(|n| ChatMessage::user(format!("message {n}")))).await.unwrap();
    assert_eq!(chat.clear().await.unwrap(), 1_500);
    assert_eq!(all(&chat).await, Vec::<String>::new());
    assert_eq!(chat.search("message").await.unwrap().len(), 0);
    let described = chat.description().await.unwrap().unwrap();
    assert_eq!((described.title.as_deref(), described.message_count), (Some("About"), 0));
    assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn sessions_are_listed_by_owner_counted_and_deleted() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat();
    for n in 0..20 {
        let owner = if n % 2 == 0 { "ann" } else { "bob" };
        chat.session(format!("s{n:02}")).describe().owner(owner).await.unwrap();
    }
    chat.session("s00").describe().owner("ann").archived().await.unwrap();
    assert_eq!(chat.count(None).await.unwrap(), 20);
    assert_eq!(chat.count(Some("ann")).await.unwrap(), 10);
    let listed = chat.sessions().owner("ann").archived(false).limit(3).await.unwrap();
    assert_eq!(listed.sessions.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["s02", "s04", "s06"]);
    let next = chat.sessions().owner("ann").after(listed.next.unwrap()).await.unwrap();
    assert_eq!(next.sessions.iter().map(|one| one.id.as_str()).next(), Some("s08"));
    assert_eq!((next.sessions.len(), next.next), (6, None));
    assert!(chat.session("s01").delete_session().await.unwrap());
    assert_eq!(chat.count(None).await.unwrap(), 19);
}

#[tokio::test]
async fn retention_keeps_the_newest_and_what_is_mandatory() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    let old = |text: &str| ChatMessage::user(text).with_created(Timestamp(1));
    let ids = chat.append([ChatMessage::system("rules"), old("a b"), old("c"), old("d e f")]).await.unwrap().ids;
    chat.pin(ids[1]).await.unwrap();
    chat.append(["g h", "i", "j k"].map(ChatMessage::user)).await.unwrap();
    assert_eq!(chat.trim(Retention::Tokens(8)).await.unwrap(), 1);
    assert_eq!(all(&chat).await, ["rules", "a b", "d e f", "g h", "i", "j k"]);
    assert_eq!(chat.trim(Retention::Age(std::time::Duration::from_secs(3600))).await.unwrap(), 1);
    assert_eq!(chat.trim(Retention::Count(1)).await.unwrap(), 2);
    assert_eq!(all(&chat).await, ["rules", "a b", "j k"]);
    assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty());
}

/// More than one slice of a trim, with messages in between that stay, and some that are archived.
#[tokio::test]
async fn trim_goes_on_over_slices() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    let numbered = |n: usize| {
        let message =
            if n.is_multiple_of(100) { ChatMessage::system("rule") } else { ChatMessage::user(format!("n {n}")) };
        message.with_created(Timestamp(if n.is_multiple_of(2) { 1 } else { i64::MAX }))
    };
    let ids = chat.append((0..1_500).map(numbered)).await.unwrap().ids;
    chat.archive(ids[..300].iter().copied()).await.unwrap();
    // 15 rules stay, and of the rest the newest 200.
    assert_eq!(chat.trim(Retention::Count(200)).await.unwrap(), 1_485 - 200);
    assert_eq!(chat.trim(Retention::Count(200)).await.unwrap(), 0);
    let kept = all(&chat).await;
    assert_eq!((kept.len(), kept.last().unwrap().as_str()), (215, "n 1499"));
    assert_eq!(kept.iter().filter(|text| *text == "rule").count(), 15);
    assert_eq!(chat.trim(Retention::Tokens(101)).await.unwrap(), 150);
    // By age a message goes wherever it stands.
    assert_eq!(chat.trim(Retention::Age(std::time::Duration::from_secs(60))).await.unwrap(), 25);
    assert_eq!(all(&chat).await.len(), 15 + 25);
    chat.append((0..1_100).map(|n| ChatMessage::user(n.to_string()))).await.unwrap();
    assert_eq!(chat.trim(Retention::Count(0)).await.unwrap(), 1_125);
    assert_eq!(all(&chat).await.len(), 15);
    assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty());
}

/// A large session goes bit by bit, and nobody sees it any more from the moment on at which it was deleted.
#[tokio::test]
async fn large_session_is_gone_at_once_and_its_rows_go_in_slices() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path()).chat(|chat| chat.common.durability = larder::Durability::Relaxed);
    let larder = builder.open().await.unwrap();
    let chat = larder.chat().session("a");
    chat.append((0..5_000).map(|n| ChatMessage::user(format!("message {n}")))).await.unwrap();
    chat.fork("b").await.unwrap();
    let mut notices = larder.chat().subscribe(larder::protocol::Sequence::default()).await.unwrap();
    assert!(chat.delete_session().await.unwrap());
    chat.append([ChatMessage::user("again")]).await.unwrap();
    assert_eq!(all(&chat).await, ["again"]);
    assert_eq!(chat.search("message").await.unwrap().len(), 0);
    #[expect(clippy::disallowed_methods, reason = "looks at what the public API no longer shows")]
    let file = rusqlite::Connection::open(folder.path().join("chat.db")).unwrap();
    let places = || file.query_row("SELECT count(*) FROM place", [], |row| row.get::<_, u64>(0)).unwrap();
    // Each slice is a commit; the fork keeps its own places.
    while places() > 5_001 {
        crate::support::within(futures::StreamExt::next(&mut notices)).await.unwrap().unwrap();
    }
    assert_eq!(all(&larder.chat().session("b")).await.len(), 5_000);
    assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty());
    larder.close().await;
}

/// More than one slice of a fork: until the last of them nobody sees anything of it.
#[tokio::test]
async fn long_fork_shows_with_its_last_slice() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    let ids = chat.append((0..4_500).map(|n| ChatMessage::user(format!("message {n}")))).await.unwrap().ids;
    chat.pin(ids[10]).await.unwrap();
    chat.archive([ids[20], ids[4_400]]).await.unwrap();
    chat.put_summary(ChatMessage::system("a lot was said"), ids[30]).await.unwrap();
    let (window, before) = (texts(&chat.window(100).await.unwrap().messages), all(&chat).await);
    let name = |name| SessionId::new(name).unwrap();
    let slice = |progress| larder.ask(ForkSession { session: name("a"), through: None, into: name("b"), progress });
    let first = slice(None).await.unwrap();
    assert_eq!(first.message_count, 4_000);
    let fork = larder.chat().session("b");
    assert_eq!(fork.description().await.unwrap(), None);
    assert_eq!(larder.chat().count(None).await.unwrap(), 1);
    assert_eq!(larder.chat().search("message 10").await.unwrap().len(), 1);
    assert_eq!(larder.check(larder::CheckDepth::Full).await.unwrap().findings, []);
    chat.append([ChatMessage::user("later")]).await.unwrap();
    // Rows that are no fork in the making are left alone, whoever names them.
    let progress = first.next.unwrap();
    for wrong in
        [ForkProgress { fork: progress.source, ..progress }, ForkProgress { source: progress.fork, ..progress }]
    {
        assert_eq!(slice(Some(wrong)).await.unwrap_err().class(), Class::Conflict);
    }
    assert_eq!(slice(Some(progress)).await.unwrap(), Forked { message_count: 4_500, next: None });
    assert_eq!(slice(Some(progress)).await.unwrap_err().class(), Class::Conflict);
    assert_eq!(all(&fork).await, before);
    assert_eq!(texts(&fork.window(100).await.unwrap().messages), window);
    assert_eq!(larder.check(larder::CheckDepth::Full).await.unwrap().findings, []);
}

#[tokio::test]
async fn fork_that_was_left_half_made_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        || Larder::builder(folder.path()).chat(|chat| chat.common.durability = larder::Durability::Relaxed).open();
    let larder = open().await.unwrap();
    let chat = larder.chat().session("a");
    chat.append((0..4_500).map(|n| ChatMessage::user(format!("message {n}")))).await.unwrap();
    let (session, into) = (SessionId::new("a").unwrap(), SessionId::new("b").unwrap());
    larder.ask(ForkSession { session, through: None, into, progress: None }).await.unwrap();
    assert!(larder.close().await.is_clean());
    #[expect(clippy::disallowed_methods, reason = "the folder is closed")]
    let file = rusqlite::Connection::open(folder.path().join("chat.db")).unwrap();
    let aged = file.execute("UPDATE session SET forming_ms = forming_ms - 3600001 WHERE name IS NULL", []).unwrap();
    drop(file);
    assert_eq!(aged, 1);
    let larder = open().await.unwrap();
    let mut notices = larder.chat().subscribe(larder::protocol::Sequence::default()).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "looks at what the public API does not show")]
    let file = rusqlite::Connection::open(folder.path().join("chat.db")).unwrap();
    let count =
        |table| file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u64>(0)).unwrap();
    while (count("place"), count("session")) != (4_500, 1) {
        crate::support::within(futures::StreamExt::next(&mut notices)).await.unwrap().unwrap();
    }
    assert_eq!(all(&larder.chat().session("a")).await.len(), 4_500);
    assert_eq!(larder.check(larder::CheckDepth::Full).await.unwrap().findings, []);
    larder.close().await;
}

#[tokio::test]
async fn subscribers_hear_of_messages() {
    let larder = Larder::temporary().await.unwrap();
    let chat = larder.chat().session("a");
    let mut notices = larder.chat().subscribe(larder::protocol::Sequence::default()).await.unwrap();
    let ids = chat.append([ChatMessage::user("x")]).await.unwrap().ids;
    let notice = futures::StreamExt::next(&mut notices).await.unwrap().unwrap();
    let larder::protocol::change::Notice::Commit(commit) = notice else { panic!("{notice:?}") };
    assert_eq!((commit.changes[0].scope.as_str(), &commit.changes[0].ids[0]), ("a", &ids[0].to_string()));
}

/// Nor is it in the WAL, once nobody has written for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn securely_deleted_text_leaves_the_wal() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path()).chat(|chat| {
        chat.own.secure_delete = true;
        chat.common.checkpoint.idle = std::time::Duration::from_millis(50);
    });
    let builder = builder.settings(|settings| settings.maintenance_interval = std::time::Duration::from_millis(10));
    let larder = builder.open().await.unwrap();
    let chat = larder.chat().session("a");
    let ids = chat.append(["zyxwvut secret"].map(ChatMessage::user)).await.unwrap().ids;
    chat.delete([ids[0]]).await.unwrap();
    let wal = folder.path().join("chat.db-wal");
    within(async {
        while wal.metadata().unwrap().len() > 0 {
            larder.chat().sessions().await.unwrap();
        }
    })
    .await;
    larder.close().await;
}

/// Overwritten and checkpointed, the deleted text is nowhere in the folder; without the setting it would be.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the folder is closed")]
async fn securely_deleted_text_leaves_the_file() {
    for secure in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let larder = Larder::builder(folder.path()).chat(|chat| chat.own.secure_delete = secure).open().await.unwrap();
        let chat = larder.chat().session("a");
        let ids = chat.append(["kept words", "zyxwvut secret"].map(ChatMessage::user)).await.unwrap().ids;
        chat.delete([ids[1]]).await.unwrap();
        assert!(larder.close().await.is_clean());
        let bytes = std::fs::read(folder.path().join("chat.db")).unwrap();
        let is_there = bytes.windows(7).any(|window| window == b"zyxwvut");
        assert_eq!(is_there, !secure, "secure: {secure}");
    }
}

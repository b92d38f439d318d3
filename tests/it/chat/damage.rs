//! Bits that rot in a closed file: no read answers with them, and `check()` tells of each.
#![expect(clippy::disallowed_methods, reason = "the folder is closed while its file is looked at and damaged")]

use std::path::Path;

use larder::protocol::chat::StoredMessage;
use larder::protocol::{ClientMessageId, JsonText};
use larder::{ChatMessage, CheckDepth, Class, ContentBlock, Larder};

use crate::support::damage::{Noticed, each_damaged_column_is_noticed};
use crate::torture::Random;

/// A session whose second message has something in every column.
async fn fill(folder: &Path) -> Vec<StoredMessage> {
    let larder = Larder::open(folder).await.unwrap();
    let chat = larder.chat().session("a");
    let full = ChatMessage::user("the second one says a lot about what rots in files that nobody reads")
        .with_block(ContentBlock::tool_call("c1", "look", r#"{"at": "it"}"#))
        .with_name("ann")
        .with_metadata(JsonText::new(r#"{"lang": "en"}"#).unwrap())
        .with_client_id(ClientMessageId::new("m1").unwrap());
    let messages =
        [ChatMessage::user("first"), full, ChatMessage::tool_result("c1", "third"), ChatMessage::user("last")];
    let ids = chat.append(messages).await.unwrap().ids;
    chat.describe().title("t").owner("o").metadata(JsonText::new("{}").unwrap()).await.unwrap();
    chat.pin(ids[1]).await.unwrap();
    let page = chat.page(10).await.unwrap().messages;
    assert!(larder.check(CheckDepth::Full).await.unwrap().findings.is_empty());
    assert!(larder.close().await.is_clean());
    page
}

#[tokio::test]
async fn every_damaged_column_is_noticed() {
    const SECOND: &str = "id = (SELECT min(id) + 1 FROM body)";
    const FIRST_PLACE: &str = "id = (SELECT min(id) + 1 FROM place)";
    let cases = [
        ("body", "role", SECOND, Noticed::OnRead),
        ("body", "text", SECOND, Noticed::OnRead),
        ("body", "blocks", SECOND, Noticed::OnRead),
        ("body", "name", SECOND, Noticed::OnRead),
        ("body", "metadata", SECOND, Noticed::OnRead),
        ("body", "client_id", SECOND, Noticed::OnRead),
        ("body", "created_ms", SECOND, Noticed::OnRead),
        ("body", "checksum", SECOND, Noticed::OnRead),
        ("place", "body_id", FIRST_PLACE, Noticed::OnRead),
        ("place", "flags", FIRST_PLACE, Noticed::OnRead),
        ("place", "counter_id", FIRST_PLACE, Noticed::OnRead),
        ("place", "text_tokens", FIRST_PLACE, Noticed::OnRead),
        ("place", "spaced_text_tokens", FIRST_PLACE, Noticed::OnRead),
        ("place", "cost_tokens", FIRST_PLACE, Noticed::OnRead),
        ("place", "checksum", FIRST_PLACE, Noticed::OnRead),
        ("place", "mandatory", FIRST_PLACE, Noticed::ByCheck),
        ("place", "client_id", FIRST_PLACE, Noticed::ByCheck),
        ("place", "archived", FIRST_PLACE, Noticed::ByCheck),
        ("link", "call_id", "is_answer = 1", Noticed::ByCheck),
        ("session", "title", "1", Noticed::OnRead),
        ("session", "owner", "1", Noticed::OnRead),
        ("session", "archived", "1", Noticed::OnRead),
        ("session", "created_ms", "1", Noticed::OnRead),
        ("session", "message_count", "1", Noticed::ByCheck),
        ("session", "token_count", "1", Noticed::ByCheck),
    ];
    let read = async |larder: &Larder, table: &str| {
        let chat = larder.chat().session("a");
        if table == "session" {
            return vec![chat.description().await.err()];
        }
        // A window reads what is pinned in any case.
        vec![chat.window(10_000).await.err(), chat.page(10).await.err()]
    };
    let write = async |larder: &Larder| {
        larder.chat().session("b").append([ChatMessage::user("well")]).await.unwrap();
        larder.chat().session("a").append([ChatMessage::user("still")]).await.unwrap();
    };
    let fill = async |folder: &Path| drop(fill(folder).await);
    each_damaged_column_is_noticed("chat.db", &cases, fill, read, write).await;
}

#[tokio::test]
#[should_panic(expected = "body.text is answered")]
async fn control_read_that_verifies_nothing_is_caught() {
    let cases = [("body", "text", "text LIKE 'the second%'", Noticed::OnRead)];
    let fill = async |folder: &Path| drop(fill(folder).await);
    let read = async |_: &Larder, _: &str| vec![None];
    each_damaged_column_is_noticed("chat.db", &cases, fill, read, async |_: &Larder| ()).await;
}

/// Single bits of the file itself, in the rows of contents: record headers and row ids too. The first bytes of a page are
/// left out: they say where its rows are, and what rots there is for SQLite's own check to find.
#[tokio::test]
async fn no_flipped_bit_of_the_file_is_answered() {
    let pristine = tempfile::tempdir().unwrap();
    let written = fill(pristine.path()).await;
    let bytes = std::fs::read(pristine.path().join("chat.db")).unwrap();
    let said = b"the second one says a lot";
    // The content's row, and not the index's.
    let at = bytes.windows(said.len()).rposition(|window| window == said).unwrap();
    let end = at.next_multiple_of(4_096);
    let (mut random, mut refused, mut unharmed) = (Random::of(u64::from(std::process::id()), 11), 0, 0);
    for _ in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        let mut damaged = bytes.clone();
        let (byte, bit) = (at - 30 + random.index(end - at + 30), random.below(8));
        damaged[byte] ^= 1 << bit;
        std::fs::write(folder.path().join("chat.db"), damaged).unwrap();
        let what = format!("bit {bit} of byte {byte}; the text is at {at}");
        let Ok(larder) = Larder::open(folder.path()).await else { continue };
        match larder.chat().session("a").page(10).await {
            Ok(page) => {
                assert_eq!(page.messages, written, "{what}");
                unharmed += 1;
            }
            Err(error) => {
                assert_eq!(error.class(), Class::Corrupt, "{what}: {error}");
                refused += 1;
            }
        }
        larder.close().await;
    }
    println!("{refused} flips were refused, {unharmed} hit nothing that was read");
    assert!(refused > 30);
}

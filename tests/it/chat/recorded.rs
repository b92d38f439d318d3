//! The `chat-memory-buffer` windows of LlamaIndex's own class, recorded by `tests/fixtures/chat_memory_buffer/make.py`,
//! through the public API.

use larder::{ChatMessage, Class, ContentBlock, Durability, Larder, WindowPolicy};
use serde_json::Value;

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// A case's messages: `[role, [places in the pool of texts], …]`.
fn messages(case: &Value, pool: &[Value]) -> Vec<ChatMessage> {
    let text = |place: &Value| {
        let at = usize::try_from(place.as_u64().unwrap()).unwrap();
        ContentBlock::text(pool[at].as_str().unwrap())
    };
    let message = |one: &Value| {
        let blocks = list(&one[1]).iter().map(text).collect();
        ChatMessage::from_blocks(one[0].as_str().unwrap().into(), blocks)
    };
    list(&case["m"]).iter().map(message).collect()
}

#[tokio::test]
async fn windows_agree_with_llamaindex_on_every_recorded_case() {
    let (header, cases) = include_str!("../../fixtures/chat_memory_buffer/recorded.jsonl").split_once('\n').unwrap();
    let header: Value = serde_json::from_str(header).unwrap();
    let pool = list(&header["texts"]);
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path()).chat(|chat| chat.common.durability = Durability::Relaxed);
    let larder = builder.open().await.unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for (at, line) in cases.lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        let messages = messages(&case, pool);
        let chat = larder.chat().session(format!("case {at}"));
        if !messages.is_empty() {
            chat.append(messages.clone()).await.unwrap();
        }
        let window = chat.window(case["l"].as_u64().unwrap()).initial_tokens(case["i"].as_u64().unwrap());
        match (window.policy(WindowPolicy::ChatMemoryBuffer).await, case["n"].as_u64()) {
            (Ok(window), Some(count)) => {
                let count = usize::try_from(count).unwrap();
                let found: Vec<_> =
                    window.messages.iter().map(|one| (&one.message.role, &one.message.blocks)).collect();
                let newest = messages[messages.len() - count..].iter().map(|one| (&one.role, &one.blocks));
                assert_eq!(found, newest.collect::<Vec<_>>(), "case {at}");
                let joined = count.checked_sub(1).map_or(0, |last| case["j"][last].as_u64().unwrap());
                assert_eq!(window.tokens, joined + case["i"].as_u64().unwrap(), "case {at}");
                agreed += 1;
            }
            (Err(error), None) => {
                assert_eq!(error.class(), Class::InvalidInput, "case {at}");
                refused += 1;
            }
            (window, expected) => panic!("case {at}: {window:?}, LlamaIndex: {expected:?}"),
        }
    }
    println!("{agreed} windows agree, {refused} are refused by both");
    assert!(agreed + refused >= 2_000);
    larder.close().await;
}

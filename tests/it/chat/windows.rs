//! Windows through the public API: policies, tool calls, pins, archives, summaries, and counters that change.

use larder::protocol::chat::ChatWindow;
use larder::{ChatMessage, Class, ContentBlock, Counter, ErrorKind, Larder, WindowPolicy};

use super::{counting_words, texts, words};

fn shown(window: &ChatWindow) -> Vec<String> {
    texts(&window.messages)
}

fn call(id: &str) -> ChatMessage {
    ChatMessage::assistant("").with_block(ContentBlock::tool_call(id, "f", "x"))
}

#[tokio::test]
async fn strict_takes_whole_turns_and_keeps_the_system_message() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    let messages = [
        ChatMessage::system("be kind"),
        ChatMessage::user("one two"),
        ChatMessage::assistant("three"),
        ChatMessage::user("four five"),
        ChatMessage::assistant("six"),
    ];
    let ids = chat.append(messages).await.unwrap().ids;
    let window = chat.window(8).await.unwrap();
    assert_eq!((shown(&window).len(), window.tokens, window.left_out.through), (5, 8, None));
    let window = chat.window(7).await.unwrap();
    assert_eq!(shown(&window), ["be kind", "four five", "six"]);
    assert_eq!((window.tokens, window.left_out.through), (5, Some(ids[2])));
    let error = chat.window(4).await.unwrap_err();
    assert_eq!(error.class(), Class::InvalidInput);
    assert!(matches!(error.kind(), ErrorKind::WindowTooSmall { needed_tokens: 5, limit: 4 }), "{error:?}");
    let window = chat.window(8).overhead_per_message(1).await.unwrap();
    assert_eq!(window.tokens, 8);
    let window = chat.window(0).ratio(16, 0.5).initial_tokens(1).await.unwrap();
    assert_eq!((window.limit, window.tokens), (8, 6));
}

#[tokio::test]
async fn tool_calls_stay_with_their_results() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    let messages = [ChatMessage::user("q"), call("c1"), ChatMessage::tool_result("c1", "r"), ChatMessage::user("next")];
    let ids = chat.append(messages).await.unwrap().ids;
    chat.pin(ids[2]).await.unwrap();
    // The pinned result brings its call; the turn's question does not fit.
    let window = chat.window(4).await.unwrap();
    assert_eq!(window.messages.iter().map(|message| message.id).collect::<Vec<_>>(), [ids[1], ids[2], ids[3]]);
    chat.unpin(ids[2]).await.unwrap();
    // Archiving either takes both, and both come back.
    assert_eq!(chat.archive([ids[1]]).await.unwrap(), 2);
    assert_eq!(shown(&chat.window(100).await.unwrap()), ["q", "next"]);
    assert_eq!(chat.unarchive([ids[2]]).await.unwrap(), 2);
    assert_eq!(chat.window(100).await.unwrap().messages.len(), 4);
    // A result without its call is left out and reported.
    chat.delete([ids[1]]).await.unwrap();
    let window = chat.window(100).await.unwrap();
    assert_eq!(shown(&window), ["q", "next"]);
    assert_eq!((window.left_out.orphan_results[0].id, window.left_out.orphan_results.len()), (ids[2], 1));
}

#[tokio::test]
async fn orphan_result_is_taken_out_of_a_message_that_holds_more() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    let mixed = ChatMessage::user("also this").with_block(ContentBlock::tool_result("gone", "r"));
    chat.append([ChatMessage::user("q"), mixed]).await.unwrap();
    let window = chat.window(100).await.unwrap();
    assert_eq!(shown(&window), ["q", "also this"]);
    assert_eq!(window.left_out.orphan_results[0].call_id, "gone");
}

#[tokio::test]
async fn changed_counter_counts_again() {
    let folder = tempfile::tempdir().unwrap();
    let letters = Counter::function("letters-1", |text| text.len() as u64);
    for (counter, tokens) in [(words(), 3), (letters, 9), (words(), 3)] {
        let larder = Larder::builder(folder.path()).chat(|chat| chat.own.counter = counter).open().await.unwrap();
        let chat = larder.chat().session("a");
        if chat.description().await.unwrap().is_none() {
            chat.append([ChatMessage::user("abc"), ChatMessage::assistant("def ghi")]).await.unwrap();
        }
        let window = chat.window(100).await.unwrap();
        assert_eq!(window.tokens, if tokens == 9 { 10 } else { tokens });
        chat.recount().await.unwrap();
        assert_eq!(chat.recount().await.unwrap(), 0);
        assert_eq!(chat.window(100).await.unwrap().tokens, window.tokens);
        assert_eq!(chat.description().await.unwrap().unwrap().token_count, window.tokens);
        larder.close().await;
    }
}

#[tokio::test]
async fn messages_sent_without_counts_are_counted_when_needed() {
    use larder::protocol::SessionId;
    use larder::protocol::chat::{AppendMessages, GetWindow, TokenLimit};
    let larder = counting_words().await;
    let session = SessionId::new("a").unwrap();
    let messages = vec![ChatMessage::user("one two")];
    larder.ask(AppendMessages { session: session.clone(), messages, counts: None }).await.unwrap();
    let ask = |may_take_long| GetWindow {
        session: session.clone(),
        policy: WindowPolicy::Strict,
        limit: TokenLimit::Tokens(10),
        initial_tokens: 0,
        overhead_tokens_per_message: 0,
        may_take_long,
    };
    assert_eq!(larder.ask(ask(false)).await.unwrap(), None);
    assert_eq!(larder.ask(ask(true)).await.unwrap().unwrap().tokens, 2);
    assert_eq!(larder.chat().session("a").recount().await.unwrap(), 1);
    assert_eq!(larder.ask(ask(false)).await.unwrap().unwrap().tokens, 2);
}

/// A strict window reads back to the opener of the newest turn, however far that is: not on the caller's thread.
#[tokio::test]
async fn window_that_reads_much_is_not_read_in_place() {
    use larder::protocol::SessionId;
    use larder::protocol::chat::{GetWindow, TokenLimit};
    let larder = counting_words().await;
    let ask = |session: &str, limit, may_take_long| GetWindow {
        session: SessionId::new(session).unwrap(),
        policy: WindowPolicy::Strict,
        limit: TokenLimit::Tokens(limit),
        initial_tokens: 0,
        overhead_tokens_per_message: 0,
        may_take_long,
    };
    let alone = larder.chat().session("no turns");
    let ids = alone.append((0..2_000).map(|n| ChatMessage::assistant(format!("n {n}")))).await.unwrap().ids;
    assert_eq!(larder.ask(ask("no turns", 10, false)).await.unwrap(), None);
    let window = alone.window(10).await.unwrap();
    assert_eq!((window.messages.len(), window.left_out.through), (0, Some(ids[1_999])));
    // Many messages in the window, and few that are large.
    larder.chat().session("many").append((0..800).map(|n| ChatMessage::user(n.to_string()))).await.unwrap();
    assert!(larder.ask(ask("many", 100, false)).await.unwrap().is_some());
    assert_eq!(larder.ask(ask("many", 800, false)).await.unwrap(), None);
    assert_eq!(larder.chat().session("many").window(800).await.unwrap().messages.len(), 800);
    let large = "word ".repeat(30_000);
    larder.chat().session("large").append((0..5).map(|_| ChatMessage::user(&large))).await.unwrap();
    assert!(larder.ask(ask("large", 30_000, false)).await.unwrap().is_some());
    assert_eq!(larder.ask(ask("large", 150_000, false)).await.unwrap(), None);
    assert_eq!(larder.chat().session("large").window(150_000).await.unwrap().messages.len(), 5);
}

#[tokio::test]
async fn what_falls_out_is_summarised_once_and_carried() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    for turn in 0..6 {
        let turn = [ChatMessage::user(format!("ask {turn} now")), ChatMessage::assistant(format!("say {turn}"))];
        chat.append(turn).await.unwrap();
    }
    let summarised = chat.window(12).summarised_by(|earlier, fallen| async move {
        assert!(earlier.is_none());
        Ok::<_, String>(format!("summary {}", fallen.len()))
    });
    let answer = summarised.await.unwrap();
    assert_eq!(answer.failure, None);
    assert_eq!(shown(&answer.window), ["summary 8", "ask 4 now", "say 4", "ask 5 now", "say 5"]);
    // Nothing new fell out: the summariser is not called again.
    let answer = chat.window(12).summarised_by(|_, _| async { Err::<String, _>("called") }).await.unwrap();
    assert_eq!(answer.failure, None);
    chat.append([ChatMessage::user("ask 6 now"), ChatMessage::assistant("say 6")]).await.unwrap();
    let summarise = |earlier: Option<larder::protocol::chat::StoredMessage>, fallen: Vec<_>| async move {
        assert_eq!(earlier.unwrap().message.text().as_deref(), Some("summary 8"));
        Ok::<_, String>(format!("more {}", fallen.len()))
    };
    let answer = chat.window(12).summarised_by(summarise).await.unwrap();
    assert_eq!(shown(&answer.window)[0], "more 2");
    // Originals are all there, and the summary is none of them.
    assert_eq!(super::all(&chat).await.len(), 14);
    assert_eq!(chat.description().await.unwrap().unwrap().message_count, 14);
}

#[tokio::test]
async fn summariser_that_fails_panics_or_says_too_much_loses_nothing() {
    let larder = counting_words().await;
    let chat = larder.chat().session("a");
    chat.append((0..9).map(|n| ChatMessage::user(format!("word {n}")))).await.unwrap();
    let plain = chat.window(6).await.unwrap();
    let failed = chat.window(6).summarised_by(|_, _| async { Err::<String, _>("no model") }).await.unwrap();
    assert_eq!((failed.failure.as_deref(), &failed.window), (Some("no model"), &plain));
    let panicked = chat
        .window(6)
        .summarised_by(|_, _| async { if true { panic!("a bug") } else { Ok::<_, String>(String::new()) } })
        .await
        .unwrap();
    assert!(panicked.failure.is_some() && panicked.window == plain);
    let long = chat.window(6).summarised_by(|_, _| async { Ok::<_, String>("too long ".repeat(9)) }).await.unwrap();
    assert!(long.failure.is_some() && long.window == plain);
    assert_eq!(chat.window(6).await.unwrap(), plain);
    assert!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.is_empty());
}

//! A conversation that outlives the program: run it twice, and the second run remembers the first.
//!
//! ```sh
//! cargo run --example chat_memory -- DIR     # the first run: asks, calls a tool, answers
//! cargo run --example chat_memory -- DIR     # the second: goes on where the first ended, and searches
//! ```
//!
//! No model is called: what the assistant says is written down here, as a model would have said it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to whoever runs it")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use larder::protocol::chat::{ChatWindow, StoredMessage};
use larder::{ChatMessage, ChatSession, ContentBlock, Larder};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: chat_memory DIR");
        return ExitCode::from(2);
    };
    match run(Path::new(&folder)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat_memory: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(folder: &Path) -> Result<()> {
    let larder = Larder::open(folder).await?;
    let chat = larder.chat().session("alice");
    match chat.description().await? {
        None => begin(&chat).await?,
        Some(known) => {
            println!(
                "This conversation has {} messages of {} tokens from before.\n",
                known.message_count, known.token_count
            );
            go_on(&chat).await?;
        }
    }
    show_window(&chat, 8_192).await?;
    show_window(&chat, 120).await?;
    show_search(&chat, "warehouse").await?;
    let report = larder.close().await;
    println!(
        "Closed{}. Run it again: it goes on from here.",
        if report.is_clean() { "" } else { ", not everything was delivered" }
    );
    Ok(())
}

/// The first run: a question, a tool call with its result, and the answer.
async fn begin(chat: &ChatSession) -> Result<()> {
    println!("A new conversation.\n");
    chat.describe().title("The yearly report").owner("alice").await?;
    let call = ContentBlock::tool_call("call_1", "read_report", r#"{"year": 2025, "chapter": "logistics"}"#);
    let appended = chat
        .append([
            ChatMessage::system("You answer from the report alone, in one or two sentences."),
            ChatMessage::user("What does the report say about our warehouse in Leipzig?"),
            ChatMessage::assistant("").with_block(call),
            ChatMessage::tool_result(
                "call_1",
                "The Leipzig warehouse shipped 41,200 parcels, 12 % more than in 2024; delays fell to 1.3 %.",
            ),
            ChatMessage::assistant(
                "It shipped 41,200 parcels, 12 % more than the year before, and delays fell to 1.3 %.",
            ),
        ])
        .await?;
    println!("Stored {} messages; each was on disk before this line.\n", appended.new_count);
    Ok(())
}

/// Every later run: another turn.
async fn go_on(chat: &ChatSession) -> Result<()> {
    let question = "And compared with the warehouse in Porto?";
    let answer = "The report only says that Porto opened in autumn, so the two cannot be compared yet.";
    chat.append([ChatMessage::user(question), ChatMessage::assistant(answer)]).await?;
    Ok(())
}

async fn show_window(chat: &ChatSession, limit: u64) -> Result<()> {
    let ChatWindow { messages, tokens, left_out, .. } = chat.window(limit).overhead_per_message(4).await?;
    println!("What a model with {limit} tokens gets ({} messages, {tokens} tokens):", messages.len());
    for StoredMessage { message, .. } in &messages {
        let calls = message.call_ids().map(|id| format!("(calls {id})"));
        let text: String = message.text().into_iter().filter(|text| !text.is_empty()).chain(calls).collect();
        println!("  {:>9}  {text}", message.role.as_str());
    }
    match left_out.through {
        Some(last) => println!("  Everything up to message {last} fell out, but for the system message.\n"),
        None => println!("  Nothing fell out.\n"),
    }
    Ok(())
}

async fn show_search(chat: &ChatSession, words: &str) -> Result<()> {
    println!("Messages that say {words:?}, the best first:");
    for hit in chat.search(words).await? {
        println!("  {:>9}  {}", hit.message.message.role.as_str(), hit.snippet);
    }
    println!();
    Ok(())
}

/// Returns an error with everything that caused it: larder's errors say what failed, their sources say why.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

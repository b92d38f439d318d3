//! Questions about a folder of documents, with memory: run it twice, and nothing is ingested again nor forgotten.
//!
//! ```sh
//! cargo run --example document_chat -- DIR                          # about this repository's own documentation
//! cargo run --example document_chat -- DIR --folder FOLDER          # about texts of yours: .md, .txt, .rst
//! cargo run --example document_chat -- DIR "What is a lease?"       # your question instead of the three here
//! ```
//!
//! It needs no network: the embedder hashes words, and the answerer quotes sentences. Both are **simple**, and stand where a real
//! model goes in: [`Embedder`](larder::Embedder) and [`Answerer`](answerer::Answerer).
//!
//! Start at [`converse`]: retrieve, build a prompt with the chat's window, answer, remember.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to whoever runs it")]

mod answerer;
mod folder;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use answerer::{Answerer, Prompt, QuotingAnswerer};
use larder::{ChatMessage, ChatSession, Context, HashingEmbedder, IngestOutcome, Larder, Role};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Tokens of passages, and of the conversation, in one prompt.
const PASSAGE_TOKENS: u64 = 700;
const WINDOW_TOKENS: u64 = 1_000;

const QUESTIONS: [&str; 3] =
    ["What is lost in a power cut?", "And if the store is relaxed?", "Who removes the lock of a dead process?"];

struct Arguments {
    larder: PathBuf,
    folder: PathBuf,
    questions: Vec<String>,
}

impl Arguments {
    fn read() -> Option<Self> {
        let mut words = std::env::args_os().skip(1);
        let larder = words.next().filter(|word| !word.to_string_lossy().starts_with("--"))?.into();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        let mut arguments = Self { larder, folder, questions: Vec::new() };
        while let Some(word) = words.next() {
            if word == "--folder" {
                arguments.folder = words.next()?.into();
            } else {
                arguments.questions.push(word.into_string().ok()?);
            }
        }
        if arguments.questions.is_empty() {
            arguments.questions = QUESTIONS.map(str::to_owned).to_vec();
        }
        Some(arguments)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(arguments) = Arguments::read() else {
        eprintln!("usage: document_chat DIR [--folder FOLDER] [QUESTION]...");
        return ExitCode::from(2);
    };
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("document_chat: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let larder = Larder::open(&arguments.larder).await?;
    // A real model goes in here. This one costs less than a look into the cache, which is for real ones.
    let context = larder.context("library").embedder(HashingEmbedder::default()).uncached().open().await?;
    ingest(&context, &arguments.folder).await?;
    let chat = larder.chat().session("reader");
    if let Some(known) = chat.description().await? {
        println!("We have talked before: {} messages of {} tokens.\n", known.message_count, known.token_count);
    }
    for question in &arguments.questions {
        converse(&context, &chat, &QuotingAnswerer, question).await?;
    }
    let remembered = chat.description().await?.map_or(0, |known| known.message_count);
    let issues = context.check().await?;
    println!("{remembered} messages are remembered; the stores disagree in {} places.", issues.len());
    let report = larder.close().await;
    println!("Closed{}. Run it again: it goes on from here.", if report.is_clean() { "" } else { ", not cleanly" });
    Ok(())
}

/// Brings the context up to date with the folder: what is new or changed is ingested, what is gone is forgotten.
async fn ingest(context: &Context, folder: &Path) -> Result<()> {
    let began = Instant::now();
    let files = folder::texts(folder)?;
    println!("{} texts below {}.", files.len(), folder.display());
    // Read one by one, as there is room.
    let sources = files.into_iter().filter_map(|file| folder::document(folder, &file));
    let ingestion = context.ingest(sources).forget_missing("").on_progress(|progress| match progress.outcome {
        IngestOutcome::Inserted | IngestOutcome::Updated => {
            println!("  {:>3} passages of {}", progress.nodes.inserted + progress.nodes.unchanged, progress.document);
        }
        IngestOutcome::Failed(reason) => println!("  {} failed: {reason}", progress.document),
        _ => {}
    });
    let report = ingestion.run(folder::passages).await?;
    println!(
        "{} new, {} changed, {} as they were, {} gone; {:.0?}.\n",
        report.inserted,
        report.updated,
        report.unchanged,
        report.forgotten.documents,
        began.elapsed()
    );
    Ok(())
}

/// One turn: what fits the question is retrieved, and goes into the prompt with as much of the conversation as fits.
async fn converse(context: &Context, chat: &ChatSession, answerer: &impl Answerer, question: &str) -> Result<()> {
    println!("> {question}");
    let window = chat.window(WINDOW_TOKENS).await?;
    let said: Vec<ChatMessage> = window.messages.into_iter().map(|stored| stored.message).collect();
    // Simple: a question such as "And if not?" means the one before it. A real system lets the model write the search.
    let before = said.iter().rev().find(|message| message.role == Role::User).and_then(ChatMessage::text);
    let sought = match before {
        Some(before) if question.starts_with("And ") => format!("{before} {question}"),
        _ => question.to_owned(),
    };
    let found = context.retrieve(sought.as_str()).k(6).token_budget(PASSAGE_TOKENS).await?;
    let prompt = Prompt { question: &sought, said: &said, passages: &found.passages };
    let answer = answerer.answer(&prompt).await?;
    println!("{answer}");
    for passage in found.passages.iter().take(3) {
        let reasons: Vec<String> = passage.reasons.iter().map(ToString::to_string).collect();
        println!("    {} — {}", passage.node.id, reasons.join("; "));
    }
    println!(
        "    ({} tokens of passages and {} of what was said before)\n",
        found.tokens.unwrap_or_default(),
        window.tokens
    );
    chat.append([ChatMessage::user(question), ChatMessage::assistant(answer)]).await?;
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

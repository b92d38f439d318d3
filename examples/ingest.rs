//! Keeps a folder's text files as documents, cut into chunks, and brings the store up to date when the files change.
//!
//! ```sh
//! cargo run --example ingest                       # a copy of this repository's documentation, in a temporary folder
//! cargo run --example ingest -- FOLDER --keep DIR  # the text files of a folder, into a larder in DIR; run it again later
//! ```
//!
//! Start at [`tell`], the story with the repository's own files. The chunks are the `text-splitter` crate's: larder takes
//! them from any splitter.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "text files, never a store's")]

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use larder::protocol::documents::IngestionDecision;
use larder::{
    Document, IngestionProgress, IngestionReport, IngestionStrategy, JsonText, Larder, Node, TextQuery, field,
};
use text_splitter::MarkdownSplitter;

/// Characters of a chunk: a paragraph or two.
const CHUNK_CHARS: usize = 800;
/// What the chunks depend on beside the text: another splitter must make them anew.
const SPLITTER: &str = "text-splitter 0.33 markdown 800";
/// Larger files are not what an example is for.
const FILE_BYTES_MAX: u64 = 1 << 20;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Folders may have names that are no UTF-8.
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let done = match arguments.as_slice() {
        [] => tell().await,
        [folder, option, keep] if option == "--keep" => bring_up_to_date(Path::new(folder), Path::new(keep)).await,
        _ => {
            eprintln!("usage: ingest [FOLDER --keep DIR]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ingest: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
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

/// The story: ingest, search, change one file, remove one, ingest again.
async fn tell() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("larder-ingest-").tempdir()?;
    let (texts, store) = (folder.path().join("texts"), folder.path().join("store"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in text_files(root)? {
        let copy = texts.join(file.strip_prefix(root)?);
        std::fs::create_dir_all(copy.parent().unwrap_or(&texts))?;
        std::fs::copy(&file, &copy)?;
    }
    let larder = Larder::open(&store).await?;

    println!("== The first time, everything is new");
    let first = ingest(&larder, &texts).await?;
    search(&larder).await?;

    println!("\n== One file gains a paragraph, one is removed; everything else is as it was");
    let changed = texts.join("docs/durability.md");
    let text = std::fs::read_to_string(&changed)? + "\n## Postscript\n\nA zeppelin needs no larder.\n";
    std::fs::write(&changed, text)?;
    std::fs::remove_file(texts.join("CHANGELOG.md"))?;
    let second = ingest(&larder, &texts).await?;
    expect("one document was ingested again", second.updated == 1 && second.inserted == 0)?;
    expect("one document went", second.deleted.iter().map(|id| id.as_str()).eq(["CHANGELOG.md"]))?;
    expect("all others were left alone", second.unchanged == first.inserted - 2)?;
    let found = larder.documents().search("zeppelin").await?;
    expect("the new paragraph is found", found.len() == 1)?;
    let of_the_gone = field("file").eq("CHANGELOG.md");
    expect("nothing of the removed file is", larder.documents().count().matching(of_the_gone).await? == 0)?;

    println!("\n== Nothing changed");
    let before = larder.documents().sequence().await?;
    let third = ingest(&larder, &texts).await?;
    expect("nothing was written", third.nodes.inserted == 0 && larder.documents().sequence().await? == before)?;
    larder.close().await;
    println!("\nThe folder was temporary and is removed now; `FOLDER --keep DIR` leaves one to look at.");
    Ok(())
}

fn expect(what: &str, holds: bool) -> Result<()> {
    if holds {
        println!("   {what}");
        return Ok(());
    }
    Err(format!("it does not hold that {what}").into())
}

async fn bring_up_to_date(folder: &Path, keep: &Path) -> Result<()> {
    let larder = Larder::open(keep).await?;
    ingest(&larder, folder).await?;
    larder.close().await;
    println!("It stays in {}. Run this again after a change, or search with", keep.display());
    println!(
        "    sqlite3 '{}' \"SELECT id, substr(text, 1, 60) FROM node LIMIT 5\"",
        keep.join("documents.db").display()
    );
    Ok(())
}

/// Brings the store up to date with the folder, and tells what it does.
async fn ingest(larder: &Larder, folder: &Path) -> Result<IngestionReport> {
    let began = Instant::now();
    let sources = text_files(folder)?.iter().map(|file| source(folder, file)).collect::<Result<Vec<_>>>()?;
    let ingestion = larder.documents().ingest(sources).strategy(IngestionStrategy::UpsertAndDeleteMissing);
    let report = ingestion.on_progress(show).run(async |document: &Document| cut(document)).await?;
    println!(
        "{} new, {} changed, {} unchanged, {} removed, {} failed: {} chunks written, {} deleted, in {:.0?}",
        report.inserted,
        report.updated,
        report.unchanged,
        report.deleted.len(),
        report.failed.len(),
        report.nodes.inserted + report.nodes.updated,
        report.nodes.deleted,
        began.elapsed()
    );
    Ok(report)
}

fn show(progress: &IngestionProgress<'_>) {
    let (at, of, document) = (progress.at, progress.of, progress.document);
    match (progress.decision, progress.failure) {
        (_, Some(failure)) => println!("[{at:>3}/{of}] {document} failed: {failure}"),
        (IngestionDecision::Unchanged | IngestionDecision::Duplicate(_), None) => {}
        (decision, None) => println!("[{at:>3}/{of}] {document} ({decision:?})"),
    }
}

/// A file as a document: its whole text is kept and hashed, and so is how it is cut.
fn source(folder: &Path, file: &Path) -> Result<Document> {
    let name = file.strip_prefix(folder)?.to_string_lossy().replace('\\', "/");
    let metadata = JsonText::from_value(&serde_json::json!({ "file": name }))?;
    let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
    Ok(Document::new(name)?.with_text(text).with_fingerprint(SPLITTER).with_metadata(metadata))
}

/// Cuts a document into chunks, each with its place in the text.
fn cut(document: &Document) -> Result<Vec<Node>> {
    let text = document.text.as_deref().unwrap_or_default();
    let chunks = MarkdownSplitter::new(CHUNK_CHARS).chunk_char_indices(text).collect::<Vec<_>>();
    let id = |n: usize| format!("{}#{n}", document.id);
    let mut nodes = Vec::with_capacity(chunks.len());
    for (n, chunk) in chunks.iter().enumerate() {
        let start = chunk.char_offset as u64;
        let metadata = serde_json::json!({ "file": document.id.as_str(), "chunk": n });
        let mut node = Node::text(id(n), chunk.chunk)?
            .with_span(start, start + chunk.chunk.chars().count() as u64)
            .with_metadata(JsonText::from_value(&metadata)?);
        node.relationships.previous = n.checked_sub(1).map(|n| id(n).try_into()).transpose()?;
        node.relationships.next = (n + 1 < chunks.len()).then(|| id(n + 1).try_into()).transpose()?;
        nodes.push(node);
    }
    Ok(nodes)
}

async fn search(larder: &Larder) -> Result<()> {
    let documents = larder.documents();
    for (what, request) in [
        ("\"power cut\" as a phrase", documents.search(TextQuery::default().phrase("power cut"))),
        (
            "\"checkpoint\", in the decisions alone",
            documents.search("checkpoint").filter(field("file").text_match("decisions")),
        ),
        ("what a user has typed so far, \"kill -9 und\"", documents.search(TextQuery::begun("kill -9 und"))),
    ] {
        println!("\nSearching for {what}:");
        for hit in request.limit(2).await? {
            let snippet = hit.snippet.split_whitespace().collect::<Vec<_>>().join(" ");
            println!("   {} {snippet}", hit.found.node.id);
        }
    }
    Ok(())
}

/// Returns the text files below a folder in the order of their names, hidden and built ones left out.
fn text_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let is_left_out = name.starts_with('.') || name == "target" || name == "fixtures";
            let is_text = path.extension().is_some_and(|extension| extension == "md" || extension == "txt");
            match entry.metadata()? {
                _ if is_left_out => {}
                kind if kind.is_dir() => folders.push(path),
                kind if is_text && kind.len() <= FILE_BYTES_MAX => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

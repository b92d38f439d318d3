//! Keeps the text files of a folder in larder, closes, reopens and finds them again.
//!
//! ```sh
//! cargo run --example quickstart                                  # this repository's own documentation
//! cargo run --example quickstart -- FOLDER                        # the text files of a folder
//! cargo run --example quickstart -- FOLDER --keep DIR             # leaves the larder in DIR for another run, or for sqlite3
//! ```
//!
//! Start at [`tell`], the story itself; everything below it reads files and arguments.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to whoever runs it")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use larder::{Larder, field};
use serde::{Deserialize, Serialize};

/// Larger files are not what a quickstart is for.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Documents put at once: of the largest, a request holds 63.
const BATCH_LEN: usize = 50;
/// The first this many files, so that a wrong folder (`/`) ends soon.
const FILES_MAX: usize = 2_000;
/// Names listed under a heading before "and … more".
const LISTED_MAX: usize = 5;

/// What is kept of each file: metadata to search by, and the text. Stored as JSON, so that filters see into it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Document {
    path: String,
    title: String,
    bytes: u64,
    /// Milliseconds since 1970-01-01 UTC.
    modified_ms: u64,
    body: String,
}

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("quickstart: {problem}\nusage: quickstart [FOLDER] [--keep DIR]");
            return ExitCode::from(2);
        }
    };
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let Found { documents, skipped } = arguments.find_documents()?;
    println!("Read {} text files of {}.", documents.len(), arguments.source().display());
    list("skipped", &skipped);
    let Some(keep) = &arguments.keep else {
        // Removed when this function ends, whether it succeeds or fails.
        let folder = tempfile::Builder::new().prefix("larder-quickstart-").tempdir()?;
        tell(folder.path(), &documents).await?;
        println!("\nThe folder was temporary and is removed now; `--keep DIR` leaves one to look at.");
        return Ok(());
    };
    tell(keep, &documents).await?;
    let file = keep.join("kv.db");
    println!("\nThey stay in {}. Run this again, or look at it with any SQLite shell:", keep.display());
    println!(
        "    sqlite3 '{}' \"SELECT key, value ->> 'title' FROM entry WHERE collection = 'documents'\"",
        file.display()
    );
    Ok(())
}

/// The story: keep, close, reopen, find.
async fn tell(folder: &Path, documents: &[Document]) -> Result<()> {
    println!("\n1. Keep them in {}", folder.display());
    let larder = Larder::open(folder).await?;
    let run_number = larder.kv().collection::<i64>("quickstart").increment("runs", 1).await?;
    let kept = larder.kv().collection::<Document>("documents");
    let kept_before = kept.count().await?;
    let started = Instant::now();
    let batches = documents.chunks(BATCH_LEN);
    let commit_count = batches.len();
    for batch in batches {
        kept.put_many(batch.iter().map(|document| (&document.path, document))).await?;
    }
    let took = Took(started.elapsed());
    println!("   {} documents in {commit_count} commit(s), on disk after {took}.", documents.len());
    if run_number > 1 {
        println!("   This is run {run_number} in this folder; {kept_before} documents were here before.");
    }

    println!("2. Close, as if the program ended");
    let started = Instant::now();
    let report = larder.close().await;
    println!("   Closed after {}, {} requests undelivered.", Took(started.elapsed()), report.undelivered.len());

    println!("3. Reopen, as if it started again");
    let started = Instant::now();
    let larder = Larder::open(folder).await?;
    let kept = larder.kv().collection::<Document>("documents");
    let count = kept.count().await?;
    println!("   Opened and counted {count} documents in {}.", Took(started.elapsed()));

    println!("4. Find them again");
    let started = Instant::now();
    for document in documents {
        let found = kept.get(&document.path).await?;
        if found.as_ref() != Some(document) {
            return Err(format!("{} did not come back as it was put", document.path).into());
        }
    }
    let each = started.elapsed() / u32::try_from(documents.len())?;
    println!("   By key: all {} came back exactly as they were put, {} each.", documents.len(), Took(each));

    let prefix = common_prefix(documents);
    let started = Instant::now();
    let under: Vec<_> = kept.scan().prefix(prefix).stream().try_collect().await?;
    println!("   By prefix: {} under \"{prefix}\" ({}).", under.len(), Took(started.elapsed()));

    let bytes = median_bytes(documents);
    let mut filter = field("bytes").gte(bytes);
    let word = word_to_find(documents, bytes);
    if let Some(word) = &word {
        filter = filter.and(field("body").text_match_insensitive(word));
    }
    let started = Instant::now();
    let about: Vec<_> = kept.scan().filter(filter).stream().try_collect().await?;
    let wanted = word.map_or_else(String::new, |word| format!(" and mentions of \"{word}\""));
    println!("   By content: {} with {bytes} bytes or more{wanted} ({}):", about.len(), Took(started.elapsed()));
    list("", &about.iter().map(|(key, document)| format!("{key}: {}", document.title)).collect::<Vec<_>>());
    larder.close().await;
    if cfg!(debug_assertions) {
        println!("   (An unoptimised build; `cargo run --release` is faster.)");
    }
    Ok(())
}

fn list(heading: &str, lines: &[String]) {
    for line in lines.iter().take(LISTED_MAX) {
        println!("   {heading}{}{line}", if heading.is_empty() { "  " } else { " " });
    }
    if lines.len() > LISTED_MAX {
        println!("     … and {} more", lines.len() - LISTED_MAX);
    }
}

/// A duration in the unit that suits it.
struct Took(Duration);

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_micros() {
            0..1_000 => write!(f, "{} µs", self.0.as_micros()),
            1_000..1_000_000 => write!(f, "{:.1} ms", self.0.as_secs_f64() * 1e3),
            _ => write!(f, "{:.1} s", self.0.as_secs_f64()),
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

/// What to read, and where to leave it.
struct Arguments {
    /// `None`: this repository's documentation.
    folder: Option<PathBuf>,
    /// `None`: a temporary folder.
    keep: Option<PathBuf>,
}

/// What a folder holds.
#[derive(Default)]
struct Found {
    documents: Vec<Document>,
    /// Path and reason.
    skipped: Vec<String>,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = std::ffi::OsString>) -> Result<Self, String> {
        let mut arguments = Self { folder: None, keep: None };
        while let Some(word) = words.next() {
            if word == "--keep" {
                arguments.keep = Some(words.next().ok_or("--keep needs a folder")?.into());
            } else if word.to_string_lossy().starts_with('-') {
                return Err(format!("unknown option {}", word.display()));
            } else if arguments.folder.replace(word.into()).is_some() {
                return Err("more than one folder is named".to_owned());
            }
        }
        Ok(arguments)
    }

    fn source(&self) -> &Path {
        self.folder.as_deref().unwrap_or(Path::new(env!("CARGO_MANIFEST_DIR")))
    }

    fn find_documents(&self) -> Result<Found> {
        let root = self.source();
        if !root.exists() {
            return Err(format!("there is no folder {}", root.display()).into());
        }
        if !root.is_dir() {
            return Err(format!("{} is a file, not a folder", root.display()).into());
        }
        let mut found = Found::default();
        let mut paths = files_under(root, self.folder.is_some(), &mut found.skipped)?;
        if self.folder.is_none() {
            // Of the repository, the documentation: what lies beside the README, and docs/.
            paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
            paths.extend(files_under(&root.join("docs"), true, &mut found.skipped)?);
        }
        for path in paths {
            match read_document(root, &path) {
                Ok(document) => found.documents.push(document),
                Err(reason) => found.skipped.push(format!("{}: {reason}", path.display())),
            }
        }
        if found.documents.is_empty() {
            list("skipped", &found.skipped);
            return Err(format!("{} holds no text file to keep", root.display()).into());
        }
        Ok(found)
    }
}

/// Returns the files of a folder in the order of their paths, hidden ones left out, symbolic links not followed.
fn files_under(root: &Path, is_deep: bool, skipped: &mut Vec<String>) -> Result<Vec<PathBuf>> {
    let mut folders = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if folder == root => return Err(format!("cannot list {}: {error}", folder.display()).into()),
            Err(error) => {
                skipped.push(format!("{}: {error}", folder.display()));
                continue;
            }
        };
        for entry in entries.flatten() {
            let (path, kind) = (entry.path(), entry.file_type()?);
            let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
            // The files of a larder are for larder alone.
            if is_deep && kind.is_dir() && !is_hidden && !path.join("larder.lock").exists() {
                folders.push(path);
            } else if kind.is_file() && !is_hidden {
                files.push(path);
            }
        }
        if files.len() > FILES_MAX {
            skipped.push(format!("everything after the first {FILES_MAX} files"));
            files.truncate(FILES_MAX);
            break;
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the document, or why the file is not one.
#[expect(clippy::disallowed_methods, reason = "reads the user's documents, never a store's file")]
fn read_document(root: &Path, path: &Path) -> Result<Document, String> {
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!("larger than {} KiB", FILE_BYTES_MAX >> 10));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let body = String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?;
    if body.contains('\0') {
        return Err("binary".to_owned());
    }
    let name = path.strip_prefix(root).unwrap_or(path);
    let name = name.to_str().ok_or("its name is not UTF-8")?.replace('\\', "/");
    larder::protocol::Key::new(&name).map_err(|error| error.to_string())?;
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let modified_ms = modified.and_then(|time| u64::try_from(time.as_millis()).ok()).unwrap_or(0);
    let heading = body.lines().find_map(|line| line.strip_prefix("# ")).map(str::trim);
    let title = heading.filter(|title| !title.is_empty()).unwrap_or(&name).to_owned();
    Ok(Document { title, bytes: metadata.len(), modified_ms, body, path: name })
}

/// Returns the folder that most documents are in, or the start of the first one's name.
fn common_prefix(documents: &[Document]) -> &str {
    let folder_of = |document: &'_ Document| document.path.find('/').map(|end| end + 1);
    let folders = documents.iter().filter_map(|d| folder_of(d).and_then(|end| d.path.get(..end)));
    let count = |folder: &str| documents.iter().filter(|d| d.path.starts_with(folder)).count();
    let start = documents.first().and_then(|d| d.path.split_inclusive(|_| true).next());
    folders.max_by_key(|folder| count(folder)).or(start).unwrap_or_default()
}

/// Returns a word that a document of at least `bytes` has both in its heading and in its text.
fn word_to_find(documents: &[Document], bytes: i64) -> Option<String> {
    let large = documents.iter().filter(|document| i64::try_from(document.bytes).is_ok_and(|own| own >= bytes));
    let headed = large.filter(|document| document.title != document.path && document.body.contains(&document.title));
    let words = headed.flat_map(|document| document.title.split(|c: char| !c.is_alphanumeric()));
    words.max_by_key(|word| word.chars().count()).map(str::to_lowercase)
}

/// Returns the size that half of the documents reach.
fn median_bytes(documents: &[Document]) -> i64 {
    let mut sizes: Vec<u64> = documents.iter().map(|document| document.bytes).collect();
    sizes.sort_unstable();
    sizes.get(sizes.len() / 2).and_then(|bytes| i64::try_from(*bytes).ok()).unwrap_or(0)
}

//! `larder ingest`: brings a context up to date with the text files of a folder.
//!
//! Start at [`run`]; which files those are stands in [`walk`], how they are cut in [`passages`].
//!
//! Always true: run again after anything, it goes on; a file that is as it was costs a look at its hash.

mod passages;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use larder::protocol::DocumentId;
use larder::protocol::documents::{ListContextDocuments, NodeCounts};
use larder::{Context, ContextReport, Document, Node};
use serde::Serialize;

use crate::contexts::{self, Embeddings};
use crate::failure::{Code, Failure};
use crate::folder::{Folder, is_larder};
use crate::list::PAGE_ROWS;
use crate::output::{BAD, Output};
use crate::{progress, text};
use walk::{Reason, Skipped, Walked};

/// Documents that are forgotten at once, so that they share their commits.
const FORGOTTEN_AT_ONCE: usize = 32;
/// Files that are named one by one for people.
const SKIPPED_SHOWN_MAX: usize = 10;

/// Text files (UTF-8, up to 100 MiB) are cut into passages, which are kept, indexed by their words, and embedded. Files that
/// did not change are passed over. Left out are names that begin with a dot, symbolic links, binary and empty files, and larders.
#[derive(Debug, Args)]
pub(crate) struct Ingest {
    /// The folder with the texts, or one text
    source: PathBuf,
    /// What the documents' ids begin with, instead of the folder's full path
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// What makes vectors of passages; the folder keeps its name, and refuses another. Without it hashing, in a new context
    #[arg(long, value_enum)]
    embeddings: Option<Embeddings>,
    /// Into which context
    #[arg(long, value_name = "NAME", default_value = contexts::DEFAULT)]
    context: String,
    /// Forget documents that were ingested from this folder and are no file of it any more
    #[arg(long)]
    prune: bool,
    /// Also files and folders whose names begin with a dot
    #[arg(long)]
    hidden: bool,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Report {
    context: String,
    embeddings: String,
    inserted: u64,
    updated: u64,
    unchanged: u64,
    forgotten: u64,
    failed: Vec<FailedDocument>,
    passages: NodeCountsView,
    skipped: Vec<Skipped>,
}

#[derive(Debug, Serialize)]
struct FailedDocument {
    document: String,
    reason: String,
}

#[derive(Debug, Default, Serialize)]
struct NodeCountsView {
    inserted: u64,
    updated: u64,
    unchanged: u64,
    deleted: u64,
}

impl From<NodeCounts> for NodeCountsView {
    fn from(counts: NodeCounts) -> Self {
        let NodeCounts { inserted, updated, unchanged, deleted } = counts;
        Self { inserted, updated, unchanged, deleted }
    }
}

pub(crate) async fn run(ingest: Ingest, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let root = ingest.source.canonicalize().map_err(|error| Failure::file(&ingest.source, "reading", &error))?;
    if is_larder(&root) {
        return Err(Failure::usage(format!("{} is a larder itself", ingest.source.display()))
            .with_hint("name a folder of texts"));
    }
    let sources = Sources::new(&root, &ingest, folder)?;
    let larder = folder.open_to_write().await?;
    let brought = match contexts::open_to_ingest(&larder, &ingest.context, ingest.embeddings).await {
        Ok(opened) => bring(&ingest, &opened.context, sources, output).await.map(|report| Report {
            context: ingest.context.clone(),
            embeddings: opened.model,
            ..report
        }),
        Err(failure) => Err(failure),
    };
    larder.close().await;
    let report = brought?;
    let is_whole =
        report.failed.is_empty() && report.skipped.iter().all(|skipped| skipped.reason != Reason::Unreadable);
    output.answer(&report, print)?;
    if is_whole { Ok(()) } else { Err(Failure::Reported(Code::Failed)) }
}

/// The files on their way, and what became of those that are none.
struct Sources {
    /// What every id begins with.
    prefix: String,
    /// By their ids.
    files: BTreeMap<DocumentId, PathBuf>,
    skipped: Mutex<Vec<Skipped>>,
}

impl Sources {
    fn new(root: &Path, ingest: &Ingest, folder: &Folder) -> Result<Self, Failure> {
        let Walked { files, skipped } = walk::walk(root, ingest.hidden, &folder.path);
        let name = match &ingest.name {
            Some(name) if name.trim_end_matches('/').is_empty() => {
                return Err(Failure::usage(format!("--as {name:?} is no name")).with_hint("such as --as notes"));
            }
            Some(name) => name.trim_end_matches('/').to_owned(),
            None => path_text(root).ok_or_else(|| {
                Failure::usage("the folder's path is not UTF-8").with_hint("give it a name with --as")
            })?,
        };
        let mut sources = Self { prefix: format!("{name}/"), files: BTreeMap::new(), skipped: Mutex::new(skipped) };
        for path in files {
            // The source may be a file itself.
            let below = path.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty());
            let id = match below {
                Some(below) => path_text(below).map(|below| format!("{}{below}", sources.prefix)),
                None => Some(name.clone()),
            };
            match id.and_then(|id| DocumentId::new(id).ok()) {
                Some(id) => drop(sources.files.insert(id, path)),
                None => sources.skip(Skipped::new(&path, Reason::Name)),
            }
        }
        Ok(sources)
    }

    fn skip(&self, skipped: Skipped) {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(skipped);
    }

    /// Reads a file and returns its document, which holds its hash alone; the passages hold the text.
    fn document(&self, id: &DocumentId, path: &Path) -> Option<Document> {
        match walk::read(path) {
            Ok(text) => Some(document(id, &text)),
            Err(skipped) => {
                self.skip(skipped);
                None
            }
        }
    }

    /// Reads a file again and cuts it into passages.
    fn nodes(&self, document: &Document) -> Result<Vec<Node>, String> {
        let path = self.files.get(&document.id).ok_or("it is none of these files")?;
        let text = walk::read(path).map_err(|skipped| format!("it is {:?} by now", skipped.reason))?;
        if *document != self::document(&document.id, &text) {
            return Err("it changed while it was read".to_owned());
        }
        nodes(&document.id, &text, path).map_err(|error| error.to_string())
    }
}

/// Returns a path with `/` on every system.
fn path_text(path: &Path) -> Option<String> {
    path.to_str().map(|text| if cfg!(windows) { text.replace('\\', "/") } else { text.to_owned() })
}

/// Returns a text's document: its hash is of the text and of how it is cut.
fn document(id: &DocumentId, text: &str) -> Document {
    let document = Document { id: id.clone(), text: None, fingerprint: None, metadata: None };
    let hashed = document.with_fingerprint_of(text.as_bytes());
    let hash = hashed.fingerprint.clone().unwrap_or_default();
    hashed.with_fingerprint(format!("{hash} {}", passages::VERSION))
}

fn nodes(id: &DocumentId, text: &str, path: &Path) -> Result<Vec<Node>, larder::ErrorKind> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase();
    let is_markdown = ["md", "markdown", "mdx"].contains(&extension.as_str());
    let passages = passages::cut(text, is_markdown);
    let node_id = |n: usize| format!("{id}#{n}");
    let mut nodes = Vec::with_capacity(passages.len());
    for (n, passage) in passages.iter().enumerate() {
        let mut node = Node::text(node_id(n), passage.text)?.with_span(passage.start as u64, passage.end as u64);
        node.relationships.previous = n.checked_sub(1).map(|n| node_id(n).try_into()).transpose()?;
        node.relationships.next = (n + 1 < passages.len()).then(|| node_id(n + 1).try_into()).transpose()?;
        nodes.push(node);
    }
    Ok(nodes)
}

async fn bring(ingest: &Ingest, context: &Context, sources: Sources, output: &mut Output) -> Result<Report, Failure> {
    let bar = progress::bar(output, sources.files.len() as u64);
    let documents = sources.files.iter().filter_map(|(id, path)| sources.document(id, path));
    let ingestion = context.ingest(documents).on_progress(|progress| {
        bar.set_position(progress.documents_done);
        bar.set_message(text::preview(progress.document.as_str(), 60));
    });
    let report = ingestion.run(|document: &Document| sources.nodes(document)).await;
    bar.finish_and_clear();
    let ContextReport { inserted, updated, unchanged, failed, nodes, .. } = report?;
    let forgotten = if ingest.prune { prune(context, &sources, output).await? } else { 0 };
    let failed = failed.into_iter().map(|(document, reason)| FailedDocument { document: document.to_string(), reason });
    let skipped = sources.skipped.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Report {
        inserted,
        updated,
        unchanged,
        forgotten,
        failed: failed.collect(),
        passages: nodes.into(),
        skipped,
        ..Report::default()
    })
}

/// Forgets what was ingested from this folder and is no text of it any more. Where something could not be read nothing is
/// forgotten: it may be there still.
async fn prune(context: &Context, sources: &Sources, output: &mut Output) -> Result<u64, Failure> {
    let skipped = sources.skipped.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if skipped.iter().any(|skipped| skipped.reason == Reason::Unreadable) {
        output.note("nothing is pruned, since some files could not be read");
        return Ok(0);
    }
    let skipped: HashSet<&str> = skipped.iter().map(|skipped| skipped.path.as_str()).collect();
    let is_text = |id: &DocumentId| {
        sources.files.get(id).is_some_and(|path| !skipped.contains(path.display().to_string().as_str()))
    };
    let gone = gone(context, &sources.prefix, is_text).await?;
    let bar = progress::bar(output, gone.len() as u64);
    let forgets = gone.iter().map(|id| context.forget(id));
    let mut forgets = futures::stream::iter(forgets).buffer_unordered(FORGOTTEN_AT_ONCE);
    let mut count = 0;
    while let Some(receipt) = forgets.try_next().await? {
        count += receipt.documents;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(count)
}

/// Lists the context's documents below a prefix that are no text any more.
async fn gone(
    context: &Context,
    prefix: &str,
    is_text: impl Fn(&DocumentId) -> bool,
) -> Result<Vec<DocumentId>, Failure> {
    let (mut gone, mut after) = (Vec::new(), None);
    loop {
        let message = ListContextDocuments {
            context: context.name().clone(),
            prefix: prefix.to_owned(),
            owner: None,
            session: None,
            after: after.take(),
            limit: PAGE_ROWS,
        };
        let page = context.larder().ask(message).await?;
        let Some(last) = page.last() else { return Ok(gone) };
        after = Some(last.document.id.clone());
        gone.extend(page.into_iter().map(|member| member.document.id).filter(|id| !is_text(id)));
    }
}

fn print(output: &mut Output, report: &Report) -> Result<(), Failure> {
    let Report { context, embeddings, inserted, updated, unchanged, forgotten, failed, passages, skipped } = report;
    let written = passages.inserted + passages.updated;
    output.line(format!(
        "{inserted} new, {updated} changed, {unchanged} unchanged, {forgotten} forgotten, {} failed, {} left out: {written} passages written, {} deleted",
        failed.len(),
        skipped.len(),
        passages.deleted
    ))?;
    for FailedDocument { document, reason } in failed {
        let label = output.styled(BAD, "failed");
        output.line(format!("{label} {}: {}", text::line(document), text::line(reason)))?;
    }
    for Skipped { path, reason, error } in skipped.iter().take(SKIPPED_SHOWN_MAX) {
        let error = error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        output.note(format!("left out: {} is {}{error}", text::line(path), reason.for_people()));
    }
    if skipped.len() > SKIPPED_SHOWN_MAX {
        output.note(format!("and {} more: --json lists all", skipped.len() - SKIPPED_SHOWN_MAX));
    }
    output.note(format!("context {} has embeddings by {}", text::line(context), text::line(embeddings)));
    Ok(())
}

//! `larder forget`: documents, a conversation or an owner, in every store.

use clap::Args;
use larder::protocol::StoreName;
use larder::{ForgetReceipt, Larder};
use serde::Serialize;

use crate::contexts::{self, Opened};
use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;

/// What goes goes everywhere: passages, vectors, facts that nothing else says, cached embeddings, messages.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct What {
    /// These documents, by their ids
    #[arg(value_name = "DOCUMENT")]
    documents: Vec<String>,
    /// A conversation, and the documents that were ingested in it
    #[arg(long)]
    session: Option<String>,
    /// All conversations and documents of an owner
    #[arg(long)]
    owner: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    #[command(flatten)]
    what: What,
    /// In which context; without it the only one, or the one that `ingest` makes
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// What went.
#[derive(Debug, Default, Serialize)]
struct Receipt {
    documents: u64,
    passages: u64,
    points: u64,
    facts: u64,
    facts_kept: u64,
    embeddings: u64,
    sessions: u64,
    /// Documents that were asked for and are not there.
    absent: Vec<String>,
}

impl Receipt {
    fn add(&mut self, receipt: ForgetReceipt) {
        self.documents += receipt.documents;
        self.passages += receipt.nodes;
        self.points += receipt.points;
        self.facts += receipt.facts;
        self.facts_kept += receipt.facts_kept;
        self.embeddings += receipt.embeddings;
        self.sessions += receipt.sessions;
    }
}

pub(crate) async fn run(forget: Forget, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let receipt = if folder.has(StoreName::Documents) {
        let larder = folder.open_to_write().await?;
        let receipt = remove(&forget, &larder, output).await;
        larder.close().await;
        receipt?
    } else {
        Receipt { absent: forget.what.documents.clone(), ..Receipt::default() }
    };
    output.answer(&receipt, |output, receipt| {
        let Receipt { documents, passages, points, facts, embeddings, sessions, .. } = receipt;
        output.line(format!(
            "forgotten: {documents} documents, {passages} passages, {points} vectors, {facts} facts, {embeddings} cached embeddings, {sessions} sessions"
        ))
    })?;
    match receipt.absent.as_slice() {
        [] if receipt.documents + receipt.sessions == 0 => Err(Failure::not_found("nothing of the kind was there")),
        [] => Ok(()),
        absent => {
            Err(Failure::not_found(format!("not there: {}", absent.join(", "))).with_hint("see `larder docs list`"))
        }
    }
}

async fn remove(forget: &Forget, larder: &Larder, output: &mut Output) -> Result<Receipt, Failure> {
    let mut receipt = Receipt::default();
    let Some(name) = contexts::choose(larder, forget.context.clone(), output).await? else {
        return Err(Failure::not_found("no context is there").with_hint("`larder ingest` makes one"));
    };
    let Opened { context, .. } = contexts::open(larder, &name).await?;
    for id in &forget.what.documents {
        let gone = context.forget(id).await?;
        if gone.documents == 0 {
            receipt.absent.push(id.clone());
        }
        receipt.add(gone);
    }
    if let Some(session) = &forget.what.session {
        receipt.add(context.forget_session(session).await?);
    }
    if let Some(owner) = &forget.what.owner {
        receipt.add(context.forget_owner(owner).await?);
    }
    Ok(receipt)
}

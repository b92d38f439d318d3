//! tantivy: an index with stored fields; a commit for each document put, as others commit each.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use peer_harness::documents::entry::Chunk;
use peer_harness::documents::{Hit, Peer};
use peer_harness::peer::{About, Durability, locked_versions};
use peer_harness::{Result, peer};
use tantivy::collector::{Count, TopDocs};
use tantivy::query::{AllQuery, BooleanQuery, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, STORED, STRING, Schema, TEXT, Value};
use tantivy::snippet::SnippetGenerator;
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, Term};

fn main() -> ExitCode {
    peer::main(&[("documents", peer_harness::documents::serve::<Tantivy>)])
}

/// What its documentation recommends for one thread.
const WRITER_BYTES: usize = 50_000_000;

struct Tantivy {
    index: Index,
    reader: IndexReader,
    writer: Mutex<IndexWriter>,
    id: Field,
    document: Field,
    text: Field,
    rest: Field,
}

impl Tantivy {
    fn writer(&self) -> MutexGuard<'_, IndexWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, found: &TantivyDocument) -> Result<Chunk> {
        let field = |field| found.get_first(field).and_then(|value| value.as_str()).ok_or("a field is missing");
        let rest: Vec<&str> = field(self.rest)?.splitn(3, ' ').collect();
        let [start, end, metadata] = rest.as_slice() else { return Err("a field is not what was put".into()) };
        Ok(Chunk {
            id: field(self.id)?.to_owned(),
            text: field(self.text)?.to_owned(),
            metadata: (*metadata).to_owned(),
            span: (start.parse()?, end.parse()?),
        })
    }
}

impl Peer for Tantivy {
    fn about() -> About {
        let synced = "each commit syncs its files".to_owned();
        About {
            versions: locked_versions(include_str!("../../Cargo.lock"), &["tantivy"]),
            durable: synced.clone(),
            relaxed: format!("the same: {synced}"),
            callers: "in place; a commit and a reload for each put".to_owned(),
        }
    }

    async fn open(folder: PathBuf, _: Durability) -> Result<Self> {
        let mut schema = Schema::builder();
        let id = schema.add_text_field("id", STRING | STORED);
        let document = schema.add_text_field("document", STRING | STORED);
        let text = schema.add_text_field("text", TEXT | STORED);
        let rest = schema.add_text_field("rest", STORED);
        let directory = tantivy::directory::MmapDirectory::open(&folder)?;
        let index = Index::open_or_create(directory, schema.build())?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let writer = Mutex::new(index.writer_with_num_threads(1, WRITER_BYTES)?);
        Ok(Self { index, reader, writer, id, document, text, rest })
    }

    async fn put(&self, document: &str, chunks: Vec<Chunk>) -> Result<u64> {
        let mut writer = self.writer();
        writer.delete_term(Term::from_field_text(self.document, document));
        let written = chunks.len() as u64;
        for chunk in chunks {
            let mut new = TantivyDocument::default();
            new.add_text(self.id, &chunk.id);
            new.add_text(self.document, document);
            new.add_text(self.text, &chunk.text);
            new.add_text(self.rest, format!("{} {} {}", chunk.span.0, chunk.span.1, chunk.metadata));
            writer.add_document(new)?;
        }
        writer.commit()?;
        self.reader.reload()?;
        Ok(written)
    }

    async fn get(&self, id: &str) -> Result<Option<Chunk>> {
        let searcher = self.reader.searcher();
        let query = TermQuery::new(Term::from_field_text(self.id, id), IndexRecordOption::Basic);
        let found = searcher.search(&query, &TopDocs::with_limit(1).order_by_score())?;
        found.first().map(|(_, address)| self.read(&searcher.doc(*address)?)).transpose()
    }

    async fn search(&self, words: &str, limit: usize) -> Result<Vec<Hit>> {
        let searcher = self.reader.searcher();
        let term = |word: &str| -> Box<dyn Query> {
            let term = Term::from_field_text(self.text, word);
            Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))
        };
        let query = BooleanQuery::intersection(words.split(' ').map(term).collect());
        let snippets = SnippetGenerator::create(&searcher, &query, self.text)?;
        let found = searcher.search(&query, &TopDocs::with_limit(limit).order_by_score())?;
        let hit = |(score, address): &(f32, tantivy::DocAddress)| {
            let Chunk { id, text, .. } = self.read(&searcher.doc(*address)?)?;
            let snippet = snippets.snippet(&text).to_html();
            Ok(Hit { id, text, snippet, score: f64::from(*score) })
        };
        found.iter().map(hit).collect()
    }

    async fn count(&self) -> Result<u64> {
        Ok(self.reader.searcher().search(&AllQuery, &Count)? as u64)
    }

    async fn close(self) -> Result<()> {
        let writer = self.writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        writer.wait_merging_threads()?;
        drop(self.index);
        Ok(())
    }
}

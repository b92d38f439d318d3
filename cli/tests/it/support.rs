//! The binary, run; and a larder with something in each store.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use larder::blocking::wait;
use larder::protocol::Tag;
use larder::{ChatMessage, Document, JsonText, Larder, Model, NewEntity, NewRelation, Node, Point};
use serde_json::Value;
use tempfile::TempDir;

/// The tool in a folder of its own, which also holds the larder `data`.
pub(crate) struct Tool {
    pub(crate) folder: TempDir,
}

/// What a run printed and answered.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Tool {
    /// Returns the tool beside an empty larder in `data`.
    pub(crate) fn new() -> Self {
        let tool = Self::without_larder();
        tool.run(["init", "data"]).done();
        tool
    }

    pub(crate) fn without_larder() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Returns the tool beside a larder with something in each store.
    pub(crate) fn filled() -> Self {
        let tool = Self::without_larder();
        wait(fill(&tool.data()));
        tool
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Returns the command with an environment of its own, to be run in the tool's folder.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.args(arguments).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command
    }

    /// Runs it as it stands.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Runs it on the larder in `data`.
    pub(crate) fn on_data<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        self.run(["-C", "data"].into_iter().chain(arguments))
    }

    /// Runs it on the larder in `data`, and returns the JSON that it printed, a value a line.
    pub(crate) fn json<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Vec<Value> {
        self.run(["-C", "data", "--json"].into_iter().chain(arguments)).done().json()
    }

    /// Returns every name below a folder, with its size.
    pub(crate) fn listing(&self, name: &str) -> Vec<(PathBuf, u64)> {
        let (mut folders, mut found) = (vec![self.path(name)], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    folders.push(entry.path());
                }
                found.push((entry.path(), if metadata.is_file() { metadata.len() } else { 0 }));
            }
        }
        found.sort();
        found
    }

    #[expect(clippy::disallowed_methods, reason = "a text to be ingested, no store's file")]
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or_else(|| panic!("it was ended by a signal: {:?}", output.status));
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// Checks that it succeeded.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Checks how it failed: by which code, and with what in its one line of an error.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for part in says {
            assert!(self.err.contains(part), "{:?} does not say {part:?}", self.err);
        }
        self
    }

    /// Returns the JSON that was printed, a value a line.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        self.out.lines().map(parse).collect()
    }
}

async fn fill(path: &Path) {
    let larder = Larder::open(path).await.unwrap();
    let settings = larder.kv().collection::<Value>("settings");
    settings.put("theme", &serde_json::json!({ "name": "dark", "since": 2026 })).tags(["look"]).await.unwrap();
    larder.kv().bytes("blobs").put("raw", vec![0_u8, 159, 146, 150]).await.unwrap();

    let document = Document::new("report.md").unwrap().with_text("Sales rose in the north. Costs rose as well.");
    let metadata = JsonText::new("{ \"year\": 2025,\n \"big\": 123456789012345678901234567890 }").unwrap();
    let nodes = [
        Node::text("report.md#0", "Sales rose in the north.").unwrap().with_span(0, 24).with_metadata(metadata),
        Node::text("report.md#1", "Costs rose as well.").unwrap().with_span(25, 44),
    ];
    larder.documents().put(document, nodes).await.unwrap();

    let alice = larder.chat().session("alice");
    alice.append([ChatMessage::user("What did the report say?"), ChatMessage::assistant("Sales rose.")]).await.unwrap();
    alice.describe().title("About the report").owner("ann").await.unwrap();

    let notes = larder.vectors().collection("notes").dimensions(2).open().await.unwrap();
    notes.upsert([Point::new("a", vec![1.0, 0.5]).unwrap().with_text("Sales rose.")]).await.unwrap();

    let graph = larder.graph();
    graph
        .upsert_entities([NewEntity::new("person", "Ada").unwrap().with_description("A mathematician.")])
        .await
        .unwrap();
    let facts = [("Ada", "knows", "Charles"), ("Charles", "built", "the engine")];
    let facts = facts.map(|(subject, label, object)| {
        NewRelation::new(subject, label, object).unwrap().with_source("letters#1").unwrap()
    });
    graph.upsert_relations(facts).await.unwrap();

    let model = Model::new("m").unwrap();
    larder.embed_cache().tags([Tag::new("t").unwrap()]).put(&model, "text", vec![0.5, 0.25]).await.unwrap();
    larder.close().await;
}

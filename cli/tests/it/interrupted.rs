//! An ingest that is killed, that runs beside another, or that has one very large text.
//!
//! More kills: `LARDER_CLI_KILLS=200 cargo test -p larder-cli --test it interrupted`.
#![expect(
    clippy::disallowed_methods,
    reason = "a kill comes at a moment of its own; a control exchanges a closed file"
)]

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::Tool;

const FILES: usize = 60;

fn write_texts(tool: &Tool, version: u64) {
    for number in 0..FILES {
        let body = format!("Number {number} in version {version}. {}", "Words and words. ".repeat(30));
        tool.write(
            &format!("texts/{}/{number}.md", number % 7),
            format!("# {number}\n\n{body}\n\n# Again\n\n{body}\n"),
        );
    }
}

fn begin_ingest(tool: &Tool) -> Child {
    let mut command = tool.command(["-C", "data", "ingest", "texts", "--as", "t"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Returns documents that the ingest brought up to date, and checks that it left none behind.
fn bring_up_to_date(tool: &Tool) -> u64 {
    let report = &tool.json(["ingest", "texts", "--as", "t"])[0];
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(count("inserted") + count("updated") + count("unchanged"), FILES as u64, "{report}");
    assert!(tool.on_data(["check"]).done().out.starts_with("sound: "));
    count("inserted") + count("updated")
}

#[test]
fn ingest_that_is_killed_leaves_stores_that_agree_and_goes_on() {
    let kills: u32 = std::env::var("LARDER_CLI_KILLS").map_or(5, |kills| kills.parse().unwrap());
    let tool = Tool::new();
    write_texts(&tool, 0);
    let began = Instant::now();
    assert_eq!(bring_up_to_date(&tool), FILES as u64);
    let whole = began.elapsed();
    let mut interrupted = 0;
    for kill in 0..kills {
        write_texts(&tool, 1 + u64::from(kill));
        let mut child = begin_ingest(&tool);
        // Spread over all of a run.
        let share = f64::from(kill + 1) / f64::from(kills + 1);
        std::thread::sleep(whole.mul_f64(share).min(Duration::from_secs(10)));
        let was_at_work = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        let check = tool.on_data(["check"]).done();
        assert!(check.out.starts_with("sound: "), "kill {kill}: {check:?}");
        interrupted += u64::from(was_at_work);
    }
    assert!(interrupted > 0, "no kill met an ingest at work");
    bring_up_to_date(&tool);
    assert_eq!(bring_up_to_date(&tool), 0);
    println!("{kills} kills, {interrupted} of them in the middle: the stores agree after each");
}

/// What a kill between two stores would leave, were there no journal: passages of one version, vectors of the one before.
#[test]
fn control_stores_of_two_moments_do_not_agree() {
    let tool = Tool::new();
    tool.write("texts/a.md", "One passage.");
    tool.on_data(["ingest", "texts", "--as", "t"]).done();
    let earlier = std::fs::read(tool.data().join("vectors.db")).unwrap();
    tool.write("texts/a.md", format!("# One\n\n{0}\n\n# Two\n\n{0}", "Several passages. ".repeat(30)));
    tool.on_data(["ingest", "texts", "--as", "t"]).done();
    std::fs::write(tool.data().join("vectors.db"), earlier).unwrap();
    tool.on_data(["check"]).failed(5, &["--repair"]);
    tool.on_data(["check", "--repair"]).done();
    tool.on_data(["check"]).done();
}

#[test]
fn two_ingests_of_one_folder_at_once_bring_each_document_once() {
    let tool = Tool::new();
    write_texts(&tool, 0);
    let runs = [(); 2].map(|()| {
        let mut command = tool.command(["-C", "data", "--json", "ingest", "texts", "--as", "t"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let mut inserted = 0;
    for run in runs {
        let output = run.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["failed"], serde_json::json!([]), "{report}");
        inserted += report["inserted"].as_u64().unwrap();
    }
    assert_eq!(inserted, FILES as u64, "what one has inserted the other finds there");
    assert_eq!(bring_up_to_date(&tool), 0);
}

/// `LARDER_CLI_TEXT_MIB=100` is the size that is promised.
#[test]
fn one_large_text_is_ingested_whole() {
    let mebibytes = std::env::var("LARDER_CLI_TEXT_MIB").map_or(2, |mebibytes| mebibytes.parse().unwrap());
    let tool = Tool::new();
    let mut text = String::new();
    for line in 0.. {
        if text.len() > (mebibytes << 20) - 200 {
            break;
        }
        text += &format!("Line {line} of a very large text, which has words such as number{}.\n", line % 1_000);
    }
    text += "The last words are here, and nowhere else: quagga.\n";
    tool.write("texts/large.txt", &text);
    let report = &tool.json(["ingest", "texts", "--as", "t"])[0];
    assert_eq!((&report["inserted"], &report["failed"]), (&1.into(), &serde_json::json!([])), "{report}");
    assert!(tool.json(["search", "quagga", "-n", "1"])[0]["text"].as_str().unwrap().contains("quagga"));
    assert_eq!(tool.json(["ingest", "texts", "--as", "t"])[0]["unchanged"], 1);
    tool.on_data(["check"]).done();
    tool.on_data(["forget", "t/large.txt"]).done();
    assert!(tool.json(["search", "quagga"]).is_empty());
}

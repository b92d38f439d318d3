//! Pipes that close, and terminals.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use larder::Larder;
use larder::blocking::wait;

use crate::support::Tool;

/// Returns the tool beside a larder whose export is larger than any pipe holds.
fn with_much() -> Tool {
    let tool = Tool::new();
    let larder = wait(Larder::open(tool.data())).unwrap();
    let texts = larder.kv().collection::<String>("texts");
    let text = "x".repeat(1_000);
    let keys: Vec<String> = (0..2_000).map(|n| format!("{n:04}")).collect();
    wait(texts.put_many(keys.iter().map(|key| (key.as_str(), &text)))).unwrap();
    wait(larder.close());
    tool
}

#[test]
fn pipe_that_closes_ends_the_tool_quietly() {
    let tool = with_much();
    for arguments in
        [&["-C", "data", "export", "kv"][..], &["-C", "data", "--json", "kv", "list", "texts", "-n", "5000"]]
    {
        let mut child = tool.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(line.starts_with('{'), "{line}");
        drop(out);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    // The control: read to its end it is more than a pipe holds.
    let out = tool.on_data(["export", "kv"]).done().out;
    assert!(out.len() > 1 << 20 && out.lines().count() == 2_000);
    tool.on_data(["check"]).done();
}

#[test]
fn pipes_get_no_colours_and_no_progress() {
    let tool = Tool::filled();
    tool.write("texts/a.md", "A text.");
    for arguments in [
        &["stats"][..],
        &["check"],
        &["snapshot", "snaps"],
        &["ingest", "texts"],
        &["search", "text"],
        &["graph", "show", "Ada"],
    ] {
        let ran = tool.on_data(arguments.iter().copied()).done();
        assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{arguments:?}: {ran:?}");
    }
    let failed = tool.on_data(["docs", "show", "absent"]).failed(3, &["error: "]);
    assert!(!failed.err.contains('\u{1b}'));
}

/// What a command prints where standard output and standard error are one terminal.
#[cfg(target_os = "linux")]
fn on_a_terminal(tool: &Tool, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a terminal, no store's file")]
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = tool.command(["-C", "data"].iter().chain(arguments));
    command.env("TERM", "xterm-256color").envs(environment.iter().copied());
    command.stdout(terminal.try_clone().unwrap()).stderr(terminal);
    let mut child = command.spawn().unwrap();
    // Its ends of the terminal are the command's until that goes; then reading ours fails.
    drop(command);
    let (mut shown, mut ours) = (Vec::new(), std::fs::File::from(ours));
    let mut buffer = [0; 4096];
    while let Ok(read) = ours.read(&mut buffer) {
        if read == 0 {
            break;
        }
        shown.extend_from_slice(&buffer[..read]);
    }
    child.wait().unwrap();
    String::from_utf8_lossy(&shown).into_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn terminals_get_colours_unless_they_are_not_wanted() {
    let tool = Tool::filled();
    let bold = "\u{1b}[1m";
    let shown = on_a_terminal(&tool, &["stats"], &[]);
    assert!(shown.contains(bold) && shown.contains("STORE"), "{shown:?}");
    assert!(on_a_terminal(&tool, &["docs", "show", "absent"], &[]).contains("\u{1b}["));
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        for arguments in [&["stats"][..], &["docs", "show", "absent"], &["check"]] {
            let shown = on_a_terminal(&tool, arguments, &[environment]);
            assert!(
                !shown.contains("\u{1b}[1m") && !shown.contains("\u{1b}[3"),
                "{environment:?} {arguments:?}: {shown:?}"
            );
        }
    }
    let json = on_a_terminal(&tool, &["--json", "stats"], &[]);
    assert!(json.starts_with('{') && !json.contains('\u{1b}'), "{json:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn long_work_shows_how_far_it_is_on_a_terminal_alone() {
    let tool = Tool::new();
    for number in 0..60 {
        tool.write(&format!("texts/{number}.md"), format!("Number {number}."));
    }
    let shown = on_a_terminal(&tool, &["ingest", "texts"], &[]);
    assert!(shown.contains("/60") && shown.contains("60 new"), "{shown:?}");
    for arguments in [&["--quiet", "ingest", "texts"][..], &["--json", "ingest", "texts"]] {
        let shown = on_a_terminal(&tool, arguments, &[]);
        assert!(!shown.contains("/60") && !shown.contains('\u{1b}'), "{shown:?}");
    }
    assert!(!tool.on_data(["ingest", "texts"]).done().err.contains("/60"));
}

#[cfg(target_os = "linux")]
#[test]
fn values_reach_a_terminal_escaped() {
    let tool = Tool::new();
    let larder = wait(Larder::open(tool.data())).unwrap();
    wait(larder.kv().bytes("b").put("text", "a\u{1b}[2Jb\nc")).unwrap();
    wait(larder.kv().bytes("b").put("binary", vec![0xFF_u8, 0x1B, 0x5B])).unwrap();
    wait(larder.close());
    assert_eq!(on_a_terminal(&tool, &["kv", "get", "b", "text"], &[]), "a\\u{1b}[2Jb\r\nc\r\n");
    assert_eq!(on_a_terminal(&tool, &["kv", "get", "b", "binary"], &[]), "/xtb\r\n");
    // A pipe gets the bytes.
    assert_eq!(tool.on_data(["kv", "get", "b", "text"]).done().out, "a\u{1b}[2Jb\nc");
}

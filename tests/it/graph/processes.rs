//! Two processes on one folder: what one has acknowledged is in the other's next walk.

use std::collections::BTreeSet;

use larder::Larder;

use super::{assert_sound, fact, neighbors};
use crate::support::child::{Child, hear, tell};

async fn open(folder: &str) -> Larder {
    let larder = Larder::builder(folder)
        .settings(|settings| settings.maintenance_interval = std::time::Duration::from_millis(10));
    larder.open().await.unwrap()
}

/// A child that does what each line says: `put` a subject and an object, `cut` the fact between them, `delete` an entity, `walk` from
/// one.
pub(crate) fn walk_until_told(mut arguments: impl Iterator<Item = String>) {
    let folder = arguments.next().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let larder = open(&folder).await;
        let graph = larder.graph();
        tell("READY");
        loop {
            let line = hear();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["walk", from] => tell(&format!("MET {}", neighbors(&graph, from).await.join(","))),
                ["end"] => break,
                _ => change(&larder, &line).await,
            }
            tell("DONE");
        }
        assert!(larder.close().await.is_clean());
        tell("CLOSED");
    });
}

async fn change(larder: &Larder, line: &str) {
    let graph = larder.graph();
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["put", subject, object] => drop(graph.upsert_relations([fact(subject, "r", object)]).await.unwrap()),
        ["cut", subject, object] => drop(graph.delete_triplet(subject, "r", object).await.unwrap()),
        ["delete", name] => drop(graph.delete([name]).await.unwrap()),
        ["merge", from, into] => drop(graph.merge(from, into).await.unwrap()),
        _ => panic!("{line} is no change"),
    }
}

#[tokio::test]
async fn each_process_meets_what_the_other_has_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let larder = open(path).await;
    let graph = larder.graph();
    let mut other = Child::spawn("walker", [path]);
    other.wait_for("READY");
    let mut expected: Vec<String> = Vec::new();
    for round in 0..40 {
        let mut lines = vec![format!("put hub n{round}")];
        expected.push(format!("n{round}"));
        if round % 3 == 2 {
            let gone = expected.remove(0);
            lines.push(if round % 2 == 0 { format!("cut hub {gone}") } else { format!("delete {gone}") });
        }
        if round % 10 == 9 {
            lines.push(format!("put twin t{round}"));
            lines.push("merge twin hub".to_owned());
            // The name stays with the hub; the next facts are its own.
            expected.push(format!("t{round}"));
        }
        for (at, line) in lines.iter().enumerate() {
            if (round + at) % 2 == 0 {
                change(&larder, line).await;
            } else {
                other.say(line);
                other.wait_for("DONE");
            }
        }
        assert_eq!(neighbors(&graph, "hub").await, expected, "round {round}, here");
        other.say("walk hub");
        assert_eq!(other.wait_for("MET"), expected.join(","), "round {round}, there");
        other.wait_for("DONE");
        if round % 10 == 9 {
            graph.remove_alias("hub", "twin").await.unwrap();
        }
    }
    other.say("end");
    other.wait_for("CLOSED");
    assert_sound(&larder).await;
}

/// The control: processes that do not see each other's watermark do not notice each other, so that the test above tells.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the watermark, which is no file of SQLite's")]
async fn process_whose_watermark_is_another_file_is_not_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let larder = Larder::open(path).await.unwrap();
    let graph = larder.graph();
    graph.upsert_relations([fact("hub", "r", "mine")]).await.unwrap();
    assert_eq!(neighbors(&graph, "hub").await, ["mine"]);
    std::fs::remove_file(folder.path().join("locks/graph.watermark")).unwrap();
    let mut other = Child::spawn("walker", [path]);
    other.wait_for("READY");
    other.say("put hub theirs");
    other.wait_for("DONE");
    assert_eq!(neighbors(&graph, "hub").await, ["mine"]);
    // Whoever writes sees all of it.
    graph.upsert_relations([fact("hub", "r", "late")]).await.unwrap();
    assert_eq!(neighbors(&graph, "hub").await, ["mine", "theirs", "late"]);
    other.say("end");
    other.wait_for("CLOSED");
    larder.close().await;
}

/// A writer remembers whose a name is; another process may have given it to another entity meanwhile.
#[tokio::test]
async fn name_that_another_process_gave_away_is_looked_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let larder = open(path).await;
    let graph = larder.graph();
    let mut other = Child::spawn("walker", [path]);
    other.wait_for("READY");
    for round in 0..10 {
        let name = format!("y{round}");
        // Known here as the first of its name, and as nobody's.
        graph.upsert_relations([fact("x", "r", &format!("before {round}"))]).await.unwrap();
        graph.upsert_relations([fact("x", "r", &name)]).only_known_entities().await.unwrap_err();
        for line in ["delete x".to_owned(), format!("put x {name}"), format!("put {name} z")] {
            other.say(&line);
            other.wait_for("DONE");
        }
        graph.upsert_relations([fact("x", "r", "mine"), fact(&name, "r", "mine")]).await.unwrap();
        let sorted = async |of: &str| neighbors(&graph, of).await.into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted("x").await, BTreeSet::from(["mine".to_owned(), name.clone()]));
        assert_eq!(sorted(&name).await, BTreeSet::from(["mine", "x", "z"].map(str::to_owned)));
        graph.delete(["x", "mine", "z"]).await.unwrap();
    }
    other.say("end");
    other.wait_for("CLOSED");
    assert_sound(&larder).await;
    larder.close().await;
}

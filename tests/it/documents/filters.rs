//! Filters over real documents: SQL and memory agree, and no text gets past them.
//!
//! More: `LARDER_FILTER_PAIRS=1000000 cargo test --release --test it documents::filters -- --nocapture`.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use larder::protocol::filter::FieldPath;
use larder::protocol::filter::{Comparison, Filter, Operand, Operator, Scalar};
use larder::{Durability, Larder, field};
use larder_actors::filter::{matches, read_json};
use serde_json::{Value, json};

use super::{document, node};
use crate::support::number_from_environment;
use crate::torture::Random;

const DOCUMENT_COUNT: usize = 200;

const KEYS: [&str; 8] = ["a", "b", "c", "a.b", "\"", "'", "é", ""];

fn key(random: &mut Random) -> String {
    let known = if random.percent(80) { 3 } else { KEYS.len() };
    KEYS[random.index(known)].to_owned()
}

fn scalar(random: &mut Random) -> Value {
    let numbers =
        [json!(0), json!(1), json!(1.0), json!(-1), json!(1.5), json!(9_007_199_254_740_993_i64), json!(u64::MAX)];
    let texts = ["", "a", "A", "ab", "AB", "1", "true", "null", "é", "a\0b", "%", "_", "'", "\""];
    match random.below(10) {
        0 => Value::Null,
        1 => Value::Bool(random.percent(50)),
        2..6 => numbers[random.index(numbers.len())].clone(),
        _ => texts[random.index(texts.len())].into(),
    }
}

fn value(random: &mut Random, depth: u64) -> Value {
    match random.below(10) {
        0 | 1 if depth > 0 => (0..random.below(4)).map(|_| value(random, depth - 1)).collect(),
        2 | 3 if depth > 0 => object(random, depth - 1),
        _ => scalar(random),
    }
}

fn object(random: &mut Random, depth: u64) -> Value {
    let members = (0..random.below(5)).map(|_| (key(random), value(random, depth)));
    Value::Object(members.collect())
}

fn operand(random: &mut Random) -> Scalar {
    match scalar(random) {
        Value::Null => Scalar::Null,
        Value::Bool(value) => Scalar::Bool(value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Scalar::Integer(integer),
            None => Scalar::Float(number.as_f64().unwrap()),
        },
        Value::String(text) => Scalar::String(text),
        Value::Array(_) | Value::Object(_) => unreachable!("a scalar has no parts"),
    }
}

fn filter(random: &mut Random, depth: u64) -> Filter {
    if depth > 0 && random.percent(50) {
        return match random.below(3) {
            0 => Filter::And((0..random.below(4)).map(|_| filter(random, depth - 1)).collect()),
            1 => Filter::Or((0..random.below(4)).map(|_| filter(random, depth - 1)).collect()),
            _ => Filter::Not(Box::new(filter(random, depth - 1))),
        };
    }
    use Operator::{All, Any, Contains, Eq, Gt, Gte, In, IsEmpty, Lt, Lte, Ne, Nin, TextMatch, TextMatchInsensitive};
    let operators = [Eq, Ne, Gt, Gte, Lt, Lte, In, Nin, Any, All, TextMatch, TextMatchInsensitive, Contains, IsEmpty];
    let operator = operators[random.index(operators.len())];
    let operand = match operator {
        In | Nin | Any | All => Operand::List((0..random.below(4)).map(|_| operand(random)).collect()),
        TextMatch | TextMatchInsensitive => {
            Operand::Scalar(Scalar::String(["", "a", "B", "é", "%"][random.index(5)].into()))
        }
        IsEmpty => Operand::Nothing,
        _ => Operand::Scalar(operand(random)),
    };
    let path = (0..=random.below(2)).map(|_| key(random)).collect();
    Filter::Compare(Comparison { field: FieldPath(path), operator, operand })
}

/// The larder with random nodes, and their metadata.
async fn filled(folder: &std::path::Path, random: &mut Random) -> (Larder, Vec<Option<Value>>) {
    let builder = Larder::builder(folder).documents(|documents| documents.common.durability = Durability::Relaxed);
    let larder = builder.open().await.unwrap();
    let metadata: Vec<Option<Value>> = (0..DOCUMENT_COUNT).map(|n| (n % 20 != 0).then(|| object(random, 3))).collect();
    let nodes = metadata.iter().enumerate().map(|(n, metadata)| {
        let node = node(&format!("{n:03}"), "word");
        match metadata {
            None => node,
            Some(metadata) => node.with_metadata(larder::JsonText::from_value(metadata).unwrap()),
        }
    });
    larder.documents().put(document("a"), nodes).await.unwrap();
    (larder, metadata)
}

/// Decides a pair in memory; the real one is `matches`.
type Evaluator = fn(&Filter, &Value) -> bool;

/// Compares what the store finds with what memory says, over `pair_count` pairs; answers the first difference.
async fn compare(seed: u64, pair_count: usize, evaluate: Evaluator) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::of(seed, 5);
    let (larder, metadata) = filled(folder.path(), &mut random).await;
    let read = |metadata: &Option<Value>| {
        // What memory sees of a node without metadata is an empty object: every field is missing.
        metadata.as_ref().map_or(json!({}), |metadata| read_json(metadata.to_string().as_bytes()).unwrap())
    };
    let metadata: Vec<Value> = metadata.iter().map(read).collect();
    let rounds = pair_count.div_ceil(DOCUMENT_COUNT);
    for round in 0..rounds {
        // The second half runs over indexes.
        if round == rounds / 2 {
            for key in ["a", "b"] {
                larder.documents().declare_field(field(key)).await.unwrap();
            }
        }
        let filter = filter(&mut random, 3);
        let matching = metadata.iter().enumerate().filter(|(_, metadata)| evaluate(&filter, metadata));
        let expected: BTreeSet<String> = matching.map(|(n, _)| format!("{n:03}")).collect();
        let page =
            larder.documents().filter(filter.clone()).limit(1_000).await.map_err(|e| format!("{filter:?}: {e}"))?;
        let listed: BTreeSet<String> = page.nodes.iter().map(|stored| stored.node.id.to_string()).collect();
        let searched = larder.documents().search("word").filter(filter.clone()).limit(1_000).await.unwrap();
        let searched: BTreeSet<String> = searched.iter().map(|hit| hit.found.node.id.to_string()).collect();
        let counted = larder.documents().count().matching(filter.clone()).await.unwrap();
        if listed != expected || searched != expected || counted != expected.len() as u64 {
            return Err(format!(
                "{filter:?}\n list {listed:?}\n search {searched:?}\n count {counted}\n memory {expected:?}"
            ));
        }
    }
    Ok(())
}

#[tokio::test]
async fn sql_and_memory_agree_on_real_documents() {
    let pairs = usize::try_from(number_from_environment("LARDER_FILTER_PAIRS", 100_000)).unwrap();
    let seed = number_from_environment("LARDER_SEED", u64::from(std::process::id()));
    compare(seed, pairs, matches).await.unwrap_or_else(|difference| panic!("LARDER_SEED={seed}: {difference}"));
    println!("{pairs} pairs agree (LARDER_SEED={seed})");
}

#[tokio::test]
async fn control_a_broken_evaluator_is_caught() {
    let broken: [Evaluator; 3] = [
        |_, _| true,
        // Three-valued logic: a negation of a missing field is not true.
        |filter, metadata| match filter {
            Filter::Not(inner) => {
                metadata.as_object().is_some_and(|members| !members.is_empty()) && !matches(inner, metadata)
            }
            other => matches(other, metadata),
        },
        // Dots as separators.
        |filter, metadata| matches(filter, &json!({"a": {"b": metadata.get("a.b")}})),
    ];
    for (at, evaluate) in broken.into_iter().enumerate() {
        compare(1, 100_000, evaluate).await.expect_err(&format!("evaluator {at} went unseen"));
    }
}

/// Texts that try to be SQL, JSON paths or FTS5 syntax, alone and joined.
fn injections() -> Vec<String> {
    let seeds = [
        "' OR '1'='1",
        "'; DROP TABLE node; --",
        "\") OR 1=1 --",
        "$.a",
        "$[0]",
        "$.\"a\"",
        "a') UNION SELECT id FROM node --",
        "?1",
        ":a",
        "@a",
        "%",
        "_",
        "\\",
        "\"",
        "'",
        "''",
        "\"\"",
        "`a`",
        "[a]",
        "x'00'",
        "NULL",
        "TRUE",
        "1 OR 1",
        "*",
        "NEAR(a b)",
        "a AND b",
        "a OR b",
        "a NOT b",
        "-a",
        "^a",
        "text:a",
        "{a b}:c",
        "\"a\"*",
        "a + b",
        "(",
        ")",
        "a\0b",
        "json_extract(metadata,'$.secret')",
        "secret",
        "\u{202e}",
        "é",
        "\u{1F600}",
        "/*",
        "*/",
        "--",
        ";",
        "\n",
    ];
    let mut texts: Vec<String> = seeds.iter().map(|text| (*text).to_owned()).collect();
    for first in seeds {
        for second in seeds {
            texts.push(format!("{first}{second}"));
        }
    }
    texts
}

/// Each text as a key, as an operand, as an id, as a document and as a search: it never finds what it does not name.
#[tokio::test]
async fn no_text_gets_past_a_filter_an_id_or_a_search() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let secret = node("secret", "hidden content").with_metadata(larder::JsonText::new(r#"{"secret": "yes"}"#).unwrap());
    documents.put(document("vault"), [secret]).await.unwrap();
    let texts = injections();
    assert!(texts.len() >= 2_000, "{}", texts.len());
    for text in &texts {
        let nothing = |found: usize, how: &str| assert_eq!(found, 0, "{text:?} {how}");
        let listed = documents.filter(field(text.as_str()).eq("yes").and(field("secret").ne("yes"))).await.unwrap();
        nothing(listed.nodes.len(), "as a key");
        let listed = documents
            .filter(field("secret").eq(text.as_str()).or(field("secret").text_match(text.as_str())))
            .await
            .unwrap();
        nothing(listed.nodes.len(), "as an operand");
        let listed = documents
            .filter(field("secret").one_of([text.as_str(), "no"]).or(field("secret").any([text.as_str()])))
            .await
            .unwrap();
        nothing(listed.nodes.len(), "in a list");
        if text != "secret" {
            assert_eq!(
                documents.count().matching(field(text.as_str()).is_empty()).await.unwrap(),
                1,
                "{text:?} as a missing key"
            );
        }
        nothing(documents.search(text.as_str()).await.unwrap().len(), "as a search");
        nothing(documents.documents().below(text.as_str()).await.unwrap().len(), "as a prefix");
        if !text.contains('\0') && text != "secret" {
            nothing(usize::from(documents.get(text).await.unwrap().is_some()), "as an id");
            nothing(documents.nodes(text).await.unwrap().nodes.len(), "as a document");
            nothing(documents.search("hidden").in_documents([text]).await.unwrap().len(), "as a search's document");
            nothing(usize::try_from(documents.delete([text]).await.unwrap()).unwrap(), "as an id to delete");
        }
    }
    // And each is kept as what it is.
    let kept: Vec<&String> = texts.iter().filter(|text| !text.contains('\0')).collect();
    let ids: BTreeSet<&String> = kept.iter().copied().collect();
    let nodes = ids.iter().map(|text| {
        let metadata = json!({ text.as_str(): text, "value": text });
        node(text, text).with_metadata(larder::JsonText::from_value(&metadata).unwrap())
    });
    documents.delete(["secret"]).await.unwrap();
    documents.put(document("texts"), nodes).await.unwrap();
    let stored: Vec<_> = documents.nodes("texts").stream().try_collect().await.unwrap();
    assert_eq!(stored.len(), ids.len());
    for (stored, text) in stored.iter().zip(&ids) {
        assert_eq!((stored.node.id.as_str(), stored.node.content.text()), (text.as_str(), Some(text.as_str())));
    }
    for text in ids.iter().step_by(20) {
        let found = documents
            .filter(field(text.as_str()).eq(text.as_str()).and(field("value").eq(text.as_str())))
            .await
            .unwrap();
        assert_eq!(found.nodes.iter().map(|stored| stored.node.id.as_str()).collect::<Vec<_>>(), [text.as_str()]);
    }
    assert_eq!(larder.check(larder::CheckDepth::Full).await.unwrap().findings, []);
}

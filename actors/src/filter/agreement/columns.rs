//! Proof that columns answer as the evaluator does, kept as bytes or not; broken ones are caught.

use larder_protocol::filter::Filter;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use serde_json::Value;

use super::{DOCUMENTS_PER_FILTER, change_values, pair_count, pairs};
use crate::filter::{Columns, DeclaredTree, Question, matches, read_json};

/// Makes columns of the documents.
type Maker = fn(&[Value]) -> Columns;

fn make(documents: &[Value]) -> Columns {
    let mut columns = Columns::default();
    documents.iter().for_each(|document| columns.push(Some(document), &DeclaredTree::default()));
    columns
}

fn check(filter: &Filter, texts: &[String], maker: Maker) -> Result<(), TestCaseError> {
    let documents: Vec<Value> = texts.iter().map(|text| read_json(text.as_bytes()).unwrap()).collect();
    let columns = maker(&documents);
    let kept = Columns::from_bytes(&columns.to_bytes()).unwrap();
    prop_assert_eq!(&kept, &columns);
    let answer = kept.matching(&Question::new(filter));
    for (place, document) in documents.iter().enumerate() {
        let said = (answer.certain[0] >> place & 1 == 1, answer.possible[0] >> place & 1 == 1);
        let expected = matches(filter, document);
        prop_assert_eq!(said, (expected, expected));
    }
    Ok(())
}

fn run(count: usize, shrink: bool, maker: Maker) -> Result<(), TestError<(Filter, Vec<String>)>> {
    let cases = u32::try_from(count.div_ceil(DOCUMENTS_PER_FILTER)).unwrap();
    let max_shrink_iters = if shrink { 4_096 } else { 0 };
    let config = Config { cases, max_shrink_iters, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&pairs(), |(filter, texts)| check(&filter, &texts, maker))
}

#[test]
fn columns_and_evaluator_agree() {
    run(4 * pair_count(), true, make).unwrap();
}

#[test]
fn broken_columns_are_caught() {
    fn changed(documents: &[Value], change: fn(Value) -> Value) -> Columns {
        make(&documents.iter().map(|document| change_values(document.clone(), change)).collect::<Vec<_>>())
    }
    let whole_numbers: Maker =
        |documents| changed(documents, |value| value.as_f64().map_or(value, |float| Value::from(float.trunc())));
    let null_is_missing: Maker = |documents| {
        let without = |document: &Value| match document {
            Value::Object(members) => members.clone().into_iter().filter(|(_, value)| !value.is_null()).collect(),
            other => other.clone(),
        };
        make(&documents.iter().map(without).collect::<Vec<_>>())
    };
    let folded_texts: Maker = |documents| {
        changed(documents, |value| value.as_str().map(str::to_ascii_lowercase).map_or(value.clone(), Value::from))
    };
    let one_behind: Maker = |documents| {
        let mut columns = Columns::default();
        columns.push(None, &DeclaredTree::default());
        documents.iter().for_each(|document| columns.push(Some(document), &DeclaredTree::default()));
        columns
    };
    for (name, maker) in [
        ("whole numbers", whole_numbers),
        ("null is missing", null_is_missing),
        ("folded texts", folded_texts),
        ("one behind", one_behind),
    ] {
        let outcome = run(100_000, false, maker);
        let is_caught =
            matches!(&outcome, Err(TestError::Fail(reason, _)) if reason.message().contains("left == right"));
        assert!(is_caught, "{name} was not caught: {outcome:?}");
    }
}

//! Evaluates a filter on a JSON value in memory.
//!
//! Start at [`matches()`].
//!
//! Always true: the answer is what the SQL of `compile` gives for the same document.

use std::cmp::Ordering;

use larder_protocol::filter::{Comparison, FieldPath, Filter, Operator, Scalar};
use serde_json::Value;

/// Returns whether `filter` is true of `document`, as [`read_json`](super::read_json) returned it.
///
/// The filter has passed [`Filter::check`], which bounds the recursion here. A comparison whose operand does not fit its
/// operator, which the check refuses, is false.
///
/// # Examples
/// ```
/// use larder_actors::filter::matches;
/// use larder_protocol::filter::field;
/// use serde_json::json;
///
/// let document = json!({"lang": "en", "tags": ["a", "b"]});
/// assert!(matches(&field("lang").eq("en").and(field("tags").contains("b")), &document));
/// assert!(matches(&field("missing").ne(1), &document));
/// ```
#[must_use]
pub fn matches(filter: &Filter, document: &Value) -> bool {
    match filter {
        Filter::And(filters) => filters.iter().all(|filter| matches(filter, document)),
        Filter::Or(filters) => filters.iter().any(|filter| matches(filter, document)),
        Filter::Not(filter) => !matches(filter, document),
        Filter::Compare(comparison) => compare(comparison, find(&comparison.field, document)),
    }
}

/// Returns the value at `path`; `None` when a key is missing or something on the way is not an object.
fn find<'a>(path: &FieldPath, document: &'a Value) -> Option<&'a Value> {
    path.0.iter().try_fold(document, |value, key| value.as_object()?.get(key))
}

/// Returns whether `comparison` is true of its field's value; `None`: the field is missing.
pub(super) fn compare(comparison: &Comparison, value: Option<&Value>) -> bool {
    let scalars = comparison.operand.scalars();
    match comparison.operator {
        Operator::Eq | Operator::In => value.is_some_and(|value| equals_any(value, scalars)),
        Operator::Ne | Operator::Nin => !value.is_some_and(|value| equals_any(value, scalars)),
        Operator::Gt => order(value, scalars).is_some_and(Ordering::is_gt),
        Operator::Gte => order(value, scalars).is_some_and(Ordering::is_ge),
        Operator::Lt => order(value, scalars).is_some_and(Ordering::is_lt),
        Operator::Lte => order(value, scalars).is_some_and(Ordering::is_le),
        Operator::Any | Operator::Contains => {
            array(value).is_some_and(|items| items.iter().any(|item| equals_any(item, scalars)))
        }
        Operator::All => {
            array(value).is_some_and(|items| scalars.iter().all(|scalar| items.iter().any(|item| equals(item, scalar))))
        }
        Operator::TextMatch => texts(value, scalars).is_some_and(|(text, part)| text.contains(part)),
        Operator::TextMatchInsensitive => texts(value, scalars)
            .is_some_and(|(text, part)| text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())),
        Operator::IsEmpty => match value {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => false,
        },
    }
}

fn array(value: Option<&Value>) -> Option<&Vec<Value>> {
    value?.as_array()
}

fn texts<'a>(value: Option<&'a Value>, scalars: &'a [Scalar]) -> Option<(&'a str, &'a str)> {
    match (value?, scalars) {
        (Value::String(text), [Scalar::String(part)]) => Some((text, part)),
        _ => None,
    }
}

fn equals_any(value: &Value, scalars: &[Scalar]) -> bool {
    scalars.iter().any(|scalar| equals(value, scalar))
}

fn equals(value: &Value, scalar: &Scalar) -> bool {
    match (value, scalar) {
        (Value::Null, Scalar::Null) => true,
        (Value::Bool(value), Scalar::Bool(scalar)) => value == scalar,
        _ => order_one(value, scalar) == Some(Ordering::Equal),
    }
}

fn order(value: Option<&Value>, scalars: &[Scalar]) -> Option<Ordering> {
    match scalars {
        [scalar] => order_one(value?, scalar),
        _ => None,
    }
}

/// Returns how a field's value stands to the operand; `None` unless both are numbers or both strings.
fn order_one(value: &Value, scalar: &Scalar) -> Option<Ordering> {
    match (value, scalar) {
        (Value::String(value), Scalar::String(scalar)) => Some(value.as_bytes().cmp(scalar.as_bytes())),
        (Value::Number(value), Scalar::Integer(scalar)) => match value.as_i64() {
            Some(value) => Some(value.cmp(scalar)),
            None => order_integer_float(*scalar, value.as_f64()?).map(Ordering::reverse),
        },
        (Value::Number(value), Scalar::Float(scalar)) => match value.as_i64() {
            Some(value) => order_integer_float(value, *scalar),
            // Integers beyond i64 are floats to SQLite, and so here.
            None => value.as_f64()?.partial_cmp(scalar),
        },
        _ => None,
    }
}

/// Compares by exact value, as SQLite does: 2⁵³ + 1 is not 2⁵³ as a float, though it would round to it.
pub(super) fn order_integer_float(integer: i64, float: f64) -> Option<Ordering> {
    /// 2⁶³: the first float above every i64.
    const ABOVE_I64: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= ABOVE_I64 {
        return Some(Ordering::Less);
    }
    if float < -ABOVE_I64 {
        return Some(Ordering::Greater);
    }
    #[expect(clippy::cast_possible_truncation, reason = "in range by the two tests above, whole by trunc")]
    let whole = float.trunc() as i64;
    Some(integer.cmp(&whole).then_with(|| 0.0.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal)))
}

#[cfg(test)]
mod tests {
    use larder_protocol::filter::{field, field_path};
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_compare_by_exact_value() {
        let document =
            json!({"i": 9_007_199_254_740_993_i64, "f": 9_007_199_254_740_992.0, "max": i64::MAX, "u": u64::MAX});
        assert!(!matches(&field("i").eq(9_007_199_254_740_992.0), &document));
        assert!(matches(&field("i").gt(9_007_199_254_740_992.0), &document));
        assert!(matches(&field("f").lt(9_007_199_254_740_993_i64), &document));
        assert!(matches(&field("max").lt(9_223_372_036_854_775_808.0), &document));
        assert!(matches(&field("u").eq(18_446_744_073_709_551_616.0), &document));
        assert!(matches(&field("u").gt(i64::MAX), &document));
        assert!(matches(&field("z").eq(0).and(field("z").eq(-0.0)), &json!({"z": -0.0})));
        assert!(matches(&field("z").gt(-2.5).and(field("z").lt(-1.5)), &json!({"z": -2})));
        assert!(matches(&field("z").eq(1.0).and(field("z").eq(1)), &json!({"z": 1})));
    }

    #[test]
    fn types_do_not_mix() {
        let document = json!({"b": true, "n": null, "s": "1", "a": [1], "o": {}, "i": 1});
        assert!(!matches(&field("b").eq(1), &document));
        assert!(!matches(&field("i").eq(true), &document));
        assert!(!matches(&field("s").eq(1), &document));
        assert!(!matches(&field("a").eq("[1]"), &document));
        assert!(matches(&field("n").eq(()), &document));
        assert!(!matches(&field("missing").eq(()), &document));
        for name in ["b", "n", "s", "a", "o", "missing"] {
            assert!(matches(&field(name).ne(1).and(field(name).none_of([1, 2])), &document), "{name}");
            assert!(!matches(&field(name).lte(1).or(field(name).gt(1)), &document), "{name}");
        }
    }

    #[test]
    fn lists_and_texts() {
        let document = json!({"a": [1, "x", [2], null], "e": [], "t": "Größe_A%", "empty": ""});
        assert!(matches(&field("a").contains(1.0).and(field("a").contains(())), &document));
        assert!(!matches(&field("a").contains(2), &document));
        assert!(!matches(&field("t").contains("A"), &document));
        assert!(matches(&field("a").all([Scalar::from(1), "x".into()]), &document));
        assert!(matches(&field("e").all(Vec::<Scalar>::new()), &document));
        assert!(!matches(&field("t").all(Vec::<Scalar>::new()), &document));
        assert!(!matches(&field("a").any(Vec::<Scalar>::new()), &document));
        assert!(matches(&field("t").text_match_insensitive("GRößE_a"), &document));
        assert!(!matches(&field("t").text_match_insensitive("GRÖSSE"), &document));
        assert!(!matches(&field("t").text_match("A_").or(field("a").text_match("x")), &document));
        for name in ["e", "empty", "missing"] {
            assert!(matches(&field(name).is_empty(), &document), "{name}");
        }
        assert!(!matches(&field("a").is_empty(), &document));
    }

    #[test]
    fn keys_are_data() {
        let document = json!({"a.b": 1, "a": {"b": 2, "0": 3}, "l": [4]});
        assert!(matches(&field("a.b").eq(1).and(field_path(["a", "b"]).eq(2)), &document));
        assert!(matches(&field("a").key("0").eq(3), &document));
        assert!(matches(&field("l").key("0").is_empty().and(field("l[0]").is_empty()), &document));
    }
}

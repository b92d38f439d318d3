//! The distinct values of a field, sorted: numbers, texts, null, booleans, objects, arrays.
//!
//! Always true: values that no filter can tell apart are one; integers alone take 8 bytes each.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::filter::evaluate::order_integer_float;

/// What an allocation takes beside its bytes, about.
const ALLOCATION_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Integers(Vec<i64>),
    Any { values: Vec<Value>, heap_bytes: usize },
}

impl Default for Values {
    fn default() -> Self {
        Self::Integers(Vec::new())
    }
}

impl Values {
    /// The values, which must be sorted and distinct; `None` where they are not.
    pub(super) fn from_sorted(values: Vec<Value>) -> Option<Self> {
        if !values.is_sorted_by(|a, b| order(a, b).is_lt()) {
            return None;
        }
        match values.iter().map(Value::as_i64).collect() {
            Some(integers) => Some(Self::Integers(integers)),
            None => Some(Self::Any { heap_bytes: values.iter().map(heap_bytes).sum(), values }),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Any { values, .. } => values.len(),
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Integers(values) => size_of_val(values.as_slice()),
            Self::Any { values, heap_bytes } => size_of_val(values.as_slice()) + heap_bytes,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Cow<'_, Value>> {
        (0..self.len()).map(|at| self.get(at))
    }

    fn get(&self, at: usize) -> Cow<'_, Value> {
        match self {
            Self::Integers(values) => Cow::Owned(Value::from(values[at])),
            Self::Any { values, .. } => Cow::Borrowed(&values[at]),
        }
    }

    /// How many of the first values are so; those behind them are not.
    pub(super) fn partition(&self, mut is_so: impl FnMut(&Value) -> bool) -> usize {
        match self {
            Self::Integers(values) => values.partition_point(|value| is_so(&Value::from(*value))),
            Self::Any { values, .. } => values.partition_point(is_so),
        }
    }

    /// Where the value is, if it is there.
    pub(super) fn find(&self, value: &Value) -> Option<usize> {
        let at = self.partition(|one| order(one, value).is_lt());
        (at < self.len() && order(&self.get(at), value).is_eq()).then_some(at)
    }

    /// Where the value is, and whether it was put there only now.
    pub(super) fn place_of(&mut self, value: &Value) -> (usize, bool) {
        let at = self.partition(|one| order(one, value).is_lt());
        if at < self.len() && order(&self.get(at), value).is_eq() {
            return (at, false);
        }
        match (&mut *self, value.as_i64()) {
            (Self::Integers(values), Some(integer)) => values.insert(at, integer),
            (Self::Integers(integers), None) => {
                let mut values: Vec<Value> = integers.iter().map(|integer| Value::from(*integer)).collect();
                let value = distinct_part(value);
                let heap_bytes = heap_bytes(&value);
                values.insert(at, value);
                *self = Self::Any { values, heap_bytes };
            }
            (Self::Any { values, heap_bytes: sum }, _) => {
                let value = distinct_part(value);
                *sum += heap_bytes(&value);
                values.insert(at, value);
            }
        }
        (at, true)
    }
}

/// What of a value filters can see: an object's members have columns of their own, and no item of an array is ever equal to
/// another array or object.
fn distinct_part(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::Object(serde_json::Map::new()),
        Value::Array(items) => items.iter().map(item_part).collect(),
        scalar => scalar.clone(),
    }
}

fn item_part(item: &Value) -> Value {
    if item.is_array() { Value::Object(serde_json::Map::new()) } else { distinct_part(item) }
}

fn heap_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + ALLOCATION_BYTES,
        Value::Array(items) => {
            ALLOCATION_BYTES + size_of_val(items.as_slice()) + items.iter().map(heap_bytes).sum::<usize>()
        }
        _ => 0,
    }
}

/// The place of a value's kind in the order.
pub(super) fn kind(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Null => 2,
        Value::Bool(_) => 3,
        Value::Object(_) => 4,
        Value::Array(_) => 5,
    }
}

/// A total order in which those are equal that no filter can tell apart.
pub(super) fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => order_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let of_items = a.iter().zip(b).map(|(a, b)| order_items(a, b));
            of_items.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        _ => kind(a).cmp(&kind(b)),
    }
}

fn order_items(a: &Value, b: &Value) -> Ordering {
    let is_nested = |item: &Value| item.is_array() || item.is_object();
    match (is_nested(a), is_nested(b)) {
        (true, true) => Ordering::Equal,
        (false, false) => order(a, b),
        (is_nested, _) => is_nested.cmp(&!is_nested),
    }
}

fn order_numbers(a: &Number, b: &Number) -> Ordering {
    let float = |number: &Number| number.as_f64().unwrap_or_default();
    let ordering = match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (Some(a), None) => order_integer_float(a, float(b)),
        (None, Some(b)) => order_integer_float(b, float(a)).map(Ordering::reverse),
        (None, None) => float(a).partial_cmp(&float(b)),
    };
    // JSON has no number that is none.
    ordering.unwrap_or(Ordering::Equal)
}

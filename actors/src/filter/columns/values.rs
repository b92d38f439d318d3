//! The distinct values of a field, sorted: numbers, texts, null, booleans, objects, arrays.
//!
//! Always true: values that no filter can tell apart are one; integers alone take 8 bytes each, texts alone 4 and their own.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::filter::evaluate::order_integer_float;

/// What an allocation takes beside its bytes, about.
const ALLOCATION_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Integers(Vec<i64>),
    /// One behind the other, and where each ends.
    Texts {
        texts: String,
        ends: Vec<u32>,
    },
    Any {
        values: Vec<Value>,
        heap_bytes: usize,
    },
}

/// A value as filters see it: an object's members have columns of their own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen<'a> {
    Integer(i64),
    Float(f64),
    Text(&'a str),
    Null,
    Bool(bool),
    Object,
    Array(&'a [Value]),
}

impl Default for Values {
    fn default() -> Self {
        Self::Integers(Vec::new())
    }
}

impl Values {
    /// The values, which must be sorted and distinct; `None` where they are not.
    pub(super) fn from_sorted(values: Vec<Value>) -> Option<Self> {
        if !values.is_sorted_by(|a, b| Seen::of(a).order(Seen::of(b)).is_lt()) {
            return None;
        }
        if let Some(integers) = values.iter().map(Value::as_i64).collect() {
            return Some(Self::Integers(integers));
        }
        if !values.iter().all(Value::is_string) {
            return Some(Self::Any { heap_bytes: values.iter().map(heap_bytes).sum(), values });
        }
        let (mut texts, mut ends) = (String::new(), Vec::with_capacity(values.len()));
        for text in values.iter().filter_map(Value::as_str) {
            texts.push_str(text);
            ends.push(u32::try_from(texts.len()).ok()?);
        }
        Some(Self::Texts { texts, ends })
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Texts { ends, .. } => ends.len(),
            Self::Any { values, .. } => values.len(),
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Integers(values) => size_of_val(values.as_slice()),
            Self::Texts { texts, ends } => texts.len() + size_of_val(ends.as_slice()),
            Self::Any { values, heap_bytes } => size_of_val(values.as_slice()) + heap_bytes,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Seen<'_>> {
        (0..self.len()).map(|at| self.get(at))
    }

    fn get(&self, at: usize) -> Seen<'_> {
        match self {
            Self::Integers(values) => Seen::Integer(values[at]),
            Self::Texts { texts, ends } => {
                let start = at.checked_sub(1).map_or(0, |before| ends[before]);
                Seen::Text(&texts[start as usize..ends[at] as usize])
            }
            Self::Any { values, .. } => Seen::of(&values[at]),
        }
    }

    /// How many of the first values are so; those behind them are not.
    pub(super) fn partition(&self, is_so: impl Fn(Seen<'_>) -> bool) -> usize {
        let (mut start, mut end) = (0, self.len());
        while start < end {
            let middle = usize::midpoint(start, end);
            if is_so(self.get(middle)) {
                start = middle + 1;
            } else {
                end = middle;
            }
        }
        start
    }

    /// Where the value is, if it is there; else where it would be.
    pub(super) fn find(&self, value: Seen<'_>) -> Result<usize, usize> {
        let at = self.partition(|one| one.order(value).is_lt());
        if at < self.len() && self.get(at).order(value).is_eq() { Ok(at) } else { Err(at) }
    }

    /// Where the value is, and whether it was put there only now.
    pub(super) fn place_of(&mut self, value: &Value) -> (usize, bool) {
        match self.find(Seen::of(value)) {
            Ok(at) => (at, false),
            Err(at) => {
                self.insert(at, Seen::of(value));
                (at, true)
            }
        }
    }

    fn insert(&mut self, at: usize, value: Seen<'_>) {
        if self.len() == 0 && matches!(value, Seen::Text(_)) {
            *self = Self::Texts { texts: String::new(), ends: Vec::new() };
        }
        match (&mut *self, value) {
            (Self::Integers(values), Seen::Integer(integer)) => values.insert(at, integer),
            (Self::Texts { texts, ends }, Seen::Text(text)) => {
                let start = at.checked_sub(1).map_or(0, |before| ends[before]);
                texts.insert_str(start as usize, text);
                ends.insert(at, start);
                ends[at..].iter_mut().for_each(|end| *end += text.len() as u32);
            }
            (Self::Any { values, heap_bytes: sum }, _) => {
                let value = value.to_value();
                *sum += heap_bytes(&value);
                values.insert(at, value);
            }
            (Self::Integers(_) | Self::Texts { .. }, _) => {
                let mut values: Vec<Value> = self.iter().map(Seen::to_value).collect();
                values.insert(at, value.to_value());
                *self = Self::Any { heap_bytes: values.iter().map(heap_bytes).sum(), values };
            }
        }
    }
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

impl<'a> Seen<'a> {
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Number(number) => Self::of_number(number),
            Value::String(text) => Self::Text(text),
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Object(_) => Self::Object,
            Value::Array(items) => Self::Array(items),
        }
    }

    fn of_number(number: &Number) -> Self {
        // JSON has no number that is none.
        number.as_i64().map_or_else(|| Self::Float(number.as_f64().unwrap_or_default()), Self::Integer)
    }

    /// As an item of an array: no filter tells arrays and objects there apart.
    fn of_item(item: &'a Value) -> Self {
        if item.is_array() { Self::Object } else { Self::of(item) }
    }

    pub(super) fn to_value(self) -> Value {
        match self {
            Self::Integer(value) => Value::from(value),
            Self::Float(value) => Value::from(value),
            Self::Text(text) => Value::from(text),
            Self::Null => Value::Null,
            Self::Bool(value) => Value::from(value),
            Self::Object => Value::Object(serde_json::Map::new()),
            Self::Array(items) => items.iter().map(|item| Seen::of_item(item).to_value()).collect(),
        }
    }

    /// The place of a value's kind in the order.
    pub(super) fn kind(self) -> u8 {
        match self {
            Self::Integer(_) | Self::Float(_) => 0,
            Self::Text(_) => 1,
            Self::Null => 2,
            Self::Bool(_) => 3,
            Self::Object => 4,
            Self::Array(_) => 5,
        }
    }

    /// A total order in which those are equal that no filter can tell apart.
    pub(super) fn order(self, other: Seen<'_>) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Seen::Integer(b)) => a.cmp(&b),
            (Self::Integer(a), Seen::Float(b)) => order_integer_float(a, b).unwrap_or(Ordering::Equal),
            (Self::Float(a), Seen::Integer(b)) => order_integer_float(b, a).map_or(Ordering::Equal, Ordering::reverse),
            (Self::Float(a), Seen::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Self::Text(a), Seen::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Bool(a), Seen::Bool(b)) => a.cmp(&b),
            (Self::Array(a), Seen::Array(b)) => {
                let of_items = a.iter().zip(b).map(|(a, b)| Seen::of_item(a).order(Seen::of_item(b)));
                of_items.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
            }
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

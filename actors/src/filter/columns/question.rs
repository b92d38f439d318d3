//! A filter made ready to be asked of many blocks.

use std::ops::Range;

use larder_protocol::filter::{Comparison, FieldPath, Filter, Operator, Scalar};
use serde_json::Value;

use super::values::{Seen, Values};
use crate::filter::evaluate;

/// So many values are looked for in a block within a microsecond.
const QUICK_OPERANDS_MAX: usize = 8;

/// A filter made ready to be asked of many blocks.
#[derive(Debug)]
pub enum Question<'a> {
    /// All of them.
    And(Vec<Self>),
    /// At least one of them.
    Or(Vec<Self>),
    /// Not this one.
    Not(Box<Self>),
    /// A comparison.
    Compare(Asked<'a>),
}

/// A comparison, with what the values are compared with.
#[derive(Debug)]
pub struct Asked<'a> {
    comparison: &'a Comparison,
    /// Sorted and distinct.
    operands: Vec<Value>,
    is_true_of_missing: bool,
}

/// Which of a field's values a comparison is true of.
pub(super) enum Test {
    /// Those at these places.
    Between(Range<usize>),
    /// For each code, which is a place and 1, whether it is.
    Each(Vec<bool>),
}

impl<'a> Question<'a> {
    /// Makes a filter that passed [`Filter::check`] ready.
    #[must_use]
    pub fn new(filter: &'a Filter) -> Self {
        match filter {
            Filter::And(filters) => Self::And(filters.iter().map(Self::new).collect()),
            Filter::Or(filters) => Self::Or(filters.iter().map(Self::new).collect()),
            Filter::Not(filter) => Self::Not(Box::new(Self::new(filter))),
            Filter::Compare(comparison) => Self::Compare(Asked::new(comparison)),
        }
    }

    /// Whether it takes well below a microsecond to ask a block, for each comparison: no value is looked at one by one.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        match self {
            Self::And(questions) | Self::Or(questions) => questions.iter().all(Self::is_quick),
            Self::Not(question) => question.is_quick(),
            Self::Compare(asked) => asked.is_quick(),
        }
    }

    /// How many comparisons there are.
    #[must_use]
    pub fn comparison_count(&self) -> usize {
        match self {
            Self::And(questions) | Self::Or(questions) => questions.iter().map(Self::comparison_count).sum(),
            Self::Not(question) => question.comparison_count(),
            Self::Compare(_) => 1,
        }
    }
}

impl<'a> Asked<'a> {
    fn new(comparison: &'a Comparison) -> Self {
        let mut operands: Vec<Value> = comparison.operand.scalars().iter().filter_map(value).collect();
        operands.sort_unstable_by(|a, b| Seen::of(a).order(Seen::of(b)));
        operands.dedup_by(|a, b| Seen::of(a).order(Seen::of(b)).is_eq());
        Self { comparison, operands, is_true_of_missing: evaluate::compare(comparison, None) }
    }

    pub(super) fn field(&self) -> &FieldPath {
        &self.comparison.field
    }

    pub(super) fn is_true_of_missing(&self) -> bool {
        self.is_true_of_missing
    }

    /// Whether the comparison is true of what [`test`](Self::test) does not name, missing fields included.
    pub(super) fn is_negated(&self) -> bool {
        matches!(self.comparison.operator, Operator::Ne | Operator::Nin)
    }

    fn is_quick(&self) -> bool {
        use Operator::{Eq, Gt, Gte, In, Lt, Lte, Ne, Nin};
        self.operands.len() <= QUICK_OPERANDS_MAX
            && matches!(self.comparison.operator, Eq | Ne | Gt | Gte | Lt | Lte | In | Nin)
    }

    pub(super) fn test(&self, values: &Values) -> Test {
        match (self.comparison.operator, self.operands.as_slice()) {
            (Operator::Eq | Operator::Ne | Operator::In | Operator::Nin, [operand]) => {
                let at = values.find(Seen::of(operand));
                Test::Between(at.map_or(0..0, |at| at..at + 1))
            }
            (Operator::Eq | Operator::Ne | Operator::In | Operator::Nin, operands) => {
                Test::Each(any_of(values, operands))
            }
            (Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte, operands) => {
                Test::Between(self.ordered(values, operands))
            }
            _ => {
                let of_values = values.iter().map(|value| evaluate::compare(self.comparison, Some(&value.to_value())));
                Test::Each(std::iter::once(false).chain(of_values).collect())
            }
        }
    }

    fn ordered(&self, values: &Values, operands: &[Value]) -> Range<usize> {
        let [operand @ (Value::Number(_) | Value::String(_))] = operands else { return 0..0 };
        let operand = Seen::of(operand);
        let start = values.partition(|value| value.kind() < operand.kind());
        let end = values.partition(|value| value.kind() <= operand.kind());
        let below = || values.partition(|value| value.order(operand).is_lt());
        let up_to = || values.partition(|value| value.order(operand).is_le());
        match self.comparison.operator {
            Operator::Gt => up_to()..end,
            Operator::Gte => below()..end,
            Operator::Lt => start..below(),
            _ => start..up_to(),
        }
    }
}

/// Says for each code whether its value is one of the operands, by way of whichever are fewer.
fn any_of(values: &Values, operands: &[Value]) -> Vec<bool> {
    let mut is_match = vec![false; values.len() + 1];
    if operands.len() < values.len() {
        for at in operands.iter().filter_map(|operand| values.find(Seen::of(operand)).ok()) {
            is_match[at + 1] = true;
        }
    } else {
        for (is_match, value) in is_match[1..].iter_mut().zip(values.iter()) {
            *is_match = operands.binary_search_by(|operand| Seen::of(operand).order(value)).is_ok();
        }
    }
    is_match
}

/// The scalar as a value; `None` for what is no number, which equals nothing.
fn value(scalar: &Scalar) -> Option<Value> {
    match scalar {
        Scalar::Null => Some(Value::Null),
        Scalar::Bool(bool) => Some(Value::from(*bool)),
        Scalar::Integer(integer) => Some(Value::from(*integer)),
        Scalar::Float(float) => serde_json::Number::from_f64(*float).map(Value::Number),
        Scalar::String(text) => Some(Value::from(text.as_str())),
    }
}

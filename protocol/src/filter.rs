//! Filters on JSON: a tree of comparisons, built with methods, sent as plain data.
//!
//! Start at [`field`], which begins a comparison; [`Filter`] is the tree and [`Operator`] says what each operator means.
//!
//! Always true: a filter is data (no part of it is ever SQL or a JSON path); its logic is two-valued, so `not` is plain
//! negation; evaluation in memory and in SQLite give the same answer for JSON that passed larder's check on writing.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits::{FILTER_DEPTH_MAX, FILTER_LIST_ITEMS_MAX, FILTER_NODES_MAX, FILTER_PATH_KEYS_MAX};

/// A condition on a JSON document: true or false, never unknown.
///
/// # Examples
/// ```
/// use larder_protocol::filter::field;
///
/// let filter = field("lang").eq("en").and(field("year").gte(2020).or(field("pinned").eq(true)));
/// filter.check()?;
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// True when every one is; true when there is none.
    And(Vec<Filter>),
    /// True when at least one is; false when there is none.
    Or(Vec<Filter>),
    /// True when the other is false.
    Not(Box<Filter>),
    /// A condition on one field.
    Compare(Comparison),
}

/// A condition on one field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Which field.
    pub field: FieldPath,
    /// How to compare.
    pub operator: Operator,
    /// With what. [`Operator::check`] says which kind each operator takes.
    pub operand: Operand,
}

/// How a field is compared.
///
/// Values are equal when they are numbers of exactly the same value (`1` equals `1.0`; an integer beyond 64 bits signed
/// counts as the nearest 64-bit float), strings of the same bytes, the same boolean, or both null. A boolean never
/// equals a number; an array or object never equals anything; a missing field equals nothing, not even null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// `==`: the field equals the operand.
    Eq,
    /// `!=`: exactly not [`Eq`](Self::Eq), so true for missing, null and other types.
    Ne,
    /// `>`: both are numbers, or both strings (by bytes), and the field is greater. Otherwise false, for all four.
    Gt,
    /// `>=`.
    Gte,
    /// `<`.
    Lt,
    /// `<=`.
    Lte,
    /// `in`: the field equals one of the list; false for an empty list.
    In,
    /// `nin`: exactly not [`In`](Self::In).
    Nin,
    /// The field is an array with an item that equals one of the list; false for an empty list.
    Any,
    /// The field is an array that has, for each of the list, an equal item; true of every array for an empty list.
    All,
    /// The field is a string that has the operand in it, byte for byte. Every string has the empty text.
    TextMatch,
    /// As [`TextMatch`](Self::TextMatch), with the letters A to Z equal to a to z. No other letters are folded.
    TextMatchInsensitive,
    /// The field is an array with an item that equals the operand. Items of nested arrays do not count.
    Contains,
    /// The field is missing, null, `""` or `[]`.
    IsEmpty,
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operand {
    /// Nothing: for [`Operator::IsEmpty`].
    Nothing,
    /// One value.
    Scalar(Scalar),
    /// Several values, which may differ in type.
    List(Vec<Scalar>),
}

/// A value without parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scalar {
    /// JSON's `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number; finite.
    Float(f64),
    /// Text, compared by its bytes.
    String(String),
}

macro_rules! scalar_from {
    ($($type:ty => $variant:ident,)*) => {
        $(impl From<$type> for Scalar {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

scalar_from! {
    bool => Bool, i8 => Integer, i16 => Integer, i32 => Integer, i64 => Integer, u8 => Integer, u16 => Integer,
    u32 => Integer, f32 => Float, f64 => Float, &str => String, String => String, &String => String,
}

impl From<()> for Scalar {
    fn from((): ()) -> Self {
        Self::Null
    }
}

impl<T: Into<Self>> From<Option<T>> for Scalar {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Where a value is in a document: object keys from the outside in, each taken as it is.
///
/// A dot, quote, bracket or dollar sign in a key is part of the key. Keys find members of objects only: `"0"` is never
/// the first item of an array.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldPath(pub Vec<String>);

/// Returns the path of a top-level field.
///
/// # Examples
/// ```
/// use larder_protocol::filter::field;
///
/// let nested = field("author").key("name").eq("Ada");
/// let dotted = field("author.name").eq("Ada"); // One key with a dot in it.
/// assert_ne!(nested, dotted);
/// ```
pub fn field(key: impl Into<String>) -> FieldPath {
    FieldPath(vec![key.into()])
}

/// Returns the path of a nested field, from the outside in.
///
/// # Examples
/// ```
/// use larder_protocol::filter::{field, field_path};
///
/// assert_eq!(field_path(["a", "b"]), field("a").key("b"));
/// ```
pub fn field_path<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> FieldPath {
    FieldPath(keys.into_iter().map(Into::into).collect())
}

macro_rules! scalar_comparisons {
    ($($(#[$doc:meta])* $method:ident $operator:ident)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $method(self, value: impl Into<Scalar>) -> Filter {
            self.compare(Operator::$operator, Operand::Scalar(value.into()))
        })*
    };
}

macro_rules! list_comparisons {
    ($($(#[$doc:meta])* $method:ident $operator:ident)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $method<S: Into<Scalar>>(self, values: impl IntoIterator<Item = S>) -> Filter {
            self.compare(Operator::$operator, Operand::List(values.into_iter().map(Into::into).collect()))
        })*
    };
}

impl FieldPath {
    /// Returns the path of the member `key` of the object here.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.push(key.into());
        self
    }

    scalar_comparisons! {
        /// Equal; see [`Operator::Eq`].
        eq Eq
        /// Not equal, missing included; see [`Operator::Ne`].
        ne Ne
        /// Greater; see [`Operator::Gt`].
        gt Gt
        /// Greater or equal; see [`Operator::Gte`].
        gte Gte
        /// Less; see [`Operator::Lt`].
        lt Lt
        /// Less or equal; see [`Operator::Lte`].
        lte Lte
        /// An array with this item; see [`Operator::Contains`].
        contains Contains
    }

    list_comparisons! {
        /// Equal to one of these; see [`Operator::In`].
        one_of In
        /// Equal to none of these, missing included; see [`Operator::Nin`].
        none_of Nin
        /// An array with at least one of these; see [`Operator::Any`].
        any Any
        /// An array with each of these; see [`Operator::All`].
        all All
    }

    /// A string with `text` in it; see [`Operator::TextMatch`].
    #[must_use]
    pub fn text_match(self, text: impl Into<String>) -> Filter {
        self.compare(Operator::TextMatch, Operand::Scalar(Scalar::String(text.into())))
    }

    /// A string with `text` in it, in capitals or not; see [`Operator::TextMatchInsensitive`].
    #[must_use]
    pub fn text_match_insensitive(self, text: impl Into<String>) -> Filter {
        self.compare(Operator::TextMatchInsensitive, Operand::Scalar(Scalar::String(text.into())))
    }

    /// Missing, null, `""` or `[]`; see [`Operator::IsEmpty`].
    #[must_use]
    pub fn is_empty(self) -> Filter {
        self.compare(Operator::IsEmpty, Operand::Nothing)
    }

    fn compare(self, operator: Operator, operand: Operand) -> Filter {
        Filter::Compare(Comparison { field: self, operator, operand })
    }
}

impl Filter {
    /// Returns the filter that is true of every document.
    #[must_use]
    pub const fn everything() -> Self {
        Self::And(Vec::new())
    }

    /// Returns the filter that is true when both are. A chain of `and` is one group, however long.
    #[must_use]
    pub fn and(mut self, mut other: Self) -> Self {
        if let Self::And(filters) = &mut self {
            match &mut other {
                Self::And(others) => filters.append(others),
                Self::Or(_) | Self::Not(_) | Self::Compare(_) => filters.push(other),
            }
            return self;
        }
        Self::And(vec![self, other])
    }

    /// Returns the filter that is true when at least one is. A chain of `or` is one group, however long.
    #[must_use]
    pub fn or(mut self, mut other: Self) -> Self {
        if let Self::Or(filters) = &mut self {
            match &mut other {
                Self::Or(others) => filters.append(others),
                Self::And(_) | Self::Not(_) | Self::Compare(_) => filters.push(other),
            }
            return self;
        }
        Self::Or(vec![self, other])
    }

    /// Returns the filter that is true when this one is false. Twice is the filter itself.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "reads as the operator's name beside `and` and `or`")]
    pub fn not(mut self) -> Self {
        match &mut self {
            Self::Not(inner) => std::mem::replace(inner, Self::everything()),
            Self::And(_) | Self::Or(_) | Self::Compare(_) => Self::Not(Box::new(self)),
        }
    }

    /// Checks that the filter is within its limits and every operand fits its operator.
    ///
    /// Evaluating and compiling take a checked filter; both recurse, and this bounds how deep.
    ///
    /// # Errors
    /// [`Error::Invalid`] when groups are nested deeper than [`FILTER_DEPTH_MAX`], there are more than
    /// [`FILTER_NODES_MAX`] nodes or [`FILTER_LIST_ITEMS_MAX`] list items, a path has no key or more than
    /// [`FILTER_PATH_KEYS_MAX`], a float is not finite, or an operator has the wrong kind of operand.
    pub fn check(&self) -> Result<()> {
        // A stack of our own: an unchecked filter may be nested deeper than the thread's stack can follow.
        let mut open = vec![(self, 1_usize)];
        let mut node_count = 0_usize;
        let mut item_count = 0_usize;
        while let Some((filter, depth)) = open.pop() {
            node_count += 1;
            if depth > FILTER_DEPTH_MAX {
                return Err(invalid(format!("it is nested deeper than {FILTER_DEPTH_MAX}")));
            }
            if node_count + open.len() > FILTER_NODES_MAX {
                return Err(invalid(format!("it has more than {FILTER_NODES_MAX} nodes")));
            }
            match filter {
                Self::And(filters) | Self::Or(filters) => {
                    if filters.len() > FILTER_NODES_MAX {
                        return Err(invalid(format!("it has more than {FILTER_NODES_MAX} nodes")));
                    }
                    open.extend(filters.iter().map(|inner| (inner, depth + 1)));
                }
                Self::Not(inner) => open.push((inner, depth + 1)),
                Self::Compare(comparison) => item_count += comparison.check()?,
            }
        }
        if item_count > FILTER_LIST_ITEMS_MAX {
            return Err(invalid(format!("its lists have more than {FILTER_LIST_ITEMS_MAX} items")));
        }
        Ok(())
    }

    /// Returns about how many bytes the filter holds in memory, for admission.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let mut open = vec![self];
        let mut bytes = 0;
        while let Some(filter) = open.pop() {
            bytes += size_of::<Self>();
            match filter {
                Self::And(filters) | Self::Or(filters) => open.extend(filters),
                Self::Not(inner) => open.push(inner),
                Self::Compare(comparison) => bytes += comparison.content_bytes(),
            }
        }
        bytes
    }

    /// Moves the filters directly inside this one to `others`.
    fn take_inner(&mut self, others: &mut Vec<Self>) {
        match self {
            Self::And(filters) | Self::Or(filters) => others.append(filters),
            Self::Not(inner) => others.push(std::mem::replace(&mut **inner, Self::everything())),
            Self::Compare(_) => {}
        }
    }
}

impl Drop for Filter {
    /// Takes the tree apart level by level: the compiler's own recursion would overflow the stack on a deep one.
    fn drop(&mut self) {
        let mut others = Vec::new();
        self.take_inner(&mut others);
        while let Some(mut filter) = others.pop() {
            filter.take_inner(&mut others);
        }
    }
}

impl Comparison {
    /// Checks path and operand; returns the number of list items.
    fn check(&self) -> Result<usize> {
        let keys = self.field.0.len();
        if keys == 0 || keys > FILTER_PATH_KEYS_MAX {
            return Err(invalid(format!("a field path has {keys} keys, not 1 to {FILTER_PATH_KEYS_MAX}")));
        }
        self.operator.check(&self.operand)?;
        let scalars = self.operand.scalars();
        if scalars.iter().any(|scalar| matches!(scalar, Scalar::Float(number) if !number.is_finite())) {
            return Err(invalid("a number in it is not finite"));
        }
        Ok(scalars.len())
    }

    fn content_bytes(&self) -> usize {
        let keys: usize = self.field.0.iter().map(|key| size_of::<String>() + key.len()).sum();
        let scalars = self.operand.scalars().iter().map(|scalar| match scalar {
            Scalar::String(text) => size_of::<Scalar>() + text.len(),
            Scalar::Null | Scalar::Bool(_) | Scalar::Integer(_) | Scalar::Float(_) => size_of::<Scalar>(),
        });
        keys + scalars.sum::<usize>()
    }
}

impl Operator {
    /// Returns the operator's sign or word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Gte => ">=",
            Self::Lt => "<",
            Self::Lte => "<=",
            Self::In => "in",
            Self::Nin => "nin",
            Self::Any => "any",
            Self::All => "all",
            Self::TextMatch => "text_match",
            Self::TextMatchInsensitive => "text_match_insensitive",
            Self::Contains => "contains",
            Self::IsEmpty => "is_empty",
        }
    }

    /// Checks that `operand` is of the kind this operator takes.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless it is a list for `in nin any all`, a string for the text matches, nothing for
    /// `is_empty`, and one value for the rest.
    pub fn check(self, operand: &Operand) -> Result<()> {
        let (fits, kind) = match self {
            Self::In | Self::Nin | Self::Any | Self::All => (matches!(operand, Operand::List(_)), "a list"),
            Self::TextMatch | Self::TextMatchInsensitive => {
                (matches!(operand, Operand::Scalar(Scalar::String(_))), "a string")
            }
            Self::IsEmpty => (matches!(operand, Operand::Nothing), "no operand"),
            Self::Eq | Self::Ne | Self::Gt | Self::Gte | Self::Lt | Self::Lte | Self::Contains => {
                (matches!(operand, Operand::Scalar(_)), "one value")
            }
        };
        if fits { Ok(()) } else { Err(invalid(format!("{} takes {kind}", self.as_str()))) }
    }
}

impl Operand {
    /// Returns its values: none, one, or the list.
    #[must_use]
    pub fn scalars(&self) -> &[Scalar] {
        match self {
            Self::Nothing => &[],
            Self::Scalar(scalar) => std::slice::from_ref(scalar),
            Self::List(scalars) => scalars,
        }
    }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::invalid("filter", reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, decode, encode};

    fn nested(groups: usize) -> Filter {
        let mut filter = field("a").eq(1);
        for level in 0..groups {
            filter = if level % 2 == 0 { Filter::And(vec![filter]) } else { Filter::Or(vec![filter]) };
        }
        filter
    }

    fn is_invalid(filter: &Filter) -> bool {
        matches!(filter.check(), Err(Error::Invalid { .. }))
    }

    #[test]
    fn chains_stay_flat() {
        let filter = (0..1_000).fold(field("a").eq(0), |filter, i| filter.and(field("a").ne(i)));
        assert!(matches!(&filter, Filter::And(filters) if filters.len() == 1_001));
        assert!(filter.check().is_ok());
        assert!(is_invalid(&(0..1_100).fold(field("a").eq(0), |filter, i| filter.or(field("a").eq(i)))));
        assert_eq!(field("a").eq(1).not().not(), field("a").eq(1));
    }

    #[test]
    fn check_rejects_what_is_over_its_limits() {
        assert!(nested(FILTER_DEPTH_MAX - 1).check().is_ok());
        assert!(is_invalid(&nested(FILTER_DEPTH_MAX)));
        assert!(is_invalid(&field("a").one_of(0..17_000)));
        assert!(is_invalid(&field_path(Vec::<String>::new()).eq(1)));
        assert!(is_invalid(&field_path(vec!["a"; FILTER_PATH_KEYS_MAX + 1]).eq(1)));
        assert!(is_invalid(&field("a").eq(f64::NAN)));
        assert!(is_invalid(&field("a").one_of([1.0, f64::INFINITY])));
    }

    #[test]
    fn check_rejects_the_wrong_kind_of_operand() {
        let compare = |operator, operand| FieldPath(vec!["a".to_owned()]).compare(operator, operand);
        assert!(is_invalid(&compare(Operator::In, Operand::Scalar(1.into()))));
        assert!(is_invalid(&compare(Operator::Eq, Operand::List(vec![]))));
        assert!(is_invalid(&compare(Operator::IsEmpty, Operand::Scalar(1.into()))));
        assert!(is_invalid(&compare(Operator::TextMatch, Operand::Scalar(1.into()))));
    }

    /// A filter nested a million deep overflowed the stack when it was dropped.
    #[test]
    fn hostile_depth_is_harmless() {
        let filter = nested(1_000_000);
        assert!(is_invalid(&filter));
        assert!(filter.size_bytes() > 1_000_000);
        drop(filter);
        let json = format!("{}{}", r#"{"not":"#.repeat(1_000_000), "1");
        assert!(serde_json::from_str::<Filter>(&json).is_err());
        let mut blob = vec![2, 1];
        blob.extend(vec![2; 1_000_000]);
        assert!(decode::<Filter>(&blob, blob.len()).is_err());
    }

    #[test]
    fn filters_decode_to_themselves() {
        let filter = nested(FILTER_DEPTH_MAX - 2).and(field("b").one_of([Scalar::Null, 1.5.into(), "x".into()]).not());
        filter.check().unwrap();
        for codec in [Codec::default(), Codec::Postcard] {
            let blob = encode(codec, &filter).unwrap();
            assert_eq!(decode::<Filter>(&blob, blob.len()).unwrap(), filter);
        }
        // serde_json's own limit of 128 levels is reached at 61 groups.
        let filter = nested(60);
        assert_eq!(serde_json::from_str::<Filter>(&serde_json::to_string(&filter).unwrap()).unwrap(), filter);
    }
}

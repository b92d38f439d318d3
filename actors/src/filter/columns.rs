//! The JSON documents of a block of rows, by field: what a filter asks is answered for all of them at once.
//!
//! Start at [`Columns::push`] and [`Columns::matching`]. A field's distinct values are kept sorted, and of each document the
//! place of its value among them; a comparison is decided once for each value. Why: `docs/decisions/0013-metadata-columns.md`.
//!
//! Always true: of a document that is said to match, or not to, [`matches()`](super::matches()) says the same; a document of
//! which the columns hold too little is said to be neither. Documents are as [`read_json`](super::read_json) returned them.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "places lie within the block and codes within the values, which a block has at most BLOCK_LEN of"
)]

mod kept;
mod question;
mod values;

use std::collections::BTreeMap;
use std::ops::Range;

use larder_protocol::filter::FieldPath;
use multiversion::multiversion;
use serde_json::{Map, Value};

use super::DeclaredField;
pub use question::Question;
use question::{Asked, Test};
use values::Values;

/// Documents of a block, at most.
pub const BLOCK_LEN: usize = 1024;
/// A bit for each document of a block.
pub type BlockBits = [u64; BLOCK_LEN / 64];

/// While the columns of fields that are not declared take more in a block, the largest is given up: 48 bytes a document, which
/// with codes, rows of 8 bits and slots of 384 dimensions makes 0.5 KB.
const BYTES_MAX: usize = 48 * BLOCK_LEN;
/// With more fields, those that come later are not looked at unless they are declared.
const FIELDS_MAX: usize = 64;

/// What is said of a block's documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// These match.
    pub certain: BlockBits,
    /// No others than these match.
    pub possible: BlockBits,
}

/// The fields of up to [`BLOCK_LEN`] documents.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns {
    len: usize,
    fields: BTreeMap<String, Field>,
    field_count: usize,
    bytes: usize,
    /// Of those, what declared fields take.
    declared_bytes: usize,
    /// Whether some field was not looked at.
    is_partial: bool,
}

/// A field, and those of the objects in it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Field {
    column: Column,
    members: BTreeMap<String, Field>,
}

/// The values of one field.
#[derive(Debug, Clone, Default, PartialEq)]
struct Column {
    /// Of each document the place of its value among `values`, plus 1; 0: the field is missing. It may be shorter than the
    /// block: the rest is missing.
    codes: Vec<u16>,
    values: Values,
    is_declared: bool,
    is_given_up: bool,
}

/// Which fields are declared, as a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclaredTree {
    is_declared: bool,
    members: BTreeMap<String, Self>,
}

impl DeclaredTree {
    /// Returns the fields as a tree.
    #[must_use]
    pub fn of(fields: &[DeclaredField]) -> Self {
        let mut tree = Self::default();
        for field in fields {
            let node = field.path().0.iter().fold(&mut tree, |node, key| node.members.entry(key.clone()).or_default());
            node.is_declared = true;
        }
        tree
    }
}

impl Answer {
    const NONE: Self = Self { certain: [0; BLOCK_LEN / 64], possible: [0; BLOCK_LEN / 64] };
    const ALL: Self = Self { certain: [u64::MAX; BLOCK_LEN / 64], possible: [u64::MAX; BLOCK_LEN / 64] };
    const UNKNOWN: Self = Self { certain: Self::NONE.certain, possible: Self::ALL.possible };

    fn combined(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let both = |a: BlockBits, b: BlockBits| std::array::from_fn(|word| combine(a[word], b[word]));
        Self { certain: both(self.certain, other.certain), possible: both(self.possible, other.possible) }
    }

    fn negated(self) -> Self {
        Self { certain: self.possible.map(|word| !word), possible: self.certain.map(|word| !word) }
    }

    fn exactly(bits: BlockBits) -> Self {
        Self { certain: bits, possible: bits }
    }
}

impl Columns {
    /// How many documents there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// About how many bytes of memory the columns take.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the column of every declared field is there, or no document has the field.
    #[must_use]
    pub fn has_all(&self, declared: &DeclaredTree) -> bool {
        let mut path = FieldPath(Vec::new());
        self.has_members(&mut path, declared)
    }

    fn has_members(&self, path: &mut FieldPath, declared: &DeclaredTree) -> bool {
        declared.members.iter().all(|(key, member)| {
            path.0.push(key.clone());
            let is_known = !member.is_declared || !matches!(self.column(path), Find::Unknown);
            let has_all = is_known && self.has_members(path, member);
            path.0.pop();
            has_all
        })
    }

    /// Adds a document behind the others; `None` has every field missing. There is room for [`BLOCK_LEN`].
    pub fn push(&mut self, document: Option<&Value>, declared: &DeclaredTree) {
        debug_assert!(self.len < BLOCK_LEN, "the block is full");
        let place = self.len;
        self.len += 1;
        // Nothing but an object has fields.
        let Some(Value::Object(members)) = document else { return };
        let mut fields = std::mem::take(&mut self.fields);
        self.push_members(&mut fields, members, place, Some(declared));
        self.fields = fields;
        while self.bytes - self.declared_bytes > BYTES_MAX && self.give_up_largest() {}
    }

    fn push_members(
        &mut self,
        fields: &mut BTreeMap<String, Field>,
        members: &Map<String, Value>,
        place: usize,
        declared: Option<&DeclaredTree>,
    ) {
        for (key, value) in members {
            let declared = declared.and_then(|declared| declared.members.get(key));
            if !fields.contains_key(key) {
                // What is declared lies behind this key, perhaps deeper.
                if self.field_count >= FIELDS_MAX && declared.is_none() {
                    self.is_partial = true;
                    continue;
                }
                self.field_count += 1;
                self.bytes += size_of::<Field>() + key.len();
                fields.insert(key.clone(), Field::default());
            }
            let Some(field) = fields.get_mut(key) else { continue };
            field.column.is_declared |= declared.is_some_and(|declared| declared.is_declared);
            let bytes = field.column.push(place, value);
            self.bytes += bytes;
            self.declared_bytes += if field.column.is_declared { bytes } else { 0 };
            if let Value::Object(members) = value {
                self.push_members(&mut field.members, members, place, declared);
            }
        }
    }

    /// Gives up the largest column of a field that is not declared; `false` if there is none.
    fn give_up_largest(&mut self) -> bool {
        let mut largest: Option<&mut Column> = None;
        each_column(&mut self.fields, &mut |column| {
            let is_larger = largest.as_ref().is_none_or(|largest| column.size_bytes() > largest.size_bytes());
            if !column.is_declared && !column.is_given_up && column.size_bytes() > 0 && is_larger {
                largest = Some(column);
            }
        });
        let Some(largest) = largest else { return false };
        self.bytes -= largest.size_bytes();
        *largest = Column { is_given_up: true, ..Column::default() };
        true
    }

    /// Says which documents match.
    #[must_use]
    pub fn matching(&self, question: &Question<'_>) -> Answer {
        match question {
            Question::And(questions) => {
                questions.iter().fold(Answer::ALL, |sum, one| sum.combined(self.matching(one), |a, b| a & b))
            }
            Question::Or(questions) => {
                questions.iter().fold(Answer::NONE, |sum, one| sum.combined(self.matching(one), |a, b| a | b))
            }
            Question::Not(question) => self.matching(question).negated(),
            Question::Compare(asked) => self.compare(asked),
        }
    }

    fn compare(&self, asked: &Asked<'_>) -> Answer {
        match self.column(asked.field()) {
            Find::Column(column) => Answer::exactly(column.matching(asked)),
            Find::Missing if asked.is_true_of_missing() => Answer::ALL,
            Find::Missing => Answer::NONE,
            Find::Unknown => Answer::UNKNOWN,
        }
    }

    fn column(&self, path: &FieldPath) -> Find<'_> {
        let mut found = None;
        let mut fields = &self.fields;
        for key in &path.0 {
            let Some(field) = fields.get(key) else {
                return if self.is_partial { Find::Unknown } else { Find::Missing };
            };
            (found, fields) = (Some(&field.column), &field.members);
        }
        match found {
            Some(column) if !column.is_given_up => Find::Column(column),
            _ => Find::Unknown,
        }
    }
}

/// What is known of a field.
enum Find<'a> {
    Column(&'a Column),
    /// No document has it.
    Missing,
    Unknown,
}

fn each_column<'a>(fields: &'a mut BTreeMap<String, Field>, look: &mut impl FnMut(&'a mut Column)) {
    for field in fields.values_mut() {
        look(&mut field.column);
        each_column(&mut field.members, look);
    }
}

impl Column {
    /// Notes a document's value; answers how many more bytes that takes.
    fn push(&mut self, place: usize, value: &Value) -> usize {
        if self.is_given_up {
            return 0;
        }
        let before = self.size_bytes();
        let (at, is_new) = self.values.place_of(value);
        if is_new {
            // Those behind it move on by one.
            let moved_from = at as u16 + 1;
            self.codes.iter_mut().for_each(|code| *code += u16::from(*code >= moved_from));
        }
        self.codes.resize(place, 0);
        self.codes.push(at as u16 + 1);
        self.size_bytes() - before
    }

    fn size_bytes(&self) -> usize {
        2 * self.codes.len() + self.values.size_bytes()
    }

    fn matching(&self, asked: &Asked<'_>) -> BlockBits {
        let bits = match asked.test(&self.values) {
            // Code 0 stands for a missing field.
            Test::Between(Range { start, end }) => between(&self.codes, start as u16 + 1, (end - start) as u16),
            Test::Each(is_match) => each(&self.codes, &is_match),
        };
        if asked.is_negated() { bits.map(|word| !word) } else { self.with_missing(bits, asked) }
    }

    /// Adds the documents without the field, where the comparison is true of them.
    fn with_missing(&self, bits: BlockBits, asked: &Asked<'_>) -> BlockBits {
        if !asked.is_true_of_missing() {
            return bits;
        }
        let present = between(&self.codes, 1, u16::MAX);
        std::array::from_fn(|word| bits[word] | !present[word])
    }
}

/// Returns a bit for each of the `count` codes from `first` on.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl",
    "x86_64+avx2+bmi1+bmi2+popcnt+lzcnt",
    "aarch64+neon"
))]
fn between(codes: &[u16], first: u16, count: u16) -> BlockBits {
    let mut bits = [0; BLOCK_LEN / 64];
    for (word, codes) in bits.iter_mut().zip(codes.chunks(64)) {
        for (bit, code) in codes.iter().enumerate() {
            *word |= u64::from(code.wrapping_sub(first) < count) << bit;
        }
    }
    bits
}

/// Returns a bit for each code whose value matches.
fn each(codes: &[u16], is_match: &[bool]) -> BlockBits {
    let mut bits = [0; BLOCK_LEN / 64];
    for (word, codes) in bits.iter_mut().zip(codes.chunks(64)) {
        for (bit, code) in codes.iter().enumerate() {
            *word |= u64::from(is_match[usize::from(*code)]) << bit;
        }
    }
    bits
}

#[cfg(test)]
mod tests;

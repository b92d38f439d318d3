//! Filters on JSON columns and JSON values: one meaning, evaluated in memory or compiled to SQL.
//!
//! Start at [`compile`] for rows, [`matches()`] for values in memory and [`Columns`] for many of them at once. What both rely on is in `json`: the check every
//! JSON text passes before it is stored. Why each corner is as it is: `docs/decisions/0002-filter-semantics.md`.
//!
//! Always true: compiled SQL holds only text of ours (operators, the caller's trusted column, declared fields' checked
//! paths), everything from a filter is a bound parameter; both ways give the same answer, which `agreement` proves.

mod columns;
mod compile;
mod declared;
mod evaluate;
mod fields;
mod json;

#[cfg(test)]
mod agreement;

pub use columns::{Answer, BLOCK_LEN, BlockBits, Columns, DeclaredTree, Question};
pub use compile::{Condition, JsonColumn, compile};
pub use declared::DeclaredField;
pub use evaluate::matches;
pub use fields::FieldIndexes;
pub use json::read_json;

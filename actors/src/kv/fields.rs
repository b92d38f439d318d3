//! Filters over the JSON values, and the fields declared for them.
//!
//! Always true: a row that is not JSON matches no filter.

use larder_protocol::filter::Filter;
use larder_protocol::kv::DeclareField;
use rusqlite::Connection;
use rusqlite::types::Value as Sql;

use super::store::Kv;
use crate::filter::{self, DeclaredField, FieldIndexes, JsonColumn};
use crate::store::{Outcome, WriteContext};

/// The JSON of a row; NULL where the value is of another format.
const JSON: JsonColumn = JsonColumn {
    in_query: "CASE WHEN entry.format = 1 THEN entry.value END",
    in_index: "CASE WHEN format = 1 THEN value END",
};

/// The declared fields' indexes.
pub(super) const FIELDS: FieldIndexes = FieldIndexes { table: "entry", leading: "collection, ", column: JSON };

pub(super) fn declare(context: &mut WriteContext<'_, Kv>, message: &DeclareField) -> Outcome<bool> {
    let field = DeclaredField::new(message.field.clone())?;
    let is_new = FIELDS.declare(context.connection, &field)?;
    if is_new {
        context.changed_all("declare", "");
    }
    Ok(is_new)
}

/// Returns `filter` as a condition on `entry` with numbered parameters from `first_parameter` on.
pub(super) fn compile(connection: &Connection, filter: &Filter, first_parameter: usize) -> Outcome<(String, Vec<Sql>)> {
    let condition = filter::compile(filter, JSON, &FIELDS.declared(connection)?, first_parameter)?;
    // A row that is not JSON has no fields, so that `not` would match it.
    Ok((format!("format = 1 AND {}", condition.sql), condition.parameters))
}

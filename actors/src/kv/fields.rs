//! Filters over the JSON values, and the fields declared for them.
//!
//! Always true: an index on a declared field holds only checked text; a row that is not JSON matches no filter.

use larder_protocol::filter::{FieldPath, Filter};
use larder_protocol::kv::DeclareField;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension};

use super::store::Kv;
use crate::filter::{self, DeclaredField, JsonColumn};
use crate::store::{Outcome, WriteContext};

/// The JSON of a row; NULL where the value is of another format.
const JSON: JsonColumn = JsonColumn {
    in_query: "CASE WHEN entry.format = 1 THEN entry.value END",
    in_index: "CASE WHEN format = 1 THEN value END",
};

pub(super) fn declare(context: &mut WriteContext<'_, Kv>, message: &DeclareField) -> Outcome<bool> {
    let field = DeclaredField::new(message.field.clone())?;
    let mut statement = context
        .connection
        .prepare_cached("INSERT INTO declared_field (path) VALUES (?1) ON CONFLICT (path) DO NOTHING RETURNING id")?;
    let path = path_text(field.path());
    let Some(id) = statement.query_row([path], |row| row.get::<_, i64>(0)).optional()? else { return Ok(false) };
    context.connection.execute_batch(&index_sql(id, &field))?;
    context.changed_all("declare", "");
    Ok(true)
}

/// Returns `filter` as a condition on `entry` with numbered parameters from `first_parameter` on.
pub(super) fn compile(connection: &Connection, filter: &Filter, first_parameter: usize) -> Outcome<(String, Vec<Sql>)> {
    let condition = filter::compile(filter, JSON, &declared(connection)?, first_parameter)?;
    // A row that is not JSON has no fields, so that `not` would match it.
    Ok((format!("format = 1 AND {}", condition.sql), condition.parameters))
}

/// Whether a schema object is the index of a declared field, and nothing else under its name.
pub(super) fn is_field_index(name: &str, sql: &str) -> bool {
    let Some(id) = name.strip_prefix("entry_field_").and_then(|id| id.parse().ok()) else { return false };
    let mut parts = sql.split('"');
    // The path's keys stand in double quotes, and nothing else does.
    let keys: Vec<String> = std::iter::from_fn(|| parts.nth(1).map(str::to_owned)).collect();
    DeclaredField::new(FieldPath(keys)).is_ok_and(|field| index_sql(id, &field) == sql)
}

fn index_sql(id: i64, field: &DeclaredField) -> String {
    format!("CREATE INDEX entry_field_{id} ON entry (collection, {})", field.index_expression(JSON))
}

fn declared(connection: &Connection) -> Outcome<Vec<DeclaredField>> {
    let mut statement = connection.prepare_cached("SELECT path FROM declared_field ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut fields = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        let keys = serde_json::from_str(&text)
            .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, e.into()))?;
        fields.push(DeclaredField::new(FieldPath(keys))?);
    }
    Ok(fields)
}

fn path_text(path: &FieldPath) -> String {
    serde_json::Value::from(path.0.clone()).to_string()
}

#[cfg(test)]
mod tests {
    use larder_protocol::filter::field;

    use super::*;

    #[test]
    fn only_the_index_of_a_declared_field_passes_for_one() {
        let sql = index_sql(7, &DeclaredField::new(field("author").key("name")).unwrap());
        assert!(is_field_index("entry_field_7", &sql));
        assert!(!is_field_index("entry_field_8", &sql));
        assert!(!is_field_index("entry_field_7", &format!("{sql} WHERE 1")));
        assert!(!is_field_index(
            "entry_field_7",
            "CREATE TRIGGER entry_field_7 AFTER INSERT ON entry BEGIN SELECT 1; END"
        ));
    }
}

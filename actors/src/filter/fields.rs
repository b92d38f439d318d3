//! The indexes of declared fields on a store's table: made, listed, and recognised in a schema.
//!
//! Start at [`FieldIndexes`]. The store's migrations make its table `declared_field (id, path)`.
//!
//! Always true: an index on a declared field holds only checked text.

use larder_protocol::filter::FieldPath;
use rusqlite::{Connection, OptionalExtension};

use super::{DeclaredField, JsonColumn};

/// Where a store's declared fields are, and what their indexes are on.
#[derive(Debug, Clone, Copy)]
pub struct FieldIndexes {
    /// The table whose rows hold the JSON, a trusted name; its indexes are `<table>_field_<id>`.
    pub table: &'static str,
    /// Columns that every query names beside the field, as trusted SQL with a comma at the end; empty: none.
    pub leading: &'static str,
    /// The JSON.
    pub column: JsonColumn,
}

impl FieldIndexes {
    /// Makes the index of a field; answers whether it was new.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn declare(&self, connection: &Connection, field: &DeclaredField) -> rusqlite::Result<bool> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO declared_field (path) VALUES (?1) ON CONFLICT (path) DO NOTHING RETURNING id",
        )?;
        let path = serde_json::Value::from(field.path().0.clone()).to_string();
        let Some(id) = statement.query_row([path], |row| row.get(0)).optional()? else { return Ok(false) };
        connection.execute_batch(&self.index_sql(id, field))?;
        Ok(true)
    }

    /// Returns the declared fields in the order in which they were declared.
    ///
    /// # Errors
    /// When SQLite fails, or a row is not one that larder wrote.
    pub fn declared(&self, connection: &Connection) -> rusqlite::Result<Vec<DeclaredField>> {
        let mut statement = connection.prepare_cached("SELECT path FROM declared_field ORDER BY id")?;
        let unreadable = |e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, e);
        let fields = statement.query_map([], |row| {
            let keys = serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|e| unreadable(e.into()))?;
            DeclaredField::new(FieldPath(keys)).map_err(|e| unreadable(e.into()))
        })?;
        fields.collect()
    }

    /// Returns whether a schema object is the index of a declared field, and nothing else under its name.
    #[must_use]
    pub fn is_field_index(&self, name: &str, sql: &str) -> bool {
        let id = name.strip_prefix(self.table).and_then(|rest| rest.strip_prefix("_field_")?.parse().ok());
        let Some(id) = id else { return false };
        let mut parts = sql.split('"');
        // The path's keys stand in double quotes, and nothing else does.
        let keys: Vec<String> = std::iter::from_fn(|| parts.nth(1).map(str::to_owned)).collect();
        DeclaredField::new(FieldPath(keys)).is_ok_and(|field| self.index_sql(id, &field) == sql)
    }

    fn index_sql(&self, id: i64, field: &DeclaredField) -> String {
        let Self { table, leading, column } = self;
        format!("CREATE INDEX {table}_field_{id} ON {table} ({leading}{})", field.index_expression(*column))
    }
}

#[cfg(test)]
mod tests {
    use larder_protocol::filter::field;

    use super::*;

    #[test]
    fn only_the_index_of_a_declared_field_passes_for_one() {
        let column = JsonColumn { in_query: "entry.value", in_index: "value" };
        let indexes = FieldIndexes { table: "entry", leading: "collection, ", column };
        let sql = indexes.index_sql(7, &DeclaredField::new(field("author").key("name")).unwrap());
        assert!(indexes.is_field_index("entry_field_7", &sql));
        assert!(!indexes.is_field_index("entry_field_8", &sql));
        assert!(!indexes.is_field_index("other_field_7", &sql));
        assert!(!indexes.is_field_index("entry_field_7", &format!("{sql} WHERE 1")));
        assert!(
            !indexes.is_field_index(
                "entry_field_7",
                "CREATE TRIGGER entry_field_7 AFTER INSERT ON entry BEGIN SELECT 1; END"
            )
        );
    }
}

//! Fields a collection declares for filtering, each with an index on its values.
//!
//! Start at [`DeclaredField`].
//!
//! Always true: a declared path is of letters, digits, `_` and `-`, so its text may stand in SQL (an index expression
//! cannot hold a parameter); the compiled condition uses the very expression of the index.

use larder_protocol::filter::FieldPath;
use larder_protocol::{Error, Result};

use super::JsonColumn;

const KEYS_MAX: usize = 8;
const KEY_BYTES_MAX: usize = 64;

/// A field path whose text is safe to stand in SQL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeclaredField {
    path: FieldPath,
}

impl DeclaredField {
    /// Returns the field, checked.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless the path has 1 to 8 keys, each of 1 to 64 ASCII letters, digits, `_` or `-`.
    ///
    /// # Examples
    /// ```
    /// use larder_actors::filter::DeclaredField;
    /// use larder_protocol::filter::field;
    ///
    /// assert!(DeclaredField::new(field("author").key("name")).is_ok());
    /// assert!(DeclaredField::new(field("it's")).is_err());
    /// ```
    pub fn new(path: FieldPath) -> Result<Self> {
        let keys = path.0.len();
        if keys == 0 || keys > KEYS_MAX {
            return Err(Error::invalid("declared field", format!("it has {keys} keys, not 1 to {KEYS_MAX}")));
        }
        if !path.0.iter().all(|key| is_plain(key)) {
            let reason = format!("a key is not 1 to {KEY_BYTES_MAX} ASCII letters, digits, _ or -");
            return Err(Error::invalid("declared field", reason));
        }
        Ok(Self { path })
    }

    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &FieldPath {
        &self.path
    }

    /// Returns the expression to index: `CREATE INDEX … ON …(<this>)`.
    ///
    /// # Examples
    /// ```
    /// use larder_actors::filter::{DeclaredField, JsonColumn};
    /// use larder_protocol::filter::field;
    ///
    /// let column = JsonColumn { in_query: "entry.metadata", in_index: "metadata" };
    /// let year = DeclaredField::new(field("year"))?;
    /// assert_eq!(year.index_expression(column), r#"json_extract(metadata, '$."year"')"#);
    /// # Ok::<(), larder_protocol::Error>(())
    /// ```
    #[must_use]
    pub fn index_expression(&self, column: JsonColumn) -> String {
        format!("json_extract({}, {})", column.in_index, self.sql_path())
    }

    /// Returns the JSON path as an SQL literal.
    pub(super) fn sql_path(&self) -> String {
        let keys: String = self.path.0.iter().map(|key| format!(".\"{key}\"")).collect();
        format!("'${keys}'")
    }
}

fn is_plain(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use larder_protocol::filter::{field, field_path};

    use super::*;

    #[test]
    fn only_plain_paths_can_be_declared() {
        for key in ["", "a b", "a.b", "a\"", "a'", "a\\", "$", "[0]", "é", "a\0", "a\n", &"k".repeat(65)] {
            assert!(DeclaredField::new(field(key)).is_err(), "{key:?}");
        }
        assert!(DeclaredField::new(field_path(Vec::<String>::new())).is_err());
        assert!(DeclaredField::new(field_path(vec!["a"; 9])).is_err());
        assert!(DeclaredField::new(field_path(vec!["a_B-9"; 8])).is_ok());
        assert!(DeclaredField::new(field("k".repeat(64))).is_ok());
    }
}

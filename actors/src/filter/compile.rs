//! Compiles a filter to an SQL condition with bound parameters.
//!
//! Start at [`compile`].
//!
//! Always true: no text of a filter is in the SQL; every part of the condition is 0 or 1, never NULL, so `NOT` is plain
//! negation; each comparison also asks for the JSON type, since `json_extract` shows arrays as text and `true` as 1.

use std::collections::HashMap;
use std::fmt::Write as _;

use larder_protocol::Result;
use larder_protocol::filter::{Comparison, FieldPath, Filter, Operator, Scalar};
use rusqlite::types::Value;

use super::declared::DeclaredField;
use super::evaluate;

/// The JSON text of a row, as trusted SQL: a column or expression that is valid JSON or NULL.
///
/// Where some rows hold something else than JSON, both texts are a `CASE` that is NULL for those, such as
/// `CASE WHEN entry.format = 1 THEN entry.value END`: SQLite promises no order among the terms of a `WHERE`, so a guard
/// beside the condition alone would not keep `json_extract` from failing on them. A NULL row has every field missing; to
/// leave it out altogether, say so beside the condition, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonColumn {
    /// In a query: columns with their table's name, since the condition has subqueries with columns of their own
    /// (`json_each`'s `value`, `type`, …; its aliases begin with `filter_`).
    pub in_query: &'static str,
    /// In an index: the same expression with bare column names, as SQLite requires there.
    pub in_index: &'static str,
}

/// A condition for a `WHERE`, in parentheses, and its parameters in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// SQL with numbered parameters.
    pub sql: String,
    /// The values of the parameters, from `first_parameter` on.
    pub parameters: Vec<Value>,
}

/// Returns `filter` as a condition on `column`.
///
/// Parameters are numbered from `first_parameter`, so that the condition can stand beside others. There are at most
/// 18,432 of them, under SQLite's 32,766. A comparison on one of the `declared` fields uses the expression of its index,
/// which then serves `==`, `<`, `<=`, `>`, `>=` and `in`.
///
/// # Errors
/// [`Error::Invalid`](larder_protocol::Error::Invalid) when the filter does not pass [`Filter::check`].
///
/// # Examples
/// ```
/// use larder_actors::filter::{JsonColumn, compile};
/// use larder_protocol::filter::field;
///
/// let column = JsonColumn { in_query: "entry.metadata", in_index: "metadata" };
/// let condition = compile(&field("it's").eq("'; DROP TABLE entry --"), column, &[], 1)?;
/// assert!(!condition.sql.contains("DROP") && !condition.sql.contains("it's"));
/// # Ok::<(), larder_protocol::Error>(())
/// ```
pub fn compile(
    filter: &Filter,
    column: JsonColumn,
    declared: &[DeclaredField],
    first_parameter: usize,
) -> Result<Condition> {
    filter.check()?;
    let mut compiler = Compiler {
        column: column.in_query,
        first_parameter,
        parameters: Vec::new(),
        paths: declared.iter().map(|field| (field.path(), field.sql_path())).collect(),
    };
    let sql = format!("({})", compiler.condition(filter));
    Ok(Condition { sql, parameters: compiler.parameters })
}

struct Compiler<'a> {
    column: &'static str,
    first_parameter: usize,
    parameters: Vec<Value>,
    /// The SQL of each path seen: a literal for declared fields, a parameter for others.
    paths: HashMap<&'a FieldPath, String>,
}

/// A JSON value in SQL: its content and its JSON type.
struct Operands {
    value: String,
    json_type: String,
}

impl<'a> Compiler<'a> {
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.parameters.push(value.into());
        format!("?{}", self.first_parameter + self.parameters.len() - 1)
    }

    fn condition(&mut self, filter: &'a Filter) -> String {
        match filter {
            Filter::And(filters) => {
                let parts = filters.iter().map(|filter| self.condition(filter)).collect();
                join(parts, " AND ", "1")
            }
            Filter::Or(filters) => {
                let parts = filters.iter().map(|filter| self.condition(filter)).collect();
                join(parts, " OR ", "0")
            }
            Filter::Not(filter) => format!("NOT ({})", self.condition(filter)),
            Filter::Compare(comparison) if ignores_field(comparison) => sql_bool(evaluate::compare(comparison, None)),
            Filter::Compare(comparison) => match self.path(&comparison.field) {
                Some(path) => self.comparison(comparison, &path),
                None => sql_bool(evaluate::compare(comparison, None)),
            },
        }
    }

    /// Returns the SQL of a path; `None` when no stored document can have it.
    fn path(&mut self, path: &'a FieldPath) -> Option<String> {
        if let Some(sql) = self.paths.get(path) {
            return Some(sql.clone());
        }
        // A JSON path cannot hold a NUL, and `read_json` refuses names with one.
        if path.0.iter().any(|key| key.contains('\0')) {
            return None;
        }
        let sql = self.bind(json_path(path));
        self.paths.insert(path, sql.clone());
        Some(sql)
    }

    fn comparison(&mut self, comparison: &Comparison, path: &str) -> String {
        let column = self.column;
        let scalars = comparison.operand.scalars();
        let field = Operands {
            value: format!("json_extract({column}, {path})"),
            json_type: format!("json_type({column}, {path})"),
        };
        match comparison.operator {
            Operator::Eq | Operator::In => self.equality(&field, scalars),
            Operator::Ne | Operator::Nin => format!("NOT ({})", self.equality(&field, scalars)),
            Operator::Gt => self.order(&field, ">", scalars),
            Operator::Gte => self.order(&field, ">=", scalars),
            Operator::Lt => self.order(&field, "<", scalars),
            Operator::Lte => self.order(&field, "<=", scalars),
            Operator::Any | Operator::Contains => self.array_has_any(&field, path, scalars),
            Operator::All => self.array_has_all(&field, path, scalars),
            Operator::TextMatch => self.text_match(&field, &field.value, text(scalars).to_owned()),
            Operator::TextMatchInsensitive => {
                // SQLite's lower() folds A to Z and nothing else, as ASCII lower case does.
                self.text_match(&field, &format!("lower({})", field.value), text(scalars).to_ascii_lowercase())
            }
            Operator::IsEmpty => {
                let Operands { value, json_type } = field;
                format!(
                    "({json_type} IS NULL OR {json_type} IS 'null' OR ({value} = '' AND {json_type} IS 'text') \
                     OR ({json_type} IS 'array' AND json_array_length({column}, {path}) = 0))"
                )
            }
        }
    }

    /// The field equals one of `scalars`. Content is compared within a JSON type: NULL where it is missing, but then
    /// the type is, too, and NULL AND 0 is 0.
    fn equality(&mut self, Operands { value, json_type }: &Operands, scalars: &[Scalar]) -> String {
        let mut parts = Vec::new();
        let texts = scalars.iter().filter(|scalar| matches!(scalar, Scalar::String(_))).cloned();
        if let Some(list) = self.equality_list(texts) {
            parts.push(format!("({value} {list} AND {json_type} IS 'text')"));
        }
        let numbers = scalars.iter().filter(|scalar| matches!(scalar, Scalar::Integer(_) | Scalar::Float(_))).cloned();
        if let Some(list) = self.equality_list(numbers) {
            parts.push(format!("({value} {list} AND {})", is_number(json_type)));
        }
        for (scalar, name) in [(Scalar::Null, "null"), (Scalar::Bool(true), "true"), (Scalar::Bool(false), "false")] {
            if scalars.contains(&scalar) {
                parts.push(format!("{json_type} IS '{name}'"));
            }
        }
        join(parts, " OR ", "0")
    }

    fn equality_list(&mut self, scalars: impl Iterator<Item = Scalar>) -> Option<String> {
        let parameters: Vec<_> = scalars.map(|scalar| self.bind(sql_value(scalar))).collect();
        match parameters.as_slice() {
            [] => None,
            [parameter] => Some(format!("= {parameter}")),
            _ => Some(format!("IN ({})", parameters.join(", "))),
        }
    }

    fn order(&mut self, Operands { value, json_type }: &Operands, sign: &str, scalars: &[Scalar]) -> String {
        match scalars {
            [scalar @ Scalar::String(_)] => {
                let parameter = self.bind(sql_value(scalar.clone()));
                format!("({value} {sign} {parameter} AND {json_type} IS 'text')")
            }
            [scalar @ (Scalar::Integer(_) | Scalar::Float(_))] => {
                let parameter = self.bind(sql_value(scalar.clone()));
                format!("({value} {sign} {parameter} AND {})", is_number(json_type))
            }
            _ => sql_bool(false),
        }
    }

    fn array_has_any(&mut self, field: &Operands, path: &str, scalars: &[Scalar]) -> String {
        let item = Operands { value: "filter_item.atom".to_owned(), json_type: "filter_item.type".to_owned() };
        let equality = self.equality(&item, scalars);
        format!(
            "({} IS 'array' AND EXISTS (SELECT 1 FROM json_each({}, {path}) AS filter_item WHERE {equality}))",
            field.json_type, self.column
        )
    }

    fn array_has_all(&mut self, field: &Operands, path: &str, scalars: &[Scalar]) -> String {
        let wanted: Vec<serde_json::Value> = scalars.iter().cloned().map(json_value).collect();
        let wanted = self.bind(serde_json::Value::from(wanted).to_string());
        format!(
            "({} IS 'array' AND NOT EXISTS (SELECT 1 FROM json_each({wanted}) AS filter_wanted WHERE NOT EXISTS (\
             SELECT 1 FROM json_each({}, {path}) AS filter_item WHERE filter_item.atom IS filter_wanted.atom \
             AND (filter_item.type IS filter_wanted.type OR ({} AND {})))))",
            field.json_type,
            self.column,
            is_number("filter_item.type"),
            is_number("filter_wanted.type"),
        )
    }

    fn text_match(&mut self, field: &Operands, haystack: &str, part: String) -> String {
        let part = self.bind(part);
        format!("({} IS 'text' AND instr({haystack}, {part}) > 0)", field.json_type)
    }
}

/// Whether the answer is the same for every field: SQLite refuses a statement with a bound path that it never uses.
fn ignores_field(comparison: &Comparison) -> bool {
    match comparison.operator {
        Operator::In | Operator::Nin => comparison.operand.scalars().is_empty(),
        Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte => {
            matches!(comparison.operand.scalars(), [Scalar::Null | Scalar::Bool(_)])
        }
        _ => false,
    }
}

/// `IN` would be NULL for a missing field, and the condition with it.
fn is_number(json_type: &str) -> String {
    format!("({json_type} IS 'integer' OR {json_type} IS 'real')")
}

fn sql_bool(value: bool) -> String {
    if value { "1".to_owned() } else { "0".to_owned() }
}

/// Joins pairs of pairs: a plain chain of 1,000 terms is 1,000 levels deep to SQLite, its limit for expressions.
fn join(mut parts: Vec<String>, operator: &str, empty: &str) -> String {
    while parts.len() > 1 {
        parts = parts
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => format!("({left}{operator}{right})"),
                _ => pair.concat(),
            })
            .collect();
    }
    parts.pop().unwrap_or_else(|| empty.to_owned())
}

/// Returns the path as SQLite reads it. Keys are quoted, so dots, brackets and the empty key are plain text; quotes and
/// backslashes are escaped, which SQLite undoes when it compares names (checked over a corpus in `agreement`).
fn json_path(path: &FieldPath) -> String {
    path.0.iter().fold("$".to_owned(), |mut text, key| {
        // Writing to a string does not fail.
        let _ = write!(text, ".\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
        text
    })
}

fn text(scalars: &[Scalar]) -> &str {
    match scalars {
        [Scalar::String(text)] => text,
        _ => "",
    }
}

fn sql_value(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Integer(value.into()),
        Scalar::Integer(value) => Value::Integer(value),
        Scalar::Float(value) => Value::Real(value),
        Scalar::String(value) => Value::Text(value),
    }
}

fn json_value(scalar: Scalar) -> serde_json::Value {
    match scalar {
        Scalar::Null => serde_json::Value::Null,
        Scalar::Bool(value) => value.into(),
        Scalar::Integer(value) => value.into(),
        Scalar::Float(value) => value.into(),
        Scalar::String(value) => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use larder_protocol::Error;
    use larder_protocol::filter::{field, field_path};
    use rusqlite::Connection;

    use super::*;

    /// Rows that are not JSON stand beside those that are, as in the key–value store.
    const COLUMN: JsonColumn = JsonColumn {
        in_query: "CASE WHEN entry.is_json THEN entry.value END",
        in_index: "CASE WHEN is_json THEN value END",
    };

    fn database(declared: &[DeclaredField]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE entry (id INTEGER PRIMARY KEY, is_json INTEGER, value)").unwrap();
        for (number, field) in declared.iter().enumerate() {
            let expression = field.index_expression(COLUMN);
            connection.execute_batch(&format!("CREATE INDEX field_{number} ON entry({expression})")).unwrap();
        }
        connection
    }

    fn ids(connection: &Connection, condition: &Condition) -> Vec<i64> {
        let sql = format!("SELECT id FROM entry WHERE is_json AND {} ORDER BY id", condition.sql);
        let mut statement = connection.prepare(&sql).unwrap();
        let rows = statement.query_map(rusqlite::params_from_iter(&condition.parameters), |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn plan(connection: &Connection, condition: &Condition) -> String {
        let sql = format!("EXPLAIN QUERY PLAN SELECT id FROM entry WHERE is_json AND {}", condition.sql);
        let mut statement = connection.prepare(&sql).unwrap();
        let rows =
            statement.query_map(rusqlite::params_from_iter(&condition.parameters), |row| row.get::<_, String>(3));
        rows.unwrap().map(Result::unwrap).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn rows_that_are_not_json_never_fail() {
        let connection = database(&[DeclaredField::new(field("a")).unwrap()]);
        connection
            .execute_batch(
                "INSERT INTO entry VALUES (1, 0, x'ff00'), (2, 0, 'not json'), (3, 1, '{\"a\":1}'), (4, 0, NULL), (5, 1, '7')",
            )
            .unwrap();
        let declared = [DeclaredField::new(field("a")).unwrap()];
        for fields in [&declared[..], &[]] {
            assert_eq!(ids(&connection, &compile(&field("a").eq(1), COLUMN, fields, 1).unwrap()), [3]);
            assert_eq!(ids(&connection, &compile(&field("a").ne(1), COLUMN, fields, 1).unwrap()), [5]);
            assert_eq!(ids(&connection, &compile(&field("a").contains(1), COLUMN, fields, 1).unwrap()), [0_i64; 0]);
        }
    }

    #[test]
    fn declared_fields_use_their_index() {
        let declared = [
            DeclaredField::new(field("year")).unwrap(),
            DeclaredField::new(field_path(["author", "first-name"])).unwrap(),
        ];
        let connection = database(&declared);
        let name = || field_path(["author", "first-name"]);
        for (filter, index) in [
            (field("year").eq(2020), "USING INDEX field_0 (<expr>=?)"),
            (field("year").eq(2020.5), "USING INDEX field_0 (<expr>=?)"),
            (field("year").lt(2020), "USING INDEX field_0 (<expr><?)"),
            (field("year").lte(2020), "USING INDEX field_0 (<expr><?)"),
            (field("year").gt(2020).and(field("x").eq(1)), "USING INDEX field_0 (<expr>>?)"),
            (field("year").gte(2020).and(field("year").lt(2030)), "USING INDEX field_0 (<expr>>? AND <expr><?)"),
            (field("year").one_of([2020, 2021]), "USING INDEX field_0 (<expr>=?)"),
            (name().eq("Ada"), "USING INDEX field_1 (<expr>=?)"),
            (name().one_of(["Ada", "Grace"]), "USING INDEX field_1 (<expr>=?)"),
            (field("year").one_of([Scalar::from(1), "x".into()]), "MULTI-INDEX OR"),
            (field("year").eq(1).or(name().eq("Ada")), "MULTI-INDEX OR"),
        ] {
            let plan = plan(&connection, &compile(&filter, COLUMN, &declared, 1).unwrap());
            assert!(plan.contains(index), "{filter:?}: {plan}");
            assert!(!plan.contains("SCAN entry"), "{filter:?}: {plan}");
        }
        let undeclared = compile(&field("other").eq(1), COLUMN, &declared, 1).unwrap();
        assert!(plan(&connection, &undeclared).contains("SCAN entry"));
    }

    #[test]
    fn the_largest_filters_compile_and_run() {
        let connection = database(&[]);
        connection.execute("INSERT INTO entry VALUES (1, 1, ?1)", [r#"{"a":16000,"b":["x",3]}"#]).unwrap();
        let mut deep = field("a").eq(16_000);
        for level in 0..63 {
            deep = match level % 3 {
                0 => Filter::And(vec![deep]),
                1 => Filter::Or(vec![deep, Filter::And(vec![]), field("b").is_empty()]),
                _ => Filter::Not(Box::new(deep)),
            };
        }
        let wide = (0..1_022).fold(field("a").eq(16_000), |filter, i| filter.and(field(format!("k{i}")).ne(i)));
        let keys = field_path((0..64).map(|i| i.to_string())).is_empty();
        let list = field("a").one_of(0..16_383).or(field("zzz").eq(1));
        let all = field("b").all(vec!["x"; 16_384]);
        let each = Filter::And((0..500).map(|i| field(format!("{i}")).all([i]).not()).collect());
        for filter in [deep.clone(), wide, keys, list, all, each, field("x".repeat(1_000_000)).is_empty()] {
            let condition = compile(&filter, COLUMN, &[], 1).unwrap();
            let expected = evaluate::matches(&filter, &serde_json::json!({"a": 16_000, "b": ["x", 3]}));
            assert_eq!(!ids(&connection, &condition).is_empty(), expected);
        }
        assert!(matches!(compile(&Filter::And(vec![deep]), COLUMN, &[], 1), Err(Error::Invalid { .. })));
    }

    #[test]
    fn parameters_start_where_the_caller_says() {
        let condition = compile(&field("a").eq("x"), COLUMN, &[], 7).unwrap();
        assert!(condition.sql.contains("?7") && condition.sql.contains("?8") && !condition.sql.contains("?1"));
        assert_eq!(condition.parameters, [Value::Text("$.\"a\"".to_owned()), Value::Text("x".to_owned())]);
    }
}

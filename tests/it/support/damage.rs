//! Bits that rot in a closed file.
#![expect(clippy::disallowed_methods, reason = "the folder is closed while its file is damaged")]

use std::path::Path;

use larder::{CheckDepth, Class, Error, Larder};
use rusqlite::types::Value;
use rusqlite::{Connection, params};

/// What reads that use a column answer once it is damaged: corrupt, or nothing that is wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Noticed {
    OnRead,
    /// It repeats what stands elsewhere, so that a read does not look at it.
    ByCheck,
}

/// One column of one row: its table, its name, the condition that selects the row, and who notices.
pub(crate) type Case = (&'static str, &'static str, &'static str, Noticed);

/// Flips one bit of a column in one row: the lowest of a number, or of the middle byte of anything else.
pub(crate) fn flip(file: &Path, (table, column, condition, _): Case) {
    let connection = Connection::open(file).unwrap();
    let read = format!("SELECT {column} FROM {table} WHERE {condition}");
    let value = connection.query_row(&read, [], |row| row.get(0)).unwrap();
    let middle = |bits: usize| if bits == NUMBER_BITS { 0 } else { bits / 16 * 8 };
    let value = flipped(value, middle);
    let write = format!("UPDATE {table} SET {column} = {} WHERE {condition}", value.place());
    assert_eq!(connection.execute(&write, params![value]).unwrap(), 1);
}

/// Flips one bit, another one in each row, of every row of a table: of the first column in the first row, of the second in
/// the second, and so on. Answers how many.
pub(crate) fn flip_a_bit_in_every_row(file: &Path, table: &str, columns: &[&str]) -> usize {
    let connection = Connection::open(file).unwrap();
    let keys = format!("SELECT rowid FROM {table} WHERE {} IS NOT NULL ORDER BY rowid", columns[0]);
    let keys: Vec<i64> = connection
        .prepare(&keys)
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for (index, key) in keys.iter().enumerate() {
        let column = columns[index % columns.len()];
        let read = format!("SELECT {column} FROM {table} WHERE rowid = ?1");
        let value = connection.query_row(&read, [key], |row| row.get(0)).unwrap();
        let value = flipped(value, |bits| index * 7919 % bits);
        let sql = format!("UPDATE {table} SET {column} = {} WHERE rowid = ?2", value.place());
        assert_eq!(connection.execute(&sql, params![value, key]).unwrap(), 1);
    }
    connection.execute_batch("COMMIT").unwrap();
    keys.len()
}

/// A value with a flipped bit; a text as its bytes.
enum Damaged {
    Number(i64),
    Real(f64),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
}

impl Damaged {
    /// The parameter's place in a statement: SQLite keeps the bytes of a text whether they are UTF-8 or not.
    fn place(&self) -> &'static str {
        if matches!(self, Self::Text(_)) { "CAST(?1 AS TEXT)" } else { "?1" }
    }
}

impl rusqlite::ToSql for Damaged {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Self::Number(number) => number.to_sql(),
            Self::Real(number) => number.to_sql(),
            Self::Text(bytes) | Self::Bytes(bytes) => bytes.to_sql(),
        }
    }
}

/// Bits of a number that are flipped: without the sign's, and one no number of bytes has.
const NUMBER_BITS: usize = 63;

/// Flips the bit that `choose` takes of so many.
fn flipped(value: Value, choose: impl Fn(usize) -> usize) -> Damaged {
    let flip = |mut bytes: Vec<u8>| {
        let bit = choose(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    match value {
        Value::Integer(number) => Damaged::Number(number ^ (1 << choose(NUMBER_BITS))),
        // Of its fraction, so that it stays a number.
        Value::Real(number) => Damaged::Real(f64::from_bits(number.to_bits() ^ (1 << (choose(NUMBER_BITS) % 52)))),
        Value::Text(text) => Damaged::Text(flip(text.into_bytes())),
        Value::Blob(bytes) => Damaged::Bytes(flip(bytes)),
        // What is missing turns up.
        Value::Null => Damaged::Number(1 << choose(NUMBER_BITS)),
    }
}

/// Damages each case in a folder of its own, which `fill` fills. `read` reads all that is in the case's table, in
/// each way there is, and answers the errors; `write` is a
/// write beside and into what is damaged: it may be refused, but the store serves on.
pub(crate) async fn each_damaged_column_is_noticed(
    file: &str,
    cases: &[Case],
    fill: impl AsyncFn(&Path),
    read: impl AsyncFn(&Larder, &'static str) -> Vec<Option<Error>>,
    write: impl AsyncFn(&Larder),
) {
    for &case in cases {
        let what = format!("{}.{}", case.0, case.1);
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path()).await;
        flip(&folder.path().join(file), case);
        let larder = Larder::open(folder.path()).await.unwrap();
        let errors = read(&larder, case.0).await;
        if case.3 == Noticed::OnRead {
            assert!(errors.iter().all(Option::is_some), "{what} is answered");
        }
        assert!(errors.iter().flatten().all(|error| error.class() == Class::Corrupt), "{what}: {errors:?}");
        let findings = larder.check(CheckDepth::Full).await.unwrap().findings;
        assert!(!findings.is_empty(), "{what} went unseen");
        // It is its readers' error alone: the store serves on.
        assert!(larder.health().is_well, "{what}");
        write(&larder).await;
        assert!(larder.health().is_well, "{what}: a write set the store aside");
        larder.close().await;
    }
}

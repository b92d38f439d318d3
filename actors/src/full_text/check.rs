//! Whether an index holds what its contents are. SQLite's own check does not compare the two.

use rusqlite::Connection;

/// The row of an index's totals in its `_data` table: how many contents, and how many words in each column.
const TOTALS_ROW: i64 = 1;

/// Looks for contents that the index `index` lacks or holds too many, and for totals that do not come out. `texts` is a
/// query of the ids that must be in it; both are trusted.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn check(
    connection: &Connection,
    index: &'static str,
    texts: &'static str,
    found: &mut dyn FnMut(String),
) -> rusqlite::Result<()> {
    let count = |sql: String| connection.query_row(&sql, [], |row| row.get::<_, u64>(0));
    let missing = count(format!("SELECT count(*) FROM ({texts}) WHERE id NOT IN (SELECT id FROM {index}_docsize)"))?;
    if missing > 0 {
        found(format!("{missing} contents are not in the full-text index"));
    }
    let surplus = count(format!("SELECT count(*) FROM {index}_docsize WHERE id NOT IN ({texts})"))?;
    if surplus > 0 {
        found(format!("{surplus} entries of the full-text index belong to no content"));
    }
    let indexed = count(format!("SELECT count(*) FROM {index}_docsize"))?;
    let totals: Vec<u8> =
        connection
            .query_row(&format!("SELECT block FROM {index}_data WHERE id = {TOTALS_ROW}"), [], |row| row.get(0))?;
    let counted = varint(&totals);
    if counted != indexed {
        found(format!("the full-text index counts {counted} contents, and has {indexed}: it cannot rank them"));
    }
    Ok(())
}

/// Returns SQLite's variable-length number at the start of `bytes`: seven bits a byte, the last of nine has eight. 0 where
/// there is none.
fn varint(bytes: &[u8]) -> u64 {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        if at == 8 {
            return value << 8 | u64::from(*byte);
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(damage: &str) -> Vec<String> {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE body (id INTEGER PRIMARY KEY, text TEXT);
                 CREATE VIRTUAL TABLE body_text USING fts5 (text, content = 'body', content_rowid = 'id');
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
                     INSERT INTO body SELECT i, 'text ' || i FROM n;
                 INSERT INTO body VALUES (1000, NULL);
                 INSERT INTO body_text (rowid, text) SELECT id, text FROM body WHERE text IS NOT NULL;",
            )
            .unwrap();
        connection.execute_batch(damage).unwrap();
        let mut findings = Vec::new();
        let texts = "SELECT id FROM body WHERE text IS NOT NULL";
        check(&connection, "body_text", texts, &mut |finding| findings.push(finding)).unwrap();
        findings
    }

    #[test]
    fn sound_index_has_no_finding_and_each_damage_has_one() {
        assert_eq!(findings(""), [""; 0]);
        assert!(
            findings("DELETE FROM body_text_docsize WHERE id = 7").iter().any(|what| what.starts_with("1 contents"))
        );
        assert!(findings("DELETE FROM body WHERE id = 7").iter().any(|what| what.starts_with("1 entries")));
        assert!(
            findings("UPDATE body_text_data SET block = x'0508' WHERE id = 1")
                .iter()
                .any(|what| what.contains("counts 5"))
        );
    }

    #[test]
    fn varint_is_read_as_sqlite_writes_it() {
        assert_eq!([varint(&[]), varint(&[5, 9]), varint(&[0x81, 0x00]), varint(&[0xff; 9])], [0, 5, 128, u64::MAX]);
    }
}

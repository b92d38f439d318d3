//! Columns as bytes, so that they are read back instead of made anew.
//!
//! The length of a head as u32, little endian; the head as JSON; the codes of each field that it names, in its order, as u16.
//!
//! Always true: whatever the bytes, reading them ends in columns that are safe to ask or in `None`. That they are the bytes
//! which were written is for a checksum beside them to say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::values::{Seen, Values};
use super::{BLOCK_LEN, Column, Columns, Field};

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    len: usize,
    is_partial: bool,
    fields: Vec<FieldHead>,
}

/// A field; those of an object follow its own.
#[derive(Debug, Serialize, Deserialize)]
struct FieldHead {
    path: Vec<String>,
    is_declared: bool,
    is_given_up: bool,
    values: Vec<Value>,
    code_count: usize,
}

impl Columns {
    /// The columns as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (mut fields, mut codes) = (Vec::new(), Vec::new());
        write(&self.fields, &mut Vec::new(), &mut fields, &mut codes);
        let head = serde_json::json!(Head { len: self.len, is_partial: self.is_partial, fields }).to_string();
        let mut bytes = (head.len() as u32).to_le_bytes().to_vec();
        bytes.extend(head.as_bytes());
        bytes.extend(codes.iter().flat_map(|code: &u16| code.to_le_bytes()));
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; `None` where it did not.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head_len, rest) = bytes.split_first_chunk()?;
        let (head, rest) = rest.split_at_checked(u32::from_le_bytes(*head_len) as usize)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        let (codes, odd) = rest.as_chunks();
        let mut codes = codes.iter().map(|code| u16::from_le_bytes(*code));
        let mut columns = Self { len: head.len, is_partial: head.is_partial, ..Self::default() };
        for field in head.fields {
            columns.insert(field, &mut codes)?;
        }
        (columns.len <= BLOCK_LEN && odd.is_empty() && codes.next().is_none()).then_some(columns)
    }

    fn insert(&mut self, head: FieldHead, codes: &mut impl Iterator<Item = u16>) -> Option<()> {
        let FieldHead { mut path, is_declared, is_given_up, values, code_count } = head;
        let codes: Vec<u16> = codes.take(code_count.min(self.len)).collect();
        let values = Values::from_sorted(values)?;
        if codes.len() != code_count || codes.iter().any(|code| usize::from(*code) > values.len()) {
            return None;
        }
        let key = path.pop()?;
        let mut fields = &mut self.fields;
        for key in &path {
            fields = &mut fields.get_mut(key)?.members;
        }
        self.field_count += 1;
        self.bytes += size_of::<Field>() + key.len();
        let column = Column { codes, values, is_declared, is_given_up };
        self.bytes += column.size_bytes();
        self.declared_bytes += if is_declared { column.size_bytes() } else { 0 };
        let before = fields.insert(key, Field { column, members: BTreeMap::new() });
        before.is_none().then_some(())
    }
}

fn write(fields: &BTreeMap<String, Field>, path: &mut Vec<String>, heads: &mut Vec<FieldHead>, codes: &mut Vec<u16>) {
    for (key, Field { column, members }) in fields {
        path.push(key.clone());
        codes.extend(&column.codes);
        heads.push(FieldHead {
            path: path.clone(),
            is_declared: column.is_declared,
            is_given_up: column.is_given_up,
            values: column.values.iter().map(Seen::to_value).collect(),
            code_count: column.codes.len(),
        });
        write(members, path, heads, codes);
        path.pop();
    }
}

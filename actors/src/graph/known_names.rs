//! Names that writes have met lately: a load tells facts of the same entities again and again, and looking their names up took a
//! third of it.
//!
//! Always true: what is here is what the writer's own transaction would find, since everything goes when the rows may be otherwise
//! than this process's writes have left them ([`lineage`](crate::store::WriteContext::lineage)), and every write to the table `name`
//! passes [`note_put`](KnownNames::note_put) or [`note_delete`](KnownNames::note_delete).

use std::collections::HashMap;

/// Whose name it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) label_key: i64,
    pub(super) entity_key: i64,
}

/// What a name takes beside its letters: the entry with its hash, a pointer and what the allocator keeps.
const ENTRY_BYTES: usize = 64;

/// What is known of names, as of the writer's transaction.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    lineage: u64,
    /// The one entity that has a name; `None`: nothing has it. Names of several are not here.
    owners: HashMap<Box<str>, Option<Owner>>,
    bytes: usize,
    bytes_max: usize,
    /// Something was asked since the last sweep.
    is_used: bool,
}

impl KnownNames {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Returns what is known of a name; `None`: nothing.
    #[expect(clippy::option_option, reason = "whether it is known, and whether it has an owner")]
    pub(super) fn get(&mut self, lineage: u64, name: &str) -> Option<Option<Owner>> {
        self.is_used = true;
        self.follow(lineage);
        self.owners.get(name).copied()
    }

    pub(super) fn learn(&mut self, lineage: u64, name: &str, owner: Option<Owner>) {
        self.follow(lineage);
        let bytes = name.len() + ENTRY_BYTES;
        if self.bytes + bytes > self.bytes_max {
            self.clear();
        }
        if bytes <= self.bytes_max && self.owners.insert(name.into(), owner).is_none() {
            self.bytes += bytes;
        }
    }

    /// Must be called for each row that is put into the table of names.
    pub(super) fn note_put(&mut self, lineage: u64, name: &str, owner: Owner) {
        self.follow(lineage);
        match self.owners.get_mut(name) {
            Some(nobody @ None) => *nobody = Some(owner),
            // It may have several owners from now on.
            Some(_) => self.note_delete(name),
            None => {}
        }
    }

    /// Must be called for each row that is deleted there.
    pub(super) fn note_delete(&mut self, name: &str) {
        if self.owners.remove(name).is_some() {
            self.bytes -= name.len() + ENTRY_BYTES;
        }
    }

    /// Gives the memory back when nothing was asked since this was last called.
    pub(super) fn rest(&mut self) {
        if !std::mem::take(&mut self.is_used) {
            self.clear();
        }
    }

    fn follow(&mut self, lineage: u64) {
        if self.lineage != lineage {
            self.lineage = lineage;
            self.clear();
        }
    }

    fn clear(&mut self) {
        (self.owners, self.bytes) = (HashMap::new(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(entity_key: i64) -> Owner {
        Owner { label_key: 1, entity_key }
    }

    #[test]
    fn name_is_known_until_its_rows_may_be_otherwise() {
        let mut names = KnownNames::new(1 << 20);
        assert_eq!(names.get(1, "a"), None);
        names.learn(1, "a", None);
        names.note_put(1, "a", owner(7));
        assert_eq!(names.get(1, "a"), Some(Some(owner(7))));
        // Of another label, perhaps.
        names.note_put(1, "a", owner(8));
        assert_eq!(names.get(1, "a"), None);
        names.learn(1, "b", Some(owner(9)));
        names.note_delete("b");
        assert_eq!(names.get(1, "b"), None);
        names.learn(1, "c", Some(owner(9)));
        assert_eq!(names.get(2, "c"), None);
        assert_eq!(names.get(1, "c"), None);
    }

    #[test]
    fn names_are_bounded_and_given_back() {
        let mut names = KnownNames::new(10 * (ENTRY_BYTES + 1));
        for letter in 'a'..='z' {
            names.learn(1, &letter.to_string(), None);
            assert!(names.owners.len() <= 10 && names.bytes <= names.bytes_max);
        }
        names.learn(1, &"x".repeat(2_000), None);
        names.learn(1, "z", None);
        assert_eq!((names.owners.len(), names.bytes), (1, ENTRY_BYTES + 1));
        let _ = names.get(1, "z");
        names.rest();
        assert_eq!(names.owners.len(), 1);
        names.rest();
        assert_eq!((names.owners.capacity(), names.bytes), (0, 0));
        KnownNames::new(0).learn(1, "a", None);
    }
}

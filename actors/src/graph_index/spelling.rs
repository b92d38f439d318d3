//! Names that are written nearly like a text.
//!
//! Start at [`Spelling`]: for each three letters that stand together, the names that have them. A lookup counts how many it shares
//! with each name, and compares the best few letter by letter ([`NamePattern`]).

use std::collections::HashMap;

use super::Key;
use super::hash::KeyHash;
use super::pattern::{NamePattern, folded};

/// So many names are compared letter by letter, at least, and for each that is wanted.
const COMPARED_MIN: usize = 200;
const COMPARED_PER_HIT: usize = 10;
/// So many names are read from lists of names that share three letters with a text, at least, or one in so many of all. The commonest
/// threes have most of the names and tell the least: without them a lookup in WordNet takes a third less and finds the same.
const READ_MIN: usize = 20_000;
const READ_SHARE: usize = 12;

/// An index of names for misspelt lookups.
#[derive(Debug, Default)]
pub struct Spelling {
    /// Folded names, one behind the other.
    text: Vec<char>,
    entries: Vec<Entry>,
    postings: HashMap<u64, Vec<u32>, KeyHash>,
    /// How many threes each name shares with a text; 0 between two lookups.
    counts: Vec<u8>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Key,
    start: u32,
    len: u16,
}

/// A name that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spelled {
    /// The number of the name, in the order in which they were pushed.
    pub at: usize,
    /// What it was pushed with.
    pub key: Key,
    /// See [`NamePattern::likeness`].
    pub score: f64,
}

impl Spelling {
    /// Most bytes that it may take when it is filled: letters have four bytes each and are counted by 32 bits, of which half are for names
    /// that come later.
    pub const BYTES_MAX: usize = (u32::MAX as usize).saturating_mul(2);

    /// Adds a name of something.
    pub fn push(&mut self, key: Key, name: &str) {
        let letters = folded(name);
        let number = self.entries.len() as u32;
        let mut grams = trigrams(&letters);
        grams.sort_unstable();
        grams.dedup();
        for gram in grams {
            let names = self.postings.entry(gram).or_default();
            names.push(number);
            self.bytes += 4;
        }
        let (start, len) = (self.text.len() as u32, letters.len() as u16);
        self.entries.push(Entry { key, start, len });
        self.bytes += size_of::<Entry>() + 1 + 4 * letters.len();
        self.text.extend(letters);
    }

    /// Returns how many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns about how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.postings.len() * 48
    }

    /// Finds the names nearest to a text, best first, of equals the first pushed. `is_wanted` says which count, by their number and
    /// what they were pushed with.
    pub fn find(&mut self, text: &str, limit: usize, is_wanted: impl Fn(usize, Key) -> bool) -> Vec<Spelled> {
        let letters = folded(text);
        if limit == 0 || letters.is_empty() {
            return Vec::new();
        }
        let is_wanted = |number: u32, key| is_wanted(number as usize, key);
        let limit_compared = COMPARED_MIN.max(limit * COMPARED_PER_HIT);
        let mut candidates =
            self.sharing(&letters, limit_compared, READ_MIN.max(self.entries.len() / READ_SHARE), is_wanted);
        if candidates.len() < limit {
            // Few are wanted: they may stand in the lists that were not read.
            candidates = self.sharing(&letters, limit_compared, usize::MAX, is_wanted);
        }
        let pattern = NamePattern::of_letters(&letters);
        let mut found: Vec<Spelled> = candidates.into_iter().map(|number| self.compare(&pattern, number)).collect();
        found.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.at.cmp(&b.at)));
        found.truncate(limit);
        found
    }

    /// Returns the wanted names that share the most threes of letters with a text, the commonest left out; of equals the shortest.
    /// `left` is how many places of lists are read.
    fn sharing(
        &mut self,
        letters: &[char],
        limit: usize,
        mut left: usize,
        is_wanted: impl Fn(u32, Key) -> bool,
    ) -> Vec<u32> {
        let mut grams = trigrams(letters);
        grams.sort_unstable();
        grams.dedup();
        let mut lists: Vec<&Vec<u32>> = grams.iter().filter_map(|gram| self.postings.get(gram)).collect();
        lists.sort_by_key(|list| list.len());
        self.counts.resize(self.entries.len(), 0);
        let mut touched = Vec::new();
        for list in lists {
            for number in list {
                let count = &mut self.counts[*number as usize];
                if *count == 0 {
                    touched.push(*number);
                }
                *count = count.saturating_add(1);
            }
            left = left.saturating_sub(list.len());
            if left == 0 {
                break;
            }
        }
        let best = self.best(&touched, limit, is_wanted);
        for number in touched {
            self.counts[number as usize] = 0;
        }
        best
    }

    /// Returns the wanted of some names that have the highest counts, of equals the shortest.
    fn best(&self, touched: &[u32], limit: usize, is_wanted: impl Fn(u32, Key) -> bool) -> Vec<u32> {
        let count = |number: u32| self.counts[number as usize];
        let is_wanted = |number: u32| is_wanted(number, self.entries[number as usize].key);
        let mut least = least_count(touched.iter().map(|number| count(*number)), limit);
        loop {
            let mut candidates: Vec<u32> =
                touched.iter().copied().filter(|number| count(*number) >= least && is_wanted(*number)).collect();
            // Some may have been unwanted.
            if candidates.len() < limit && least > 1 {
                least -= 1;
                continue;
            }
            if candidates.len() > limit {
                let rank =
                    |number: &u32| (std::cmp::Reverse(count(*number)), self.entries[*number as usize].len, *number);
                candidates.select_nth_unstable_by_key(limit, rank);
                candidates.truncate(limit);
            }
            return candidates;
        }
    }

    fn compare(&self, pattern: &NamePattern, number: u32) -> Spelled {
        let Entry { key, start, len } = self.entries[number as usize];
        let name = &self.text[start as usize..start as usize + usize::from(len)];
        Spelled { at: number as usize, key, score: pattern.likeness_of_letters(name) }
    }
}

/// Returns the highest count that so many have at least, or 1.
fn least_count(counts: impl Iterator<Item = u8>, limit: usize) -> u8 {
    let mut having = [0_usize; 256];
    counts.for_each(|count| having[usize::from(count)] += 1);
    let mut sum = 0;
    for count in (1..=u8::MAX).rev() {
        sum += having[usize::from(count)];
        if sum >= limit {
            return count;
        }
    }
    1
}

/// Returns every three letters that stand together, with two spaces around the name.
fn trigrams(letters: &[char]) -> Vec<u64> {
    let padded: Vec<char> = [' ', ' '].into_iter().chain(letters.iter().copied()).chain([' ', ' ']).collect();
    // A letter takes 21 bits.
    padded.windows(3).map(|three| three.iter().fold(0, |gram, c| gram << 21 | u64::from(u32::from(*c)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_are_found_in_any_case() {
        let mut spelling = Spelling::default();
        for (key, name) in (1..).zip(["SQLite", "PostgreSQL", "Rust", "rusty nail", "C", "日本語", "++"]) {
            spelling.push(key, name);
        }
        let mut best = |text: &str| spelling.find(text, 1, |_, _| true).first().map(|found| found.key);
        assert_eq!(best("sqllite"), Some(1));
        assert_eq!(best("postgersql"), Some(2));
        assert_eq!(best("RUSTY-NIAL"), Some(4));
        assert_eq!(best("日本"), Some(6));
        assert_eq!(best("c"), Some(5));
        assert_eq!(best("++"), Some(7));
        assert_eq!(best(""), None);
        assert!(spelling.find("rust", 0, |_, _| true).is_empty());
        assert!(spelling.find("rust", 9, |_, _| false).is_empty());
    }
}

//! Names that are written nearly like a text.
//!
//! Start at [`Spelling`]: for each three letters that stand together, the names that have them. A lookup counts how many it shares
//! with each name, and compares the best few letter by letter. Case and punctuation do not count.

use std::collections::HashMap;

use super::Key;
use super::hash::KeyHash;

/// So many names are compared letter by letter, at least, and for each that is wanted.
const COMPARED_MIN: usize = 200;
const COMPARED_PER_HIT: usize = 10;
/// What a letter of a name costs, in threes that it shares with the text.
const LETTER_COST: f64 = 0.05;
/// How much less a name counts of which nearly nothing is in the text.
const REST_COST: f64 = 0.2;
/// A name's letters behind these do not count.
const LETTERS_MAX: usize = 128;

/// An index of names for misspelt lookups.
#[derive(Debug, Default)]
pub struct Spelling {
    /// Folded names, one behind the other.
    text: Vec<char>,
    entries: Vec<Entry>,
    postings: HashMap<u64, Vec<u32>, KeyHash>,
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
    /// See [`likeness`].
    pub score: f64,
}

impl Spelling {
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
        self.bytes += size_of::<Entry>() + 4 * letters.len();
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
    pub fn find(&self, text: &str, limit: usize, is_wanted: impl Fn(usize, Key) -> bool) -> Vec<Spelled> {
        let letters = folded(text);
        if limit == 0 || letters.is_empty() {
            return Vec::new();
        }
        let mut candidates = self.sharing(&letters);
        candidates.retain(|(number, _)| is_wanted(*number as usize, self.entries[*number as usize].key));
        let compared = COMPARED_MIN.max(limit * COMPARED_PER_HIT);
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if candidates.len() > compared {
            candidates.select_nth_unstable_by(compared, order);
            candidates.truncate(compared);
        }
        let mut found: Vec<Spelled> = candidates.iter().map(|(number, _)| self.compare(&letters, *number)).collect();
        found.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.at.cmp(&b.at)));
        found.truncate(limit);
        found
    }

    /// Returns the names that share three letters with a text, and how like they are by those alone.
    fn sharing(&self, letters: &[char]) -> Vec<(u32, f64)> {
        let mut grams = trigrams(letters);
        grams.sort_unstable();
        grams.dedup();
        let mut counts = vec![0_u8; self.entries.len()];
        let mut touched = Vec::new();
        for gram in &grams {
            for number in self.postings.get(gram).into_iter().flatten() {
                let count = &mut counts[*number as usize];
                if *count == 0 {
                    touched.push(*number);
                }
                *count = count.saturating_add(1);
            }
        }
        // What the name has beside the text counts little: a part of a name may be all that somebody remembers.
        let likeness = |number: u32| {
            let len = f64::from(self.entries[number as usize].len);
            f64::from(counts[number as usize]) - LETTER_COST * len
        };
        touched.into_iter().map(|number| (number, likeness(number))).collect()
    }

    fn compare(&self, letters: &[char], number: u32) -> Spelled {
        let Entry { key, start, len } = self.entries[number as usize];
        let name = &self.text[start as usize..start as usize + usize::from(len)];
        Spelled { at: number as usize, key, score: share(letters, name) }
    }
}

/// Returns how much of a text is in a name, letter by letter, 0 to 1. It may be any part of it; then the name counts a little less.
#[must_use]
pub fn likeness(text: &str, name: &str) -> f64 {
    share(&folded(text), &folded(name))
}

fn share(letters: &[char], name: &[char]) -> f64 {
    if letters.is_empty() || name.is_empty() {
        return 0.0;
    }
    let right = 1.0 - (distance(letters, name) as f64 / letters.len() as f64).min(1.0);
    let rest = name.len().saturating_sub(letters.len()) as f64 / name.len() as f64;
    right * (1.0 - REST_COST * rest)
}

/// Returns the letters of a name that count: in lower case, anything else as one space.
fn folded(name: &str) -> Vec<char> {
    let mut letters = Vec::with_capacity(name.len());
    for c in name.chars() {
        if c.is_alphanumeric() {
            letters.extend(c.to_lowercase());
        } else if letters.last().is_some_and(|last| *last != ' ') {
            letters.push(' ');
        }
        if letters.len() >= LETTERS_MAX {
            break;
        }
    }
    while letters.last() == Some(&' ') {
        letters.pop();
    }
    // A name of signs alone is compared by those.
    if letters.is_empty() { name.chars().take(LETTERS_MAX).collect() } else { letters }
}

/// Returns every three letters that stand together, with two spaces around the name.
fn trigrams(letters: &[char]) -> Vec<u64> {
    let padded: Vec<char> = [' ', ' '].into_iter().chain(letters.iter().copied()).chain([' ', ' ']).collect();
    // A letter takes 21 bits.
    padded.windows(3).map(|three| three.iter().fold(0, |gram, c| gram << 21 | u64::from(u32::from(*c)))).collect()
}

/// Returns how many letters of a text are to be changed, added, left out, or swapped with their neighbour, for it to be a part of a
/// name.
fn distance(text: &[char], name: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    // It may begin anywhere.
    let mut last: Vec<usize> = vec![0; name.len() + 1];
    for (i, x) in text.iter().enumerate() {
        let mut row = Vec::with_capacity(name.len() + 1);
        row.push(i + 1);
        for (j, y) in name.iter().enumerate() {
            let mut least = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == name[j - 1] && text[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    // And end anywhere.
    last.into_iter().min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_swaps_once_and_nothing_around_a_part() {
        let of = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        let found = [of("", "b"), of("a", ""), of("kitten", "sitting"), of("acbd", "xxabcdxx"), of("ab", "xxabxx")];
        assert_eq!(found, [0, 1, 2, 1, 0]);
    }

    #[test]
    fn misspelt_names_are_found_in_any_case() {
        let mut spelling = Spelling::default();
        for (key, name) in (1..).zip(["SQLite", "PostgreSQL", "Rust", "rusty nail", "C", "日本語", "++"]) {
            spelling.push(key, name);
        }
        let best = |text: &str| spelling.find(text, 1, |_, _| true).first().map(|found| found.key);
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

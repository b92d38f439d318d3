//! How like a text that may be misspelt is to a name.
//!
//! Start at [`NamePattern`]. Case and punctuation do not count.

use std::collections::HashMap;

use super::hash::KeyHash;

/// How much less a name counts of which nearly nothing is in the text, where that stands before it or after it. Chosen by typos of
/// WordNet's names, of which the run of `benches/peers` uses others.
const BEFORE_COST: f64 = 0.2;
const AFTER_COST: f64 = 0.1;
/// A name's letters behind these do not count: with a space on either side they are as many as a number has bits.
const LETTERS_MAX: usize = 126;
/// Letters whose places are in an array.
const ASCII: usize = 128;

/// A text that names are compared with, letter by letter.
///
/// # Source
/// Hyyrö, "A Bit-Vector Algorithm for Computing Levenshtein and Damerau Edit Distances", Nordic Journal of Computing 10 (2003).
#[derive(Debug)]
pub struct NamePattern {
    letter_count: usize,
    /// A bit for each place where a letter stands in the text, which has a space on either side.
    ascii: [u128; ASCII],
    others: HashMap<char, u128, KeyHash>,
}

/// The part of a name that is nearest to a text.
#[derive(Debug, Clone, Copy)]
struct Nearest {
    /// How many letters are to be changed, added, left out, or swapped with their neighbour.
    distance: usize,
    /// Behind which of the name's letters it ends, with the space before them.
    end: usize,
}

impl NamePattern {
    /// Prepares a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::of_letters(&folded(text))
    }

    pub(super) fn of_letters(letters: &[char]) -> Self {
        let mut pattern = Self { letter_count: letters.len(), ascii: [0; ASCII], others: HashMap::default() };
        for (place, letter) in spaced(letters).enumerate() {
            let places = match pattern.ascii.get_mut(letter as usize) {
                Some(places) => places,
                None => pattern.others.entry(letter).or_default(),
            };
            *places |= 1 << place;
        }
        pattern
    }

    /// Returns how much of the text is in a name, letter by letter, 0 to 1. It may be any words of it, or with a letter off for each
    /// end that is inside a word any other part; then the name counts a little less.
    #[must_use]
    pub fn likeness(&self, name: &str) -> f64 {
        self.likeness_of_letters(&folded(name))
    }

    pub(super) fn likeness_of_letters(&self, name: &[char]) -> f64 {
        if self.letter_count == 0 || name.is_empty() {
            return 0.0;
        }
        let Nearest { distance, end } = self.nearest(name);
        let right = 1.0 - (distance as f64 / self.letter_count as f64).min(1.0);
        let before = end.saturating_sub(self.letter_count + 2).min(name.len());
        let after = name.len().saturating_sub(self.letter_count + before);
        right * (1.0 - (BEFORE_COST * before as f64 + AFTER_COST * after as f64) / name.len() as f64)
    }

    /// Returns the part of a name that is nearest to the text, of equals the first; both have a space on either side.
    fn nearest(&self, name: &[char]) -> Nearest {
        let last = 1 << (self.letter_count + 1);
        // Bits say whether one letter more of the text costs one more (`rises`) or one less (`falls`), down a column and along a row.
        let (mut rises, mut falls, mut same, mut matches_before) = (u128::MAX, 0, 0_u128, 0);
        let mut distance = self.letter_count + 2;
        let mut nearest = Nearest { distance, end: 0 };
        for (end, letter) in (1..).zip(spaced(name)) {
            let matches = self.places(letter);
            let swapped = ((!same & matches) << 1) & matches_before;
            same = swapped | (((matches & rises).wrapping_add(rises)) ^ rises) | matches | falls;
            let (row_rises, row_falls) = (falls | !(same | rises), same & rises);
            distance += usize::from(row_rises & last != 0);
            distance -= usize::from(row_falls & last != 0);
            if distance < nearest.distance {
                nearest = Nearest { distance, end };
            }
            (rises, falls) = ((row_falls << 1) | !(same | (row_rises << 1)), (row_rises << 1) & same);
            matches_before = matches;
        }
        nearest
    }

    fn places(&self, letter: char) -> u128 {
        match self.ascii.get(letter as usize) {
            Some(places) => *places,
            None => self.others.get(&letter).copied().unwrap_or_default(),
        }
    }
}

fn spaced(letters: &[char]) -> impl Iterator<Item = char> {
    std::iter::once(' ').chain(letters.iter().copied()).chain(std::iter::once(' '))
}

/// Returns the letters of a name that count: in lower case, anything else as one space.
pub(super) fn folded(name: &str) -> Vec<char> {
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
    // One letter may have become several.
    letters.truncate(LETTERS_MAX);
    while letters.last() == Some(&' ') {
        letters.pop();
    }
    // A name of signs alone is compared by those.
    if letters.is_empty() { name.chars().take(LETTERS_MAX).collect() } else { letters }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by a table, as the distance is defined.
    fn distance_by_table(text: &[char], name: &[char]) -> usize {
        let (text, name): (Vec<_>, Vec<_>) = (spaced(text).collect(), spaced(name).collect());
        let mut table = vec![vec![0; name.len() + 1]; text.len() + 1];
        for i in 1..=text.len() {
            table[i][0] = i;
            for j in 1..=name.len() {
                let changed = table[i - 1][j - 1] + usize::from(text[i - 1] != name[j - 1]);
                table[i][j] = changed.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                if i > 1 && j > 1 && text[i - 1] == name[j - 2] && text[i - 2] == name[j - 1] {
                    table[i][j] = table[i][j].min(table[i - 2][j - 2] + 1);
                }
            }
        }
        table[text.len()].iter().copied().min().unwrap()
    }

    #[test]
    fn distance_is_that_of_the_table() {
        let mut random = 7_u64;
        let mut word = |len_max: u64, letters: u64| -> Vec<char> {
            let mut next = |below: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % below
            };
            let len = 1 + next(len_max);
            (0..len).map(|_| [' ', 'a', 'b', 'c', 'é', '日'][next(letters) as usize]).collect()
        };
        for round in 0..3_000 {
            let len_max = if round % 10 == 0 { LETTERS_MAX as u64 } else { 9 };
            let (text, name) = (word(len_max, 2 + round % 5), word(len_max, 6));
            let found = NamePattern::of_letters(&text).nearest(&name).distance;
            assert_eq!(found, distance_by_table(&text, &name), "{text:?} {name:?}");
        }
    }

    #[test]
    fn distance_counts_swaps_once_and_ends_inside_a_word() {
        let of = |text: &str, name: &str| NamePattern::new(text).nearest(&folded(name)).distance;
        let found = [
            of("kitten", "sitting"),
            of("acbd", "xx abcd xx"),
            of("acbd", "xxabcdxx"),
            of("ab", "xxab"),
            of("ab", "x ab x"),
        ];
        assert_eq!(found, [3, 1, 3, 1, 0]);
    }

    #[test]
    fn whole_words_are_liker_than_parts_of_words() {
        let pattern = NamePattern::new("tanbgent");
        let score = |name| pattern.likeness(name);
        assert!(score("tangent") > score("tangent.n.13904843"));
        assert!(score("tangent.n.13904843") > score("cotangent"));
        assert_eq!((pattern.likeness(""), NamePattern::new("").likeness("a")), (0.0, 0.0));
    }

    #[test]
    fn letters_that_become_several_stay_within_bounds() {
        let long = "ﬀİ".repeat(200);
        assert!(folded(&long).len() <= LETTERS_MAX);
        assert!(NamePattern::new(&long).likeness(&long) > 0.99);
    }
}

//! Words of questions: which say something, and which may be names.

/// English words that stand in nearly every text: to look for them costs most and finds nothing.
const COMMON: [&str; 64] = [
    "a", "about", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do",
    "does", "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its", "me", "my", "no",
    "not", "of", "on", "or", "our", "should", "so", "than", "that", "the", "their", "them", "then", "there", "these",
    "they", "this", "to", "was", "we", "were", "what", "when", "where", "which", "who", "why", "will", "with", "would",
    "you",
];

/// A longer run of letters is no word that anybody looks for.
const WORD_BYTES_MAX: usize = 200;
/// Most words of a question that are looked for.
const SOUGHT_MAX: usize = 16;
/// Most words of a name that is looked for in a question.
const NAME_WORDS_MAX: usize = 3;
/// Most words of a question in which names are looked for.
const NAMING_WORDS_MAX: usize = 32;

/// Returns the words of a text: runs of letters and digits.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty() && word.len() <= WORD_BYTES_MAX)
}

/// Tells whether a word, in lower case, says next to nothing.
pub(super) fn is_common(word: &str) -> bool {
    COMMON.binary_search(&word).is_ok()
}

/// Returns the words to look for: each once, without common ones unless there are no others.
pub(super) fn sought(question: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for word in words(question).map(str::to_lowercase) {
        if !all.contains(&word) {
            all.push(word);
        }
    }
    let telling: Vec<String> = all.iter().filter(|word| !is_common(word)).cloned().collect();
    let mut sought = if telling.is_empty() { all } else { telling };
    sought.truncate(SOUGHT_MAX);
    sought
}

/// Returns what in a question may be an entity's name: runs of up to three words, as they are written, in lower case, and with
/// capitals.
pub(super) fn possible_names(question: &str) -> Vec<String> {
    let words: Vec<&str> = words(question).take(NAMING_WORDS_MAX).collect();
    let mut names: Vec<String> = Vec::new();
    for length in 1..=NAME_WORDS_MAX {
        for run in words.windows(length) {
            if run.iter().all(|word| is_common(&word.to_lowercase())) {
                continue;
            }
            let written = run.join(" ");
            let spellings = [
                written.to_lowercase(),
                run.iter().map(|word| capitalised(word)).collect::<Vec<_>>().join(" "),
                written,
            ];
            for name in spellings {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    names
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_words_are_sorted_so_that_they_are_found() {
        assert!(COMMON.is_sorted());
        assert!(is_common("the") && !is_common("larder"));
    }

    #[test]
    fn question_of_common_words_alone_is_looked_for_as_it_is() {
        assert_eq!(sought("Who is the author, and who is it?"), ["author"]);
        assert_eq!(sought("to be or not to be"), ["to", "be", "or", "not"]);
    }

    #[test]
    fn names_are_runs_of_words_in_three_spellings() {
        let names = possible_names("what does SQLite use");
        assert!(names.iter().any(|name| name == "SQLite") && names.iter().any(|name| name == "sqlite"));
        assert!(possible_names("ada lovelace").iter().any(|name| name == "Ada Lovelace"));
        assert!(!names.iter().any(|name| name == "what does"));
    }
}

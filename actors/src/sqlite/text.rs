//! Ranges of texts, as SQLite orders them: by their bytes.

/// Returns the smallest text that sorts behind everything that starts with `prefix`, where there is one.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The code points D800 to DFFF are no characters; UTF-8 sorts like code points do.
        let next = if last as u32 == 0xD7FF { Some('\u{E000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_is_behind_every_continuation() {
        assert_eq!(prefix_end("ab").as_deref(), Some("ac"));
        assert_eq!(prefix_end("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(prefix_end("\u{10FFFF}"), None);
        assert_eq!(prefix_end("\u{D7FF}").as_deref(), Some("\u{E000}"));
        assert!("a\u{10FFFF}\u{10FFFF}" < prefix_end("a").unwrap().as_str());
    }
}

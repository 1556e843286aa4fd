//! Finds the parts of a summary that its source does not contain.
//!
//! A model that invents something mostly invents what looks like a fact: a figure, a date or a name. So this module
//! looks up each number of a summary, and each word that is written like a name, in the source. It marks those that
//! are missing. It also marks a number that the model computed, because that number is not in the source either.

use std::collections::HashSet;
use std::ops::Range;

/// Returns the byte ranges of `summary` that hold a number or a name-like word that `source` does not contain, in
/// ascending order.
pub fn find_ungrounded_numbers_and_names(summary: &str, source: &str) -> Vec<Range<u32>> {
    let known: HashSet<String> = split_words(source)
        .map(|(_, word)| normalize_word(word))
        .collect();
    let mut found = Vec::new();
    let mut begins = true;
    for (at, word) in split_words(summary) {
        let first = std::mem::replace(&mut begins, false);
        let between = summary.get(at + word.len()..).unwrap_or_default();
        begins = gap_before_next_word_ends_sentence(between);
        let is_number = word.chars().any(char::is_numeric);
        // The first word of a sentence is capitalized in any case.
        let is_name = !first && word.starts_with(char::is_uppercase);
        if (is_number || is_name) && !known.contains(&normalize_word(word)) {
            let (start, end) = (u32::try_from(at), u32::try_from(at + word.len()));
            if let (Ok(start), Ok(end)) = (start, end) {
                found.push(start..end);
            }
        }
    }
    found
}

/// Returns words with their byte offsets. A word is a run of letters and digits; a number includes its separators.
fn split_words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let from = text.get(rest..)?;
        let start = rest + from.find(char::is_alphanumeric)?;
        let word = text.get(start..)?;
        let mut end = word.len();
        let mut chars = word.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, next)| *next);
            let inside =
                matches!(c, '.' | ',' | '\u{a0}' | '\u{202f}' | '\'') && next.is_some_and(char::is_numeric);
            let of_a_number = inside && word.get(..at).is_some_and(ends_in_digit);
            if !(c.is_alphanumeric() || of_a_number) {
                end = at;
                break;
            }
        }
        rest = start + end;
        Some((start, word.get(..end)?))
    })
}

fn ends_in_digit(text: &str) -> bool {
    text.ends_with(char::is_numeric)
}

fn gap_before_next_word_ends_sentence(between: &str) -> bool {
    let gap: String = between.chars().take_while(|c| !c.is_alphanumeric()).collect();
    gap.contains(['.', '!', '?', ':', '\n', '"', '“', '„'])
}

/// Normalizes a word for comparison. Numbers lose their separators. Words become lower case and lose a final `s`,
/// which marks a plural or a genitive.
fn normalize_word(word: &str) -> String {
    let plain: String = word
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    match plain.strip_suffix('s') {
        Some(stem) if stem.chars().count() > 3 && !plain.contains(char::is_numeric) => stem.to_owned(),
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ungrounded_words<'a>(summary: &'a str, source: &str) -> Vec<&'a str> {
        let ranges = find_ungrounded_numbers_and_names(summary, source);
        ranges
            .into_iter()
            .map(|range| &summary[range.start as usize..range.end as usize])
            .collect()
    }

    const SOURCE: &str =
        "The gate at Hartwell was built in 1931 by Anna Lindqvist for 1,250,000 crowns. It carries 12.5 m³.";

    #[test]
    fn words_of_the_source_are_not_marked() {
        for summary in [
            "Anna Lindqvist built Hartwell's gate in 1931.",
            "It cost 1250000 crowns. Nobody minded.",
            "The gate carries 12.5 m³: Built in 1931.",
            SOURCE,
        ] {
            assert_eq!(ungrounded_words(summary, SOURCE), [""; 0], "{summary}");
        }
    }

    #[test]
    fn invented_numbers_and_names_are_marked() {
        let summary =
            "In 1932 the engineer Berg built it at Hartwell, for 1,250,001 crowns. Berg died in 1940.";
        assert_eq!(
            ungrounded_words(summary, SOURCE),
            ["1932", "Berg", "1,250,001", "1940"]
        );
        assert_eq!(ungrounded_words("", SOURCE), [""; 0]);
        assert_eq!(ungrounded_words("It has 3 gates", ""), ["3"]);
    }
}

//! Whether a summary says what its source says, as far as that can be told without understanding either.
//!
//! A model that invents mostly invents what looks like a fact: a figure, a date, a name. So each number of a summary, and
//! each word in it that is written like a name, is looked up in the source; those that are not there are marked. A
//! number that the model worked out itself is marked, too: whoever reads it should know that it stands nowhere.

use std::collections::HashSet;
use std::ops::Range;

/// The parts of `summary` that do not stand in `source`: numbers, and words written like names. In order.
pub fn ungrounded(summary: &str, source: &str) -> Vec<Range<u32>> {
    let known: HashSet<String> = words(source).map(|(_, word)| plain(word)).collect();
    let mut found = Vec::new();
    let mut begins = true;
    for (at, word) in words(summary) {
        let first = std::mem::replace(&mut begins, false);
        let between = summary.get(at + word.len()..).unwrap_or_default();
        begins = ends_a_sentence(between);
        let is_number = word.chars().any(char::is_numeric);
        // The first word of a sentence is written large in any case.
        let is_name = !first && word.starts_with(char::is_uppercase);
        if (is_number || is_name) && !known.contains(&plain(word)) {
            let (start, end) = (u32::try_from(at), u32::try_from(at + word.len()));
            if let (Ok(start), Ok(end)) = (start, end) {
                found.push(start..end);
            }
        }
    }
    found
}

/// Words with their places: letters and digits, and within a number the signs that are part of it.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
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

fn ends_a_sentence(between: &str) -> bool {
    let gap: String = between.chars().take_while(|c| !c.is_alphanumeric()).collect();
    gap.contains(['.', '!', '?', ':', '\n', '"', '“', '„'])
}

/// A word as it is compared: numbers without the signs between their digits, words in small letters without the ending that
/// makes a plural or a genitive of a name.
fn plain(word: &str) -> String {
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

    fn marked<'a>(summary: &'a str, source: &str) -> Vec<&'a str> {
        let ranges = ungrounded(summary, source);
        ranges
            .into_iter()
            .map(|range| &summary[range.start as usize..range.end as usize])
            .collect()
    }

    const SOURCE: &str =
        "The gate at Hartwell was built in 1931 by Anna Lindqvist for 1,250,000 crowns. It carries 12.5 m³.";

    #[test]
    fn what_stands_in_the_source_is_not_marked() {
        for summary in [
            "Anna Lindqvist built Hartwell's gate in 1931.",
            "It cost 1250000 crowns. Nobody minded.",
            "The gate carries 12.5 m³: Built in 1931.",
            SOURCE,
        ] {
            assert_eq!(marked(summary, SOURCE), [""; 0], "{summary}");
        }
    }

    #[test]
    fn invented_numbers_and_names_are_marked() {
        let summary =
            "In 1932 the engineer Berg built it at Hartwell, for 1,250,001 crowns. Berg died in 1940.";
        assert_eq!(marked(summary, SOURCE), ["1932", "Berg", "1,250,001", "1940"]);
        assert_eq!(marked("", SOURCE), [""; 0]);
        assert_eq!(marked("It has 3 gates", ""), ["3"]);
    }
}

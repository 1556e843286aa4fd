//! Finds the words of a query in a passage, by the rules of the BM25 ranking: other forms of a word match, stop words and parts of words
//! do not. In text without spaces, pairs of neighboring characters match.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::words::{WordSplitter, is_ideograph_or_kana};

/// Finds the words of one query in passages.
pub(super) struct QueryWordMatcher<'a> {
    splitter: &'a WordSplitter,
    query_words: HashSet<String>,
    /// Single characters that are words of the query, in scripts without spaces.
    single_characters: HashSet<char>,
    /// Whether a word of a passage matches, for the words that were checked already.
    match_cache: HashMap<String, bool>,
}

impl<'a> QueryWordMatcher<'a> {
    pub(super) fn new(splitter: &'a WordSplitter, query: &str) -> Self {
        let characters = split_into_word_runs(query)
            .filter_map(|(_, run)| {
                let mut characters = run.chars();
                let first = characters.next().filter(|c| is_ideograph_or_kana(*c))?;
                characters.next().is_none().then_some(first)
            })
            .collect();
        Self {
            splitter,
            query_words: splitter.split(query).into_iter().collect(),
            single_characters: characters,
            match_cache: HashMap::new(),
        }
    }

    /// Returns the byte ranges of the text that match, in order and without overlaps.
    pub(super) fn find_matches(&mut self, text: &str) -> Vec<Range<u32>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for (start, run) in split_into_word_runs(text) {
            if !run.starts_with(is_ideograph_or_kana) {
                if self.is_query_word(run) {
                    found.push(start..start + run.len());
                }
                continue;
            }
            let mut before: Option<(usize, char)> = None;
            for (at, c) in run.char_indices() {
                let here = start + at;
                let end = here + c.len_utf8();
                let from = match before.replace((here, c)) {
                    Some((from, first)) if self.is_query_word(&String::from_iter([first, c])) => Some(from),
                    _ => self.single_characters.contains(&c).then_some(here),
                };
                match (from, found.last_mut()) {
                    (Some(from), Some(last)) if last.end >= from => last.end = end,
                    (Some(from), _) => found.push(from..end),
                    (None, _) => {}
                }
            }
        }
        found
            .into_iter()
            .filter_map(|range| Some(u32::try_from(range.start).ok()?..u32::try_from(range.end).ok()?))
            .collect()
    }

    fn is_query_word(&mut self, word: &str) -> bool {
        if let Some(known) = self.match_cache.get(word) {
            return *known;
        }
        let is_match = self
            .splitter
            .split_spaced(word)
            .iter()
            .any(|word| self.query_words.contains(word));
        self.match_cache.insert(word.to_owned(), is_match);
        is_match
    }
}

/// Splits a text into runs of letters and digits, each with the offset of its first byte. A change to or from a script without spaces
/// ends a run.
fn split_into_word_runs(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let kind = |c: char| (c.is_alphanumeric() || is_ideograph_or_kana(c)).then(|| is_ideograph_or_kana(c));
    let mut rest = text.char_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let (start, first) = rest.next()?;
            let Some(unspaced) = kind(first) else { continue };
            let mut end = start + first.len_utf8();
            while let Some((at, c)) = rest.next_if(|(_, c)| kind(*c) == Some(unspaced)) {
                end = at + c.len_utf8();
            }
            return text.get(start..end).map(|run| (start, run));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched_words<'a>(query: &str, text: &'a str) -> Vec<&'a str> {
        let splitter = WordSplitter::new();
        let ranges = QueryWordMatcher::new(&splitter, query).find_matches(text);
        ranges
            .into_iter()
            .map(|range| &text[range.start as usize..range.end as usize])
            .collect()
    }

    #[test]
    fn matches_are_whole_words_in_any_form_without_stop_words() {
        let text = "The bathers opened the gates; a gate is opening, and others are there.";
        assert_eq!(
            matched_words("which of the gates opens", text),
            ["opened", "gates", "gate", "opening"]
        );
        assert!(matched_words("the of her at", text).is_empty());
        assert_eq!(
            matched_words("cafe 42", "Café-Müller, 42 Nm, 420 Nm"),
            ["Café", "42"]
        );
    }

    #[test]
    fn matches_in_text_without_spaces_are_pairs_or_single_characters() {
        assert_eq!(matched_words("学习", "机器学习很有趣"), ["学习"]);
        assert_eq!(matched_words("机器学习", "机器学习PP機械"), ["机器学习"]);
        assert!(matched_words("上海", "海上").is_empty());
        assert_eq!(matched_words("学", "学习"), ["学"]);
    }
}

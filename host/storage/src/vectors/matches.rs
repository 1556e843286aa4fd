//! Where the words of a query stand in a passage, by the same rules that rank passages: other forms of a word match, stop words and
//! parts of words do not. In text without spaces, pairs of neighbouring characters match.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::words::{Words, is_unspaced};

/// The words of one query.
pub(super) struct QueryWords<'a> {
    words: &'a Words,
    /// The query's words as the index knows them.
    wanted: HashSet<u32>,
    /// Characters that are a word of the query by themselves, in scripts without spaces.
    characters: HashSet<char>,
    /// Words of passages that were looked at, and whether they match.
    known: HashMap<String, bool>,
}

impl<'a> QueryWords<'a> {
    pub(super) fn new(words: &'a Words, query: &str) -> Self {
        let characters = runs(query)
            .filter_map(|(_, run)| {
                let mut characters = run.chars();
                let first = characters.next().filter(|c| is_unspaced(*c))?;
                characters.next().is_none().then_some(first)
            })
            .collect();
        Self {
            words,
            wanted: words.of_query(query).indices.into_iter().collect(),
            characters,
            known: HashMap::new(),
        }
    }

    /// The bytes of the text that match, in order and without overlaps.
    pub(super) fn find(&mut self, text: &str) -> Vec<Range<u32>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for (start, run) in runs(text) {
            if !run.starts_with(is_unspaced) {
                if self.is_wanted(run) {
                    found.push(start..start + run.len());
                }
                continue;
            }
            let mut before: Option<(usize, char)> = None;
            for (at, c) in run.char_indices() {
                let here = start + at;
                let end = here + c.len_utf8();
                let from = match before.replace((here, c)) {
                    Some((from, first)) if self.is_wanted(&String::from_iter([first, c])) => Some(from),
                    _ => self.characters.contains(&c).then_some(here),
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

    fn is_wanted(&mut self, word: &str) -> bool {
        if let Some(known) = self.known.get(word) {
            return *known;
        }
        let indices = self.words.of_word(word).indices;
        let wanted = indices.iter().any(|index| self.wanted.contains(index));
        self.known.insert(word.to_owned(), wanted);
        wanted
    }
}

/// The runs of letters and digits in a text, each with its first byte. A change to or from a script without spaces ends a run.
fn runs(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let kind = |c: char| (c.is_alphanumeric() || is_unspaced(c)).then(|| is_unspaced(c));
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

    fn found<'a>(query: &str, text: &'a str) -> Vec<&'a str> {
        let words = Words::new().unwrap();
        let ranges = QueryWords::new(&words, query).find(text);
        ranges
            .into_iter()
            .map(|range| &text[range.start as usize..range.end as usize])
            .collect()
    }

    #[test]
    fn matches_are_whole_words_in_any_form_without_stop_words() {
        let text = "The bathers opened the gates; a gate is opening, and others are there.";
        assert_eq!(
            found("which of the gates opens", text),
            ["opened", "gates", "gate", "opening"]
        );
        assert!(found("the of her at", text).is_empty());
        assert_eq!(found("cafe 42", "Café-Müller, 42 Nm, 420 Nm"), ["Café", "42"]);
    }

    #[test]
    fn matches_in_text_without_spaces_are_pairs_or_single_characters() {
        assert_eq!(found("学习", "机器学习很有趣"), ["学习"]);
        assert_eq!(found("机器学习", "机器学习PP機械"), ["机器学习"]);
        assert!(found("上海", "海上").is_empty());
        assert_eq!(found("学", "学习"), ["学"]);
    }
}

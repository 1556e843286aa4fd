//! The words of a text, as the ranking by words (BM25) counts them.
//!
//! Words are lower case, without accents and reduced to their English stem. English stop words are dropped. Chinese and Japanese have no
//! spaces between words. A run of their characters is split into single characters and pairs of neighbors, which needs no dictionary and
//! finds any word within a longer one (as Lucene's CJK analyzer does).

use std::borrow::Cow;

use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
};

/// Splits texts into words. The rules are part of the format of an index: a change needs a new format version.
pub(super) struct WordSplitter(TextAnalyzer);

impl WordSplitter {
    pub(super) fn new() -> Self {
        let stop_words = stop_words::lookup(stop_words::Language::English).unwrap_or_default();
        let analyzer = TextAnalyzer::builder(SimpleTokenizer::default())
            .filter(AsciiFoldingFilter)
            .filter(LowerCaser)
            .filter(StopWordFilter::remove(
                stop_words.iter().map(|word| (*word).to_owned()),
            ))
            .filter(Stemmer::new(Language::English));
        Self(analyzer.build())
    }

    /// Returns the words in the order of the text. A repeated word is repeated.
    pub(super) fn split(&self, text: &str) -> Vec<String> {
        self.split_spaced(&split_ideographs_into_characters_and_pairs(text))
    }

    /// Like [`WordSplitter::split`], but leaves runs of ideographs and kana whole.
    pub(super) fn split_spaced(&self, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut analyzer = self.0.clone();
        let mut tokens = analyzer.token_stream(text);
        tokens.process(&mut |token| words.push(token.text.clone()));
        words
    }

    /// Returns the words of a query, each once.
    pub(super) fn split_query(&self, text: &str) -> Vec<String> {
        let mut words = self.split(text);
        words.sort_unstable();
        words.dedup();
        words
    }
}

/// Replaces each run of ideographs and kana by its characters and their pairs, separated by spaces.
fn split_ideographs_into_characters_and_pairs(text: &str) -> Cow<'_, str> {
    if !text.contains(is_ideograph_or_kana) {
        return Cow::Borrowed(text);
    }
    let mut spaced = String::with_capacity(3 * text.len());
    let mut before = None;
    for c in text.chars() {
        if is_ideograph_or_kana(c) {
            spaced.push(' ');
            if let Some(before) = before {
                spaced.extend([before, c, ' ']);
            }
            spaced.push(c);
            before = Some(c);
        } else {
            if before.take().is_some() {
                spaced.push(' ');
            }
            spaced.push(c);
        }
    }
    Cow::Owned(spaced)
}

/// Returns whether a character belongs to a script without spaces: ideographs and kana.
pub(super) const fn is_ideograph_or_kana(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of query words that are in the passage, and the number of all query words.
    fn count_common_words(query: &str, passage: &str) -> (usize, usize) {
        let splitter = WordSplitter::new();
        let (query, passage) = (splitter.split_query(query), splitter.split(passage));
        let common = query.iter().filter(|word| passage.contains(word)).count();
        (common, query.len())
    }

    #[test]
    fn words_match_in_their_stems_and_without_accents() {
        assert_eq!(
            count_common_words("bolts TORQUES", "The torque of a bolt: 42 Nm"),
            (2, 2)
        );
        assert_eq!(count_common_words("Müller café", "muller CAFE"), (2, 2));
        assert_eq!(count_common_words("the of and", "the of and"), (0, 0));
    }

    #[test]
    fn numbers_and_codes_are_words() {
        assert_eq!(count_common_words("DIN-4102", "nach din 4102"), (2, 2));
        assert_eq!(count_common_words("42", "42 Nm"), (1, 1));
        assert_eq!(count_common_words("ISO9001", "iso9001:2015"), (1, 1));
    }

    #[test]
    fn words_are_found_within_text_without_spaces() {
        assert_eq!(count_common_words("学习", "机器学习很有趣"), (3, 3));
        assert_eq!(count_common_words("東京", "私は東京都に住んでいます"), (3, 3));
        assert_eq!(count_common_words("学", "机器学习"), (1, 1));
        // The pair distinguishes 上海 from a text with both characters in another order.
        assert_eq!(count_common_words("上海", "海上"), (2, 3));
    }

    #[test]
    fn text_with_spaces_is_unchanged() {
        assert_eq!(
            split_ideographs_into_characters_and_pairs("plain text"),
            "plain text"
        );
        assert_eq!(
            split_ideographs_into_characters_and_pairs("PP機械v6"),
            "PP 機 機械 械 v6"
        );
    }
}

//! Text as weighted words (BM25; Robertson and Zaragoza, 2009), with Qdrant's tokenizer and values: k = 1.2, b = 0.75.
//!
//! Words are lower case, without accents, cut to their English stem, and English stop words are left out. Chinese and Japanese
//! do not put spaces between words; a run of their characters is taken apart into characters and pairs of neighbours, which
//! needs no dictionary and finds any word within a longer one (as Lucene's CJK analyzer does). The engine has a tokenizer with
//! dictionaries too, which drops numbers, and those are what technical documents are searched for.

use std::borrow::Cow;

use qdrant_edge::SparseVector;
use qdrant_edge::bm25_embed::{EdgeBm25, EdgeBm25Config};

/// Turns text into sparse vectors. What it makes of a text is part of the shard's format: queries and passages must agree.
pub(super) struct Words(EdgeBm25);

impl Words {
    pub(super) fn new() -> Result<Self, String> {
        let config = EdgeBm25Config {
            ascii_folding: Some(true),
            ..EdgeBm25Config::default()
        };
        EdgeBm25::new(config).map(Self).map_err(|e| e.to_string())
    }

    /// The words of a passage, weighted by how often they occur in it.
    pub(super) fn of_passage(&self, text: &str) -> SparseVector {
        self.0.embed_document(&spaced(text))
    }

    /// The words of a query, each of weight 1.
    pub(super) fn of_query(&self, text: &str) -> SparseVector {
        self.0.embed_query(&spaced(text))
    }

    /// One word, or a pair of neighbouring characters, as it is.
    pub(super) fn of_word(&self, word: &str) -> SparseVector {
        self.0.embed_query(word)
    }
}

/// The text with each run of characters that stand for words replaced by those characters and by their pairs.
fn spaced(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unspaced) {
        return Cow::Borrowed(text);
    }
    let mut spaced = String::with_capacity(3 * text.len());
    let mut before = None;
    for c in text.chars() {
        if is_unspaced(c) {
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

/// Ideographs and kana.
pub(super) const fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of the query that are in the passage, of those it has.
    fn matched(query: &str, passage: &str) -> (usize, usize) {
        let words = Words::new().unwrap();
        let (query, passage) = (words.of_query(query), words.of_passage(passage));
        let common = query
            .indices
            .iter()
            .filter(|word| passage.indices.contains(word))
            .count();
        (common, query.indices.len())
    }

    #[test]
    fn words_match_in_their_stems_and_without_accents() {
        assert_eq!(matched("bolts TORQUES", "The torque of a bolt: 42 Nm"), (2, 2));
        assert_eq!(matched("Müller café", "muller CAFE"), (2, 2));
        assert_eq!(matched("the of and", "the of and"), (0, 0));
    }

    #[test]
    fn numbers_and_codes_are_words() {
        assert_eq!(matched("DIN-4102", "nach din 4102"), (2, 2));
        assert_eq!(matched("42", "42 Nm"), (1, 1));
        assert_eq!(matched("ISO9001", "iso9001:2015"), (1, 1));
    }

    #[test]
    fn words_are_found_within_text_without_spaces() {
        assert_eq!(matched("学习", "机器学习很有趣"), (3, 3));
        assert_eq!(matched("東京", "私は東京都に住んでいます"), (3, 3));
        assert_eq!(matched("学", "机器学习"), (1, 1));
        // The pair tells 上海 from a text that has both characters apart.
        assert_eq!(matched("上海", "海上"), (2, 3));
    }

    #[test]
    fn text_around_stays_as_it_is() {
        assert_eq!(spaced("plain text"), "plain text");
        assert_eq!(spaced("PP機械v6"), "PP 機 機械 械 v6");
    }
}

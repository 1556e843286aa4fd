//! Text as sparse vectors of weighted words (BM25; Robertson and Zaragoza, 2009), with Qdrant's tokenizer and values: k = 1.2, b = 0.75.
//!
//! Words are lower case, without accents and reduced to their English stem. English stop words are dropped. Chinese and Japanese have no
//! spaces between words. A run of their characters is split into single characters and pairs of neighbors, which needs no dictionary and
//! finds any word within a longer one (as Lucene's CJK analyzer does). The engine also has a tokenizer with dictionaries, but it drops
//! numbers, which matter in technical documents.

use std::borrow::Cow;

use qdrant_edge::SparseVector;
use qdrant_edge::bm25_embed::{EdgeBm25, EdgeBm25Config};

/// Converts text to sparse vectors. The conversion is part of the shard's format: a change needs a new format version.
pub(super) struct Bm25Encoder(EdgeBm25);

impl Bm25Encoder {
    pub(super) fn new() -> Result<Self, String> {
        let config = EdgeBm25Config {
            ascii_folding: Some(true),
            ..EdgeBm25Config::default()
        };
        EdgeBm25::new(config).map(Self).map_err(|e| e.to_string())
    }

    /// Encodes the words of a passage, weighted by their frequency in it.
    pub(super) fn encode_passage(&self, text: &str) -> SparseVector {
        self.0
            .embed_document(&split_ideographs_into_characters_and_pairs(text))
    }

    /// Encodes the words of a query, each with weight 1.
    pub(super) fn encode_query(&self, text: &str) -> SparseVector {
        self.0
            .embed_query(&split_ideographs_into_characters_and_pairs(text))
    }

    /// Encodes one word or one pair of neighboring characters.
    pub(super) fn encode_word(&self, word: &str) -> SparseVector {
        self.0.embed_query(word)
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
        let encoder = Bm25Encoder::new().unwrap();
        let (query, passage) = (encoder.encode_query(query), encoder.encode_passage(passage));
        let common = query
            .indices
            .iter()
            .filter(|word| passage.indices.contains(word))
            .count();
        (common, query.indices.len())
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

//! Words as sparse vectors for a server of Qdrant's protocol, which ranks by words with them (BM25; Robertson and Zaragoza, 2009).
//!
//! The indices and weights are those of Qdrant's own encoder: the index of a word is its Murmur3 hash, k = 1.2, b = 0.75, and passages
//! have 256 words on average. The server multiplies the weights by the inverse frequency of the words among all passages.

use std::collections::BTreeMap;
use std::io::Cursor;

const K: f64 = 1.2;
const B: f64 = 0.75;
/// The number of words at which the length of a passage neither raises nor lowers its weights.
pub(super) const AVERAGE_WORDS: u32 = 256;

/// The indices and weights of words; both have the same length, and the indices are sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SparseVector {
    pub(super) indices: Vec<u32>,
    pub(super) values: Vec<f32>,
}

impl SparseVector {
    /// Encodes the words of a passage, weighted by their frequency in it.
    pub(super) fn of_passage(words: &[String]) -> Self {
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        for word in words {
            *counts.entry(hash_word(word)).or_default() += 1;
        }
        let words = f64::from(u32::try_from(words.len()).unwrap_or(u32::MAX));
        let length = K * (1.0 - B + B * words / f64::from(AVERAGE_WORDS));
        let weight = |count: u32| {
            let count = f64::from(count);
            count * (K + 1.0) / (length + count)
        };
        #[expect(clippy::cast_possible_truncation, reason = "weights are below 2.2")]
        let (indices, values) = counts
            .into_iter()
            .map(|(index, count)| (index, weight(count) as f32))
            .unzip();
        Self { indices, values }
    }

    /// Encodes the words of a query, each with weight 1.
    pub(super) fn of_query(words: &[String]) -> Self {
        let mut indices: Vec<u32> = words.iter().map(|word| hash_word(word)).collect();
        indices.sort_unstable();
        indices.dedup();
        Self {
            values: vec![1.0; indices.len()],
            indices,
        }
    }
}

fn hash_word(word: &str) -> u32 {
    // Reading from memory cannot fail.
    let hash = murmur3::murmur3_32(&mut Cursor::new(word), 0).unwrap_or_default();
    hash.cast_signed().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn repeated_words_weigh_more_and_long_passages_less() {
        let weights = |text: &str| SparseVector::of_passage(&words(text)).values;
        let once = weights("gate")[0];
        assert!(weights("gate gate")[0] > once);
        assert!(weights("gate sluice")[0] < once);
        // Two of two words: 2 × 2.2 / (1.2 × (0.25 + 0.75 × 2 / 256) + 2).
        assert!((weights("gate gate")[0] - 1.907_18).abs() < 1e-4);
        assert!(SparseVector::of_passage(&[]).indices.is_empty());
    }

    #[test]
    fn words_have_the_indices_of_qdrants_encoder() {
        let query = SparseVector::of_query(&words("gate roller gate"));
        let passage = SparseVector::of_passage(&words("roller gate"));
        assert_eq!(query.indices, passage.indices);
        assert_eq!(query.values, [1.0, 1.0]);
        // Measured with the encoder of qdrant-edge 0.7.2.
        assert_eq!(query.indices, [635_859_833, 2_063_350_695]);
    }
}

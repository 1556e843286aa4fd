//! Selects sentences that are central and different from each other.
//!
//! Maximal marginal relevance (Carbonell, Goldstein: "The Use of MMR, Diversity-Based Reranking for Reordering Documents and
//! Producing Summaries", SIGIR 1998): repeatedly selects the sentence with the highest score, reduced by its similarity to the
//! sentences selected before.

use super::centrality::SimilarityMatrix;

/// Weight of the score in relation to the similarity.
const RELEVANCE_WEIGHT: f32 = 0.7;
/// Sentences with at least this similarity count as duplicates.
const DUPLICATE_SIMILARITY: f32 = 0.95;

/// Selects up to `count` sentences, the best first; fewer if the remaining ones are duplicates.
pub(super) fn select_sentences(similarities: &SimilarityMatrix, scores: &[f32], count: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::with_capacity(count);
    let scores = rescale_to_unit_range(scores);
    // The highest similarity of each sentence to a selected one.
    let mut max_similarities = vec![0.0_f32; scores.len()];
    while chosen.len() < count {
        let gain = |(i, (score, similarity)): (usize, (&f32, &f32))| {
            (
                i,
                RELEVANCE_WEIGHT * score - (1.0 - RELEVANCE_WEIGHT) * similarity,
            )
        };
        let best = scores
            .iter()
            .zip(&max_similarities)
            .enumerate()
            .map(gain)
            .filter(|(i, _)| {
                !chosen.contains(i)
                    && max_similarities
                        .get(*i)
                        .is_some_and(|similarity| *similarity < DUPLICATE_SIMILARITY)
            })
            // Ties go to the earlier sentence.
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        let Some((best, _)) = best else { break };
        for (i, similarity) in max_similarities.iter_mut().enumerate() {
            *similarity = similarity.max(similarities.similarity_between(i, best));
        }
        chosen.push(best);
    }
    chosen
}

/// Rescales scores to the range from 0 to 1, because the scores of one text are close together and similarities are not.
fn rescale_to_unit_range(scores: &[f32]) -> Vec<f32> {
    let least = scores.iter().copied().fold(f32::INFINITY, f32::min);
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let width = (most - least).max(f32::MIN_POSITIVE);
    scores.iter().map(|score| (score - least) / width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_sentences_are_selected_once() {
        let vectors = [vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0]];
        let similarities = SimilarityMatrix::from_vectors(&vectors);
        assert_eq!(select_sentences(&similarities, &[0.9, 1.0, 0.5], 2), [1, 2]);
        assert_eq!(select_sentences(&similarities, &[0.9, 1.0, 0.5], 9), [1, 2]);
        assert_eq!(select_sentences(&similarities, &[1.0, 1.0, 1.0], 1), [0]);
        assert!(select_sentences(&similarities, &[], 3).is_empty());
    }
}

//! Scores the centrality of sentences with LexRank (Erkan, Radev: "LexRank: Graph-based Lexical Centrality as Salience in Text
//! Summarization", JAIR 22, 2004), using embeddings instead of word counts.
//!
//! Sentences are nodes, and similarities are the weights of edges. A sentence is central if it is similar to central sentences.
//! The scores are the stationary distribution of a random walk between sentences, with occasional jumps to any sentence. This
//! is the continuous form, without a similarity threshold.

/// Probability of a random jump per step, as in the paper.
const JUMP_PROBABILITY: f32 = 0.15;
/// Maximum number of steps, and the total change at which the walk has converged.
const MAX_ITERATIONS: usize = 100;
const CONVERGENCE_THRESHOLD: f32 = 1e-5;

/// The pairwise similarities of sentences, from 0 to 1.
pub(super) struct SimilarityMatrix {
    rows: Vec<Vec<f32>>,
}

impl SimilarityMatrix {
    /// Computes the similarities of unit vectors. A vector with invalid numbers or another length has similarity 0 to all
    /// others.
    pub(super) fn from_vectors(vectors: &[Vec<f32>]) -> Self {
        let dot = |a: &[f32], b: &[f32]| -> f32 {
            let product: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            if product.is_finite() {
                product.clamp(0.0, 1.0)
            } else {
                0.0
            }
        };
        let row = |(i, a): (usize, &Vec<f32>)| {
            let others = vectors.iter().enumerate();
            // The similarity of a sentence to itself would keep the walk in place.
            others
                .map(|(j, b)| if i == j { 0.0 } else { dot(a, b) })
                .collect()
        };
        Self {
            rows: vectors.iter().enumerate().map(row).collect(),
        }
    }

    /// The similarity of two different sentences; 0 for a sentence and itself.
    pub(super) fn similarity_between(&self, one: usize, other: usize) -> f32 {
        let row = self.rows.get(one);
        row.and_then(|row| row.get(other)).copied().unwrap_or_default()
    }
}

/// Returns a score per sentence, from 0 to 1 for the most central one.
pub(super) fn compute_centrality_scores(similarities: &SimilarityMatrix) -> Vec<f32> {
    let count = similarities.rows.len();
    let even = 1.0 / count.max(1) as f32;
    let sums: Vec<f32> = similarities.rows.iter().map(|row| row.iter().sum()).collect();
    let mut scores = vec![even; count];
    for _ in 0..MAX_ITERATIONS {
        // The similarity is symmetric, so a row also holds the weights of the edges to its sentence.
        let share: Vec<f32> = scores
            .iter()
            .zip(&sums)
            .map(|(score, sum)| if *sum > 0.0 { score / sum } else { 0.0 })
            .collect();
        let next: Vec<f32> = similarities
            .rows
            .iter()
            .map(|row| {
                let led: f32 = row
                    .iter()
                    .zip(&share)
                    .map(|(similarity, share)| similarity * share)
                    .sum();
                JUMP_PROBABILITY * even + (1.0 - JUMP_PROBABILITY) * led
            })
            .collect();
        let change: f32 = next.iter().zip(&scores).map(|(a, b)| (a - b).abs()).sum();
        scores = next;
        if change < CONVERGENCE_THRESHOLD {
            break;
        }
    }
    let most = scores.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    scores.into_iter().map(|score| score / most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit_vector(x: f32, y: f32, z: f32) -> Vec<f32> {
        let length = (x * x + y * y + z * z).sqrt();
        vec![x / length, y / length, z / length]
    }

    #[test]
    fn central_sentence_scores_highest_and_outlier_lowest() {
        let vectors = [
            unit_vector(1.0, 0.2, 0.0),
            unit_vector(1.0, 0.0, 0.0),
            unit_vector(1.0, -0.2, 0.0),
            unit_vector(0.0, 0.0, 1.0),
        ];
        let scores = compute_centrality_scores(&SimilarityMatrix::from_vectors(&vectors));
        assert!((scores[1] - 1.0).abs() < 1e-6, "{scores:?}");
        assert!(
            scores[0] < scores[1] && scores[2] < scores[1] && scores[3] < scores[0],
            "{scores:?}"
        );
    }

    #[test]
    fn invalid_vectors_give_finite_scores() {
        assert!(compute_centrality_scores(&SimilarityMatrix::from_vectors(&[])).is_empty());
        let scores = compute_centrality_scores(&SimilarityMatrix::from_vectors(&[
            vec![f32::NAN; 3],
            vec![0.0; 3],
            vec![],
            unit_vector(1.0, 0.0, 0.0),
        ]));
        assert!(scores.iter().all(|score| score.is_finite()), "{scores:?}");
    }
}

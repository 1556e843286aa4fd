//! How much a sentence says: LexRank (Erkan, Radev: "LexRank: Graph-based Lexical Centrality as Salience in Text
//! Summarization", JAIR 22, 2004), over vectors of meaning instead of counts of words.
//!
//! Sentences are nodes, likeness is how strongly two are joined, and a sentence says much if it is like sentences that do: the
//! stationary distribution of a walk from sentence to sentence, with a jump anywhere now and then. This is the continuous form,
//! without a threshold for likeness.

/// Chance of a jump anywhere at each step; what the paper uses.
const JUMP: f32 = 0.15;
/// Steps at most, and the change at which the walk is settled.
const STEPS: usize = 100;
const SETTLED: f32 = 1e-5;

/// How alike sentences are, each pair from 0 to 1.
pub(super) struct Likeness {
    rows: Vec<Vec<f32>>,
}

impl Likeness {
    /// Of vectors of unit length. A vector that is none, or of another length, is like nothing.
    pub(super) fn of(vectors: &[Vec<f32>]) -> Self {
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
            // Like itself a sentence always is, which would keep the walk where it stands.
            others
                .map(|(j, b)| if i == j { 0.0 } else { dot(a, b) })
                .collect()
        };
        Self {
            rows: vectors.iter().enumerate().map(row).collect(),
        }
    }

    /// Of two sentences; of one with itself, none.
    pub(super) fn between(&self, one: usize, other: usize) -> f32 {
        let row = self.rows.get(one);
        row.and_then(|row| row.get(other)).copied().unwrap_or_default()
    }
}

/// How much each sentence says, from 0 to 1 for the one that says most.
pub(super) fn scores(likeness: &Likeness) -> Vec<f32> {
    let count = likeness.rows.len();
    let even = 1.0 / count.max(1) as f32;
    let sums: Vec<f32> = likeness.rows.iter().map(|row| row.iter().sum()).collect();
    let mut scores = vec![even; count];
    for _ in 0..STEPS {
        // Likeness is symmetric, so a sentence's row is also how strongly the others lead to it.
        let share: Vec<f32> = scores
            .iter()
            .zip(&sums)
            .map(|(score, sum)| if *sum > 0.0 { score / sum } else { 0.0 })
            .collect();
        let next: Vec<f32> = likeness
            .rows
            .iter()
            .map(|row| {
                let led: f32 = row
                    .iter()
                    .zip(&share)
                    .map(|(likeness, share)| likeness * share)
                    .sum();
                JUMP * even + (1.0 - JUMP) * led
            })
            .collect();
        let change: f32 = next.iter().zip(&scores).map(|(a, b)| (a - b).abs()).sum();
        scores = next;
        if change < SETTLED {
            break;
        }
    }
    let most = scores.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    scores.into_iter().map(|score| score / most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(x: f32, y: f32, z: f32) -> Vec<f32> {
        let length = (x * x + y * y + z * z).sqrt();
        vec![x / length, y / length, z / length]
    }

    #[test]
    fn what_is_like_most_says_most_and_what_is_like_nothing_least() {
        let vectors = [
            unit(1.0, 0.2, 0.0),
            unit(1.0, 0.0, 0.0),
            unit(1.0, -0.2, 0.0),
            unit(0.0, 0.0, 1.0),
        ];
        let scores = scores(&Likeness::of(&vectors));
        assert!((scores[1] - 1.0).abs() < 1e-6, "{scores:?}");
        assert!(
            scores[0] < scores[1] && scores[2] < scores[1] && scores[3] < scores[0],
            "{scores:?}"
        );
    }

    #[test]
    fn vectors_that_are_none_do_no_harm() {
        assert!(scores(&Likeness::of(&[])).is_empty());
        let scores = scores(&Likeness::of(&[
            vec![f32::NAN; 3],
            vec![0.0; 3],
            vec![],
            unit(1.0, 0.0, 0.0),
        ]));
        assert!(scores.iter().all(|score| score.is_finite()), "{scores:?}");
    }
}

//! Which sentences: those that say most and do not say it twice.
//!
//! Maximal marginal relevance (Carbonell, Goldstein: "The Use of MMR, Diversity-Based Reranking for Reordering Documents and
//! Producing Summaries", SIGIR 1998): one after the other, each time the sentence that says most, less what it has in common
//! with what was chosen.

use super::centrality::Likeness;

/// How much saying much counts against saying something new.
const RELEVANCE: f32 = 0.7;
/// Sentences this alike say the same.
const SAME: f32 = 0.95;

/// At most so many sentences, the best first; fewer where the others only say the same again.
pub(super) fn choose(likeness: &Likeness, scores: &[f32], count: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::with_capacity(count);
    let scores = spread(scores);
    // How much each has in common with what was chosen.
    let mut said = vec![0.0_f32; scores.len()];
    while chosen.len() < count {
        let gain =
            |(i, (score, said)): (usize, (&f32, &f32))| (i, RELEVANCE * score - (1.0 - RELEVANCE) * said);
        let best = scores
            .iter()
            .zip(&said)
            .enumerate()
            .map(gain)
            .filter(|(i, _)| !chosen.contains(i) && said.get(*i).is_some_and(|said| *said < SAME))
            // Of equals the earlier.
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        let Some((best, _)) = best else { break };
        for (i, said) in said.iter_mut().enumerate() {
            *said = said.max(likeness.between(i, best));
        }
        chosen.push(best);
    }
    chosen
}

/// The scores from 0 to 1: those of one text lie close together, and likeness does not.
fn spread(scores: &[f32]) -> Vec<f32> {
    let least = scores.iter().copied().fold(f32::INFINITY, f32::min);
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let width = (most - least).max(f32::MIN_POSITIVE);
    scores.iter().map(|score| (score - least) / width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_not_said_again() {
        let vectors = [vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0]];
        let likeness = Likeness::of(&vectors);
        assert_eq!(choose(&likeness, &[0.9, 1.0, 0.5], 2), [1, 2]);
        assert_eq!(choose(&likeness, &[0.9, 1.0, 0.5], 9), [1, 2]);
        assert_eq!(choose(&likeness, &[1.0, 1.0, 1.0], 1), [0]);
        assert!(choose(&likeness, &[], 3).is_empty());
    }
}

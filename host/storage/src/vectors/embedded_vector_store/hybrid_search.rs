//! A search: the passages that are nearest by embedding and those that are best by words, joined by reciprocal rank fusion.

use std::collections::HashMap;

use weir_core::StorageError;
use weir_core::search::{SearchHit, SearchQuery};

use super::code_index::CodeIndex;
use super::half_vector::dot;
use super::passage_database::{PassageDatabase, PassageNumber, TenantNumber};
use super::word_index::WordIndex;
use crate::vectors::hybrid_ranking::{MAX_HITS, RRF_K, candidate_count, sort_hits};
use crate::vectors::passage_filter::PassageFilter;
use crate::vectors::passage_payload::{FoundPoint, to_search_hit};
use crate::vectors::query_word_matcher::QueryWordMatcher;
use crate::vectors::words::WordSplitter;

/// Up to this number of passages, all exact vectors are compared with the query, and there are no codes.
pub(super) const MAX_SCANNED_PASSAGES: u64 = 2000;
/// Passages that are found by their codes and compared exactly, at least. Of the 100 nearest of a million, 0.935 are among the first 100
/// by code, and all are among the first 150 (`docs/performance.md`).
const MIN_COMPARED_PASSAGES: usize = 150;

/// The parts of an index that a search of one tenant reads.
pub(super) struct SearchedIndex<'a> {
    pub(super) database: &'a PassageDatabase,
    pub(super) words: &'a WordIndex,
    /// `None` if the tenant has at most [`MAX_SCANNED_PASSAGES`].
    pub(super) codes: Option<&'a CodeIndex>,
    pub(super) splitter: &'a WordSplitter,
    pub(super) tenant: TenantNumber,
    /// The number of the tenant's passages.
    pub(super) passages: u64,
}

impl SearchedIndex<'_> {
    /// Returns the hits, best first.
    pub(super) fn search(
        &self,
        query: &SearchQuery,
        filter: &PassageFilter,
    ) -> Result<Vec<SearchHit>, StorageError> {
        let limit = query.top_k.clamp(1, MAX_HITS);
        let candidates = candidate_count(limit);
        let nearest = self.rank_by_vector(&query.dense_vector, filter, candidates)?;
        let words = self.splitter.split_query(&query.query_text);
        let best = match words.is_empty() {
            true => Vec::new(),
            false => self
                .words
                .find_best(self.tenant, &words, filter, self.passages, candidates)?,
        };
        self.read_hits(&fuse_rankings([&nearest, &best]), query, filter, limit)
    }

    fn rank_by_vector(
        &self,
        query: &[f32],
        filter: &PassageFilter,
        limit: usize,
    ) -> Result<Vec<PassageNumber>, StorageError> {
        let mut scored: Vec<(f32, PassageNumber)> = Vec::new();
        let mut compare = |number, vector: &[f32]| scored.push((dot(vector, query), number));
        let allowed = self.words.list_matching(self.tenant, filter)?;
        // A filter that selects everything is none. `read_hits` checks it again, because passages may have been removed meanwhile.
        let allowed = allowed.filter(|allowed| allowed.len() as u64 != self.passages);
        match (allowed, self.codes) {
            (Some(allowed), codes) => match codes {
                Some(codes) if allowed.len() as u64 > MAX_SCANNED_PASSAGES => {
                    let found = codes.find_nearest(query, compared_count(limit), Some(&allowed))?;
                    self.database.read_vectors(self.tenant, &found, compare)?;
                }
                _ => self.database.read_vectors(self.tenant, &allowed, compare)?,
            },
            (None, Some(codes)) => {
                let found = codes.find_nearest(query, compared_count(limit), None)?;
                self.database.read_vectors(self.tenant, &found, compare)?;
            }
            (None, None) => self.database.read_all_vectors(self.tenant, |number, vector| {
                compare(number, vector);
                Ok(())
            })?,
        }
        scored.sort_unstable_by(|(a, i), (b, j)| b.total_cmp(a).then_with(|| i.cmp(j)));
        scored.truncate(limit);
        Ok(scored.into_iter().map(|(_, number)| number).collect())
    }

    /// Reads the first `limit` of the ranked passages that still exist and match the filter.
    fn read_hits(
        &self,
        ranked: &[(PassageNumber, f32)],
        query: &SearchQuery,
        filter: &PassageFilter,
        limit: usize,
    ) -> Result<Vec<SearchHit>, StorageError> {
        let mut matcher = QueryWordMatcher::new(self.splitter, &query.query_text);
        let mut hits = Vec::with_capacity(limit.min(ranked.len()));
        for (number, score) in ranked {
            if hits.len() == limit {
                break;
            }
            // A passage can have been removed meanwhile.
            let payload = self.database.find_payload(*number)?;
            let Some(payload) = payload.filter(|payload| filter.matches_keys(&payload.keys)) else {
                continue;
            };
            let mut dense_vector = Vec::new();
            self.database.read_vectors(self.tenant, &[*number], |_, vector| {
                dense_vector = vector.to_vec();
            })?;
            let found = FoundPoint {
                score: *score,
                payload,
                dense_vector,
            };
            hits.push(to_search_hit(found, &query.dense_vector, &mut matcher));
        }
        Ok(sort_hits(hits))
    }
}

const fn compared_count(limit: usize) -> usize {
    let half_more = limit + limit / 2;
    if half_more > MIN_COMPARED_PASSAGES {
        half_more
    } else {
        MIN_COMPARED_PASSAGES
    }
}

/// Joins rankings: the score of a passage is the sum of 1 / (k + its place from 0) of the rankings that have it. Best first.
fn fuse_rankings(rankings: [&[PassageNumber]; 2]) -> Vec<(PassageNumber, f32)> {
    let mut scores: HashMap<PassageNumber, f32> = HashMap::new();
    for ranking in rankings {
        for (place, number) in (0_u16..).zip(ranking) {
            *scores.entry(*number).or_default() += (f32::from(RRF_K) + f32::from(place)).recip();
        }
    }
    let mut ranked: Vec<_> = scores.into_iter().collect();
    ranked.sort_unstable_by(|(i, a), (j, b)| b.total_cmp(a).then_with(|| i.cmp(j)));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_of_both_rankings_come_first() {
        let fused = fuse_rankings([&[1, 2, 3], &[3, 4]]);
        let numbers: Vec<_> = fused.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 1, 2, 4]);
        assert!((fused[0].1 - (0.5 + 0.25)).abs() < 1e-6);
    }
}

//! The parameters of a search that combines two rankings, and the order of its hits, the same for every index.

use weir_core::search::SearchHit;

/// Maximum number of hits of a search.
pub const MAX_HITS: usize = 1000;
/// Minimum number of candidates of each ranking, so that a passage that is good in both rankings is found in both.
const MIN_CANDIDATES: usize = 64;
/// The constant of reciprocal rank fusion.
pub(super) const RRF_K: u8 = 2;

/// Returns the number of candidates of each ranking for a search with at most `limit` hits.
pub(super) fn candidate_count(limit: usize) -> usize {
    (2 * limit).max(MIN_CANDIDATES)
}

/// Sorts hits with the numbers of their passages: best first and, with equal scores, which are common in rank fusion, by document.
pub(super) fn sort_hits(mut hits: Vec<(SearchHit, u32)>) -> Vec<SearchHit> {
    hits.sort_by(|(a, i), (b, j)| {
        b.score
            .total_cmp(&a.score)
            .then_with(|| (&a.document, a.page, i).cmp(&(&b.document, b.page, j)))
    });
    hits.into_iter().map(|(hit, _)| hit).collect()
}

//! Packs pieces of text into passages of similar length.
//!
//! Filling each passage completely would leave a short rest at the end of every section, and searches cannot find a passage of half
//! a sentence. So the smallest number of passages is computed first, and the text is divided evenly among them. Each cut is at the
//! sentence nearest to the even share, or at a paragraph that is near. The number of passages, and so the time of the embedding
//! model, is the same as with full passages.

use std::ops::Range;

use weir_sdk::Range as Span;

use crate::pieces::Piece;
use crate::sentences::Boundary;

/// How much farther from the even share the start of a paragraph may be than that of a sentence, in passages.
const PARAGRAPH_BONUS: f64 = 0.2;

/// Groups pieces so that each group fits into a passage. The groups are ranges of pieces.
fn group_pieces(pieces: &[Piece]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut left: f64 = pieces.iter().map(|piece| piece.share).sum();
    let mut start = 0;
    while let Some(rest) = pieces.get(start..).filter(|rest| !rest.is_empty()) {
        let (count, share) = choose_next_group(rest, left);
        groups.push(start..start + count);
        start += count;
        left -= share;
    }
    groups
}

/// Chooses the pieces of the next passage. Returns their number and the share of a passage that they take.
fn choose_next_group(rest: &[Piece], left: f64) -> (usize, f64) {
    // Sums of many shares have rounding errors.
    let passages = (left - 1e-6).ceil().max(1.0);
    if passages <= 1.0 {
        return (rest.len(), left);
    }
    let aim = left / passages;
    let mut best = (f64::INFINITY, 1, rest.first().map_or(0.0, |piece| piece.share));
    let mut size = 0.0;
    for (count, (piece, next)) in rest.iter().zip(rest.iter().skip(1)).enumerate() {
        size += piece.share;
        if size > 1.0 {
            break;
        }
        let mut distance = (size - aim).abs();
        if next.boundary >= Boundary::Paragraph {
            distance -= PARAGRAPH_BONUS;
        }
        // The cut must not increase the number of passages for the rest.
        if left - size > passages - 1.0 {
            distance += 1.0;
        }
        if distance < best.0 {
            best = (distance, count + 1, size);
        }
    }
    (best.1, best.2)
}

/// Packs consecutive pieces into passages and returns their byte ranges. Each passage repeats the last pieces of the previous one,
/// with at most `overlap_chars` characters together, and never the whole previous passage.
pub(crate) fn pack_passages(pieces: &[Piece], overlap_chars: u32) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut from = 0;
    for group in group_pieces(pieces) {
        let first = group.start
            - count_overlap_pieces(
                pieces.get(from..group.start).unwrap_or(&[]),
                overlap_chars as usize,
            );
        if let Some([first, .., last] | [first @ last]) = pieces.get(first..group.end) {
            spans.push(Span {
                start: first.at.start as u32,
                end: last.at.end as u32,
            });
        }
        from = first + 1;
    }
    spans
}

/// Counts the last pieces that have at most `chars` characters together.
fn count_overlap_pieces(before: &[Piece], chars: usize) -> usize {
    let mut left = chars;
    let fits = before.iter().rev().take_while(|piece| {
        let fits = piece.chars <= left;
        left = left.saturating_sub(piece.chars);
        fits
    });
    fits.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(shares: &[f64]) -> Vec<Piece> {
        let piece = |share: &f64| Piece {
            at: 0..1,
            boundary: Boundary::Sentence,
            share: *share,
            chars: (share * 100.0) as usize,
        };
        shares.iter().map(piece).collect()
    }

    #[test]
    fn text_is_shared_evenly_among_the_fewest_passages() {
        assert_eq!(group_pieces(&row(&[0.1; 12])), [0..6, 6..12]);
        assert_eq!(group_pieces(&row(&[0.1; 10])).len(), 1);
        assert_eq!(group_pieces(&row(&[0.3; 7])).len(), 3);
        assert_eq!(group_pieces(&[]), []);
    }

    #[test]
    fn cut_at_a_paragraph_near_the_even_share_is_preferred() {
        let mut pieces = row(&[0.1; 12]);
        pieces[7].boundary = Boundary::Paragraph;
        assert_eq!(group_pieces(&pieces), [0..7, 7..12]);
        pieces[7].boundary = Boundary::Sentence;
        assert_eq!(group_pieces(&pieces), [0..6, 6..12]);
    }

    #[test]
    fn pieces_as_large_as_a_passage_are_passages() {
        assert_eq!(group_pieces(&row(&[1.0, 1.0, 0.9])), [0..1, 1..2, 2..3]);
        assert_eq!(group_pieces(&row(&[0.9, 0.2, 0.9])).len(), 3);
    }

    #[test]
    fn an_overlap_is_of_whole_pieces_and_never_of_a_whole_passage() {
        assert_eq!(count_overlap_pieces(&row(&[0.1; 5]), 25), 2);
        assert_eq!(count_overlap_pieces(&row(&[0.1; 5]), 9), 0);
        let mut pieces = row(&[0.6; 4]);
        for (n, piece) in pieces.iter_mut().enumerate() {
            piece.at = n * 10..n * 10 + 9;
        }
        let spans = |overlap| {
            pack_passages(&pieces, overlap)
                .iter()
                .map(|s| (s.start, s.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(spans(0), [(0, 9), (10, 19), (20, 29), (30, 39)]);
        assert_eq!(spans(1000), [(0, 9), (10, 19), (20, 29), (30, 39)]);
    }
}

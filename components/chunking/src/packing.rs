//! From pieces to passages of about one length.
//!
//! Filling each passage to the brim leaves a tail at the end of every section, and a passage of half a sentence is found for
//! nothing. So the least number of passages is reckoned first and the text is shared among them evenly, each cut at the
//! sentence nearest to its share, or at a paragraph where one is near. The number of passages, and with it the time of the
//! embedding model, is the same as with full ones.

use std::ops::Range;

use weir_sdk::Range as Span;

use crate::pieces::Piece;
use crate::sentences::Opens;

/// How much farther from the even share a paragraph's beginning may lie than a sentence's, in passages.
const PARAGRAPH: f64 = 0.2;

/// Groups pieces so that each group fits a passage; the groups are ranges of pieces.
fn pack(pieces: &[Piece]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut left: f64 = pieces.iter().map(|piece| piece.share).sum();
    let mut start = 0;
    while let Some(rest) = pieces.get(start..).filter(|rest| !rest.is_empty()) {
        let (count, share) = take(rest, left);
        groups.push(start..start + count);
        start += count;
        left -= share;
    }
    groups
}

/// How many pieces make the next passage, and what share of one they take.
fn take(rest: &[Piece], left: f64) -> (usize, f64) {
    // Sums of many shares are not exact.
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
        if next.opens >= Opens::Paragraph {
            distance -= PARAGRAPH;
        }
        // What is left must not need one passage more for it.
        if left - size > passages - 1.0 {
            distance += 1.0;
        }
        if distance < best.0 {
            best = (distance, count + 1, size);
        }
    }
    (best.1, best.2)
}

/// The passages of a row of pieces, as ranges of bytes. Each repeats what stands before it: whole pieces of at most
/// `overlap_chars` characters together, and never all of the passage before.
pub(crate) fn passages(pieces: &[Piece], overlap_chars: u32) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut from = 0;
    for group in pack(pieces) {
        let first = group.start
            - repeated(
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

/// How many of the last pieces have at most so many characters together.
fn repeated(before: &[Piece], chars: usize) -> usize {
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
            opens: Opens::Sentence,
            share: *share,
            chars: (share * 100.0) as usize,
        };
        shares.iter().map(piece).collect()
    }

    #[test]
    fn text_is_shared_evenly_among_the_fewest_passages() {
        assert_eq!(pack(&row(&[0.1; 12])), [0..6, 6..12]);
        assert_eq!(pack(&row(&[0.1; 10])).len(), 1);
        assert_eq!(pack(&row(&[0.3; 7])).len(), 3);
        assert_eq!(pack(&[]), []);
    }

    #[test]
    fn a_paragraph_near_the_even_share_is_preferred() {
        let mut pieces = row(&[0.1; 12]);
        pieces[7].opens = Opens::Paragraph;
        assert_eq!(pack(&pieces), [0..7, 7..12]);
        pieces[7].opens = Opens::Sentence;
        assert_eq!(pack(&pieces), [0..6, 6..12]);
    }

    #[test]
    fn pieces_as_large_as_a_passage_are_passages() {
        assert_eq!(pack(&row(&[1.0, 1.0, 0.9])), [0..1, 1..2, 2..3]);
        assert_eq!(pack(&row(&[0.9, 0.2, 0.9])).len(), 3);
    }

    #[test]
    fn an_overlap_is_of_whole_pieces_and_never_of_a_whole_passage() {
        assert_eq!(repeated(&row(&[0.1; 5]), 25), 2);
        assert_eq!(repeated(&row(&[0.1; 5]), 9), 0);
        let mut pieces = row(&[0.6; 4]);
        for (n, piece) in pieces.iter_mut().enumerate() {
            piece.at = n * 10..n * 10 + 9;
        }
        let spans = |overlap| {
            passages(&pieces, overlap)
                .iter()
                .map(|s| (s.start, s.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(spans(0), [(0, 9), (10, 19), (20, 29), (30, 39)]);
        assert_eq!(spans(1000), [(0, 9), (10, 19), (20, 29), (30, 39)]);
    }
}

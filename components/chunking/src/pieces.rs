//! Splits a text into pieces that are not cut: sentences, or lines and words of sentences that do not fit into a passage.

use std::ops::Range;

use weir_sdk::chunking::Heading;

use crate::passage_budget::PassageBudget;
use crate::sentences::{Boundary, Cut, find_cuts};

/// A piece of text without the white space around it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) at: Range<usize>,
    pub(crate) boundary: Boundary,
    /// The share of a passage that the piece takes, including the white space after it.
    pub(crate) share: f64,
    /// The number of characters, including the white space after the piece.
    pub(crate) chars: usize,
}

/// Splits a text into pieces, in order. Together they contain everything but white space.
pub(crate) fn split_pieces(text: &str, headings: &[Heading], budget: &PassageBudget) -> Vec<Piece> {
    let cuts = merge_headings(text, find_cuts(text), headings);
    let starts = [Cut {
        at: 0,
        boundary: Boundary::Section,
    }]
    .into_iter()
    .chain(cuts.iter().copied());
    let ends = cuts.iter().map(|cut| cut.at).chain([text.len()]);
    let mut pieces = PieceSplitter {
        text,
        budget,
        pieces: Vec::with_capacity(cuts.len() + 1),
        pending_boundary: Boundary::Word,
    };
    for (start, end) in starts.zip(ends) {
        pieces.add_part(start.at..end, start.boundary, &[Boundary::Line, Boundary::Word]);
    }
    pieces.pieces
}

/// Adds a section boundary before each heading and removes cuts in the heading or directly after it, so that a heading stays with its
/// first sentence.
fn merge_headings(text: &str, cuts: Vec<Cut>, headings: &[Heading]) -> Vec<Cut> {
    let mut merged = Vec::with_capacity(cuts.len() + headings.len());
    let mut cuts = cuts.into_iter().peekable();
    let mut bound = 0;
    for heading in headings {
        let (start, end) = (heading.at.start as usize, heading.at.end as usize);
        let Some(behind) = text.get(start..).and_then(|_| text.get(end..)) else {
            continue;
        };
        if start < bound || end <= start {
            continue;
        }
        while let Some(cut) = cuts.next_if(|cut| cut.at < start) {
            merged.push(cut);
        }
        merged.push(Cut {
            at: start,
            boundary: Boundary::Section,
        });
        bound = text.len() - behind.trim_start().len();
        while cuts.next_if(|cut| cut.at <= bound).is_some() {}
    }
    merged.extend(cuts);
    merged
}

struct PieceSplitter<'a> {
    text: &'a str,
    budget: &'a PassageBudget,
    pieces: Vec<Piece>,
    /// The boundary of a preceding part that was only white space.
    pending_boundary: Boundary,
}

impl PieceSplitter<'_> {
    /// Adds a part of the text. A part that does not fit into a passage is split further, at the first kind of boundary in `finer` that
    /// helps.
    fn add_part(&mut self, at: Range<usize>, boundary: Boundary, finer: &[Boundary]) {
        let Some(part) = self.text.get(at.clone()) else {
            return;
        };
        let boundary = boundary.max(self.pending_boundary);
        let body = part.trim_start();
        let start = at.end - body.len();
        let space = part.get(..part.len() - body.len()).unwrap_or("");
        let (share, chars) = (self.text_share(space), space.chars().count());
        if let Some(last) = self.pieces.last_mut() {
            last.share += share;
            last.chars += chars;
        }
        self.pending_boundary = boundary;
        if body.is_empty() {
            return;
        }
        let whole = self.text_share(body);
        match finer {
            [first, rest @ ..] if whole > 1.0 && self.text_share(body.trim_end()) > 1.0 => {
                let ends: Vec<usize> = match first {
                    Boundary::Line => body.match_indices('\n').map(|(at, _)| at + 1).collect(),
                    _ => self.find_word_cuts(body),
                };
                let mut from = start;
                for end in ends.into_iter().map(|end| start + end).chain([at.end]) {
                    self.add_part(from..end, *first, rest);
                    from = end;
                }
            }
            _ => {
                self.pieces.push(Piece {
                    at: start..start + body.trim_end().len(),
                    boundary,
                    share: whole,
                    chars: body.chars().count(),
                });
                self.pending_boundary = Boundary::Word;
            }
        }
    }

    fn text_share(&self, text: &str) -> f64 {
        text.chars().map(|c| self.budget.char_share(c)).sum()
    }

    /// Finds where to cut a line so that its parts fit and have similar lengths: after a space, or anywhere if there is none.
    fn find_word_cuts(&self, line: &str) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut left = self.text_share(line.trim_end());
        let mut aim = left / left.ceil().max(1.0);
        // The current part, and the share of it before its last space.
        let mut size = 0.0;
        let mut space: Option<(usize, f64)> = None;
        for (at, c) in line.char_indices() {
            let step = self.budget.char_share(c);
            // Only a word longer than a passage is cut, not one that is longer than the target.
            let end = match space {
                Some(end) if size + step > aim => Some(end),
                None if size + step > 1.0 && size > 0.0 => Some((at, size)),
                _ => None,
            };
            if let Some((end, before)) = end.filter(|_| !c.is_whitespace()) {
                ends.push(end);
                space = None;
                left -= before;
                aim = left / left.ceil().max(1.0);
                size -= before;
            }
            size += step;
            if c.is_whitespace() {
                space = Some((at + c.len_utf8(), size));
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::Range as Span;

    fn texts<'a>(text: &'a str, headings: &[Heading], chars: u32) -> Vec<(&'a str, Boundary)> {
        let budget = PassageBudget::of_chars(chars);
        let pieces = split_pieces(text, headings, &budget);
        assert!(pieces.iter().all(|p| p.share <= 1.0 + 1e-9), "{pieces:?}");
        pieces.into_iter().map(|p| (&text[p.at], p.boundary)).collect()
    }

    fn heading(text: &str, title: &str) -> Heading {
        let start = text.find(title).unwrap() as u32;
        Heading {
            at: Span {
                start,
                end: start + title.len() as u32,
            },
            level: 1,
        }
    }

    #[test]
    fn a_heading_opens_a_section_and_stays_with_its_first_sentence() {
        let text = "Before. What is it? It is. And more.";
        assert_eq!(
            texts(text, &[heading(text, "What is it?")], 900),
            [
                ("Before.", Boundary::Section),
                ("What is it? It is.", Boundary::Section),
                ("And more.", Boundary::Sentence),
            ]
        );
    }

    #[test]
    fn invalid_headings_are_ignored() {
        let text = "é one. Two.";
        let at = |start, end| Heading {
            at: Span { start, end },
            level: 1,
        };
        let odd = [at(1, 3), at(5, 4), at(3, 999), at(u32::MAX, u32::MAX)];
        assert_eq!(texts(text, &odd, 900).len(), 2);
    }

    #[test]
    fn a_sentence_too_long_is_cut_at_its_lines() {
        let text = "alpha beta\ngamma delta\nepsilon";
        assert_eq!(
            texts(text, &[], 15),
            [
                ("alpha beta", Boundary::Section),
                ("gamma delta", Boundary::Line),
                ("epsilon", Boundary::Line),
            ]
        );
    }

    #[test]
    fn a_line_too_long_is_cut_at_words_and_a_word_too_long_anywhere() {
        let cut = |text| {
            texts(text, &[], 10)
                .into_iter()
                .map(|(t, _)| t)
                .collect::<Vec<_>>()
        };
        assert_eq!(cut("aaa bbb ccc ddd"), ["aaa bbb", "ccc ddd"]);
        assert_eq!(
            cut("aaaaaaaaaaaaaaaaaaaaaaaa"),
            ["aaaaaaaaaa", "aaaaaaaaaa", "aaaa"]
        );
        assert_eq!(cut("漢漢漢漢漢漢漢漢漢漢漢漢"), ["漢漢漢漢漢漢漢漢漢漢", "漢漢"]);
    }
}

//! A text as a row of pieces that are not to be cut: its sentences, or lines and words of those that do not fit a passage.

use std::ops::Range;

use weir_sdk::chunking::Heading;

use crate::sentences::{Cut, Opens, cuts};
use crate::size::Room;

/// A piece of text without space around it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) at: Range<usize>,
    pub(crate) opens: Opens,
    /// The share of a passage it takes, the space behind it included.
    pub(crate) share: f64,
    /// Its characters, likewise.
    pub(crate) chars: usize,
}

/// The pieces of a text, in order; together they hold all of it that is not space.
pub(crate) fn pieces(text: &str, headings: &[Heading], room: &Room) -> Vec<Piece> {
    let cuts = with_headings(text, cuts(text), headings);
    let starts = [Cut {
        at: 0,
        opens: Opens::Section,
    }]
    .into_iter()
    .chain(cuts.iter().copied());
    let ends = cuts.iter().map(|cut| cut.at).chain([text.len()]);
    let mut pieces = Pieces {
        text,
        room,
        pieces: Vec::with_capacity(cuts.len() + 1),
        carried: Opens::Word,
    };
    for (start, end) in starts.zip(ends) {
        pieces.add(start.at..end, start.opens, &[Opens::Line, Opens::Word]);
    }
    pieces.pieces
}

/// Puts a section's cut before each heading and none into it or right behind it: it stays with its first sentence.
fn with_headings(text: &str, cuts: Vec<Cut>, headings: &[Heading]) -> Vec<Cut> {
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
            opens: Opens::Section,
        });
        bound = text.len() - behind.trim_start().len();
        while cuts.next_if(|cut| cut.at <= bound).is_some() {}
    }
    merged.extend(cuts);
    merged
}

struct Pieces<'a> {
    text: &'a str,
    room: &'a Room,
    pieces: Vec<Piece>,
    /// What a part that was nothing but space would have opened.
    carried: Opens,
}

impl Pieces<'_> {
    /// Adds a part of the text; one that does not fit a passage is cut further, by the first of `finer` that helps.
    fn add(&mut self, at: Range<usize>, opens: Opens, finer: &[Opens]) {
        let Some(part) = self.text.get(at.clone()) else {
            return;
        };
        let opens = opens.max(self.carried);
        let body = part.trim_start();
        let start = at.end - body.len();
        let space = part.get(..part.len() - body.len()).unwrap_or("");
        let (share, chars) = (self.share(space), space.chars().count());
        if let Some(last) = self.pieces.last_mut() {
            last.share += share;
            last.chars += chars;
        }
        self.carried = opens;
        if body.is_empty() {
            return;
        }
        let whole = self.share(body);
        match finer {
            [first, rest @ ..] if whole > 1.0 && self.share(body.trim_end()) > 1.0 => {
                let ends: Vec<usize> = match first {
                    Opens::Line => body.match_indices('\n').map(|(at, _)| at + 1).collect(),
                    _ => self.word_ends(body),
                };
                let mut from = start;
                for end in ends.into_iter().map(|end| start + end).chain([at.end]) {
                    self.add(from..end, *first, rest);
                    from = end;
                }
            }
            _ => {
                self.pieces.push(Piece {
                    at: start..start + body.trim_end().len(),
                    opens,
                    share: whole,
                    chars: body.chars().count(),
                });
                self.carried = Opens::Word;
            }
        }
    }

    fn share(&self, text: &str) -> f64 {
        text.chars().map(|c| self.room.share(c)).sum()
    }

    /// Where a line is to be cut so that its parts fit and are of about one length: behind a space, or anywhere where there
    /// is none.
    fn word_ends(&self, line: &str) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut left = self.share(line.trim_end());
        let mut aim = left / left.ceil().max(1.0);
        // The part being measured, and what of it lies before its last space.
        let mut size = 0.0;
        let mut space: Option<(usize, f64)> = None;
        for (at, c) in line.char_indices() {
            let step = self.room.share(c);
            // A word longer than the aim is still one word; only one longer than a passage is cut.
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

    fn texts<'a>(text: &'a str, headings: &[Heading], chars: u32) -> Vec<(&'a str, Opens)> {
        let room = Room::chars(chars);
        let pieces = pieces(text, headings, &room);
        assert!(pieces.iter().all(|p| p.share <= 1.0 + 1e-9), "{pieces:?}");
        pieces.into_iter().map(|p| (&text[p.at], p.opens)).collect()
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
                ("Before.", Opens::Section),
                ("What is it? It is.", Opens::Section),
                ("And more.", Opens::Sentence),
            ]
        );
    }

    #[test]
    fn headings_that_cannot_be_are_passed_over() {
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
                ("alpha beta", Opens::Section),
                ("gamma delta", Opens::Line),
                ("epsilon", Opens::Line),
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

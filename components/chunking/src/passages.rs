//! Passages for the index.
//!
//! About 200 tokens: long enough to say something by itself, short enough that its vector means one thing, and within what
//! small embedding models see. A passage follows the text's own seams, a heading's above a paragraph's above a
//! sentence's. Passages do not overlap unless the tenant says so. An overlap mends passages that are cut in
//! mid-thought; these are cut between sentences, and on a CPU, where the embedding model bounds a text document, each
//! character that is embedded twice is paid twice.

use weir_sdk::Range;
use weir_sdk::chunking::PassageSource;

use crate::packing;
use crate::pieces::{Piece, pieces};
use crate::sentences::Opens;
use crate::size::Room;

/// What the tenant may set, in characters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PassageLimits {
    /// The longest passage, its overlap not counted.
    pub(crate) chars: u32,
    /// A section shorter than this shares its passage with a neighbour.
    pub(crate) min_chars: u32,
    /// What a passage repeats of the one before it in its section, at most, in whole sentences.
    pub(crate) overlap_chars: u32,
}

impl Default for PassageLimits {
    fn default() -> Self {
        Self {
            chars: 900,
            min_chars: 200,
            overlap_chars: 0,
        }
    }
}

/// The contract's limit.
const MOST_PASSAGES: usize = 4096;

/// The passages of a page.
pub(crate) fn passages(limits: &PassageLimits, source: &PassageSource) -> Vec<Range> {
    // A tenth less than the model sees, for the tokens are estimated.
    let tokens = (f64::from(source.max_tokens.max(16)) * 0.9) as u32;
    let mut room = Room::new(limits.chars, tokens, &source.text);
    loop {
        let ranges = within(&room, limits, source);
        if ranges.len() <= MOST_PASSAGES {
            return ranges;
        }
        // A text so long that its passages would be too many gets longer ones.
        room = room.doubled();
    }
}

fn within(room: &Room, limits: &PassageLimits, source: &PassageSource) -> Vec<Range> {
    let pieces = pieces(&source.text, &source.headings, room);
    let sections = sections(&pieces, limits.min_chars as usize);
    let pieces = sections
        .into_iter()
        .map(|section| pieces.get(section).unwrap_or(&[]));
    pieces
        .flat_map(|pieces| packing::passages(pieces, limits.overlap_chars))
        .collect()
}

/// The sections, as ranges of pieces; one that is shorter than `min_chars` is part of the next, or of the last.
fn sections(pieces: &[Piece], min_chars: usize) -> Vec<std::ops::Range<usize>> {
    let mut sections: Vec<std::ops::Range<usize>> = Vec::new();
    let (mut start, mut chars) = (0, 0);
    for (n, piece) in pieces.iter().enumerate() {
        if piece.opens == Opens::Section && chars >= min_chars.max(1) {
            sections.push(start..n);
            (start, chars) = (n, 0);
        }
        chars += piece.chars;
    }
    match sections.last_mut() {
        Some(last) if chars < min_chars => last.end = pieces.len(),
        _ => sections.push(start..pieces.len()),
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::chunking::Heading;

    fn source(text: &str, titles: &[&str]) -> PassageSource {
        let heading = |title: &&str| {
            let start = text.find(*title).unwrap() as u32;
            Heading {
                at: Range {
                    start,
                    end: start + title.len() as u32,
                },
                level: 1,
            }
        };
        PassageSource {
            document: "d".into(),
            page: 1,
            text: text.into(),
            headings: titles.iter().map(heading).collect(),
            max_tokens: 256,
        }
    }

    fn cut<'a>(text: &'a str, titles: &[&str], limits: PassageLimits) -> Vec<&'a str> {
        let ranges = passages(&limits, &source(text, titles));
        ranges
            .iter()
            .map(|r| &text[r.start as usize..r.end as usize])
            .collect()
    }

    fn prose(sentences: usize) -> String {
        "The quick brown fox jumps over the lazy dog near the old mill. ".repeat(sentences)
    }

    #[test]
    fn a_heading_starts_a_passage() {
        let text = format!("Rivers\n{}\nLakes\n{}", prose(5), prose(5));
        let passages = cut(&text, &["Rivers", "Lakes"], PassageLimits::default());
        assert_eq!(passages.len(), 2);
        assert!(passages[0].starts_with("Rivers\nThe quick") && passages[1].starts_with("Lakes\nThe quick"));
    }

    #[test]
    fn short_sections_share_a_passage() {
        let text = format!("7\nContents\nRivers\n{}\nLakes\nNone.", prose(5));
        let passages = cut(&text, &["Contents", "Rivers", "Lakes"], PassageLimits::default());
        assert_eq!(passages, [text.as_str()]);
        assert_eq!(cut("57", &[], PassageLimits::default()), ["57"]);
        assert!(cut(" \n\n ", &[], PassageLimits::default()).is_empty());
        assert!(cut("", &[], PassageLimits::default()).is_empty());
    }

    #[test]
    fn there_are_no_short_tails() {
        let text = prose(15); // 945 characters: one sentence too many for one passage
        let lengths: Vec<_> = cut(&text, &[], PassageLimits::default())
            .iter()
            .map(|p| p.len())
            .collect();
        assert_eq!(lengths, [503, 440]);
    }

    #[test]
    fn what_is_dense_is_cut_to_what_the_model_sees() {
        let table = "1234 5678 9012\n".repeat(100);
        assert!(
            cut(&table, &[], PassageLimits::default())
                .iter()
                .all(|p| p.len() < 560)
        );
        let chinese = "這是一個關於河流的句子。".repeat(60);
        let passages = cut(&chinese, &[], PassageLimits::default());
        assert!(
            passages
                .iter()
                .all(|p| p.chars().count() <= 230 && p.ends_with('。')),
            "{passages:?}"
        );
    }

    #[test]
    fn an_overlap_repeats_whole_sentences_within_a_section() {
        let text = format!("{}\nLakes\n{}", prose(20), prose(5));
        let limits = PassageLimits {
            overlap_chars: 100,
            ..PassageLimits::default()
        };
        let ranges = passages(&limits, &source(&text, &["Lakes"]));
        assert_eq!(ranges.len(), 3);
        assert_eq!(ranges[0].end - ranges[1].start, 62); // one sentence
        assert!(ranges[2].start > ranges[1].end);
    }

    #[test]
    fn a_page_of_a_megabyte_keeps_to_the_contract() {
        let long = "漢".repeat(2_000_000);
        let ranges = passages(&PassageLimits::default(), &source(&long, &[]));
        assert!(
            ranges.len() <= MOST_PASSAGES && ranges.len() > MOST_PASSAGES / 4,
            "{}",
            ranges.len()
        );
    }
}

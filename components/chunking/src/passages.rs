//! Cuts a page's text into passages for the index.
//!
//! A passage has about 200 tokens: long enough to be understood by itself, short enough that its vector has one topic, and within
//! the limit of small embedding models. Cuts at headings are preferred to cuts at paragraphs, and those to cuts at sentences.
//! Passages do not overlap by default. An overlap helps if passages are cut in the middle of a thought, but these are cut between
//! sentences. On a CPU, where the embedding model limits the speed of text documents, each repeated character costs time.

use weir_sdk::Range;
use weir_sdk::chunking::PassageSource;

use crate::packing;
use crate::passage_budget::PassageBudget;
use crate::pieces::{Piece, split_pieces};
use crate::sentences::Boundary;

/// The settings of the tenant, in characters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PassageLimits {
    /// The longest passage, without its overlap.
    pub(crate) chars: u32,
    /// A section shorter than this shares a passage with a neighbor.
    pub(crate) min_chars: u32,
    /// Largest overlap with the previous passage of the section, in whole sentences.
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

/// The limit of the contract.
const MAX_PASSAGES: usize = 4096;

pub(crate) fn page_passages(limits: &PassageLimits, source: &PassageSource) -> Vec<Range> {
    // The token counts are estimates, so the limit is 10 % below the model's.
    let tokens = (f64::from(source.max_tokens.max(16)) * 0.9) as u32;
    let mut budget = PassageBudget::new(limits.chars, tokens, &source.text);
    loop {
        let ranges = cut_passages(&budget, limits, source);
        if ranges.len() <= MAX_PASSAGES {
            return ranges;
        }
        // A very long text gets longer passages, so that their number stays within the limit.
        budget = budget.doubled();
    }
}

fn cut_passages(budget: &PassageBudget, limits: &PassageLimits, source: &PassageSource) -> Vec<Range> {
    let pieces = split_pieces(&source.text, &source.headings, budget);
    let sections = group_sections(&pieces, limits.min_chars as usize);
    let pieces = sections
        .into_iter()
        .map(|section| pieces.get(section).unwrap_or(&[]));
    pieces
        .flat_map(|pieces| packing::pack_passages(pieces, limits.overlap_chars))
        .collect()
}

/// Returns the sections as ranges of pieces. A section shorter than `min_chars` is joined with the next one, the last section with the
/// previous one.
fn group_sections(pieces: &[Piece], min_chars: usize) -> Vec<std::ops::Range<usize>> {
    let mut sections: Vec<std::ops::Range<usize>> = Vec::new();
    let (mut start, mut chars) = (0, 0);
    for (n, piece) in pieces.iter().enumerate() {
        if piece.boundary == Boundary::Section && chars >= min_chars.max(1) {
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
        let ranges = page_passages(&limits, &source(text, titles));
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
    fn last_passage_is_about_as_long_as_the_others() {
        let text = prose(15); // 945 characters: one sentence more than fits into one passage
        let lengths: Vec<_> = cut(&text, &[], PassageLimits::default())
            .iter()
            .map(|p| p.len())
            .collect();
        assert_eq!(lengths, [503, 440]);
    }

    #[test]
    fn dense_text_is_cut_to_the_models_token_limit() {
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
        let ranges = page_passages(&limits, &source(&text, &["Lakes"]));
        assert_eq!(ranges.len(), 3);
        assert_eq!(ranges[0].end - ranges[1].start, 62); // one sentence
        assert!(ranges[2].start > ranges[1].end);
    }

    #[test]
    fn page_of_megabytes_stays_below_the_passage_count_limit() {
        let long = "漢".repeat(2_000_000);
        let ranges = page_passages(&PassageLimits::default(), &source(&long, &[]));
        assert!(
            ranges.len() <= MAX_PASSAGES && ranges.len() > MAX_PASSAGES / 4,
            "{}",
            ranges.len()
        );
    }
}

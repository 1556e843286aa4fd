//! Property tests for arbitrary texts.

use proptest::prelude::*;
use weir_sdk::Range;
use weir_sdk::chunking::{Heading, PassageSource, Section, SummaryPlan};

use crate::passages::{PassageLimits, page_passages};
use crate::summaries::{SummaryLimits, plan_summary};

/// Generates texts like those of pages: words, numbers, punctuation of several scripts, lines, blank lines and some arbitrary strings.
fn page_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        6 => "[a-zA-Zäé]{1,12}",
        2 => "[0-9]{1,6}",
        2 => "[漢字かな]{1,20}",
        1 => Just("Dr.".to_owned()),
        1 => "[a-z]{200,400}",
        1 => any::<String>(),
    ];
    let glue = prop_oneof![
        8 => Just(" "), 3 => Just(". "), 2 => Just("\n"), 1 => Just("\n\n"), 1 => Just("。"), 1 => Just("! "), 1 => Just("\n• ")
    ];
    prop::collection::vec((word, glue), 0..300)
        .prop_map(|parts| parts.into_iter().flat_map(|(w, g)| [w, g.to_owned()]).collect())
}

fn passage_source() -> impl Strategy<Value = PassageSource> {
    (
        page_text(),
        prop::collection::vec((any::<u32>(), 0_u32..40), 0..6),
        16_u32..600,
    )
        .prop_map(|(text, odd, max_tokens)| {
            let length = text.len() as u32 + 3;
            let mut headings: Vec<_> = odd
                .into_iter()
                .map(|(at, long)| Heading {
                    at: Range {
                        start: at % length,
                        end: at % length + long,
                    },
                    level: 1,
                })
                .collect();
            headings.sort_by_key(|h| h.at.start);
            PassageSource {
                document: "d".into(),
                page: 1,
                text,
                headings,
                max_tokens,
            }
        })
}

/// Checks that ranges are ordered, not empty, inside the text and on character boundaries, and leave out only white space.
fn check_ranges(text: &str, ranges: &[Range]) -> Result<(), TestCaseError> {
    let mut covered = 0;
    let mut last = None;
    for range in ranges {
        let (start, end) = (range.start as usize, range.end as usize);
        prop_assert!(start < end && text.get(start..end).is_some(), "{range:?}");
        prop_assert!(last < Some(start), "not in order");
        if start > covered {
            prop_assert_eq!(text[covered..start].trim(), "");
        }
        (covered, last) = (covered.max(end), Some(start));
    }
    prop_assert_eq!(text[covered..].trim(), "");
    Ok(())
}

proptest! {
    #[test]
    fn passages_are_in_order_and_cover_the_text(
        source in passage_source(), chars in 50_u32..2000, min_chars in 0_u32..400, overlap_chars in 0_u32..300
    ) {
        let ranges = page_passages(&PassageLimits { chars, min_chars, overlap_chars }, &source);
        check_ranges(&source.text, &ranges)?;
        for range in &ranges {
            let passage = &source.text[range.start as usize..range.end as usize];
            prop_assert!(passage.chars().count() <= (chars + overlap_chars) as usize);
        }
    }

    #[test]
    fn no_word_that_fits_a_passage_is_cut(
        words in prop::collection::vec("[a-z]{1,30}[.,;]?[ \n]{1,2}", 0..300), chars in 50_u32..500
    ) {
        let source = PassageSource {
            document: "d".into(), page: 1, text: words.concat(), headings: vec![], max_tokens: 256,
        };
        for range in page_passages(&PassageLimits { chars, ..PassageLimits::default() }, &source) {
            let behind = &source.text[range.end as usize..];
            prop_assert!(behind.is_empty() || behind.starts_with(char::is_whitespace), "cut before {behind:?}");
        }
    }

    #[test]
    fn parts_of_a_summary_cover_the_section(text in page_text(), chunk_chars in 100_u32..1000, overlap_chars in 0_u32..400) {
        let limits = SummaryLimits { min_chars: 0, single_chars: 100, chunk_chars, overlap_chars, tokens: 100 };
        let section = Section {
            document: "d".into(), title: "t".into(), level: 1, first_page: 1, last_page: 1, text,
        };
        if let SummaryPlan::MapReduce(plan) = plan_summary(&limits, &section) {
            check_ranges(&section.text, &plan.ranges)?;
            for range in &plan.ranges {
                let part = &section.text[range.start as usize..range.end as usize];
                prop_assert!(part.chars().count() <= chunk_chars as usize);
            }
        }
    }
}

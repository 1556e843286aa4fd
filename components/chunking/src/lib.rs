//! The default chunking component, which cuts text into passages for the index and into parts for summaries.

mod packing;
mod passage_budget;
mod passages;
mod pieces;
mod sentences;
mod summaries;

#[cfg(test)]
mod property_tests;

use passages::PassageLimits;
use summaries::SummaryLimits;
use weir_sdk::chunking::{Chunking, PassageSource, Section, SummaryPlan};
use weir_sdk::{Range, settings};

struct DefaultChunking {
    passages: PassageLimits,
    summaries: SummaryLimits,
}

impl Default for DefaultChunking {
    fn default() -> Self {
        let (passages, summaries) = (PassageLimits::default(), SummaryLimits::default());
        Self {
            passages: PassageLimits {
                chars: settings::within("passage-chars", passages.chars, 50..=100_000),
                min_chars: settings::within("passage-min-chars", passages.min_chars, 0..=100_000),
                overlap_chars: settings::within("passage-overlap-chars", passages.overlap_chars, 0..=10_000),
            },
            summaries: SummaryLimits {
                min_chars: settings::within("summary-min-chars", summaries.min_chars, 0..=100_000),
                single_chars: settings::within(
                    "summary-single-chars",
                    summaries.single_chars,
                    100..=1_000_000,
                ),
                chunk_chars: settings::within("summary-chunk-chars", summaries.chunk_chars, 100..=1_000_000),
                overlap_chars: settings::within("summary-overlap-chars", summaries.overlap_chars, 0..=10_000),
                tokens: settings::within("summary-tokens", summaries.tokens, 1..=4096),
            },
        }
    }
}

impl Chunking for DefaultChunking {
    fn passages(&mut self, source: PassageSource) -> Vec<Range> {
        passages::page_passages(&self.passages, &source)
    }

    fn summarize(&mut self, section: Section) -> SummaryPlan {
        summaries::plan_summary(&self.summaries, &section)
    }
}

weir_sdk::export!(DefaultChunking: Chunking);

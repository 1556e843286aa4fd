//! Returns invalid ranges and summary plans; the setting `invalid-decision` selects the error.

use weir_sdk::Range;
use weir_sdk::chunking::{Chunking, MapReduce, PassageSource, Question, Section, SummaryPlan};

#[derive(Default)]
struct InvalidDecisions;

fn selected_error() -> &'static str {
    weir_hostile::choose_invalid_decision(&[
        "outside",
        "inside-a-character",
        "inverted",
        "empty",
        "unordered",
        "many",
        "no-tokens",
    ])
}

fn invalid_ranges(text: &str) -> Vec<Range> {
    let end = text.len() as u32;
    let range = |start, end| Range { start, end };
    match selected_error() {
        "outside" => vec![range(0, end), range(1, u32::MAX)],
        // Valid if every character is one byte.
        "inside-a-character" => text
            .char_indices()
            .find(|(_, c)| c.len_utf8() > 1)
            .map_or_else(Vec::new, |(at, _)| vec![range(at as u32 + 1, end)]),
        "inverted" => vec![range(end, 0)],
        "empty" => vec![range(0, 0)],
        "unordered" => vec![range(1, end), range(0, end)],
        "many" => vec![range(0, end); 5000],
        _ => vec![range(0, end)],
    }
}

fn request_without_tokens() -> Question {
    Question {
        prompt: "{text}".into(),
        max_tokens: 0,
    }
}

impl Chunking for InvalidDecisions {
    fn passages(&mut self, source: PassageSource) -> Vec<Range> {
        invalid_ranges(&source.text)
    }

    fn summarize(&mut self, section: Section) -> SummaryPlan {
        match selected_error() {
            "no-tokens" => SummaryPlan::Single(request_without_tokens()),
            _ => SummaryPlan::MapReduce(MapReduce {
                ranges: invalid_ranges(&section.text),
                map: request_without_tokens(),
                reduce: request_without_tokens(),
            }),
        }
    }
}

weir_sdk::export!(InvalidDecisions: Chunking);

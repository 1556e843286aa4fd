//! Answers with passages that cannot be; the setting `nonsense` says what is wrong with them.

use weir_sdk::Range;
use weir_sdk::chunking::{Chunking, MapReduce, PassageSource, Question, Section, SummaryPlan};

#[derive(Default)]
struct Nonsense;

fn kind() -> &'static str {
    weir_hostile::nonsense(&[
        "outside",
        "inside-a-character",
        "inverted",
        "empty",
        "unordered",
        "many",
        "no-tokens",
    ])
}

fn ranges(text: &str) -> Vec<Range> {
    let end = text.len() as u32;
    let range = |start, end| Range { start, end };
    match kind() {
        "outside" => vec![range(0, end), range(1, u32::MAX)],
        // Nothing is wrong with it where every character is one byte.
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

fn question() -> Question {
    Question {
        prompt: "{text}".into(),
        max_tokens: 0,
    }
}

impl Chunking for Nonsense {
    fn passages(&mut self, source: PassageSource) -> Vec<Range> {
        ranges(&source.text)
    }

    fn summarize(&mut self, section: Section) -> SummaryPlan {
        match kind() {
            "no-tokens" => SummaryPlan::Single(question()),
            _ => SummaryPlan::MapReduce(MapReduce {
                ranges: ranges(&section.text),
                map: question(),
                reduce: question(),
            }),
        }
    }
}

weir_sdk::export!(Nonsense: Chunking);

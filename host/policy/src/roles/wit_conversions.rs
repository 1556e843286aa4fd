//! Conversions between core types and WIT types that several roles share.

use std::ops::Range;

use weir_core::collection_and_labels::validate_labels;
use weir_core::decision::{Label, QueueState, StageTiming};
use weir_core::page::{PageFacts, Stage};

use crate::bindings::types;

pub(super) fn to_wit_page_facts(facts: &PageFacts) -> types::PageFacts {
    types::PageFacts {
        number: facts.number,
        width: facts.width,
        height: facts.height,
        text_chars: facts.text_chars,
        image_coverage: facts.image_coverage,
        readable: facts.readable,
    }
}

pub(super) fn to_wit_stage(stage: Stage) -> types::Stage {
    match stage {
        Stage::Rasterize => types::Stage::Rasterize,
        Stage::Store => types::Stage::Store,
        Stage::Read => types::Stage::Read,
        Stage::Embed => types::Stage::Embed,
        Stage::Upsert => types::Stage::Upsert,
    }
}

pub(super) fn to_wit_queues(queues: &[QueueState]) -> Vec<types::QueueState> {
    queues
        .iter()
        .map(|queue| types::QueueState {
            stage: to_wit_stage(queue.stage),
            depth: queue.depth,
            capacity: queue.capacity,
            workers: queue.workers,
        })
        .collect()
}

pub(super) fn to_wit_stage_times(times: &[StageTiming]) -> Vec<types::StageTime> {
    times
        .iter()
        .map(|time| types::StageTime {
            stage: to_wit_stage(time.stage),
            millis_per_page: time.millis_per_page,
            pages: time.pages,
        })
        .collect()
}

pub(super) fn to_wit_range(range: &Range<u32>) -> types::Range {
    types::Range {
        start: range.start,
        end: range.end,
    }
}

/// Converts labels. Fails if they are too many or too long.
pub(super) fn from_wit_labels(wit_labels: Vec<types::Label>) -> Result<Vec<Label>, String> {
    let labels: Vec<Label> = wit_labels
        .into_iter()
        .map(|label| (label.name, label.value))
        .collect();
    validate_labels(&labels).map_err(|error| error.to_string())?;
    Ok(labels)
}

/// Converts at most `most` ranges of `text`. Each must lie inside the text, on character boundaries, and not be empty. They must
/// be ordered by their starts.
pub(super) fn validate_ranges(
    text: &str,
    wit_ranges: Vec<types::Range>,
    max_ranges: usize,
) -> Result<Vec<Range<u32>>, String> {
    if wit_ranges.len() > max_ranges {
        return Err(format!("{} ranges, more than {max_ranges}", wit_ranges.len()));
    }
    let mut previous_start = 0;
    wit_ranges
        .into_iter()
        .map(|types::Range { start, end }| {
            if start >= end {
                return Err(format!("range {start}..{end} is empty"));
            }
            if text.get(start as usize..end as usize).is_none() {
                return Err(if end as usize > text.len() {
                    format!(
                        "range {start}..{end} ends outside the text of {} bytes",
                        text.len()
                    )
                } else {
                    format!("range {start}..{end} does not lie on character boundaries")
                });
            }
            if start < previous_start {
                return Err(format!("range {start}..{end} starts before the previous range"));
            }
            previous_start = start;
            Ok(start..end)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate_pairs(text: &str, pairs: &[(u32, u32)]) -> Result<Vec<Range<u32>>, String> {
        let wit_ranges = pairs.iter().map(|&(start, end)| types::Range { start, end });
        validate_ranges(text, wit_ranges.collect(), 4)
    }

    #[test]
    fn ranges_may_overlap_but_must_lie_in_the_text() {
        assert_eq!(
            validate_pairs("abcdef", &[(0, 3), (2, 6), (2, 3)]).unwrap(),
            [0..3, 2..6, 2..3]
        );
        assert_eq!(validate_pairs("abc", &[]).unwrap(), []);
        for (text, pairs, reason) in [
            ("abc", &[(1, 1)][..], "empty"),
            ("abc", &[(2, 1)], "empty"),
            ("abc", &[(0, 4)], "outside the text"),
            ("aäb", &[(0, 2)], "character boundaries"),
            ("aäb", &[(2, 4)], "character boundaries"),
            ("abc", &[(1, 2), (0, 3)], "starts before"),
            ("abcdef", &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], "more than 4"),
            ("abc", &[(u32::MAX - 1, u32::MAX)], "outside the text"),
        ] {
            let error = validate_pairs(text, pairs).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn too_many_or_too_long_labels_are_rejected() {
        let label = |name: &str, value: &str| types::Label {
            name: name.into(),
            value: value.into(),
        };
        assert_eq!(
            from_wit_labels(vec![label("a", "")]).unwrap(),
            [("a".to_owned(), String::new())]
        );
        assert!(from_wit_labels(vec![label("a", "b"); 17]).is_err());
        assert!(from_wit_labels(vec![label("", "b")]).is_err());
        assert!(from_wit_labels(vec![label("a\n", "b")]).is_err());
        assert!(from_wit_labels(vec![label("a", &"b".repeat(1025))]).is_err());
    }
}

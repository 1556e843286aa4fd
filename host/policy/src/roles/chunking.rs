//! The chunking role: ranges of text to index and to summarize.

use std::ops::Range;

use weir_core::decision::PolicyFunctionInput as _;
use weir_core::decision::{PageTextToSplit, SectionToSummarize, SummaryPlan, SummaryPrompt};

use super::{GuestFunction, check_range, missing_export_error, wit_conversions};
use crate::bindings::chunking;
use crate::instance::instance_data::LiveInstance;
use crate::recording::{PolicyFunctionCall, RecordedDecision};

/// Ranges of one decision.
const MAX_RANGES: usize = 4096;

impl GuestFunction for PageTextToSplit {
    const RECORD: fn(PolicyFunctionCall<Self>) -> RecordedDecision = RecordedDecision::Passages;
    type RawDecision = Vec<crate::bindings::types::Range>;

    async fn call_guest_function(&self, live: &mut LiveInstance) -> wasmtime::Result<Self::RawDecision> {
        let guest = live
            .exports
            .chunking
            .as_ref()
            .ok_or_else(|| missing_export_error(Self::ROLE))?;
        let source = chunking::PassageSource {
            document: self.document.to_string(),
            page: self.page,
            text: self.text.clone(),
            headings: self
                .headings
                .iter()
                .map(|heading| chunking::Heading {
                    at: wit_conversions::to_wit_range(&heading.range),
                    level: heading.level,
                })
                .collect(),
            max_tokens: self.max_tokens,
        };
        guest.call_passages(&mut live.store, &source).await
    }

    fn validate_decision(&self, raw_decision: Self::RawDecision) -> Result<Vec<Range<u32>>, String> {
        wit_conversions::validate_ranges(&self.text, raw_decision, MAX_RANGES)
    }
}

impl GuestFunction for SectionToSummarize {
    const RECORD: fn(PolicyFunctionCall<Self>) -> RecordedDecision = RecordedDecision::Summarize;
    type RawDecision = chunking::SummaryPlan;

    async fn call_guest_function(&self, live: &mut LiveInstance) -> wasmtime::Result<chunking::SummaryPlan> {
        let guest = live
            .exports
            .chunking
            .as_ref()
            .ok_or_else(|| missing_export_error(Self::ROLE))?;
        let section = chunking::Section {
            document: self.document.to_string(),
            title: self.title.clone(),
            level: self.level,
            first_page: self.first_page,
            last_page: self.last_page,
            text: self.text.clone(),
        };
        guest.call_summarize(&mut live.store, &section).await
    }

    fn validate_decision(&self, raw_decision: chunking::SummaryPlan) -> Result<SummaryPlan, String> {
        Ok(match raw_decision {
            chunking::SummaryPlan::None => SummaryPlan::None,
            chunking::SummaryPlan::Single(prompt) => SummaryPlan::Single(validate_prompt(prompt)?),
            chunking::SummaryPlan::MapReduce(plan) => {
                if plan.ranges.is_empty() {
                    return Err("the map-reduce plan has no range".into());
                }
                SummaryPlan::MapReduce {
                    ranges: wit_conversions::validate_ranges(&self.text, plan.ranges, MAX_RANGES)?,
                    map: validate_prompt(plan.map)?,
                    reduce: validate_prompt(plan.reduce)?,
                }
            }
        })
    }
}

fn validate_prompt(wit_prompt: chunking::Question) -> Result<SummaryPrompt, String> {
    if wit_prompt.prompt.trim().is_empty() {
        return Err("the prompt is empty".into());
    }
    Ok(SummaryPrompt {
        prompt: wit_prompt.prompt,
        max_tokens: check_range("max-tokens", wit_prompt.max_tokens, 1, 4096)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::types;
    use weir_core::DocumentId;

    #[test]
    fn summary_plans_are_checked() {
        let section = SectionToSummarize {
            document: DocumentId::from_content(b"d"),
            title: "t".into(),
            level: 1,
            first_page: 1,
            last_page: 2,
            text: "some text".into(),
        };
        let prompt_with_max_tokens = |max_tokens| chunking::Question {
            prompt: "summarize {text}".into(),
            max_tokens,
        };
        let plan = |ranges, max_tokens| {
            section.validate_decision(chunking::SummaryPlan::MapReduce(chunking::MapReduce {
                ranges,
                map: prompt_with_max_tokens(max_tokens),
                reduce: prompt_with_max_tokens(1),
            }))
        };
        assert!(
            section
                .validate_decision(chunking::SummaryPlan::Single(prompt_with_max_tokens(4096)))
                .is_ok()
        );
        assert!(
            section
                .validate_decision(chunking::SummaryPlan::Single(prompt_with_max_tokens(4097)))
                .is_err()
        );
        assert!(plan(vec![types::Range { start: 0, end: 9 }], 1).is_ok());
        assert!(plan(vec![types::Range { start: 0, end: 10 }], 1).is_err());
        assert!(plan(vec![types::Range { start: 0, end: 9 }], 0).is_err());
        assert!(plan(Vec::new(), 1).unwrap_err().contains("has no range"));
        let blank = chunking::Question {
            prompt: " ".into(),
            max_tokens: 1,
        };
        assert!(
            section
                .validate_decision(chunking::SummaryPlan::Single(blank))
                .is_err()
        );
    }
}

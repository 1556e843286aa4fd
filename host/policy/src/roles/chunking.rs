//! Where to cut text, for the index and for summaries.

use std::ops::Range;

use weir_core::decision::{PassageSource, Question, Section, SummaryPlan};
use weir_core::event::ErrorNote;
use weir_core::manifest::Role;

use super::{Decision, missing, within, words};
use crate::bindings::chunking;
use crate::live::Live;
use crate::recording::Exchange;

/// Ranges of one answer.
const RANGES: usize = 4096;

impl Decision for PassageSource {
    const ROLE: Role = Role::Chunking;
    const FUNCTION: &'static str = "chunking.passages";
    type Said = Vec<crate::bindings::types::Range>;
    type Answer = Vec<Range<u32>>;

    async fn ask(&self, live: &mut Live) -> wasmtime::Result<Self::Said> {
        let guest = live.roles.chunking.as_ref().ok_or_else(|| missing(Self::ROLE))?;
        let source = chunking::PassageSource {
            document: self.document.to_string(),
            page: self.page,
            text: self.text.clone(),
            headings: self
                .headings
                .iter()
                .map(|heading| chunking::Heading {
                    at: words::range(&heading.at),
                    level: heading.level,
                })
                .collect(),
            max_tokens: self.max_tokens,
        };
        guest.call_passages(&mut live.store, &source).await
    }

    fn check(&self, said: Self::Said) -> Result<Vec<Range<u32>>, String> {
        words::ranges(&self.text, said, RANGES)
    }

    fn exchange(self, answer: Result<Vec<Range<u32>>, ErrorNote>) -> Exchange {
        Exchange::Passages(self, answer)
    }
}

impl Decision for Section {
    const ROLE: Role = Role::Chunking;
    const FUNCTION: &'static str = "chunking.summarize";
    type Said = chunking::SummaryPlan;
    type Answer = SummaryPlan;

    async fn ask(&self, live: &mut Live) -> wasmtime::Result<chunking::SummaryPlan> {
        let guest = live.roles.chunking.as_ref().ok_or_else(|| missing(Self::ROLE))?;
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

    fn check(&self, said: chunking::SummaryPlan) -> Result<SummaryPlan, String> {
        Ok(match said {
            chunking::SummaryPlan::None => SummaryPlan::None,
            chunking::SummaryPlan::Single(asked) => SummaryPlan::Single(question(asked)?),
            chunking::SummaryPlan::MapReduce(plan) => {
                if plan.ranges.is_empty() {
                    return Err("map-reduce without a range".into());
                }
                SummaryPlan::MapReduce {
                    ranges: words::ranges(&self.text, plan.ranges, RANGES)?,
                    map: question(plan.map)?,
                    reduce: question(plan.reduce)?,
                }
            }
        })
    }

    fn exchange(self, answer: Result<SummaryPlan, ErrorNote>) -> Exchange {
        Exchange::Summarize(self, answer)
    }
}

fn question(said: chunking::Question) -> Result<Question, String> {
    if said.prompt.trim().is_empty() {
        return Err("a question has an empty prompt".into());
    }
    Ok(Question {
        prompt: said.prompt,
        max_tokens: within("max-tokens", said.max_tokens, 1, 4096)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::types;
    use weir_core::DocumentId;

    #[test]
    fn plans_of_a_summary() {
        let section = Section {
            document: DocumentId::of(b"d"),
            title: "t".into(),
            level: 1,
            first_page: 1,
            last_page: 2,
            text: "some text".into(),
        };
        let ask = |max_tokens| chunking::Question {
            prompt: "summarize {text}".into(),
            max_tokens,
        };
        let plan = |ranges, max_tokens| {
            section.check(chunking::SummaryPlan::MapReduce(chunking::MapReduce {
                ranges,
                map: ask(max_tokens),
                reduce: ask(1),
            }))
        };
        assert!(section.check(chunking::SummaryPlan::Single(ask(4096))).is_ok());
        assert!(section.check(chunking::SummaryPlan::Single(ask(4097))).is_err());
        assert!(plan(vec![types::Range { start: 0, end: 9 }], 1).is_ok());
        assert!(plan(vec![types::Range { start: 0, end: 10 }], 1).is_err());
        assert!(plan(vec![types::Range { start: 0, end: 9 }], 0).is_err());
        assert!(plan(Vec::new(), 1).unwrap_err().contains("without a range"));
        let blank = chunking::Question {
            prompt: " ".into(),
            max_tokens: 1,
        };
        assert!(section.check(chunking::SummaryPlan::Single(blank)).is_err());
    }
}

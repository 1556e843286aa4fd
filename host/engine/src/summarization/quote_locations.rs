//! Locates the quotes of a summary in the document, also when a summary was made from other summaries.

use std::ops::Range;

use weir_core::grounding::find_ungrounded_numbers_and_names;
use weir_core::llm::LlmResponse;
use weir_core::summary::{Summary, SummaryQuote, make_first_sentence_preview};
use weir_core::{PageNumber, Rect};

/// A text that is summarized, with a lookup from its ranges to locations in the document.
pub(super) struct LocatableText<'a> {
    pub(super) text: &'a str,
    pub(super) locate: &'a LocateRange<'a>,
}

/// Returns the page and the rectangle of a text range in the document.
type LocateRange<'a> = dyn Fn(&Range<usize>) -> Option<(PageNumber, Rect)> + Sync + 'a;

/// Summaries that are concatenated to be summarized as one text, with their quotes.
#[derive(Default)]
pub(super) struct JoinedSummaries {
    pub(super) text: String,
    quotes: Vec<SummaryQuote>,
}

impl JoinedSummaries {
    /// Appends a text as a paragraph of its own.
    pub(super) fn append_summary(&mut self, text: &str, quotes: &[SummaryQuote]) {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        let before = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.quotes.extend(quotes.iter().map(|quote| SummaryQuote {
            summary_range: quote.summary_range.start.saturating_add(before)
                ..quote.summary_range.end.saturating_add(before),
            ..*quote
        }));
        self.text.push_str(text);
    }

    /// Returns the location of the first quote that overlaps with a range.
    pub(super) fn locate_first_overlapping_quote(&self, range: &Range<usize>) -> Option<(PageNumber, Rect)> {
        let touches = |quote: &&SummaryQuote| {
            (quote.summary_range.start as usize) < range.end && range.start < quote.summary_range.end as usize
        };
        self.quotes
            .iter()
            .find(touches)
            .map(|quote| (quote.page, quote.rect))
    }
}

/// Locates the quotes of a response in the document. `offset` is where the text of the request begins in the source.
pub(super) fn locate_quotes(
    response: &LlmResponse,
    source: &LocatableText<'_>,
    offset: usize,
) -> Vec<SummaryQuote> {
    let quoted = response.quotes.iter().filter_map(|quote| {
        let at = offset + quote.source_range.start as usize..offset + quote.source_range.end as usize;
        let (page, rect) = (source.locate)(&at)?;
        Some(SummaryQuote {
            summary_range: quote.response_range.clone(),
            page,
            rect,
        })
    });
    quoted.collect()
}

/// Builds a summary from the response for the text `requested`. The summary is checked against the text `source`.
pub(super) fn build_summary(requested: &LocatableText<'_>, response: &LlmResponse, source: &str) -> Summary {
    Summary {
        preview: make_first_sentence_preview(&response.text),
        ungrounded: find_ungrounded_numbers_and_names(&response.text, source),
        quotes: locate_quotes(response, requested, 0),
        text: response.text.clone(),
        provider: response.provider.clone(),
        model: response.model.clone(),
    }
}

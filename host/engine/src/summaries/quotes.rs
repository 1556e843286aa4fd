//! Where in the document the parts of a summary stand, through answers made of answers.

use std::ops::Range;

use weir_core::grounding::ungrounded;
use weir_core::language::Answer;
use weir_core::summary::{Quoted, Summary, preview};
use weir_core::{PageNumber, Rect};

/// A text that answers are made of, with where in the document its parts stand.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) stands: &'a Stands<'a>,
}

/// Where a range of a text stands in the document.
type Stands<'a> = dyn Fn(&Range<usize>) -> Option<(PageNumber, Rect)> + Sync + 'a;

/// Texts in a row that are to be summarized as one, with what they quote.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) text: String,
    quotes: Vec<Quoted>,
}

impl Joined {
    /// Adds a text as a paragraph of its own.
    pub(super) fn push(&mut self, text: &str, quotes: &[Quoted]) {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        let before = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.quotes.extend(quotes.iter().map(|quote| Quoted {
            at: quote.at.start.saturating_add(before)..quote.at.end.saturating_add(before),
            ..*quote
        }));
        self.text.push_str(text);
    }

    /// Where the first of the quotes that a range touches stands.
    pub(super) fn place_of(&self, range: &Range<usize>) -> Option<(PageNumber, Rect)> {
        let touches =
            |quote: &&Quoted| (quote.at.start as usize) < range.end && range.start < quote.at.end as usize;
        self.quotes
            .iter()
            .find(touches)
            .map(|quote| (quote.page, quote.rect))
    }
}

/// An answer's quotes with where they stand in the document; `offset` is where the question's text begins in the source.
pub(super) fn placed(answer: &Answer, source: &Source<'_>, offset: usize) -> Vec<Quoted> {
    let quoted = answer.quotes.iter().filter_map(|quote| {
        let at = offset + quote.source.start as usize..offset + quote.source.end as usize;
        let (page, rect) = (source.stands)(&at)?;
        Some(Quoted {
            at: quote.answer.clone(),
            page,
            rect,
        })
    });
    quoted.collect()
}

/// A summary of `answer`, which was given of `asked`, and is held against `source`.
pub(super) fn made(asked: &Source<'_>, answer: &Answer, source: &str) -> Summary {
    Summary {
        preview: preview(&answer.text),
        ungrounded: ungrounded(&answer.text, source),
        quotes: placed(answer, asked, 0),
        text: answer.text.clone(),
        provider: answer.provider.clone(),
        model: answer.model.clone(),
    }
}

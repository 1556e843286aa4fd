//! The tracing spans of a job: its documents, their pages, and the stages of each page.
//!
//! A stage's span covers the time in a worker slot, so a page's waiting time shows as the gap between two spans. The policy host
//! creates the spans of policy calls, as children of the span that makes the call.
//!
//! Tasks enter these spans inside the current span. If the subscriber disables one of these spans, log records still carry the
//! job's span.

use tracing::{Span, info_span};
use weir_core::{PageNumber, Stage};

pub(crate) fn document_span(name: &str) -> Span {
    info_span!("document", name)
}

pub(crate) fn page_span(page: PageNumber) -> Span {
    info_span!("page", page)
}

/// Creates a span with the stage's name. Span names must be literals, hence one arm for each stage.
pub(crate) fn stage_span(stage: Stage) -> Span {
    match stage {
        Stage::Rasterize => info_span!("rasterize"),
        Stage::Store => info_span!("store"),
        Stage::Read => info_span!("read"),
        Stage::Embed => info_span!("embed"),
        Stage::Upsert => info_span!("upsert"),
    }
}

//! What a trace shows of a job: its documents, their pages, and what each stage did for a page.
//!
//! A stage's span is the time in its seat, so that a page's waiting shows as the gap between two of them. What a component is
//! asked is a span of the policy host's, below the one that asked.
//!
//! A task enters its own span within the one that is current: where nobody wants the former it is none, and what is logged is
//! still to say which job it is about.

use tracing::{Span, info_span};
use weir_core::{PageNumber, Stage};

pub(crate) fn document(name: &str) -> Span {
    info_span!("document", name)
}

pub(crate) fn page(page: PageNumber) -> Span {
    info_span!("page", page)
}

/// Called as the stage is: the name of a span is fixed where it is made.
pub(crate) fn stage(stage: Stage) -> Span {
    match stage {
        Stage::Rasterize => info_span!("rasterize"),
        Stage::Store => info_span!("store"),
        Stage::Read => info_span!("read"),
        Stage::Embed => info_span!("embed"),
        Stage::Upsert => info_span!("upsert"),
    }
}

//! The summaries of what was ingested, as a person reads them: each sentence that was taken from the document with its page.

use std::io;

use anyhow::{Context as _, Result};
use weir_core::summary::{DocumentSummary, Summary, summary_key};
use weir_core::{DocumentId, RevisionId, TenantId, ports::BlobStore};

use crate::terminal::out_line;

/// Prints the summaries of a document, if it has any.
pub(crate) async fn print(
    blobs: &dyn BlobStore,
    tenant: &TenantId,
    document: &DocumentId,
    revision: &RevisionId,
) -> Result<()> {
    let Some(bytes) = blobs.get(tenant, &summary_key(document, revision)).await? else {
        return Ok(());
    };
    let summary: DocumentSummary = serde_json::from_slice(&bytes).context("the summary is damaged")?;
    Ok(show(&summary)?)
}

fn show(of: &DocumentSummary) -> io::Result<()> {
    let Some(whole) = &of.summary else {
        return out_line!("\n{}: too short for a summary", of.name);
    };
    out_line!("\n{}\n\n{}", of.name, with_pages(whole))?;
    if of.sections.len() < 2 {
        return Ok(());
    }
    for section in &of.sections {
        let Some(summary) = &section.summary else {
            continue;
        };
        let title = section.title.as_deref().unwrap_or("Untitled");
        let pages = match (section.first_page, section.last_page) {
            (first, last) if first == last => format!("page {first}"),
            (first, last) => format!("pages {first}-{last}"),
        };
        out_line!("\n  {title} ({pages})\n  {}", with_pages(summary))?;
    }
    Ok(())
}

/// The summary, with the page behind each part that was taken from one.
fn with_pages(summary: &Summary) -> String {
    let mut text = String::new();
    let mut from = 0;
    for quote in &summary.quotes {
        let end = quote.at.end as usize;
        let Some(part) = summary.text.get(from..end) else {
            continue;
        };
        text.push_str(part);
        text.push_str(&format!(" [p. {}]", quote.page));
        from = end;
    }
    text.push_str(summary.text.get(from..).unwrap_or_default());
    text
}

#[cfg(test)]
mod tests {
    use weir_core::Rect;
    use weir_core::summary::Quoted;

    use super::*;

    #[test]
    fn pages_stand_behind_what_was_taken_from_them() {
        let quoted = |at: std::ops::Range<u32>, page| Quoted {
            at,
            page,
            rect: Rect::PAGE,
        };
        let mut summary = Summary {
            text: "It rained. It stopped.".into(),
            preview: String::new(),
            quotes: vec![quoted(0..10, 3), quoted(11..22, 5)],
            ungrounded: Vec::new(),
            provider: "extractive".into(),
            model: String::new(),
        };
        assert_eq!(with_pages(&summary), "It rained. [p. 3] It stopped. [p. 5]");
        summary.quotes.clear();
        assert_eq!(with_pages(&summary), summary.text);
        summary.quotes = vec![quoted(0..900, 1)];
        assert_eq!(with_pages(&summary), summary.text);
    }
}

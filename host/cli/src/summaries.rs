//! Prints the summaries of ingested documents as text. A page number follows each sentence that is quoted
//! from the document.

use std::io;

use anyhow::{Context as _, Result};
use weir_core::summary::{DocumentSummaries, Summary, document_summaries_blob_key};
use weir_core::{DocumentId, RevisionId, TenantId, ports::BlobStore};

use crate::terminal::out_line;

/// Prints the summaries of a document. Prints nothing if no summary is stored.
pub(crate) async fn read_and_print_summaries(
    blobs: &dyn BlobStore,
    tenant: &TenantId,
    document: &DocumentId,
    revision: &RevisionId,
) -> Result<()> {
    let Some(bytes) = blobs
        .get_blob(tenant, &document_summaries_blob_key(document, revision))
        .await?
    else {
        return Ok(());
    };
    let summary: DocumentSummaries =
        serde_json::from_slice(&bytes).context("the stored summary is invalid")?;
    Ok(print_document_summary(&summary)?)
}

fn print_document_summary(document_summary: &DocumentSummaries) -> io::Result<()> {
    let Some(whole) = &document_summary.summary else {
        return out_line!("\n{}: too short for a summary", document_summary.name);
    };
    out_line!(
        "\n{}\n\n{}",
        document_summary.name,
        format_summary_with_page_after_each_quote(whole)
    )?;
    if document_summary.sections.len() < 2 {
        return Ok(());
    }
    for section in &document_summary.sections {
        let Some(summary) = &section.summary else {
            continue;
        };
        let title = section.title.as_deref().unwrap_or("Untitled");
        let pages = match (section.first_page, section.last_page) {
            (first, last) if first == last => format!("page {first}"),
            (first, last) => format!("pages {first}-{last}"),
        };
        out_line!(
            "\n  {title} ({pages})\n  {}",
            format_summary_with_page_after_each_quote(summary)
        )?;
    }
    Ok(())
}

/// Returns the text of the summary with a page number after each quote.
fn format_summary_with_page_after_each_quote(summary: &Summary) -> String {
    let mut text = String::new();
    let mut from = 0;
    for quote in &summary.quotes {
        let end = quote.summary_range.end as usize;
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
    use weir_core::summary::SummaryQuote;

    use super::*;

    #[test]
    fn quotes_are_followed_by_their_page() {
        let quoted = |at: std::ops::Range<u32>, page| SummaryQuote {
            summary_range: at,
            page,
            rect: Rect::WHOLE_PAGE,
        };
        let mut summary = Summary {
            text: "It rained. It stopped.".into(),
            preview: String::new(),
            quotes: vec![quoted(0..10, 3), quoted(11..22, 5)],
            ungrounded: Vec::new(),
            provider: "extractive".into(),
            model: String::new(),
        };
        assert_eq!(
            format_summary_with_page_after_each_quote(&summary),
            "It rained. [p. 3] It stopped. [p. 5]"
        );
        summary.quotes.clear();
        assert_eq!(format_summary_with_page_after_each_quote(&summary), summary.text);
        summary.quotes = vec![quoted(0..900, 1)];
        assert_eq!(format_summary_with_page_after_each_quote(&summary), summary.text);
    }
}

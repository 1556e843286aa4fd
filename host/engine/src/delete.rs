//! Removing a document with everything that was made of it.
//!
//! The order is the opposite of a page's: what makes it findable goes first, what is found goes next, and the ledger, by which
//! the rest is found again, goes last. Cut short anywhere, the document is still listed and the deletion can be repeated; in
//! between no search finds what is not there any more. Before all that the ledger takes back that the pages are done, since
//! a page without text is believed done by the ledger alone, and ingested again it would be left without its image.

use weir_core::event::ErrorNote;
use weir_core::ledger::{Entry, PageRecord, PageState};
use weir_core::{DocumentId, StorageError, TenantId};

use crate::Engine;
use crate::failure::note;

/// A document that was not deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// A job works on it, or waits to.
    #[error("a job works on document {0}: cancel the job or wait for its end, then delete")]
    InWork(DocumentId),
    /// It could not be removed, or not all of it: deleting it again goes on.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl DeleteError {
    /// A stable word for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::InWork(_) => "document-in-work",
            Self::Storage(e) => e.kind(),
        }
    }
}

impl Engine {
    /// Deletes a document's passages, page images, lines, answers of language models and records; whether it was known. Its jobs
    /// and their events stay without any text of it, and so does the file it was made from. No job works on the document meanwhile. Safe to repeat, also after a crash.
    pub async fn delete(&self, tenant: &TenantId, document: DocumentId) -> Result<bool, DeleteError> {
        let host = &self.host;
        let ports = &host.ports;
        let in_work = || DeleteError::InWork(document);
        let _claim = host.in_work.claim_idle(tenant, document).ok_or_else(in_work)?;
        // A job that was dropped may have left entries about the document on their way to the ledger.
        host.journal.sync().await?;
        let pages = ports.ledger.pages(tenant, &document, None).await?;
        let reason = note(
            "deleted",
            "the document is being deleted: delete it again to go on",
        );
        let taken_back: Vec<_> = pages
            .into_iter()
            .filter_map(|page| taken_back(page, &reason))
            .collect();
        if !taken_back.is_empty() {
            ports.ledger.commit(taken_back).await?;
        }
        ports.vectors.remove(tenant, &document, None).await?;
        ports.vectors.flush().await?;
        ports.blobs.delete(tenant, &format!("{document}/")).await?;
        ports.blobs.flush().await?;
        if let Some(model) = &ports.language_model {
            model.forget_document(tenant, &document).await?;
        }
        Ok(ports.ledger.forget(tenant, &document).await?)
    }
}

/// The record of a page that was done, as one that is not.
pub(crate) fn taken_back(record: PageRecord, reason: &ErrorNote) -> Option<Entry> {
    let PageState::Done { .. } = record.state else {
        return None;
    };
    let state = PageState::Failed {
        error: reason.clone(),
    };
    Some(Entry::Page(PageRecord { state, ..record }))
}

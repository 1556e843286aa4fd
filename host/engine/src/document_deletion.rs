//! Deletes a document with everything that was made of it.
//!
//! The order is the opposite of ingestion: first the passages in the index, then the blobs that they link to, and last the
//! records in the ledger. If the deletion is interrupted, the document is still listed and the deletion can be repeated.
//! No search finds a page whose blobs are gone.
//!
//! Before all that, the ledger revokes that the pages are done. A page without text counts as done by the ledger alone, and
//! ingesting the document again would leave such a page without its image.

use weir_core::{DocumentId, StorageError, TenantId};

use crate::engine::Engine;
use crate::error::build_error_info;
use crate::pages_of_earlier_runs::build_done_page_revocation;

/// The error of a deletion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// A job processes the document or waits to do so.
    #[error("a job processes document {0}: cancel the job or wait for its end, then delete the document")]
    DocumentActive(DocumentId),
    /// The document could not be removed completely. Deleting it again continues the deletion.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl DeleteError {
    /// Returns a stable error kind for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::DocumentActive(_) => "document-active",
            Self::Storage(e) => e.kind(),
        }
    }
}

impl Engine {
    /// Deletes a document's passages, page images, lines, cached responses of language models and records. Returns whether the
    /// document was known.
    ///
    /// The source file, the jobs and their events stay, but the document's text is removed from the events. No job processes the
    /// document meanwhile. The deletion can be repeated safely, also after a crash.
    pub async fn delete_document(
        &self,
        tenant: &TenantId,
        document: DocumentId,
    ) -> Result<bool, DeleteError> {
        let state = &self.state;
        let ports = &state.ports;
        let document_active = || DeleteError::DocumentActive(document);
        let _lock = state
            .document_locks
            .try_lock_document(tenant, document)
            .ok_or_else(document_active)?;
        // A job that was dropped may have left pending ledger entries of the document.
        state.group_commit.commit_pending().await?;
        let pages = ports.ledger.list_pages(tenant, &document, None).await?;
        let reason = build_error_info(
            "deleted",
            "the document is being deleted: if the deletion was interrupted, delete the document again",
        );
        let revoked: Vec<_> = pages
            .into_iter()
            .filter_map(|page| build_done_page_revocation(page, &reason))
            .collect();
        if !revoked.is_empty() {
            ports.ledger.commit_entries(revoked).await?;
        }
        ports
            .vectors
            .remove_document_or_page_points(tenant, &document, None)
            .await?;
        ports.vectors.flush_points().await?;
        ports
            .blobs
            .delete_blobs_with_prefix(tenant, &format!("{document}/"))
            .await?;
        ports.blobs.flush_blobs().await?;
        if let Some(model) = &ports.language_model {
            model.clear_document_cache(tenant, &document).await?;
        }
        Ok(ports.ledger.erase_document(tenant, &document).await?)
    }
}

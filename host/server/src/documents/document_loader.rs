//! Loads documents, their pages and their summaries from the stores.

use weir_control::Control;
use weir_core::ledger::{DocumentRecord, PageRecord};
use weir_core::ports::Ledger as _;
use weir_core::summary::{DocumentSummaries, document_summaries_blob_key};
use weir_core::{DocumentId, PageNumber, TenantId};

use crate::problem::Problem;

/// Loads a document of the tenant. The error is a 404 if it does not exist.
pub(super) async fn load_document(
    control: &Control,
    tenant: &TenantId,
    id: &DocumentId,
) -> Result<DocumentRecord, Problem> {
    let record = control.ledger.find_document(tenant, id).await?;
    record.ok_or_else(|| Problem::not_found("the document does not exist"))
}

/// Loads a page that has ended. The error is a 404 if it does not exist or has not ended.
pub(super) async fn load_ended_page(
    control: &Control,
    tenant: &TenantId,
    document: &DocumentId,
    number: PageNumber,
) -> Result<PageRecord, Problem> {
    let found = control.ledger.find_page(tenant, document, number, None).await?;
    found.ok_or_else(|| Problem::not_found("the page does not exist or has not ended yet"))
}

/// Reads a blob. The error is a 404 with the detail `none` if there is no key or no blob.
pub(super) async fn load_blob_or_not_found(
    control: &Control,
    tenant: &TenantId,
    key: Option<String>,
    none: &str,
) -> Result<Vec<u8>, Problem> {
    let bytes = match key {
        Some(key) => {
            control
                .engine
                .port_implementations()
                .blobs
                .get_blob(tenant, &key)
                .await?
        }
        None => None,
    };
    bytes.ok_or_else(|| Problem::not_found(none))
}

/// Loads the summaries of a document for the pipeline revision of its first page. `None` if there are none.
pub(super) async fn load_summaries(
    control: &Control,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<Option<DocumentSummaries>, Problem> {
    let Some(key) = find_summaries_blob_key(control, tenant, document).await? else {
        return Ok(None);
    };
    let Some(bytes) = control
        .engine
        .port_implementations()
        .blobs
        .get_blob(tenant, &key)
        .await?
    else {
        return Ok(None);
    };
    let damaged = |e: serde_json::Error| Problem::internal_error(format!("the summary is damaged: {e}"));
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Whether a document has summaries.
pub(super) async fn has_summaries(
    control: &Control,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<bool, Problem> {
    match find_summaries_blob_key(control, tenant, document).await? {
        Some(key) => Ok(!control
            .engine
            .port_implementations()
            .blobs
            .list_blob_keys(tenant, &key)
            .await?
            .is_empty()),
        None => Ok(false),
    }
}

/// Returns the blob key of the summaries. `None` if no page has ended.
async fn find_summaries_blob_key(
    control: &Control,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<Option<String>, Problem> {
    let last: Option<PageRecord> = control
        .ledger
        .list_pages_after(tenant, document, 0, 1)
        .await?
        .pop();
    Ok(last.map(|page| document_summaries_blob_key(document, &page.revision)))
}

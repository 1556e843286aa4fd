//! Rows of documents that are being removed.
//!
//! Beginning a removal and writing a job request take one transaction each, and the file has one writer at a time. So either the
//! removal finds the job, or the job request finds the removal.
//!
//! The jobs of a removed document and their events stay, without any text of the document.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Transaction, params};
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore};
use weir_core::event::{Event, EventKind};
use weir_core::job_request::JobRequest;
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use super::column_values::{read_and_parse_text, read_json, to_json};
use super::sqlite_ledger::SqliteLedger;

#[async_trait]
impl DocumentRemovalStore for SqliteLedger {
    async fn begin_document_removal(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> std::result::Result<BeginRemovalOutcome, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.run_write_transaction(move |t| begin_removal_of_document(t, &tenant, &document))
            .await
    }

    async fn end_document_removal(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> std::result::Result<(), StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.run_write_transaction(move |t| {
            t.prepare_cached("DELETE FROM unfinished_document_removals WHERE tenant = ?1 AND document = ?2")?
                .execute(params![tenant.as_str(), document.to_string()])
                .map(drop)
        })
        .await
    }

    async fn list_unfinished_removals(
        &self,
    ) -> std::result::Result<Vec<(TenantId, DocumentId)>, StorageError> {
        self.reader
            .run_on_read_connection(|c| {
                c.prepare_cached("SELECT tenant, document FROM unfinished_document_removals")?
                    .query_map([], |row| {
                        Ok((read_and_parse_text(row, 0)?, read_and_parse_text(row, 1)?))
                    })?
                    .collect()
            })
            .await
    }

    async fn list_jobs_with_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> std::result::Result<Vec<JobId>, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.reader
            .run_on_read_connection(move |c| list_jobs_with_document(c, &tenant, &document))
            .await
    }
}

fn begin_removal_of_document(
    t: &Transaction<'_>,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<BeginRemovalOutcome> {
    let is_active: bool = t
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM job_documents AS d JOIN jobs ON jobs.tenant = d.tenant AND jobs.id = d.job
             WHERE d.tenant = ?1 AND d.document = ?2 AND jobs.state IN ('queued', 'running'))",
        )?
        .query_row(params![tenant.as_str(), document.to_string()], |row| row.get(0))?;
    if is_active {
        return Ok(BeginRemovalOutcome::UsedByActiveJob);
    }
    let begun = t
        .prepare_cached(
            "INSERT OR IGNORE INTO unfinished_document_removals (tenant, document) VALUES (?1, ?2)",
        )?
        .execute(params![tenant.as_str(), document.to_string()])?;
    Ok(if begun > 0 {
        BeginRemovalOutcome::Started
    } else {
        BeginRemovalOutcome::AlreadyInProgress
    })
}

/// Returns a document of the job request that is being removed, if there is one.
pub(super) fn find_requested_document_being_removed(
    c: &Connection,
    request: &JobRequest,
) -> Result<Option<DocumentId>> {
    let mut find =
        c.prepare_cached("SELECT 1 FROM unfinished_document_removals WHERE tenant = ?1 AND document = ?2")?;
    for file in &request.files {
        let row = params![request.tenant.as_str(), file.document.to_string()];
        if find.query_row(row, |_| Ok(())).optional()?.is_some() {
            return Ok(Some(file.document));
        }
    }
    Ok(None)
}

pub(super) fn add_job_document(
    t: &Transaction<'_>,
    tenant: &TenantId,
    document: &DocumentId,
    job: &JobId,
) -> Result<()> {
    t.prepare_cached("INSERT OR IGNORE INTO job_documents (tenant, document, job) VALUES (?1, ?2, ?3)")?
        .execute(params![tenant.as_str(), document.to_string(), job.to_string()])
        .map(drop)
}

/// Removes a document's rows, and its text from the rows of its jobs. Returns whether the document was known.
pub(super) fn delete_document_and_redact_jobs(
    t: &Transaction<'_>,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<bool> {
    for job in list_jobs_with_document(t, tenant, document)? {
        redact_document_in_job(t, tenant, document, &job)?;
    }
    let row = params![tenant.as_str(), document.to_string()];
    t.prepare_cached("UPDATE job_documents SET removed = 1 WHERE tenant = ?1 AND document = ?2")?
        .execute(row)?;
    t.prepare_cached("DELETE FROM pages WHERE tenant = ?1 AND document = ?2")?
        .execute(row)?;
    let known = t
        .prepare_cached("DELETE FROM documents WHERE tenant = ?1 AND id = ?2")?
        .execute(row)?;
    Ok(known > 0)
}

/// Returns whether a document of the job was removed. Later findings about the job may contain its text and must not be written.
pub(super) fn job_has_removed_document(c: &Connection, tenant: &TenantId, job: &JobId) -> Result<bool> {
    c.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM job_documents WHERE tenant = ?1 AND job = ?2 AND removed)",
    )?
    .query_row(params![tenant.as_str(), job.to_string()], |row| row.get(0))
}

/// Removes the text of a document from the rows of a job. Its component log and its shadow run may contain text of any document of the
/// job, and are removed as a whole.
fn redact_document_in_job(
    t: &Transaction<'_>,
    tenant: &TenantId,
    document: &DocumentId,
    job: &JobId,
) -> Result<()> {
    let row = params![tenant.as_str(), job.to_string()];
    for table in ["component_log", "shadow_reports"] {
        t.prepare_cached(&format!("DELETE FROM {table} WHERE tenant = ?1 AND job = ?2"))?
            .execute(row)?;
    }
    // The excluded types, which are most events, have no text.
    let mut find = t.prepare_cached(
        "SELECT position, event FROM events WHERE tenant = ?1 AND job = ?2
         AND json_extract(event, '$.type') NOT IN ('page-done', 'batch-rasterized', 'document-started', 'job-ended')",
    )?;
    let mut update = t.prepare_cached("UPDATE events SET event = ?2 WHERE position = ?1")?;
    let events = find.query_map(row, |row| {
        Ok((row.get::<_, i64>(0)?, read_json::<Event>(row, 1)?))
    })?;
    let events: Vec<_> = events.collect::<Result<_>>()?;
    for (position, mut event) in events {
        // Errors of components and language models belong to no document and may quote any.
        let may_quote = matches!(
            event.kind,
            EventKind::PolicyFallback { .. } | EventKind::ModelWaitStarted { .. }
        );
        let may_quote_any_document = event.document.is_none() && may_quote;
        if (event.document == Some(*document) || may_quote_any_document) && event.kind.remove_document_text()
        {
            update.execute(params![position, to_json(&event)?])?;
        }
    }
    Ok(())
}

pub(super) fn list_jobs_with_document(
    c: &Connection,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<Vec<JobId>> {
    c.prepare_cached("SELECT job FROM job_documents WHERE tenant = ?1 AND document = ?2")?
        .query_map(params![tenant.as_str(), document.to_string()], |row| {
            read_and_parse_text(row, 0)
        })?
        .collect()
}

//! Rows of documents that are being removed.
//!
//! Beginning a removal and writing a job request take one transaction each, and the file has one writer at a time. So either the
//! removal finds the job, or the job request finds the removal.
//!
//! The jobs of a removed document and their events stay, without any text of the document.

use async_trait::async_trait;
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore};
use weir_core::event::{Event, EventKind};
use weir_core::job_request::JobRequest;
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use super::column_values::{read_and_parse_text, read_json, to_json};
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_ledger::SqlLedger;
use super::sql_values::{ToSqlValue as _, params};

#[async_trait]
impl DocumentRemovalStore for SqlLedger {
    async fn begin_document_removal(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<BeginRemovalOutcome, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.database
            .run_write_transaction(LockedTenants::one(&tenant), move |t| {
                begin_removal_of_document(t, &tenant, &document)
            })
            .await
    }

    async fn end_document_removal(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.database
            .run_write_transaction(LockedTenants::one(&tenant), move |t| {
                t.execute(
                    "DELETE FROM unfinished_document_removals WHERE tenant = ?1 AND document = ?2",
                    params![tenant.as_str(), document.to_string()],
                )
            })
            .await
    }

    async fn list_unfinished_removals(&self) -> Result<Vec<(TenantId, DocumentId)>, StorageError> {
        self.database
            .run_query(|c| {
                c.query_rows(
                    "SELECT tenant, document FROM unfinished_document_removals",
                    &[],
                    |row| Ok((read_and_parse_text(row, 0)?, read_and_parse_text(row, 1)?)),
                )
            })
            .await
    }

    async fn list_jobs_with_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<JobId>, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.database
            .run_query(move |c| list_jobs_with_document(c, &tenant, &document))
            .await
    }
}

fn begin_removal_of_document(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    document: &DocumentId,
) -> SqlResult<BeginRemovalOutcome> {
    let is_active: bool = t.query_one("SELECT EXISTS (SELECT 1 FROM job_documents AS d JOIN jobs ON jobs.tenant = d.tenant AND jobs.id = d.job
             WHERE d.tenant = ?1 AND d.document = ?2 AND jobs.state IN ('queued', 'running'))", params![tenant.as_str(), document.to_string()], |row| row.get(0))?;
    if is_active {
        return Ok(BeginRemovalOutcome::UsedByActiveJob);
    }
    let begun = t.execute_and_count_rows(
        "INSERT INTO unfinished_document_removals (tenant, document) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![tenant.as_str(), document.to_string()],
    )?;
    Ok(if begun > 0 {
        BeginRemovalOutcome::Started
    } else {
        BeginRemovalOutcome::AlreadyInProgress
    })
}

/// Returns a document of the job request that is being removed, if there is one.
pub(super) fn find_requested_document_being_removed(
    c: &SqlConnection<'_>,
    request: &JobRequest,
) -> SqlResult<Option<DocumentId>> {
    for file in &request.files {
        let is_being_removed = c.query_optional(
            "SELECT 1 FROM unfinished_document_removals WHERE tenant = ?1 AND document = ?2",
            params![request.tenant.as_str(), file.document.to_string()],
            |_| Ok(()),
        )?;
        if is_being_removed.is_some() {
            return Ok(Some(file.document));
        }
    }
    Ok(None)
}

pub(super) fn add_job_document(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    document: &DocumentId,
    job: &JobId,
) -> SqlResult<()> {
    t.execute(
        "INSERT INTO job_documents (tenant, document, job) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        params![tenant.as_str(), document.to_string(), job.to_string()],
    )
}

/// Removes a document's rows, and its text from the rows of its jobs. Returns whether the document was known.
pub(super) fn delete_document_and_redact_jobs(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    document: &DocumentId,
) -> SqlResult<bool> {
    for job in list_jobs_with_document(t, tenant, document)? {
        redact_document_in_job(t, tenant, document, &job)?;
    }
    let document = document.to_string();
    let row = &[tenant.as_str().to_sql_value(), document.to_sql_value()];
    t.execute(
        "UPDATE job_documents SET removed = TRUE WHERE tenant = ?1 AND document = ?2",
        row,
    )?;
    t.execute("DELETE FROM pages WHERE tenant = ?1 AND document = ?2", row)?;
    let known = t.execute_and_count_rows("DELETE FROM documents WHERE tenant = ?1 AND id = ?2", row)?;
    Ok(known > 0)
}

/// Returns whether a document of the job was removed. Later findings about the job may contain its text and must not be written.
pub(super) fn job_has_removed_document(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
) -> SqlResult<bool> {
    c.query_one(
        "SELECT EXISTS (SELECT 1 FROM job_documents WHERE tenant = ?1 AND job = ?2 AND removed)",
        params![tenant.as_str(), job.to_string()],
        |row| row.get(0),
    )
}

/// Removes the text of a document from the rows of a job. Its component log and its shadow run may contain text of any document of the
/// job, and are removed as a whole.
fn redact_document_in_job(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    document: &DocumentId,
    job: &JobId,
) -> SqlResult<()> {
    let job = job.to_string();
    let row = &[tenant.as_str().to_sql_value(), job.to_sql_value()];
    for table in ["component_log", "shadow_reports"] {
        t.execute(
            &format!("DELETE FROM {table} WHERE tenant = ?1 AND job = ?2"),
            row,
        )?;
    }
    // The excluded types, which are most events, have no text.
    let mut sql = String::from("SELECT position, event FROM events WHERE tenant = ?1 AND job = ?2");
    for event_type in ["page-done", "batch-rasterized", "document-started", "job-ended"] {
        // In a text the quotation marks would be escaped.
        sql.push_str(&format!(" AND event NOT LIKE '%\"type\":\"{event_type}\"%'"));
    }
    let events = t.query_rows(&sql, row, |row| {
        Ok((row.get::<i64>(0)?, read_json::<Event>(row, 1)?))
    })?;
    for (position, mut event) in events {
        // Errors of components and language models belong to no document and may quote any.
        let may_quote = matches!(
            event.kind,
            EventKind::PolicyFallback { .. } | EventKind::ModelWaitStarted { .. }
        );
        let may_quote_any_document = event.document.is_none() && may_quote;
        if (event.document == Some(*document) || may_quote_any_document) && event.kind.remove_document_text()
        {
            t.execute(
                "UPDATE events SET event = ?4 WHERE tenant = ?1 AND job = ?2 AND position = ?3",
                params![tenant.as_str(), job, position, to_json(&event)?],
            )?;
        }
    }
    Ok(())
}

pub(super) fn list_jobs_with_document(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    document: &DocumentId,
) -> SqlResult<Vec<JobId>> {
    c.query_rows(
        "SELECT job FROM job_documents WHERE tenant = ?1 AND document = ?2",
        params![tenant.as_str(), document.to_string()],
        |row| read_and_parse_text(row, 0),
    )
}

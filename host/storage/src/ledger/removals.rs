//! Documents that are being removed, as rows.
//!
//! Beginning a removal and putting in an order are one transaction each, and the file has one writer at a time: either the
//! removal finds the job, or the order finds the removal.
//!
//! A document's jobs stay, and their events, but no text of the document.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Transaction, params};
use weir_core::event::{Event, EventKind};
use weir_core::order::Order;
use weir_core::removal::{Begin, Removals};
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use super::SqliteLedger;
use super::columns::{from_json, parsed, to_json};

#[async_trait]
impl Removals for SqliteLedger {
    async fn begin(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> std::result::Result<Begin, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.write(move |t| begin(t, &tenant, &document)).await
    }

    async fn end(&self, tenant: &TenantId, document: &DocumentId) -> std::result::Result<(), StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.write(move |t| {
            t.prepare_cached("DELETE FROM removals WHERE tenant = ?1 AND document = ?2")?
                .execute(params![tenant.as_str(), document.to_string()])
                .map(drop)
        })
        .await
    }

    async fn unended(&self) -> std::result::Result<Vec<(TenantId, DocumentId)>, StorageError> {
        self.reader
            .read(|c| {
                c.prepare_cached("SELECT tenant, document FROM removals")?
                    .query_map([], |row| Ok((parsed(row, 0)?, parsed(row, 1)?)))?
                    .collect()
            })
            .await
    }

    async fn jobs_with(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> std::result::Result<Vec<JobId>, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.reader.read(move |c| jobs_with(c, &tenant, &document)).await
    }
}

fn begin(t: &Transaction<'_>, tenant: &TenantId, document: &DocumentId) -> Result<Begin> {
    let in_work: bool = t
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM job_documents AS of JOIN jobs ON jobs.tenant = of.tenant AND jobs.id = of.job
             WHERE of.tenant = ?1 AND of.document = ?2 AND jobs.state IN ('queued', 'running'))",
        )?
        .query_row(params![tenant.as_str(), document.to_string()], |row| row.get(0))?;
    if in_work {
        return Ok(Begin::InWork);
    }
    let begun = t
        .prepare_cached("INSERT OR IGNORE INTO removals (tenant, document) VALUES (?1, ?2)")?
        .execute(params![tenant.as_str(), document.to_string()])?;
    Ok(if begun > 0 { Begin::Begun } else { Begin::Removing })
}

/// The document of an order that is being removed, if there is one.
pub(super) fn removed_document(c: &Connection, order: &Order) -> Result<Option<DocumentId>> {
    let mut find = c.prepare_cached("SELECT 1 FROM removals WHERE tenant = ?1 AND document = ?2")?;
    for file in &order.files {
        let row = params![order.tenant.as_str(), file.document.to_string()];
        if find.query_row(row, |_| Ok(())).optional()?.is_some() {
            return Ok(Some(file.document));
        }
    }
    Ok(None)
}

/// Remembers that a job has a document.
pub(super) fn add(t: &Transaction<'_>, tenant: &TenantId, document: &DocumentId, job: &JobId) -> Result<()> {
    t.prepare_cached("INSERT OR IGNORE INTO job_documents (tenant, document, job) VALUES (?1, ?2, ?3)")?
        .execute(params![tenant.as_str(), document.to_string(), job.to_string()])
        .map(drop)
}

/// Removes a document's rows and all text of it from what is kept of its jobs; whether it was known.
pub(super) fn forget(t: &Transaction<'_>, tenant: &TenantId, document: &DocumentId) -> Result<bool> {
    for job in jobs_with(t, tenant, document)? {
        redact(t, tenant, document, &job)?;
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

/// Whether a document of the job was removed: what is found out about the job from then on may have text of it.
pub(super) fn has_lost_a_document(c: &Connection, tenant: &TenantId, job: &JobId) -> Result<bool> {
    c.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM job_documents WHERE tenant = ?1 AND job = ?2 AND removed)",
    )?
    .query_row(params![tenant.as_str(), job.to_string()], |row| row.get(0))
}

/// Removes the text of a document from what is kept of a job. What components wrote to the log and what a shadow would have
/// decided may have text of any document of the job, and goes as a whole.
fn redact(t: &Transaction<'_>, tenant: &TenantId, document: &DocumentId, job: &JobId) -> Result<()> {
    let row = params![tenant.as_str(), job.to_string()];
    for table in ["said", "shadow_runs"] {
        t.prepare_cached(&format!("DELETE FROM {table} WHERE tenant = ?1 AND job = ?2"))?
            .execute(row)?;
    }
    // Most events are of pages that are done, which have no text.
    let mut find = t.prepare_cached(
        "SELECT place, event FROM events WHERE tenant = ?1 AND job = ?2
         AND json_extract(event, '$.type') NOT IN ('page-done', 'batch-rasterized', 'document-started', 'job-ended')",
    )?;
    let mut update = t.prepare_cached("UPDATE events SET event = ?2 WHERE place = ?1")?;
    let events = find.query_map(row, |row| {
        Ok((row.get::<_, i64>(0)?, from_json::<Event>(row, 1)?))
    })?;
    let events: Vec<_> = events.collect::<Result<_>>()?;
    for (place, mut event) in events {
        // Errors of components and language models are no document's, and may quote any.
        let may_quote = matches!(
            event.what,
            EventKind::PolicyFailed { .. } | EventKind::ModelWaitStarted { .. }
        );
        let of_all = event.document.is_none() && may_quote;
        if (event.document == Some(*document) || of_all) && event.what.redact() {
            update.execute(params![place, to_json(&event)?])?;
        }
    }
    Ok(())
}

pub(super) fn jobs_with(c: &Connection, tenant: &TenantId, document: &DocumentId) -> Result<Vec<JobId>> {
    c.prepare_cached("SELECT job FROM job_documents WHERE tenant = ?1 AND document = ?2")?
        .query_map(params![tenant.as_str(), document.to_string()], |row| {
            parsed(row, 0)
        })?
        .collect()
}

//! Documents that are being removed, as rows.
//!
//! Beginning a removal and putting in an order are one transaction each, and the file has one writer at a time: either the
//! removal finds the job, or the order finds the removal.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Transaction, params};
use weir_core::order::Order;
use weir_core::removal::{Begin, Removals};
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use super::SqliteLedger;
use super::columns::parsed;

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

pub(super) fn jobs_with(c: &Connection, tenant: &TenantId, document: &DocumentId) -> Result<Vec<JobId>> {
    c.prepare_cached("SELECT job FROM job_documents WHERE tenant = ?1 AND document = ?2")?
        .query_map(params![tenant.as_str(), document.to_string()], |row| {
            parsed(row, 0)
        })?
        .collect()
}

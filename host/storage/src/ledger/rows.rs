//! Records and events as rows. Every statement names the tenant.

use std::fmt::Display;
use std::str::FromStr;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_core::event::Event;
use weir_core::ledger::{DocumentRecord, Entry, JobRecord, JobState, PageRecord};
use weir_core::{DocumentId, JobId, RevisionId, TenantId};

/// Writes one entry.
pub(super) fn write(transaction: &Transaction<'_>, entry: &Entry) -> Result<()> {
    match entry {
        Entry::Job(job) => write_job(transaction, job),
        Entry::Document(document) => write_document(transaction, document),
        Entry::Page(page) => write_page(transaction, page),
        Entry::Event(tenant, event) => write_event(transaction, tenant, event),
    }
}

fn write_job(transaction: &Transaction<'_>, job: &JobRecord) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO jobs (tenant, id, pipeline, revision, state, created_millis) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET pipeline = ?3, revision = ?4, state = ?5, created_millis = ?6",
        )?
        .execute(params![
            job.tenant.as_str(),
            job.id.to_string(),
            job.pipeline,
            job.revision.to_string(),
            state_name(job.state),
            integer(job.created_millis),
        ])
        .map(drop)
}

fn write_document(transaction: &Transaction<'_>, document: &DocumentRecord) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO documents (tenant, id, name, bytes, pages, title, outline, collection, created_millis)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT DO UPDATE SET name = ?3, bytes = ?4, pages = ?5, title = ?6, outline = ?7, collection = ?8",
        )?
        .execute(params![
            document.tenant.as_str(),
            document.id.to_string(),
            document.name,
            integer(document.bytes),
            document.pages,
            document.title,
            to_json(&document.outline)?,
            document.collection,
            integer(document.created_millis),
        ])
        .map(drop)
}

fn write_page(transaction: &Transaction<'_>, page: &PageRecord) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO pages (tenant, document, page, revision, job, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            page.tenant.as_str(),
            page.document.to_string(),
            page.page,
            page.revision.to_string(),
            page.job.to_string(),
            to_json(&page.state)?,
        ])
        .map(drop)
}

fn write_event(transaction: &Transaction<'_>, tenant: &TenantId, event: &Event) -> Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO events (tenant, job, seq, event) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            tenant.as_str(),
            event.job.to_string(),
            integer(event.seq),
            to_json(event)?,
        ])
        .map(drop)
}

const DOCUMENT: &str =
    "SELECT tenant, id, name, bytes, pages, title, outline, collection, created_millis FROM documents";

pub(super) fn document(c: &Connection, tenant: &TenantId, id: &DocumentId) -> Result<Option<DocumentRecord>> {
    c.prepare_cached(&format!("{DOCUMENT} WHERE tenant = ?1 AND id = ?2"))?
        .query_row(params![tenant.as_str(), id.to_string()], read_document)
        .optional()
}

pub(super) fn documents(c: &Connection, tenant: &TenantId) -> Result<Vec<DocumentRecord>> {
    c.prepare_cached(&format!(
        "{DOCUMENT} WHERE tenant = ?1 ORDER BY created_millis DESC, rowid DESC"
    ))?
    .query_map(params![tenant.as_str()], read_document)?
    .collect()
}

fn read_document(row: &Row<'_>) -> Result<DocumentRecord> {
    Ok(DocumentRecord {
        tenant: parsed(row, 0)?,
        id: parsed(row, 1)?,
        name: row.get(2)?,
        bytes: natural(row, 3)?,
        pages: row.get(4)?,
        title: row.get(5)?,
        outline: from_json(row, 6)?,
        collection: row.get(7)?,
        created_millis: natural(row, 8)?,
    })
}

pub(super) fn pages(
    c: &Connection,
    tenant: &TenantId,
    document: &DocumentId,
    revision: Option<&RevisionId>,
) -> Result<Vec<PageRecord>> {
    let (tenant, document) = (tenant.as_str(), document.to_string());
    match revision {
        Some(revision) => c
            .prepare_cached(
                "SELECT tenant, document, page, revision, job, state FROM pages
                 WHERE tenant = ?1 AND document = ?2 AND revision = ?3 ORDER BY page",
            )?
            .query_map(params![tenant, document, revision.to_string()], read_page)?
            .collect(),
        // With max() SQLite takes the other columns from the row that has it.
        None => c
            .prepare_cached(
                "SELECT tenant, document, page, revision, job, state, max(rowid) FROM pages
                 WHERE tenant = ?1 AND document = ?2 GROUP BY page ORDER BY page",
            )?
            .query_map(params![tenant, document], read_page)?
            .collect(),
    }
}

fn read_page(row: &Row<'_>) -> Result<PageRecord> {
    Ok(PageRecord {
        tenant: parsed(row, 0)?,
        document: parsed(row, 1)?,
        page: row.get(2)?,
        revision: parsed(row, 3)?,
        job: parsed(row, 4)?,
        state: from_json(row, 5)?,
    })
}

const JOB: &str = "SELECT tenant, id, pipeline, revision, state, created_millis FROM jobs";

pub(super) fn job(c: &Connection, tenant: &TenantId, id: &JobId) -> Result<Option<JobRecord>> {
    c.prepare_cached(&format!("{JOB} WHERE tenant = ?1 AND id = ?2"))?
        .query_row(params![tenant.as_str(), id.to_string()], read_job)
        .optional()
}

pub(super) fn unfinished(c: &Connection) -> Result<Vec<JobRecord>> {
    c.prepare_cached(&format!(
        "{JOB} WHERE state IN ('queued', 'running') ORDER BY created_millis, rowid"
    ))?
    .query_map([], read_job)?
    .collect()
}

fn read_job(row: &Row<'_>) -> Result<JobRecord> {
    Ok(JobRecord {
        tenant: parsed(row, 0)?,
        id: parsed(row, 1)?,
        pipeline: row.get(2)?,
        revision: parsed(row, 3)?,
        state: state_named(row, 4)?,
        created_millis: natural(row, 5)?,
    })
}

pub(super) fn events(
    c: &Connection,
    tenant: &TenantId,
    job: &JobId,
    after: u64,
    limit: usize,
) -> Result<Vec<Event>> {
    c.prepare_cached(
        "SELECT event FROM events WHERE tenant = ?1 AND job = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4",
    )?
    .query_map(
        params![
            tenant.as_str(),
            job.to_string(),
            integer(after),
            i64::try_from(limit).unwrap_or(i64::MAX),
        ],
        |row| from_json(row, 0),
    )?
    .collect()
}

const fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

fn state_named(row: &Row<'_>, column: usize) -> Result<JobState> {
    let name: String = row.get(column)?;
    [
        JobState::Queued,
        JobState::Running,
        JobState::Done,
        JobState::Failed,
        JobState::Cancelled,
    ]
    .into_iter()
    .find(|&state| state_name(state) == name)
    .ok_or_else(|| unreadable(column, format!("'{name}' is no state of a job").into()))
}

/// SQLite's integers end at 2⁶³ − 1, which no count of bytes, milliseconds or events comes near.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn natural(row: &Row<'_>, column: usize) -> Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|e| unreadable(column, e.into()))
}

fn parsed<T: FromStr<Err: Display>>(row: &Row<'_>, column: usize) -> Result<T> {
    row.get::<_, String>(column)?
        .parse()
        .map_err(|e: T::Err| unreadable(column, e.to_string().into()))
}

fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(|e| unreadable(column, e.into()))
}

fn unreadable(column: usize, error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
}

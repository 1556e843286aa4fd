//! Rows of documents, pages, jobs and events. Every statement names the tenant.

use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use weir_core::event::{Event, EventKind};
use weir_core::job_request::JobFilter;
use weir_core::ledger::{DocumentRecord, JobRecord, JobState, PageRecord};
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, TenantId};

use super::column_values::{
    invalid_value_error, read_and_parse_text, read_json, read_u64, to_json, to_sql_integer, to_sql_limit,
};
use super::document_removals;
use super::schema_renames::column_name_in_version;

/// Sorts after every id.
const AFTER_ALL_IDS: &str = "~";

pub(super) fn write_job(transaction: &Transaction<'_>, job: &JobRecord) -> Result<()> {
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
            job_state_name(job.state),
            to_sql_integer(job.created_millis),
        ])
        .map(drop)
}

pub(super) fn write_document(transaction: &Transaction<'_>, document: &DocumentRecord) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO documents (tenant, id, name, bytes, pages, title, outline, collection, labels,
             requested_placement, created_millis) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT DO UPDATE SET name = ?3, bytes = ?4, pages = ?5, title = ?6, outline = ?7, collection = ?8,
             labels = ?9, requested_placement = ?10",
        )?
        .execute(params![
            document.tenant.as_str(),
            document.id.to_string(),
            document.name,
            to_sql_integer(document.bytes),
            document.pages,
            document.title,
            to_json(&document.outline)?,
            document.collection,
            to_json(&document.labels)?,
            to_json(&document.requested_collection_and_labels)?,
            to_sql_integer(document.created_millis),
        ])
        .map(drop)
}

pub(super) fn write_page(transaction: &Transaction<'_>, page: &PageRecord) -> Result<()> {
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

pub(super) fn write_event(transaction: &Transaction<'_>, tenant: &TenantId, event: &Event) -> Result<()> {
    if let (Some(document), EventKind::DocumentStarted { .. }) = (&event.document, &event.kind) {
        document_removals::add_job_document(transaction, tenant, document, &event.job)?;
    }
    transaction
        .prepare_cached(
            "INSERT INTO events (tenant, job, seq, event) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (tenant, job, seq) DO UPDATE SET event = ?4",
        )?
        .execute(params![
            tenant.as_str(),
            event.job.to_string(),
            to_sql_integer(event.seq),
            to_json(event)?,
        ])
        .map(drop)
}

/// The schema version since which documents have labels and a requested placement.
const LABELS_VERSION: u32 = 8;

/// Returns a statement that selects the documents of `condition`. A reader may open a file that no writer of this version has upgraded.
fn build_document_query(c: &Connection, condition: &str) -> Result<String> {
    let version: u32 = c.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let (labels, placement) = if version < LABELS_VERSION {
        ("'[]'", "'{}'")
    } else {
        (
            "labels",
            column_name_in_version(version, "documents", "requested_placement"),
        )
    };
    Ok(format!(
        "SELECT tenant, id, name, bytes, pages, title, outline, collection, {labels}, {placement}, created_millis
         FROM documents WHERE {condition}"
    ))
}

pub(super) fn find_document(
    c: &Connection,
    tenant: &TenantId,
    id: &DocumentId,
) -> Result<Option<DocumentRecord>> {
    c.prepare_cached(&build_document_query(c, "tenant = ?1 AND id = ?2")?)?
        .query_row(params![tenant.as_str(), id.to_string()], document_from_row)
        .optional()
}

pub(super) fn list_documents(c: &Connection, tenant: &TenantId) -> Result<Vec<DocumentRecord>> {
    let newest_first = "tenant = ?1 ORDER BY created_millis DESC, rowid DESC";
    c.prepare_cached(&build_document_query(c, newest_first)?)?
        .query_map(params![tenant.as_str()], document_from_row)?
        .collect()
}

const DOCUMENTS_AFTER_CONDITION: &str =
    "tenant = ?1 AND (created_millis, id) < (?2, ?3) ORDER BY created_millis DESC, id DESC LIMIT ?4";

pub(super) fn list_documents_after(
    c: &Connection,
    tenant: &TenantId,
    after: Option<(u64, DocumentId)>,
    limit: usize,
) -> Result<Vec<DocumentRecord>> {
    let (created_millis, id) = match after {
        Some((last_created_millis, id)) => (to_sql_integer(last_created_millis), id.to_string()),
        None => (i64::MAX, AFTER_ALL_IDS.to_owned()),
    };
    c.prepare_cached(&build_document_query(c, DOCUMENTS_AFTER_CONDITION)?)?
        .query_map(
            params![tenant.as_str(), created_millis, id, to_sql_limit(limit)],
            document_from_row,
        )?
        .collect()
}

fn document_from_row(row: &Row<'_>) -> Result<DocumentRecord> {
    Ok(DocumentRecord {
        tenant: read_and_parse_text(row, 0)?,
        id: read_and_parse_text(row, 1)?,
        name: row.get(2)?,
        bytes: read_u64(row, 3)?,
        pages: row.get(4)?,
        title: row.get(5)?,
        outline: read_json(row, 6)?,
        collection: row.get(7)?,
        labels: read_json(row, 8)?,
        requested_collection_and_labels: read_json(row, 9)?,
        created_millis: read_u64(row, 10)?,
    })
}

pub(super) fn list_pages(
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
            .query_map(params![tenant, document, revision.to_string()], page_from_row)?
            .collect(),
        // With max() SQLite takes the other columns from the row with the maximum.
        None => c
            .prepare_cached(
                "SELECT tenant, document, page, revision, job, state, max(rowid) FROM pages
                 WHERE tenant = ?1 AND document = ?2 GROUP BY page ORDER BY page",
            )?
            .query_map(params![tenant, document], page_from_row)?
            .collect(),
    }
}

// With max() SQLite takes the other columns from the row with the maximum.
const SELECT_PAGES_AFTER: &str = "SELECT tenant, document, page, revision, job, state, max(rowid) FROM pages
     WHERE tenant = ?1 AND document = ?2 AND page > ?3 GROUP BY page ORDER BY page LIMIT ?4";

pub(super) fn list_pages_after(
    c: &Connection,
    tenant: &TenantId,
    document: &DocumentId,
    after: PageNumber,
    limit: usize,
) -> Result<Vec<PageRecord>> {
    c.prepare_cached(SELECT_PAGES_AFTER)?
        .query_map(
            params![tenant.as_str(), document.to_string(), after, to_sql_limit(limit)],
            page_from_row,
        )?
        .collect()
}

fn page_from_row(row: &Row<'_>) -> Result<PageRecord> {
    Ok(PageRecord {
        tenant: read_and_parse_text(row, 0)?,
        document: read_and_parse_text(row, 1)?,
        page: row.get(2)?,
        revision: read_and_parse_text(row, 3)?,
        job: read_and_parse_text(row, 4)?,
        state: read_json(row, 5)?,
    })
}

const SELECT_JOB: &str = "SELECT tenant, id, pipeline, revision, state, created_millis FROM jobs";

pub(super) fn find_job(c: &Connection, tenant: &TenantId, id: &JobId) -> Result<Option<JobRecord>> {
    c.prepare_cached(&format!("{SELECT_JOB} WHERE tenant = ?1 AND id = ?2"))?
        .query_row(params![tenant.as_str(), id.to_string()], job_from_row)
        .optional()
}

pub(super) fn list_unfinished_jobs(c: &Connection) -> Result<Vec<JobRecord>> {
    c.prepare_cached(&format!(
        "{SELECT_JOB} WHERE state IN ('queued', 'running') ORDER BY created_millis, rowid"
    ))?
    .query_map([], job_from_row)?
    .collect()
}

/// Lists a tenant's jobs by descending id, which is newest first.
pub(super) fn list_jobs(c: &Connection, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<JobRecord>> {
    let (tenant, limit) = (tenant.as_str(), to_sql_limit(filter.limit));
    let before = filter
        .before
        .map_or_else(|| AFTER_ALL_IDS.to_owned(), |job| job.to_string());
    match filter.state {
        Some(state) => c
            .prepare_cached(&format!(
                "{SELECT_JOB} WHERE tenant = ?1 AND state = ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4"
            ))?
            .query_map(
                params![tenant, job_state_name(state), before, limit],
                job_from_row,
            )?
            .collect(),
        None => c
            .prepare_cached(&format!(
                "{SELECT_JOB} WHERE tenant = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
            ))?
            .query_map(params![tenant, before, limit], job_from_row)?
            .collect(),
    }
}

fn job_from_row(row: &Row<'_>) -> Result<JobRecord> {
    Ok(JobRecord {
        tenant: read_and_parse_text(row, 0)?,
        id: read_and_parse_text(row, 1)?,
        pipeline: row.get(2)?,
        revision: read_and_parse_text(row, 3)?,
        state: job_state_from_row(row, 4)?,
        created_millis: read_u64(row, 5)?,
    })
}

pub(super) fn list_job_events(
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
            to_sql_integer(after),
            to_sql_limit(limit),
        ],
        |row| read_json(row, 0),
    )?
    .collect()
}

const SELECT_LAST_EVENT: &str =
    "SELECT event FROM events WHERE tenant = ?1 AND job = ?2 ORDER BY seq DESC LIMIT 1";

pub(super) fn find_last_job_event(c: &Connection, tenant: &TenantId, job: &JobId) -> Result<Option<Event>> {
    c.prepare_cached(SELECT_LAST_EVENT)?
        .query_row(params![tenant.as_str(), job.to_string()], |row| read_json(row, 0))
        .optional()
}

const SELECT_TENANT_EVENTS: &str =
    "SELECT position, event FROM events WHERE tenant = ?1 AND position > ?2 ORDER BY position LIMIT ?3";

pub(super) fn list_tenant_events(
    c: &Connection,
    tenant: &TenantId,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, Event)>> {
    c.prepare_cached(SELECT_TENANT_EVENTS)?
        .query_map(
            params![tenant.as_str(), to_sql_integer(after), to_sql_limit(limit)],
            |row| Ok((read_u64(row, 0)?, read_json(row, 1)?)),
        )?
        .collect()
}

const SELECT_LAST_POSITION: &str =
    "SELECT position FROM events WHERE tenant = ?1 ORDER BY position DESC LIMIT 1";

pub(super) fn find_last_tenant_event_position(c: &Connection, tenant: &TenantId) -> Result<u64> {
    let position = c
        .prepare_cached(SELECT_LAST_POSITION)?
        .query_row([tenant.as_str()], |row| read_u64(row, 0))
        .optional()?;
    Ok(position.unwrap_or(0))
}

const fn job_state_name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

fn job_state_from_row(row: &Row<'_>, column: usize) -> Result<JobState> {
    let name: String = row.get(column)?;
    [
        JobState::Queued,
        JobState::Running,
        JobState::Done,
        JobState::Failed,
        JobState::Cancelled,
    ]
    .into_iter()
    .find(|&state| job_state_name(state) == name)
    .ok_or_else(|| invalid_value_error(column, format!("'{name}' is not a state of a job").into()))
}

#[cfg(test)]
mod tests;

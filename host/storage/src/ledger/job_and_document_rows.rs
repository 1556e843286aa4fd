//! Rows of documents, jobs and events. Every statement names the tenant.

use weir_core::event::{Event, EventKind};
use weir_core::job_request::JobFilter;
use weir_core::ledger::{DocumentRecord, JobRecord, JobState};
use weir_core::{DocumentId, JobId, TenantId};

use super::column_values::{read_and_parse_text, read_json, to_json, to_sql_integer, to_sql_limit};
use super::document_removals;
use super::sql_connection::{SqlConnection, SqlResult, SqlRow};
use super::sql_values::params;
use super::sqlite::column_name_in_version;

/// Maximum number of events or log entries that one call returns.
pub(super) const MAX_LISTED_EVENTS: usize = 10_000;
/// Sorts after every id.
const AFTER_ALL_IDS: &str = "~";

pub(super) fn write_job(transaction: &SqlConnection<'_>, job: &JobRecord) -> SqlResult<()> {
    let now = transaction.now_millis();
    let sql = format!(
        "INSERT INTO jobs (tenant, id, pipeline, revision, state, created_millis, ended_millis)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, CASE WHEN ?5 NOT IN ('queued', 'running') THEN {now} END)
         ON CONFLICT (tenant, id) DO UPDATE SET pipeline = ?3, revision = ?4, state = ?5, created_millis = ?6,
         owner = CASE WHEN ?5 IN ('queued', 'running') THEN jobs.owner END,
         ended_millis = CASE WHEN ?5 NOT IN ('queued', 'running') THEN coalesce(jobs.ended_millis, {now}) END"
    );
    transaction.execute(
        &sql,
        params![
            job.tenant.as_str(),
            job.id.to_string(),
            job.pipeline,
            job.revision.to_string(),
            job_state_name(job.state),
            to_sql_integer(job.created_millis),
        ],
    )
}

pub(super) fn write_document(transaction: &SqlConnection<'_>, document: &DocumentRecord) -> SqlResult<()> {
    transaction.execute("INSERT INTO documents (tenant, id, name, bytes, pages, title, outline, collection, labels,
             requested_placement, created_millis) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (tenant, id) DO UPDATE SET name = ?3, bytes = ?4, pages = ?5, title = ?6, outline = ?7, collection = ?8,
             labels = ?9, requested_placement = ?10", params![
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
}

pub(super) fn write_event(
    transaction: &SqlConnection<'_>,
    tenant: &TenantId,
    event: &Event,
) -> SqlResult<()> {
    if let (Some(document), EventKind::DocumentStarted { .. }) = (&event.document, &event.kind) {
        document_removals::add_job_document(transaction, tenant, document, &event.job)?;
    }
    transaction.execute(
        "INSERT INTO events (tenant, job, seq, event) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (tenant, job, seq) DO UPDATE SET event = ?4",
        params![
            tenant.as_str(),
            event.job.to_string(),
            to_sql_integer(event.seq),
            to_json(event)?,
        ],
    )
}

/// The schema version since which documents have labels and a requested placement.
const LABELS_VERSION: u32 = 8;

/// Returns a statement that selects the documents of `condition`. A reader may open a file that no writer of this version has upgraded.
fn build_document_query(c: &SqlConnection<'_>, condition: &str) -> SqlResult<String> {
    let version: u32 = c.schema_version()?;
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
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    id: &DocumentId,
) -> SqlResult<Option<DocumentRecord>> {
    c.query_optional(
        &build_document_query(c, "tenant = ?1 AND id = ?2")?,
        params![tenant.as_str(), id.to_string()],
        document_from_row,
    )
}

pub(super) fn list_documents(c: &SqlConnection<'_>, tenant: &TenantId) -> SqlResult<Vec<DocumentRecord>> {
    let newest_first = "tenant = ?1 ORDER BY created_millis DESC, id DESC";
    c.query_rows(
        &build_document_query(c, newest_first)?,
        params![tenant.as_str()],
        document_from_row,
    )
}

const DOCUMENTS_AFTER_CONDITION: &str =
    "tenant = ?1 AND (created_millis, id) < (?2, ?3) ORDER BY created_millis DESC, id DESC LIMIT ?4";

pub(super) fn list_documents_after(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    after: Option<(u64, DocumentId)>,
    limit: usize,
) -> SqlResult<Vec<DocumentRecord>> {
    let (created_millis, id) = match after {
        Some((last_created_millis, id)) => (to_sql_integer(last_created_millis), id.to_string()),
        None => (i64::MAX, AFTER_ALL_IDS.to_owned()),
    };
    c.query_rows(
        &build_document_query(c, DOCUMENTS_AFTER_CONDITION)?,
        params![tenant.as_str(), created_millis, id, to_sql_limit(limit)],
        document_from_row,
    )
}

fn document_from_row(row: &SqlRow<'_>) -> SqlResult<DocumentRecord> {
    Ok(DocumentRecord {
        tenant: read_and_parse_text(row, 0)?,
        id: read_and_parse_text(row, 1)?,
        name: row.get(2)?,
        bytes: row.get(3)?,
        pages: row.get(4)?,
        title: row.get(5)?,
        outline: read_json(row, 6)?,
        collection: row.get(7)?,
        labels: read_json(row, 8)?,
        requested_collection_and_labels: read_json(row, 9)?,
        created_millis: row.get(10)?,
    })
}

const SELECT_JOB: &str = "SELECT tenant, id, pipeline, revision, state, created_millis FROM jobs";

pub(super) fn find_job(c: &SqlConnection<'_>, tenant: &TenantId, id: &JobId) -> SqlResult<Option<JobRecord>> {
    c.query_optional(
        &format!("{SELECT_JOB} WHERE tenant = ?1 AND id = ?2"),
        params![tenant.as_str(), id.to_string()],
        job_from_row,
    )
}

pub(super) fn list_unfinished_jobs(c: &SqlConnection<'_>) -> SqlResult<Vec<JobRecord>> {
    c.query_rows(
        &format!("{SELECT_JOB} WHERE state IN ('queued', 'running') ORDER BY created_millis, id"),
        &[],
        job_from_row,
    )
}

pub(super) fn find_claimable_job(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
) -> SqlResult<Option<JobRecord>> {
    c.query_optional(
        &format!(
            "{SELECT_JOB} WHERE tenant = ?1 AND id = ?2 AND state IN ('queued', 'running') AND owner IS NULL"
        ),
        params![tenant.as_str(), job.to_string()],
        job_from_row,
    )
}

pub(super) fn list_claimable_jobs(c: &SqlConnection<'_>) -> SqlResult<Vec<JobRecord>> {
    c.query_rows(
        &format!(
            "{SELECT_JOB} WHERE state IN ('queued', 'running') AND owner IS NULL ORDER BY created_millis, id"
        ),
        params![],
        job_from_row,
    )
}

/// Lists a tenant's jobs by descending id, which is newest first.
pub(super) fn list_jobs(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    filter: &JobFilter,
) -> SqlResult<Vec<JobRecord>> {
    let (tenant, limit) = (tenant.as_str(), to_sql_limit(filter.limit));
    let before = filter
        .before
        .map_or_else(|| AFTER_ALL_IDS.to_owned(), |job| job.to_string());
    match filter.state {
        Some(state) => c.query_rows(
            &format!("{SELECT_JOB} WHERE tenant = ?1 AND state = ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4"),
            params![tenant, job_state_name(state), before, limit],
            job_from_row,
        ),
        None => c.query_rows(
            &format!("{SELECT_JOB} WHERE tenant = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"),
            params![tenant, before, limit],
            job_from_row,
        ),
    }
}

fn job_from_row(row: &SqlRow<'_>) -> SqlResult<JobRecord> {
    Ok(JobRecord {
        tenant: read_and_parse_text(row, 0)?,
        id: read_and_parse_text(row, 1)?,
        pipeline: row.get(2)?,
        revision: read_and_parse_text(row, 3)?,
        state: job_state_from_row(row, 4)?,
        created_millis: row.get(5)?,
    })
}

pub(super) fn list_job_events(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
    after: u64,
    limit: usize,
) -> SqlResult<Vec<Event>> {
    c.query_rows(
        "SELECT event FROM events WHERE tenant = ?1 AND job = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4",
        params![
            tenant.as_str(),
            job.to_string(),
            to_sql_integer(after),
            to_sql_limit(limit),
        ],
        |row| read_json(row, 0),
    )
}

const SELECT_LAST_EVENT: &str =
    "SELECT event FROM events WHERE tenant = ?1 AND job = ?2 ORDER BY seq DESC LIMIT 1";

pub(super) fn find_last_job_event(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
) -> SqlResult<Option<Event>> {
    c.query_optional(
        SELECT_LAST_EVENT,
        params![tenant.as_str(), job.to_string()],
        |row| read_json(row, 0),
    )
}

const SELECT_TENANT_EVENTS: &str =
    "SELECT position, event FROM events WHERE tenant = ?1 AND position > ?2 ORDER BY position LIMIT ?3";

pub(super) fn list_tenant_events(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    after: u64,
    limit: usize,
) -> SqlResult<Vec<(u64, Event)>> {
    c.query_rows(
        SELECT_TENANT_EVENTS,
        params![tenant.as_str(), to_sql_integer(after), to_sql_limit(limit)],
        |row| Ok((row.get(0)?, read_json(row, 1)?)),
    )
}

const SELECT_LAST_POSITION: &str =
    "SELECT position FROM events WHERE tenant = ?1 ORDER BY position DESC LIMIT 1";

pub(super) fn find_last_tenant_event_position(c: &SqlConnection<'_>, tenant: &TenantId) -> SqlResult<u64> {
    let position = c.query_optional(SELECT_LAST_POSITION, params![tenant.as_str()], |row| row.get(0))?;
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

fn job_state_from_row(row: &SqlRow<'_>, column: usize) -> SqlResult<JobState> {
    row.convert_text(column, |name| {
        [
            JobState::Queued,
            JobState::Running,
            JobState::Done,
            JobState::Failed,
            JobState::Cancelled,
        ]
        .into_iter()
        .find(|&state| job_state_name(state) == name)
        .ok_or_else(|| format!("'{name}' is not a state of a job"))
    })
}

#[cfg(test)]
mod tests;

//! Records and events as rows. Every statement names the tenant.

use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use weir_core::event::{Event, EventKind};
use weir_core::ledger::{DocumentRecord, Entry, JobRecord, JobState, PageRecord};
use weir_core::order::JobFilter;
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, TenantId};

use super::columns::{at_most, from_json, integer, natural, parsed, to_json, unreadable};
use super::{orders, removals, said};

/// Sorts behind every id.
const BEHIND_ALL_IDS: &str = "~";

/// Writes one entry; whether a secret was removed by it.
pub(super) fn write(transaction: &Transaction<'_>, entry: &Entry) -> Result<bool> {
    let written = match entry {
        Entry::Job(job) => {
            write_job(transaction, job)?;
            return match job.state.is_ended() {
                true => orders::remove_passwords(transaction, &job.tenant, &job.id),
                false => Ok(false),
            };
        }
        Entry::Document(document) => write_document(transaction, document),
        Entry::Page(page) => write_page(transaction, page),
        Entry::Event(tenant, event) => write_event(transaction, tenant, event),
        Entry::Said(tenant, entry) => said::write(transaction, tenant, entry),
    };
    written.map(|()| false)
}

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
            state_name(job.state),
            integer(job.created_millis),
        ])
        .map(drop)
}

fn write_document(transaction: &Transaction<'_>, document: &DocumentRecord) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO documents (tenant, id, name, bytes, pages, title, outline, collection, labels, requested,
             created_millis) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT DO UPDATE SET name = ?3, bytes = ?4, pages = ?5, title = ?6, outline = ?7, collection = ?8,
             labels = ?9, requested = ?10",
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
            to_json(&document.labels)?,
            to_json(&document.requested)?,
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
    if let (Some(document), EventKind::DocumentStarted { .. }) = (&event.document, &event.what) {
        removals::add(transaction, tenant, document, &event.job)?;
    }
    transaction
        .prepare_cached(
            "INSERT INTO events (tenant, job, seq, event) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (tenant, job, seq) DO UPDATE SET event = ?4",
        )?
        .execute(params![
            tenant.as_str(),
            event.job.to_string(),
            integer(event.seq),
            to_json(event)?,
        ])
        .map(drop)
}

/// Steps of the schema that a file has taken in which documents have labels.
const LABELED: u32 = 8;

/// Selects documents. A reader may find a file that no writer of this version has opened yet.
fn select_documents(c: &Connection, condition: &str) -> Result<String> {
    let steps: u32 = c.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let filing = if steps < LABELED {
        "'[]', '{}'"
    } else {
        "labels, requested"
    };
    Ok(format!(
        "SELECT tenant, id, name, bytes, pages, title, outline, collection, {filing}, created_millis FROM documents
         WHERE {condition}"
    ))
}

pub(super) fn document(c: &Connection, tenant: &TenantId, id: &DocumentId) -> Result<Option<DocumentRecord>> {
    c.prepare_cached(&select_documents(c, "tenant = ?1 AND id = ?2")?)?
        .query_row(params![tenant.as_str(), id.to_string()], read_document)
        .optional()
}

pub(super) fn documents(c: &Connection, tenant: &TenantId) -> Result<Vec<DocumentRecord>> {
    let newest_first = "tenant = ?1 ORDER BY created_millis DESC, rowid DESC";
    c.prepare_cached(&select_documents(c, newest_first)?)?
        .query_map(params![tenant.as_str()], read_document)?
        .collect()
}

const DOCUMENTS_AFTER: &str =
    "tenant = ?1 AND (created_millis, id) < (?2, ?3) ORDER BY created_millis DESC, id DESC LIMIT ?4";

pub(super) fn documents_after(
    c: &Connection,
    tenant: &TenantId,
    after: Option<(u64, DocumentId)>,
    limit: usize,
) -> Result<Vec<DocumentRecord>> {
    let (age, id) = match after {
        Some((age, id)) => (integer(age), id.to_string()),
        None => (i64::MAX, BEHIND_ALL_IDS.to_owned()),
    };
    c.prepare_cached(&select_documents(c, DOCUMENTS_AFTER)?)?
        .query_map(params![tenant.as_str(), age, id, at_most(limit)], read_document)?
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
        labels: from_json(row, 8)?,
        requested: from_json(row, 9)?,
        created_millis: natural(row, 10)?,
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

// With max() SQLite takes the other columns from the row that has it.
const PAGES_AFTER: &str = "SELECT tenant, document, page, revision, job, state, max(rowid) FROM pages
     WHERE tenant = ?1 AND document = ?2 AND page > ?3 GROUP BY page ORDER BY page LIMIT ?4";

pub(super) fn pages_after(
    c: &Connection,
    tenant: &TenantId,
    document: &DocumentId,
    after: PageNumber,
    limit: usize,
) -> Result<Vec<PageRecord>> {
    c.prepare_cached(PAGES_AFTER)?
        .query_map(
            params![tenant.as_str(), document.to_string(), after, at_most(limit)],
            read_page,
        )?
        .collect()
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

/// A tenant's jobs by descending id, which is newest first.
pub(super) fn jobs(c: &Connection, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<JobRecord>> {
    let (tenant, limit) = (tenant.as_str(), at_most(filter.limit));
    let before = filter
        .before
        .map_or_else(|| BEHIND_ALL_IDS.to_owned(), |job| job.to_string());
    match filter.state {
        Some(state) => c
            .prepare_cached(&format!(
                "{JOB} WHERE tenant = ?1 AND state = ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4"
            ))?
            .query_map(params![tenant, state_name(state), before, limit], read_job)?
            .collect(),
        None => c
            .prepare_cached(&format!(
                "{JOB} WHERE tenant = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
            ))?
            .query_map(params![tenant, before, limit], read_job)?
            .collect(),
    }
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
        params![tenant.as_str(), job.to_string(), integer(after), at_most(limit),],
        |row| from_json(row, 0),
    )?
    .collect()
}

const TENANT_EVENTS: &str =
    "SELECT place, event FROM events WHERE tenant = ?1 AND place > ?2 ORDER BY place LIMIT ?3";

pub(super) fn tenant_events(
    c: &Connection,
    tenant: &TenantId,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, Event)>> {
    c.prepare_cached(TENANT_EVENTS)?
        .query_map(params![tenant.as_str(), integer(after), at_most(limit)], |row| {
            Ok((natural(row, 0)?, from_json(row, 1)?))
        })?
        .collect()
}

const TENANT_PLACE: &str = "SELECT place FROM events WHERE tenant = ?1 ORDER BY place DESC LIMIT 1";

pub(super) fn tenant_place(c: &Connection, tenant: &TenantId) -> Result<u64> {
    let place = c
        .prepare_cached(TENANT_PLACE)?
        .query_row([tenant.as_str()], |row| natural(row, 0))
        .optional()?;
    Ok(place.unwrap_or(0))
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

#[cfg(test)]
mod tests;

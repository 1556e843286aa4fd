//! Rows of pages. Every statement names the tenant.

use weir_core::ledger::PageRecord;
use weir_core::{DocumentId, PageNumber, RevisionId, TenantId};

use super::column_values::{read_and_parse_text, read_json, to_json, to_sql_limit};
use super::sql_connection::{SqlConnection, SqlResult, SqlRow};
use super::sql_values::params;

pub(super) fn write_page(transaction: &SqlConnection<'_>, page: &PageRecord) -> SqlResult<()> {
    let (tenant, document, revision) = (
        page.tenant.as_str(),
        page.document.to_string(),
        page.revision.to_string(),
    );
    // Not an update, because the latest record of a page is the row that was inserted last.
    transaction.execute(
        "DELETE FROM pages WHERE tenant = ?1 AND document = ?2 AND page = ?3 AND revision = ?4",
        params![tenant, document, page.page, revision],
    )?;
    transaction.execute(
        "INSERT INTO pages (tenant, document, page, revision, job, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            tenant,
            document,
            page.page,
            revision,
            page.job.to_string(),
            to_json(&page.state)?,
        ],
    )
}

pub(super) fn list_pages(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    document: &DocumentId,
    revision: Option<&RevisionId>,
) -> SqlResult<Vec<PageRecord>> {
    let (tenant, document) = (tenant.as_str(), document.to_string());
    match revision {
        Some(revision) => c.query_rows(
            &format!("{SELECT_PAGE} WHERE tenant = ?1 AND document = ?2 AND revision = ?3 ORDER BY page"),
            params![tenant, document, revision.to_string()],
            page_from_row,
        ),
        None => c.query_rows(
            &format!("{SELECT_LATEST_PAGES} ORDER BY page"),
            params![tenant, document],
            page_from_row,
        ),
    }
}

pub(super) const SELECT_PAGE: &str = "SELECT tenant, document, page, revision, job, state FROM pages";
/// The latest record of each page of a document under any revision.
pub(super) const SELECT_LATEST_PAGES: &str =
    "SELECT tenant, document, page, revision, job, state FROM pages AS p
     WHERE tenant = ?1 AND document = ?2 AND rowid = (SELECT max(q.rowid) FROM pages AS q
         WHERE q.tenant = p.tenant AND q.document = p.document AND q.page = p.page)";
pub(super) const PAGES_AFTER_CONDITION: &str = "AND page > ?3 ORDER BY page LIMIT ?4";

pub(super) fn list_pages_after(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    document: &DocumentId,
    after: PageNumber,
    limit: usize,
) -> SqlResult<Vec<PageRecord>> {
    c.query_rows(
        &format!("{SELECT_LATEST_PAGES} {PAGES_AFTER_CONDITION}"),
        params![tenant.as_str(), document.to_string(), after, to_sql_limit(limit)],
        page_from_row,
    )
}

pub(super) const PAGE_OF_REVISION_CONDITION: &str =
    "WHERE tenant = ?1 AND document = ?2 AND page = ?3 AND revision = ?4";
pub(super) const LATEST_PAGE_CONDITION: &str = "AND page = ?3";

pub(super) fn find_page(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    document: &DocumentId,
    page: PageNumber,
    revision: Option<&RevisionId>,
) -> SqlResult<Option<PageRecord>> {
    let (tenant, document) = (tenant.as_str(), document.to_string());
    match revision {
        Some(revision) => c.query_optional(
            &format!("{SELECT_PAGE} {PAGE_OF_REVISION_CONDITION}"),
            params![tenant, document, page, revision.to_string()],
            page_from_row,
        ),
        None => c.query_optional(
            &format!("{SELECT_LATEST_PAGES} {LATEST_PAGE_CONDITION}"),
            params![tenant, document, page],
            page_from_row,
        ),
    }
}

fn page_from_row(row: &SqlRow<'_>) -> SqlResult<PageRecord> {
    Ok(PageRecord {
        tenant: read_and_parse_text(row, 0)?,
        document: read_and_parse_text(row, 1)?,
        page: row.get(2)?,
        revision: read_and_parse_text(row, 3)?,
        job: read_and_parse_text(row, 4)?,
        state: read_json(row, 5)?,
    })
}

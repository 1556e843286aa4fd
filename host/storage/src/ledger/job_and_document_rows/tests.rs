use rusqlite::{Connection, StatementStatus, params, params_from_iter};
use weir_core::{DocumentId, RevisionId};

use super::{
    AFTER_ALL_IDS, DOCUMENTS_AFTER_CONDITION, SELECT_LAST_EVENT, SELECT_LAST_POSITION, SELECT_TENANT_EVENTS,
    build_document_query,
};
use crate::ledger::SqlLedger;
use crate::ledger::page_rows::{
    LATEST_PAGE_CONDITION, PAGE_OF_REVISION_CONDITION, PAGES_AFTER_CONDITION, SELECT_LATEST_PAGES,
    SELECT_PAGE,
};
use crate::ledger::sql_connection::SqlConnection;

/// The statements that return a part of a tenant's rows.
const LIST_QUERIES: [&str; 7] = [
    PAGE_OF_REVISION_CONDITION,
    LATEST_PAGE_CONDITION,
    DOCUMENTS_AFTER_CONDITION,
    PAGES_AFTER_CONDITION,
    SELECT_LAST_EVENT,
    SELECT_LAST_POSITION,
    SELECT_TENANT_EVENTS,
];

fn complete_query(c: &Connection, list: &str) -> String {
    match list {
        DOCUMENTS_AFTER_CONDITION => build_document_query(&SqlConnection::Sqlite(c), list).unwrap(),
        PAGES_AFTER_CONDITION | LATEST_PAGE_CONDITION => format!("{SELECT_LATEST_PAGES} {list}"),
        PAGE_OF_REVISION_CONDITION => format!("{SELECT_PAGE} {list}"),
        _ => list.to_owned(),
    }
}

fn create_ledger() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ledger.db");
    drop(SqlLedger::open_for_test(dir.path()));
    let connection = Connection::open(file).unwrap();
    (dir, connection)
}

#[test]
fn list_queries_use_an_index_and_do_not_sort() {
    let (_dir, c) = create_ledger();
    for sql in LIST_QUERIES.map(|list| complete_query(&c, list)) {
        let mut statement = c.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![None::<i64>; statement.parameter_count()];
        let rows = statement.query_map(params_from_iter(parameters), |row| row.get::<_, String>("detail"));
        let steps: Vec<String> = rows.unwrap().collect::<rusqlite::Result<_>>().unwrap();
        // The subquery is listed without an index; its own steps follow.
        for step in steps.iter().filter(|step| !step.contains("SCALAR SUBQUERY")) {
            let is_of_tenant = step.contains("tenant=?") || step.contains("(rowid=?)");
            assert!(
                step.starts_with("SEARCH") && step.contains(" USING ") && is_of_tenant,
                "{step}: {sql}"
            );
        }
    }
}

/// Counts the steps of SQLite's virtual machine that a statement takes.
fn count_vm_steps(c: &Connection, sql: &str, document: &DocumentId) -> i32 {
    let mut statement = c.prepare(&complete_query(c, sql)).unwrap();
    let (tenant, id) = ("t".to_owned(), document.to_string());
    let revision = RevisionId::from_content(b"r").to_string();
    let parameters: Vec<&dyn rusqlite::ToSql> = match sql {
        DOCUMENTS_AFTER_CONDITION => vec![&tenant, &i64::MAX, &AFTER_ALL_IDS, &1],
        PAGES_AFTER_CONDITION => vec![&tenant, &id, &0, &1],
        LATEST_PAGE_CONDITION => vec![&tenant, &id, &50],
        PAGE_OF_REVISION_CONDITION => vec![&tenant, &id, &50, &revision],
        SELECT_LAST_EVENT => vec![&tenant, &"job"],
        SELECT_LAST_POSITION => vec![&tenant],
        _ => vec![&tenant, &0, &1],
    };
    let mut rows = statement.query(parameters.as_slice()).unwrap();
    let mut found = 0;
    while rows.next().unwrap().is_some() {
        found += 1;
    }
    drop(rows);
    assert_eq!(found, 1, "{sql}");
    statement.get_status(StatementStatus::VmStep)
}

#[test]
fn list_cost_does_not_grow_with_the_rows() {
    let (_dir, c) = create_ledger();
    let document = DocumentId::from_content(b"paged");
    let fill = |from: u32, to: u32| {
        let revision = RevisionId::from_content(b"r").to_string();
        let id = document.to_string();
        for number in from..to {
            let name = DocumentId::from_content(&number.to_le_bytes()).to_string();
            c.execute(
                "INSERT INTO documents (tenant, id, name, bytes, pages, title, outline, collection, created_millis)
                 VALUES ('t', ?1, 'a.pdf', 1, 1, NULL, '[]', 'default', ?2)",
                params![name, number],
            )
            .unwrap();
            c.execute(
                "INSERT INTO pages VALUES ('t', ?1, ?2, ?3, 'job', '{}')",
                params![id, number + 1, revision],
            )
            .unwrap();
            c.execute(
                "INSERT INTO events (tenant, job, seq, event) VALUES ('t', 'job', ?1, '{}')",
                [number],
            )
            .unwrap();
        }
    };
    c.execute_batch("BEGIN").unwrap();
    fill(0, 100);
    let few = LIST_QUERIES.map(|sql| count_vm_steps(&c, sql, &document));
    fill(100, 1000);
    let many = LIST_QUERIES.map(|sql| count_vm_steps(&c, sql, &document));
    assert_eq!(few, many);
}

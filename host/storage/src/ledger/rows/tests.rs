use rusqlite::{Connection, StatementStatus, params_from_iter};
use weir_core::{DocumentId, RevisionId};

use super::*;
use crate::ledger::database::Database;

/// The statements that answer requests with a part of a tenant's rows.
const LISTS: [&str; 4] = [DOCUMENTS_AFTER, PAGES_AFTER, TENANT_PLACE, TENANT_EVENTS];

fn statement(c: &Connection, list: &str) -> String {
    match list {
        DOCUMENTS_AFTER => select_documents(c, list).unwrap(),
        _ => list.to_owned(),
    }
}

fn ledger() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ledger.db");
    Database::create(&file).unwrap();
    let connection = Connection::open(file).unwrap();
    (dir, connection)
}

#[test]
fn lists_search_an_index_and_sort_nothing() {
    let (_dir, c) = ledger();
    for sql in LISTS.map(|list| statement(&c, list)) {
        let mut statement = c.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![None::<i64>; statement.parameter_count()];
        let rows = statement.query_map(params_from_iter(parameters), |row| row.get::<_, String>("detail"));
        let steps: Vec<String> = rows.unwrap().collect::<Result<_>>().unwrap();
        for step in steps {
            assert!(
                step.starts_with("SEARCH") && step.contains(" USING ") && step.contains("tenant=?"),
                "{step}: {sql}"
            );
        }
    }
}

/// Steps of SQLite's machine that a statement takes to its end.
fn steps(c: &Connection, sql: &str, document: &DocumentId) -> i32 {
    let mut statement = c.prepare(&statement(c, sql)).unwrap();
    let (tenant, id) = ("t".to_owned(), document.to_string());
    let parameters: Vec<&dyn rusqlite::ToSql> = match sql {
        DOCUMENTS_AFTER => vec![&tenant, &i64::MAX, &BEHIND_ALL_IDS, &1],
        PAGES_AFTER => vec![&tenant, &id, &0, &1],
        TENANT_PLACE => vec![&tenant],
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
fn lists_cost_the_same_at_ten_times_the_rows() {
    let (_dir, c) = ledger();
    let document = DocumentId::of(b"paged");
    let fill = |from: u32, to: u32| {
        let revision = RevisionId::of(b"r").to_string();
        let id = document.to_string();
        for number in from..to {
            let name = DocumentId::of(&number.to_le_bytes()).to_string();
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
    let few = LISTS.map(|sql| steps(&c, sql, &document));
    fill(100, 1000);
    let many = LISTS.map(|sql| steps(&c, sql, &document));
    assert_eq!(few, many);
}

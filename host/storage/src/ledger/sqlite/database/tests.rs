use weir_core::document_removal::DocumentRemovalStore as _;
use weir_core::job_request::{JobFilter, JobRequestStore as _};
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::{ComponentStateStore, Ledger};
use weir_core::revision::PipelineStore as _;
use weir_core::shadow::ShadowStore as _;
use weir_core::tenancy::TenantStore as _;
use weir_core::usage::UsageStore as _;
use weir_core::{DocumentId, JobId, TenantId};

use super::*;
use crate::data_folder::FolderLock;
use crate::ledger::SqlLedger;
use crate::ledger::retention::{SMALL_TABLES_OF_JOBS, delete_rows_of_job_sql};

const DOCUMENT_ID: &str = "2cd4850806f322eda26dd408bb5c3dc39ddd86bcec2d3746a8f5026db2b01b21";
const REVISION_ID: &str = "149c9597429f170e7fae80e7b0ed97b08f3f9f444598037c8cd1e6e31ad52a75";
const EARLIER_JOB: &str = "01a1fdd5-a0d3-75c6-888e-21a103602757";
const LATER_JOB: &str = "01a1fdd6-a0d3-75c6-888e-21a103602757";

/// Writes a file of schema version 1 with rows as that version wrote them. The events of its two jobs are out of order.
fn write_version_1_file(data: &Path) {
    let c = Connection::open(data.join("ledger.db")).unwrap();
    c.pragma_update(None, "journal_mode", "wal").unwrap();
    c.execute_batch(include_str!("../schema/1.sql")).unwrap();
    c.pragma_update(None, "user_version", 1).unwrap();
    c.execute_batch(&format!(
        r#"
        INSERT INTO documents VALUES
            ('default', '{DOCUMENT_ID}', 'letter-scan.pdf', 175889, 3, NULL, '[]', 'default', 1795259998449);
        INSERT INTO pages VALUES ('default', '{DOCUMENT_ID}', 3, '{REVISION_ID}', '{EARLIER_JOB}',
            '{{"state":"done","source":"ocr","passages":2,"image":"{DOCUMENT_ID}/3/image/150.jpg","text":"{DOCUMENT_ID}/3/ocr.json"}}');
        INSERT INTO policy_state VALUES ('default', 'default', 'k', x'0102');
        "#
    ))
    .unwrap();
    for (job, state, millis) in [(LATER_JOB, "running", 2), (EARLIER_JOB, "done", 1)] {
        c.execute(
            "INSERT INTO jobs VALUES ('default', ?1, 'default', ?2, ?3, ?4)",
            (job, REVISION_ID, state, millis),
        )
        .unwrap();
        for seq in [2, 1] {
            let event = format!(
                r#"{{"seq":{seq},"job":"{job}","document":"{DOCUMENT_ID}","at_millis":29,"type":"document-started","name":"letter-scan.pdf","pages":3,"already_done":0}}"#
            );
            c.execute(
                "INSERT INTO events VALUES ('default', ?1, ?2, ?3)",
                (job, seq, event),
            )
            .unwrap();
        }
    }
}

#[tokio::test]
async fn upgrade_from_version_1_keeps_every_row() {
    let dir = tempfile::tempdir().unwrap();
    write_version_1_file(dir.path());
    let t = TenantId::default_tenant();
    let (document, revision) = (DOCUMENT_ID.parse().unwrap(), REVISION_ID.parse().unwrap());
    let jobs: [JobId; 2] = [EARLIER_JOB.parse().unwrap(), LATER_JOB.parse().unwrap()];
    // A reader does not need the upgrade.
    let reader = SqlLedger::open_read_only(dir.path()).unwrap();
    assert_eq!(reader.list_tenant_documents(&t).await.unwrap().len(), 1);

    for _ in 0..2 {
        let ledger = SqlLedger::open_for_test(dir.path());
        let record = ledger.find_document(&t, &document).await.unwrap().unwrap();
        assert_eq!(
            (record.bytes, record.created_millis),
            (175_889, 1_795_259_998_449)
        );
        let pages = ledger.list_pages(&t, &document, Some(&revision)).await.unwrap();
        assert_eq!(pages.iter().map(|p| p.page).collect::<Vec<_>>(), [3]);
        let unfinished = ledger.list_unfinished_jobs().await.unwrap();
        assert_eq!(unfinished.iter().map(|j| j.id).collect::<Vec<_>>(), [jobs[1]]);
        assert_eq!(
            ledger.find_job(&t, &jobs[0]).await.unwrap().unwrap().state,
            JobState::Done
        );
        assert_eq!(
            ledger
                .get_component_state_value(&t, "default", "k")
                .await
                .unwrap()
                .unwrap(),
            [1_u8, 2]
        );
        for job in &jobs {
            let events = ledger.list_job_events(&t, job, 0, 10).await.unwrap();
            assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2]);
        }
        let all = ledger.list_tenant_events(&t, 0, 10).await.unwrap();
        let order: Vec<_> = all.iter().map(|(_, e)| (e.job, e.seq)).collect();
        assert_eq!(order, [(jobs[0], 1), (jobs[0], 2), (jobs[1], 1), (jobs[1], 2)]);
        // A job that continues after a restart writes its events again.
        let again = all[3].1.clone();
        ledger
            .commit_entries(vec![LedgerEntry::Event(t.clone(), again)])
            .await
            .unwrap();
        assert_eq!(ledger.list_tenant_events(&t, 0, 10).await.unwrap(), all);
        ledger.close().await;
    }
    assert_eq!(reader.list_tenant_documents(&t).await.unwrap().len(), 1);
}

/// The running job, the ended job and the document of `version_11.db`.
const RUNNING_JOB: &str = "01a2240a-3851-70d2-8967-03a027a0aa3a";
const ENDED_JOB: &str = "01a2240a-3857-701b-bdce-03d41e6a5373";
const REMOVED_DOCUMENT: &str = "18ac3e7343f016890c510e93f935261169d9e3f565436429830faf0934f4f8e4";

/// Writes a file of the last version before the renames, with a row in every table.
fn write_version_11_file(data: &Path) {
    let file = data.join("ledger.db");
    std::fs::write(&file, include_bytes!("version_11.db")).unwrap();
    let c = Connection::open(file).unwrap();
    c.pragma_update(None, "journal_mode", "wal").unwrap();
}

/// Lists tables with their columns, and indexes with their tables.
fn list_schema(data: &Path) -> Vec<String> {
    let c = Connection::open(data.join("ledger.db")).unwrap();
    let mut statement = c
        .prepare(
            "SELECT m.type || ' ' || m.name || ' ' || m.tbl_name || ' '
                 || coalesce(c.name || ' ' || c.type || ' ' || c.pk, '') AS entry
             FROM sqlite_schema m LEFT JOIN pragma_table_info(m.name) c ORDER BY entry",
        )
        .unwrap();
    let entries = statement.query_map([], |row| row.get(0)).unwrap();
    entries.collect::<rusqlite::Result<_>>().unwrap()
}

#[tokio::test]
async fn upgrade_from_version_11_keeps_every_row() {
    let dir = tempfile::tempdir().unwrap();
    write_version_11_file(dir.path());
    let t: TenantId = "a".parse().unwrap();
    let (running, ended): (JobId, JobId) = (RUNNING_JOB.parse().unwrap(), ENDED_JOB.parse().unwrap());
    let removed: DocumentId = REMOVED_DOCUMENT.parse().unwrap();
    // The saved number of this version is wrong. The upgrade measures the files, which may have their folder's former name.
    for (folder, bytes) in [
        ("originals/a", 3),
        ("blobs/a/d/1", 5),
        ("components/a", 2),
        ("blobs/b", 7),
    ] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join("file"), vec![0; bytes]).unwrap();
    }
    // A reader does not need the upgrade.
    let reader = SqlLedger::open_read_only(dir.path()).unwrap();
    assert_eq!(
        reader.list_component_log(&t, &ended, 0, 10).await.unwrap().len(),
        1
    );
    assert_eq!(reader.list_tenant_documents(&t).await.unwrap().len(), 1);

    // The same upgrade as that of a command.
    SqlLedger::open_shared(dir.path()).await.unwrap();
    for _ in 0..2 {
        let ledger = SqlLedger::open_for_test(dir.path());
        assert_eq!(ledger.list_tenants().await.unwrap().len(), 1);
        assert_eq!(ledger.list_api_keys(&t).await.unwrap()[0].display_name, "a key");
        assert_eq!(ledger.list_tenant_documents(&t).await.unwrap()[0].labels.len(), 1);
        assert_eq!(ledger.list_pages(&t, &removed, None).await.unwrap().len(), 1);
        assert_eq!(ledger.list_unfinished_jobs().await.unwrap()[0].id, running);
        let all = JobFilter {
            limit: 10,
            ..JobFilter::default()
        };
        assert_eq!(ledger.list_jobs(&t, &all).await.unwrap().len(), 2);
        assert_eq!(
            ledger.list_job_events(&t, &running, 1, 10).await.unwrap().len(),
            1
        );
        let events = ledger.list_tenant_events(&t, 0, 10).await.unwrap();
        let positions: Vec<_> = events.iter().map(|(position, _)| *position).collect();
        assert_eq!(positions, [7, 8]);
        assert_eq!(
            ledger
                .get_component_state_value(&t, "p", "k")
                .await
                .unwrap()
                .unwrap(),
            b"v"
        );
        let request = ledger.find_job_request(&t, &running).await.unwrap().unwrap();
        assert_eq!(request.files[0].password.as_deref(), Some("swordfish"));
        let earlier = ledger
            .find_request_by_idempotency_key(&t, "w")
            .await
            .unwrap()
            .unwrap();
        assert_eq!((earlier.job, earlier.request_digest), (running, [1; 32]));
        let webhooks = ledger.list_undelivered_webhooks().await.unwrap();
        assert_eq!(webhooks, [(t.clone(), ended, 3)]);
        let usage = ledger.list_daily_usage(&t, 0, u32::MAX).await.unwrap();
        assert_eq!(
            (usage[0].0, usage[0].1.pages, usage[0].1.llm_answer_tokens),
            (7, 3, 11)
        );
        assert_eq!(ledger.count_stored_bytes(&t).await.unwrap(), 10);
        let b = "b".parse().unwrap();
        assert_eq!(ledger.count_stored_bytes(&b).await.unwrap(), 7);
        let components = ledger.list_components(&t).await.unwrap();
        assert_eq!(
            (components[0].interface.roles.len(), &*components[0].pushed_by_key),
            (1, "key")
        );
        let revision = ledger.find_revision(&t, "p", 1).await.unwrap().unwrap();
        assert_eq!(
            (revision.spec.components.len(), &*revision.pushed_by_key),
            (1, "key")
        );
        assert_eq!(
            ledger.list_pipelines(&t).await.unwrap()[0].rollout.stable,
            Some(1)
        );
        let audit_log = ledger.list_audit_log(&t, "p", None, 10).await.unwrap();
        let authors: Vec<_> = audit_log.iter().map(|record| &*record.changed_by).collect();
        assert_eq!(authors, ["canary-analysis", "key", "key"]);
        assert_eq!(
            ledger
                .find_assigned_revision_of_job(&t, &ended)
                .await
                .unwrap()
                .unwrap()
                .revision,
            1
        );
        let samples = ledger.sample_ended_jobs(&t, "p", 1, 0..=100, 10).await.unwrap();
        assert_eq!((samples[0].ended_at_millis, samples[0].metrics.pages), (40, 10));
        assert_eq!(
            ledger.list_component_log(&t, &ended, 0, 10).await.unwrap().len(),
            1
        );
        assert_eq!(ledger.last_component_log_seq(&t, &ended).await.unwrap(), 1);
        assert_eq!(ledger.list_shadow_runs(&t, "p", 1, 0).await.unwrap().len(), 1);
        assert_eq!(
            ledger.list_unfinished_removals().await.unwrap(),
            [(t.clone(), removed)]
        );
        assert_eq!(
            ledger.list_jobs_with_document(&t, &removed).await.unwrap(),
            [ended]
        );
        ledger.close().await;
    }
    assert_eq!(
        reader.list_component_log(&t, &ended, 0, 10).await.unwrap().len(),
        1
    );

    let fresh = tempfile::tempdir().unwrap();
    SqlLedger::open_for_test(fresh.path()).close().await;
    assert_eq!(list_schema(dir.path()), list_schema(fresh.path()));
}

#[tokio::test]
async fn tenant_admin_upgrades_a_file_without_a_holder() {
    let dir = tempfile::tempdir().unwrap();
    write_version_1_file(dir.path());
    let held = FolderLock::acquire_with_timeout(dir.path()).unwrap();
    let refused = SqlLedger::open_shared(dir.path()).await.err().unwrap();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused}");
    drop(held);
    SqlLedger::open_shared(dir.path()).await.unwrap();
    let file = dir.path().join("ledger.db");
    assert_eq!(
        Database::open_shared_for_writing(&file)
            .unwrap()
            .unwrap()
            .schema_version()
            .unwrap(),
        SCHEMA_STEPS.len()
    );
}

#[tokio::test]
async fn file_of_a_later_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    SqlLedger::open_for_test(dir.path()).close().await;
    let file = dir.path().join("ledger.db");
    let c = Connection::open(&file).unwrap();
    c.pragma_update(None, "user_version", 99).unwrap();
    for refused in [
        Database::open_or_create_with_upgrade(&file).err(),
        Database::open_shared_for_writing(&file).err(),
        Database::open_read_only(&file).err(),
    ] {
        let refused = refused.unwrap().to_string();
        assert!(refused.contains("version 99"), "{refused}");
    }
}

#[test]
fn readable_file_is_restricted_to_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ledger.db");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let database = Database::open_or_create_with_upgrade(&file).unwrap();
    database
        .run_transaction(|t| t.execute_batch("CREATE TABLE x (y)"))
        .unwrap();
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// Returns the steps of a statement's query plan.
fn explain(database: &Database, statement: &str) -> Vec<String> {
    let read_plan = |c: &Connection| {
        c.prepare(&format!("EXPLAIN QUERY PLAN {statement}"))?
            .query_map([], |row| row.get(3))?
            .collect()
    };
    database.with_connection(read_plan).unwrap()
}

#[test]
fn rows_of_a_removed_job_are_found_without_reading_those_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open_or_create_with_upgrade(&dir.path().join("ledger.db")).unwrap();
    for (table, key_column) in SMALL_TABLES_OF_JOBS {
        let statement = delete_rows_of_job_sql(table, key_column)
            .replace("?1", "'a'")
            .replace("?2", "'b'");
        let plan = explain(&database, &statement);
        let searches: Vec<&String> = plan.iter().filter(|step| step.contains(table)).collect();
        // There are few shadow runs.
        let is_narrow = |step: &&&String| step.contains("=? AND ") || table == "shadow_reports";
        assert!(
            searches.len() == 2 && searches.iter().all(|step| is_narrow(&step)),
            "{statement}: {plan:?}"
        );
    }
}

/// Checks the query plans of statements that run with every request or page.
#[test]
fn frequent_statements_search_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open_or_create_with_upgrade(&dir.path().join("ledger.db")).unwrap();
    for statement in [
        "SELECT position, event FROM events WHERE tenant = 'a' AND position > 7 ORDER BY position LIMIT 9",
        "SELECT event FROM events WHERE tenant = 'a' AND job = 'b' AND seq > 7 ORDER BY seq LIMIT 9",
        "SELECT bytes FROM storage_usage WHERE tenant = 'a'",
        "UPDATE stored_path_sizes SET is_changing = FALSE WHERE tenant = 'a' AND path = 'p'",
        "SELECT id FROM api_keys WHERE id = 'k'",
        "SELECT id FROM jobs WHERE tenant = 'a' AND id < 'b' ORDER BY id DESC LIMIT 9",
        "SELECT id FROM jobs WHERE tenant = 'a' AND state = 'done' AND id < 'b' ORDER BY id DESC LIMIT 9",
        "SELECT request_digest FROM idempotency_keys WHERE tenant = 'a' AND key = 'k'",
        "SELECT tenant, key FROM idempotency_keys WHERE created_millis < 9 ORDER BY created_millis LIMIT 8",
        "SELECT id FROM jobs WHERE tenant = 'a' AND state NOT IN ('queued', 'running')
             AND coalesce(ended_millis, created_millis) < 5 ORDER BY coalesce(ended_millis, created_millis), id LIMIT 9",
        "SELECT document FROM job_documents WHERE tenant = 'a' AND job = 'b'",
    ] {
        let plan = explain(&database, statement);
        assert_eq!(plan.len(), 1, "{statement}: {plan:?}");
        assert!(plan[0].starts_with("SEARCH"), "{statement}: {plan:?}");
        assert!(
            !statement.contains("position >") || plan[0].contains("rowid>?"),
            "{plan:?}"
        );
    }
}

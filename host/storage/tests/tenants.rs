//! Tenants and API keys: lookups, changes while a server runs, and complete removal.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use std::path::Path;
use std::process::Command;

use fixture::{
    document_id, make_event, make_idempotency, make_job_request, make_point, make_query, open_storage,
    page_done_entry, tenant_id, unit_vector,
};
use weir_conformance::records::{make_api_key, make_job, make_tenant};
use weir_core::collection_and_labels::CollectionAndLabelsRequest;
use weir_core::component::{ComponentDigest, ComponentInterface, ComponentRecord};
use weir_core::component_log::{
    ComponentLogRecord, ComponentLogRecordKind, LogLevel, NumberedComponentLogRecord,
};
use weir_core::component_state_limits::StateChange;
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore as _};
use weir_core::job_request::JobRequestStore;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::manifest::{Manifest, Role};
use weir_core::ports::{ComponentStateStore, Ledger};
use weir_core::revision::{PipelineStore, RevisionSpec};
use weir_core::rollout::RolloutAction;
use weir_core::shadow::{ShadowRun, ShadowStore};
use weir_core::tenancy::{TenantStore, TenantUpdate};
use weir_core::usage::{Usage, UsageStore};
use weir_core::{JobId, RevisionId, StorageError, TenantId};
use weir_storage::{ExternalStores, SqlLedger, Storage, remove_tenant_with_all_data};

const DATA_VARIABLE: &str = "WEIR_TEST_DATA";

fn set_state_value(key: &str, value: Vec<u8>) -> StateChange {
    StateChange {
        key: key.into(),
        value: Some(value),
    }
}

#[tokio::test]
async fn sqlite_ledger_and_tenant_admin_pass_the_conformance_suite() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    weir_conformance::check_tenant_store(&*storage.ledger).await;
    // The tenant admin uses the folder at the same time.
    let admin = SqlLedger::open_shared(dir.path()).await.unwrap();
    weir_conformance::check_tenant_store(&admin).await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn tenant_admin_creates_a_ledger_that_a_server_opens() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let missing = SqlLedger::open_shared(&data).await.err().unwrap();
    assert!(matches!(missing, StorageError::NotFound { .. }), "{missing}");
    let admin = SqlLedger::open_or_create_shared(&data).await.unwrap();
    admin.create_tenant(&make_tenant(&tenant_id("a"))).await.unwrap();
    drop(admin);
    use std::os::unix::fs::PermissionsExt;
    for path in [data.clone(), data.join("ledger.db")] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
    // A server that starts later finds the tenant.
    let storage = open_storage(&data).await;
    assert_eq!(storage.ledger.list_tenants().await.unwrap().len(), 1);
    storage.close().await.unwrap();
}

/// Runs in another process: creates tenants and API keys, and revokes each key.
#[tokio::test]
#[ignore = "the test below starts it"]
async fn tenant_writer_in_another_process() {
    let Ok(data) = std::env::var(DATA_VARIABLE) else {
        panic!("set {DATA_VARIABLE}");
    };
    let admin = SqlLedger::open_shared(Path::new(&data)).await.unwrap();
    for n in 0..150 {
        let t = tenant_id(&format!("t{n}"));
        admin.create_tenant(&make_tenant(&t)).await.unwrap();
        let mut key = make_api_key(&t, &format!("k{n}"), 1);
        admin.put_api_key(&key).await.unwrap();
        key.revoked_millis = Some(2);
        admin.put_api_key(&key).await.unwrap();
    }
}

#[tokio::test]
async fn two_processes_write_to_one_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let mut command = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tenant_writer_in_another_process",
            "--ignored",
            "--nocapture",
        ])
        .env(DATA_VARIABLE, dir.path())
        .spawn()
        .unwrap();
    let (t, id) = (TenantId::default_tenant(), JobId::new());
    let mut written = 0;
    let mut has_exited = false;
    // Changes of the components' state read before they write, so a second writer could come in between.
    while !has_exited || written < 150 {
        has_exited = has_exited || command.try_wait().unwrap().is_some();
        written += 1;
        let entries = vec![LedgerEntry::Event(t.clone(), make_event(id, written))];
        storage.ledger.commit_entries(entries).await.unwrap();
        storage
            .ledger
            .apply_component_state_changes(
                &t,
                "p",
                vec![set_state_value(&format!("k{}", written % 7), vec![1; 100])],
            )
            .await
            .unwrap();
    }
    assert!(command.wait().unwrap().success());
    let registry: &dyn TenantStore = &*storage.ledger;
    assert_eq!(registry.list_tenants().await.unwrap().len(), 150);
    for n in 0..150 {
        let key = registry
            .find_api_key_by_id(&format!("k{n}"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(key.revoked_millis, Some(2));
    }
    let mut last_seq = 0;
    while last_seq < written {
        let events = storage
            .ledger
            .list_job_events(&t, &id, last_seq, 1000)
            .await
            .unwrap();
        assert!(!events.is_empty(), "the events after {last_seq} are missing");
        for event in events {
            assert_eq!(event.seq, last_seq + 1);
            last_seq = event.seq;
        }
    }
    assert_eq!(last_seq, written);
    storage.close().await.unwrap();
}

fn weight_update(weight: f64) -> TenantUpdate {
    TenantUpdate {
        weight: Some(weight),
        ..TenantUpdate::default()
    }
}

#[tokio::test]
async fn changes_of_another_process_are_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let registry: &dyn TenantStore = &*storage.ledger;
    let t = tenant_id("a");
    let admin = SqlLedger::open_shared(dir.path()).await.unwrap();
    assert!(admin.create_tenant(&make_tenant(&t)).await.unwrap());
    for n in 0..50 {
        let mut record = make_tenant(&t);
        record.weight = f64::from(n);
        admin
            .update_tenant(&t, &weight_update(record.weight))
            .await
            .unwrap();
        assert_eq!(registry.find_tenant(&t).await.unwrap(), Some(record.clone()));
        record.weight += 0.5;
        registry
            .update_tenant(&t, &weight_update(record.weight))
            .await
            .unwrap();
        assert_eq!(admin.find_tenant(&t).await.unwrap(), Some(record));
    }
    storage.close().await.unwrap();
    // The tenant admin still works when no process holds the folder.
    admin.put_api_key(&make_api_key(&t, "k", 1)).await.unwrap();
    assert_eq!(admin.list_api_keys(&t).await.unwrap().len(), 1);
}

/// Writes a row of the tenant into every table and data into every store.
async fn fill_every_store(storage: &Storage, t: &TenantId) {
    let ledger = &storage.ledger;
    ledger.create_tenant(&make_tenant(t)).await.unwrap();
    ledger
        .put_api_key(&make_api_key(t, &format!("key-{t}"), 1))
        .await
        .unwrap();
    let record = make_job(t, JobState::Queued, 1);
    ledger
        .create_job_with_request(
            &record,
            &make_job_request(&record),
            Some(&make_idempotency("w", 1)),
        )
        .await
        .unwrap();
    assert_eq!(
        ledger.begin_document_removal(t, &document_id("d")).await.unwrap(),
        BeginRemovalOutcome::Started
    );
    let revision = RevisionId::from_content(b"r");
    let mut entries: Vec<_> = (1..=5000)
        .map(|seq| LedgerEntry::Event(t.clone(), make_event(record.id, seq)))
        .collect();
    entries.extend((1..=10).map(|page| page_done_entry(t, "d", page, &revision, 1)));
    entries.push(LedgerEntry::Document(weir_core::ledger::DocumentRecord {
        id: document_id("d"),
        tenant: t.clone(),
        name: "d.pdf".into(),
        bytes: 3,
        pages: 10,
        title: None,
        outline: Vec::new(),
        collection: "main".into(),
        labels: vec![("team".into(), "north".into())],
        requested_collection_and_labels: CollectionAndLabelsRequest::default(),
        created_millis: 1,
    }));
    let state = vec![set_state_value("k", b"v".into())];
    ledger.apply_component_state_changes(t, "p", state).await.unwrap();
    let used = Usage {
        pages: 3,
        ..Usage::default()
    };
    ledger
        .add_daily_usage_of_tenants(7, vec![(t.clone(), used)])
        .await
        .unwrap();
    storage
        .blobs
        .put_blob(t, "d/1/image/150.jpg", &[1; 100_000])
        .await
        .unwrap();
    storage.blobs.put_blob(t, "d/1/ocr.json", b"lines").await.unwrap();
    weir_conformance::store_upload(&*storage.uploads, t, b"d").await;
    let unfinished = storage.components.new_temporary_path();
    std::fs::write(&unfinished, "wasm").unwrap();
    let digest = ComponentDigest::from_content(b"wasm");
    storage
        .components
        .commit_component(t, &unfinished, &digest)
        .await
        .unwrap();
    fill_pipeline_tables(ledger, t, digest).await;
    // The ledger does not know this document.
    let stray = vec![make_point("stray", 1, 0, "words", unit_vector(0.0))];
    storage.vectors.upsert_points(t, "main", stray).await.unwrap();
    let known = vec![make_point("d", 1, 0, "words", unit_vector(0.0))];
    storage.vectors.upsert_points(t, "main", known).await.unwrap();
    // Last, because a commit also saves the storage usage.
    ledger.commit_entries(entries).await.unwrap();
}

/// Writes a pipeline with a component, and a job that is assigned to its revision.
async fn fill_pipeline_tables(ledger: &SqlLedger, t: &TenantId, digest: ComponentDigest) {
    let record = ComponentRecord {
        tenant: t.clone(),
        digest,
        name: "ours".into(),
        bytes: 4,
        interface: ComponentInterface {
            roles: vec![Role::Routing],
            capabilities: Vec::new(),
        },
        created_millis: 1,
        pushed_by_key: format!("key-{t}"),
    };
    ledger.put_component_record(&record).await.unwrap();
    let spec = RevisionSpec {
        manifest: Manifest::default_pipeline_manifest(),
        components: [(Role::Routing, digest)].into(),
    };
    ledger
        .add_revision_if_changed(t, "p", &spec, &format!("key-{t}"), 1)
        .await
        .unwrap()
        .unwrap();
    let activate = RolloutAction::Activate { revision: 1 };
    let by = format!("key-{t}");
    let changed = ledger.change_rollout(t, "p", None, &activate, &by, None, 1);
    changed.await.unwrap().unwrap();
    let record = make_job(t, JobState::Running, 1);
    let job = record.id;
    ledger.assign_revision_to_job(t, "p", &job).await.unwrap();
    let log_entry = NumberedComponentLogRecord {
        job,
        seq: 1,
        since_job_created_millis: 0,
        record: ComponentLogRecord {
            component: "c".into(),
            function: "routing.page".into(),
            kind: ComponentLogRecordKind::Line {
                level: LogLevel::Info,
                message: "here".into(),
            },
        },
    };
    ledger
        .commit_entries(vec![
            LedgerEntry::Job(record),
            LedgerEntry::ComponentLog(t.clone(), log_entry),
        ])
        .await
        .unwrap();
    let run = ShadowRun {
        tenant: t.clone(),
        pipeline: "p".into(),
        revision: 1,
        job,
        compared_at_millis: 1,
        report: Err("gone".into()),
    };
    ledger.put_shadow_run(&run).await.unwrap();
}

/// Counts the rows of a tenant in each table that has a column for the tenant.
fn count_rows(data: &Path, t: &TenantId) -> Vec<(String, u32)> {
    let c = rusqlite::Connection::open(data.join("ledger.db")).unwrap();
    let mut tables = c
        .prepare(
            "SELECT m.name, c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c
             WHERE m.type = 'table' AND (c.name = 'tenant' OR (m.name = 'tenants' AND c.name = 'id'))",
        )
        .unwrap();
    let tables: Vec<(String, String)> = tables
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(tables.len() >= 16, "{tables:?}");
    tables
        .into_iter()
        .map(|(table, column)| {
            let count = format!("SELECT count(*) FROM {table} WHERE {column} = ?1");
            (
                table,
                c.query_row(&count, [t.as_str()], |row| row.get(0)).unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn removing_a_tenant_removes_only_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let storage = open_storage(dir.path()).await;
    fill_every_store(&storage, &a).await;
    fill_every_store(&storage, &b).await;
    storage.close().await.unwrap();
    let before = count_rows(dir.path(), &b);
    for (table, count) in before.iter().chain(&count_rows(dir.path(), &a)) {
        assert!(*count > 0, "{table} has no row to remove");
    }

    assert!(
        remove_tenant_with_all_data(dir.path(), &a, ExternalStores::default())
            .await
            .unwrap()
    );
    assert!(
        !remove_tenant_with_all_data(dir.path(), &a, ExternalStores::default())
            .await
            .unwrap()
    );
    for (table, count) in count_rows(dir.path(), &a) {
        assert_eq!(count, 0, "{table}");
    }
    assert_eq!(count_rows(dir.path(), &b), before);
    for folder in ["blobs", "uploads", "components"] {
        assert!(!dir.path().join(folder).join("a").exists());
        assert!(dir.path().join(folder).join("b").exists());
    }
    let storage = open_storage(dir.path()).await;
    let all = make_query("words", unit_vector(0.0), 10);
    assert!(
        storage
            .vectors
            .search_by_vector_and_words(&a, &all)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        storage
            .vectors
            .search_by_vector_and_words(&b, &all)
            .await
            .unwrap()
            .len(),
        2
    );
    assert_eq!(storage.ledger.count_stored_bytes(&a).await.unwrap(), 0);
    assert_eq!(storage.ledger.count_stored_bytes(&b).await.unwrap(), 100_010);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn tenant_is_not_removed_while_a_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = tenant_id("a");
    storage.ledger.create_tenant(&make_tenant(&t)).await.unwrap();
    let refused = remove_tenant_with_all_data(dir.path(), &t, ExternalStores::default())
        .await
        .unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused}");
    storage.close().await.unwrap();
}

#[tokio::test]
async fn tenant_is_removed_from_a_folder_without_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let t = tenant_id("a");
    let admin = SqlLedger::open_or_create_shared(dir.path()).await.unwrap();
    admin.create_tenant(&make_tenant(&t)).await.unwrap();
    assert!(
        remove_tenant_with_all_data(dir.path(), &t, ExternalStores::default())
            .await
            .unwrap()
    );
    assert!(admin.list_tenants().await.unwrap().is_empty());
    assert!(!dir.path().join("vectors").exists());
}

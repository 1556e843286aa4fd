//! Tenants and keys: found at once, changed beside a server, and gone without a trace.
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
    direction, document, event, job, key_record, open, order, page_done, point, query, tenant, tenant_record,
    word,
};
use weir_core::component::{ComponentDigest, ComponentFacts, ComponentRecord, ComponentStore};
use weir_core::filing::Filing;
use weir_core::ledger::{Entry, JobState};
use weir_core::manifest::{Manifest, Role};
use weir_core::order::Orders;
use weir_core::original::Originals;
use weir_core::ports::{BlobStore, Ledger, PolicyState, VectorStore};
use weir_core::removal::{Begin, Removals as _};
use weir_core::revision::{PipelineBook, Recipe};
use weir_core::rollout::Change;
use weir_core::said::{LogEntry, LogLevel, Remark, RemarkKind};
use weir_core::shadow::{ShadowBook, ShadowRun};
use weir_core::state::StateChange;
use weir_core::tenancy::{Quotas, Registry, Scope, Tenant, TenantState, TenantUpdate};
use weir_core::usage::{Usage, UsageBook};
use weir_core::{DocumentId, JobId, RevisionId, StorageError, TenantId};
use weir_storage::{SqliteLedger, Storage, TenantDesk, remove_tenant};

const DATA: &str = "WEIR_TEST_DATA";

fn set(key: &str, value: Vec<u8>) -> StateChange {
    StateChange {
        key: key.into(),
        value: Some(value),
    }
}

#[tokio::test]
async fn tenants_and_keys_are_kept_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let registry: &dyn Registry = &*storage.ledger;
    let (a, b) = (tenant("a"), tenant("b"));
    assert_eq!(registry.tenant(&a).await.unwrap(), None);
    let (of_a, of_b) = (tenant_record(&a), tenant_record(&b));
    assert!(registry.create_tenant(&of_b).await.unwrap());
    assert!(registry.create_tenant(&of_a).await.unwrap());
    assert_eq!(registry.tenants().await.unwrap(), [of_a.clone(), of_b]);
    let changed = Tenant {
        state: TenantState::Suspended,
        weight: 3.0,
        quotas: Quotas::default(),
        ..of_a.clone()
    };
    assert!(!registry.create_tenant(&changed).await.unwrap(), "there is one");
    assert_eq!(registry.tenant(&a).await.unwrap(), Some(of_a));
    let update = TenantUpdate {
        state: Some(TenantState::Suspended),
        weight: Some(3.0),
        quotas: vec![("concurrent_jobs".into(), None), ("no such".into(), Some(1))],
    };
    let answered = registry.change_tenant(&a, &update).await.unwrap();
    assert_eq!(answered, Some(changed.clone()));
    assert_eq!(registry.tenant(&a).await.unwrap(), Some(changed));
    assert_eq!(registry.change_tenant(&tenant("c"), &update).await.unwrap(), None);

    let (late, early) = (key_record(&a, "k1", 5), key_record(&a, "k2", 3));
    registry.put_key(&late).await.unwrap();
    registry.put_key(&early).await.unwrap();
    registry.put_key(&key_record(&b, "k3", 1)).await.unwrap();
    assert!(registry.keys(&a).await.unwrap() == [early.clone(), late]);
    let mut revoked = early;
    revoked.revoked_millis = Some(8);
    revoked.expires_millis = None;
    revoked.scopes = Scope::ALL.into();
    registry.put_key(&revoked).await.unwrap();
    assert!(registry.key("k2").await.unwrap() == Some(revoked));
    assert!(registry.key("k4").await.unwrap().is_none());
    storage.close().await.unwrap();
}

#[tokio::test]
async fn no_key_changes_its_tenant_or_goes_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let desk = TenantDesk::create(dir.path()).await.unwrap();
    let (a, b) = (tenant("a"), tenant("b"));
    let homeless = desk.put_key(&key_record(&a, "k", 1)).await;
    assert!(
        matches!(homeless, Err(StorageError::Missing { .. })),
        "{homeless:?}"
    );
    for t in [&a, &b] {
        desk.create_tenant(&tenant_record(t)).await.unwrap();
    }
    desk.put_key(&key_record(&a, "k", 1)).await.unwrap();
    let taken = desk.put_key(&key_record(&b, "k", 2)).await.unwrap_err();
    assert_eq!(taken.kind(), "storage-failed");
    assert!(desk.key("k").await.unwrap() == Some(key_record(&a, "k", 1)));

    // Nor does it wait for the next tenant of its tenant's name.
    assert!(desk.remove_tenant(&a).await.unwrap());
    desk.create_tenant(&tenant_record(&a)).await.unwrap();
    assert!(desk.key("k").await.unwrap().is_none());
}

#[tokio::test]
async fn a_folder_without_a_ledger_has_no_tenants() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let missing = TenantDesk::open(&data).await.err().unwrap();
    assert!(matches!(missing, StorageError::Missing { .. }), "{missing}");
    let desk = TenantDesk::create(&data).await.unwrap();
    desk.create_tenant(&tenant_record(&tenant("a"))).await.unwrap();
    drop(desk);
    use std::os::unix::fs::PermissionsExt;
    for path in [data.clone(), data.join("ledger.db")] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
    // A server that starts later finds it.
    let storage = open(&data).await;
    assert_eq!(storage.ledger.tenants().await.unwrap().len(), 1);
    storage.close().await.unwrap();
}

/// Another process: makes tenants and keys, and revokes each key that it made.
#[tokio::test]
#[ignore = "started by the test below"]
async fn a_command() {
    let Ok(data) = std::env::var(DATA) else {
        panic!("set {DATA}");
    };
    let desk = TenantDesk::open(Path::new(&data)).await.unwrap();
    for n in 0..150 {
        let t = tenant(&format!("t{n}"));
        desk.create_tenant(&tenant_record(&t)).await.unwrap();
        let mut key = key_record(&t, &format!("k{n}"), 1);
        desk.put_key(&key).await.unwrap();
        key.revoked_millis = Some(2);
        desk.put_key(&key).await.unwrap();
    }
}

#[tokio::test]
async fn a_command_writes_while_the_server_does() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let mut command = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_command", "--ignored", "--nocapture"])
        .env(DATA, dir.path())
        .spawn()
        .unwrap();
    let (t, id) = (TenantId::single(), JobId::new());
    let mut written = 0;
    let mut left = false;
    // Those of the components' state read before they write, which is where a second writer could get in between.
    while !left || written < 150 {
        left = left || command.try_wait().unwrap().is_some();
        written += 1;
        let entries = vec![Entry::Event(t.clone(), event(id, written))];
        storage.ledger.commit(entries).await.unwrap();
        storage
            .ledger
            .apply(&t, "p", vec![set(&format!("k{}", written % 7), vec![1; 100])])
            .await
            .unwrap();
    }
    assert!(command.wait().unwrap().success());
    let registry: &dyn Registry = &*storage.ledger;
    assert_eq!(registry.tenants().await.unwrap().len(), 150);
    for n in 0..150 {
        let key = registry.key(&format!("k{n}")).await.unwrap().unwrap();
        assert_eq!(key.revoked_millis, Some(2));
    }
    let events = storage.ledger.events(&t, &id, 0, 10_000).await.unwrap();
    assert_eq!(events.len() as u64, written);
    storage.close().await.unwrap();
}

fn weight(weight: f64) -> TenantUpdate {
    TenantUpdate {
        weight: Some(weight),
        ..TenantUpdate::default()
    }
}

#[tokio::test]
async fn the_servers_next_look_sees_what_another_process_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let registry: &dyn Registry = &*storage.ledger;
    let t = tenant("a");
    let desk = TenantDesk::open(dir.path()).await.unwrap();
    assert!(desk.create_tenant(&tenant_record(&t)).await.unwrap());
    for n in 0..50 {
        let mut record = tenant_record(&t);
        record.weight = f64::from(n);
        desk.change_tenant(&t, &weight(record.weight)).await.unwrap();
        assert_eq!(registry.tenant(&t).await.unwrap(), Some(record.clone()));
        record.weight += 0.5;
        registry.change_tenant(&t, &weight(record.weight)).await.unwrap();
        assert_eq!(desk.tenant(&t).await.unwrap(), Some(record));
    }
    storage.close().await.unwrap();
    // Nobody holds the folder now, and the desk goes on.
    desk.put_key(&key_record(&t, "k", 1)).await.unwrap();
    assert_eq!(desk.keys(&t).await.unwrap().len(), 1);
}

/// Gives a tenant a row in every table and something in every store.
async fn furnish(storage: &Storage, t: &TenantId) {
    let ledger = &storage.ledger;
    ledger.create_tenant(&tenant_record(t)).await.unwrap();
    ledger
        .put_key(&key_record(t, &format!("key-{t}"), 1))
        .await
        .unwrap();
    let record = job(t, JobState::Queued, 1);
    ledger
        .put(&record, &order(&record), Some(&word("w", 1)))
        .await
        .unwrap();
    assert_eq!(ledger.begin(t, &document("d")).await.unwrap(), Begin::Begun);
    let revision = RevisionId::of(b"r");
    let mut entries: Vec<_> = (1..=5000)
        .map(|seq| Entry::Event(t.clone(), event(record.id, seq)))
        .collect();
    entries.extend((1..=10).map(|page| page_done(t, "d", page, &revision, 1)));
    entries.push(Entry::Document(weir_core::ledger::DocumentRecord {
        id: document("d"),
        tenant: t.clone(),
        name: "d.pdf".into(),
        bytes: 3,
        pages: 10,
        title: None,
        outline: Vec::new(),
        collection: "main".into(),
        labels: vec![("team".into(), "north".into())],
        requested: Filing::default(),
        created_millis: 1,
    }));
    let state = vec![set("k", b"v".into())];
    ledger.apply(t, "p", state).await.unwrap();
    let used = Usage {
        pages: 3,
        ..Usage::default()
    };
    ledger.add(7, vec![(t.clone(), used)]).await.unwrap();
    storage.blobs.put(t, "d/1/image/150.jpg", b"image").await.unwrap();
    let unfinished = storage.originals.unfinished();
    std::fs::write(&unfinished, "d").unwrap();
    storage
        .originals
        .commit(t, &unfinished, &DocumentId::of(b"d"))
        .await
        .unwrap();
    let unfinished = storage.components.unfinished();
    std::fs::write(&unfinished, "wasm").unwrap();
    let digest = ComponentDigest::of(b"wasm");
    storage.components.commit(t, &unfinished, &digest).await.unwrap();
    furnish_pipeline(ledger, t, digest).await;
    // Of no document that the ledger knows.
    let stray = vec![point("stray", 1, 0, "words", direction(0.0))];
    storage.vectors.upsert(t, "main", stray).await.unwrap();
    let known = vec![point("d", 1, 0, "words", direction(0.0))];
    storage.vectors.upsert(t, "main", known).await.unwrap();
    // Last, for a commit also writes down what is kept.
    ledger.commit(entries).await.unwrap();
}

/// A pipeline with a component, and a job that was given its revision.
async fn furnish_pipeline(ledger: &SqliteLedger, t: &TenantId, digest: ComponentDigest) {
    let record = ComponentRecord {
        tenant: t.clone(),
        digest,
        name: "ours".into(),
        bytes: 4,
        facts: ComponentFacts {
            roles: vec![Role::Routing],
            capabilities: Vec::new(),
        },
        created_millis: 1,
        by: format!("key-{t}"),
    };
    ledger.put_component(&record).await.unwrap();
    let recipe = Recipe {
        manifest: Manifest::embedded(),
        components: [(Role::Routing, digest)].into(),
    };
    ledger
        .add_revision(t, "p", &recipe, &format!("key-{t}"), 1)
        .await
        .unwrap()
        .unwrap();
    let activate = Change::Activate { revision: 1 };
    let by = format!("key-{t}");
    let changed = ledger.change_rollout(t, "p", None, &activate, &by, None, 1);
    changed.await.unwrap().unwrap();
    let job = JobId::new();
    ledger.assign(t, "p", &job).await.unwrap();
    let said = LogEntry {
        job,
        seq: 1,
        at_millis: 0,
        remark: Remark {
            component: "c".into(),
            function: "routing.page".into(),
            what: RemarkKind::Line {
                level: LogLevel::Info,
                message: "here".into(),
            },
        },
    };
    ledger.commit(vec![Entry::Said(t.clone(), said)]).await.unwrap();
    let run = ShadowRun {
        tenant: t.clone(),
        pipeline: "p".into(),
        revision: 1,
        job,
        at_millis: 1,
        report: Err("gone".into()),
    };
    ledger.put_shadow_run(&run).await.unwrap();
}

/// How many rows each table with a column for the tenant has of one.
fn rows(data: &Path, t: &TenantId) -> Vec<(String, u32)> {
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
async fn a_removed_tenant_leaves_nothing_and_takes_nothing_along() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (tenant("a"), tenant("b"));
    let storage = open(dir.path()).await;
    furnish(&storage, &a).await;
    furnish(&storage, &b).await;
    storage.close().await.unwrap();
    let before = rows(dir.path(), &b);
    for (table, count) in before.iter().chain(&rows(dir.path(), &a)) {
        assert!(*count > 0, "{table} is not tried");
    }

    assert!(remove_tenant(dir.path(), &a).await.unwrap());
    assert!(!remove_tenant(dir.path(), &a).await.unwrap());
    for (table, count) in rows(dir.path(), &a) {
        assert_eq!(count, 0, "{table}");
    }
    assert_eq!(rows(dir.path(), &b), before);
    for folder in ["blobs", "originals", "components"] {
        assert!(!dir.path().join(folder).join("a").exists());
        assert!(dir.path().join(folder).join("b").exists());
    }
    let storage = open(dir.path()).await;
    let all = query("words", direction(0.0), 10);
    assert!(storage.vectors.search(&a, &all).await.unwrap().is_empty());
    assert_eq!(storage.vectors.search(&b, &all).await.unwrap().len(), 2);
    assert_eq!(storage.ledger.stored_bytes(&a).await.unwrap(), 0);
    assert_eq!(storage.ledger.stored_bytes(&b).await.unwrap(), 10);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn a_tenant_is_not_removed_under_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = tenant("a");
    storage.ledger.create_tenant(&tenant_record(&t)).await.unwrap();
    let refused = remove_tenant(dir.path(), &t).await.unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused}");
    storage.close().await.unwrap();
}

#[tokio::test]
async fn a_tenant_is_removed_from_a_folder_that_never_had_passages() {
    let dir = tempfile::tempdir().unwrap();
    let t = tenant("a");
    let desk = TenantDesk::create(dir.path()).await.unwrap();
    desk.create_tenant(&tenant_record(&t)).await.unwrap();
    assert!(remove_tenant(dir.path(), &t).await.unwrap());
    assert!(desk.tenants().await.unwrap().is_empty());
    assert!(!dir.path().join("vectors").exists());
}

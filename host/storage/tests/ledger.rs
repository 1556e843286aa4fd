//! Committed entries are read by their tenant only, also while another process writes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use fixture::{document_id, make_event, open_storage, page_done_entry, tenant_id};
use weir_conformance::records::make_job;
use weir_core::collection_and_labels::CollectionAndLabelsRequest;
use weir_core::component_state_limits::{StateChange, StateSizes};
use weir_core::event::{ErrorInfo, Event};
use weir_core::ledger::{DocumentRecord, FinalPageState, JobRecord, JobState, LedgerEntry, PageRecord};
use weir_core::page::OutlineEntry;
use weir_core::ports::{ComponentStateStore, Ledger};
use weir_core::tenancy::TenantStore;
use weir_core::{JobId, RevisionId, StorageError, TenantId};
use weir_storage::{LINK_KEY_BYTES, SqlLedger};

fn make_document_record(t: &TenantId, name: &str, created_millis: u64) -> DocumentRecord {
    DocumentRecord {
        id: document_id(name),
        tenant: t.clone(),
        name: format!("{name}.pdf"),
        bytes: 1 << 40,
        pages: 12,
        title: Some("Títle".into()),
        outline: vec![OutlineEntry {
            title: "One".into(),
            level: 1,
            page: Some(3),
        }],
        collection: "main".into(),
        labels: vec![("team".into(), "north".into())],
        requested_collection_and_labels: CollectionAndLabelsRequest::default(),
        created_millis,
    }
}

#[tokio::test]
async fn first_link_key_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    for new_key in [1, 2] {
        let storage = open_storage(dir.path()).await;
        let key = storage
            .ledger
            .load_or_set_link_key([new_key; LINK_KEY_BYTES])
            .await;
        assert_eq!(key.unwrap(), [1; LINK_KEY_BYTES]);
        storage.close().await.unwrap();
    }
}

#[tokio::test]
async fn documents_are_listed_newest_first_and_keep_their_first_date() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let ledger = &storage.ledger;
    let (old, new) = (
        make_document_record(&t, "old", 1),
        make_document_record(&t, "new", 2),
    );
    ledger
        .commit_entries(vec![
            LedgerEntry::Document(new.clone()),
            LedgerEntry::Document(old.clone()),
        ])
        .await
        .unwrap();
    assert_eq!(
        ledger.list_tenant_documents(&t).await.unwrap(),
        [new.clone(), old.clone()]
    );
    let renamed = DocumentRecord {
        name: "renamed.pdf".into(),
        title: None,
        created_millis: 9,
        ..old.clone()
    };
    ledger
        .commit_entries(vec![LedgerEntry::Document(renamed.clone())])
        .await
        .unwrap();
    let expected = DocumentRecord {
        created_millis: 1,
        ..renamed
    };
    assert_eq!(ledger.find_document(&t, &old.id).await.unwrap(), Some(expected));
    assert_eq!(
        ledger.find_document(&t, &document_id("none")).await.unwrap(),
        None
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn pages_are_stored_by_revision_and_the_latest_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let (r, s) = (RevisionId::from_content(b"r"), RevisionId::from_content(b"s"));
    let ledger = &storage.ledger;
    let failed = |page, revision| {
        LedgerEntry::Page(PageRecord {
            tenant: t.clone(),
            document: document_id("d"),
            page,
            revision,
            job: JobId::new(),
            state: FinalPageState::Failed {
                error: ErrorInfo {
                    kind: "k".into(),
                    message: "m".into(),
                },
            },
        })
    };
    ledger
        .commit_entries(vec![
            page_done_entry(&t, "d", 2, &r, 7),
            page_done_entry(&t, "d", 1, &r, 5),
        ])
        .await
        .unwrap();
    ledger
        .commit_entries(vec![failed(2, s), failed(1, s)])
        .await
        .unwrap();
    // Page 1 is done again under the first revision, so the first revision is its latest.
    ledger
        .commit_entries(vec![page_done_entry(&t, "d", 1, &r, 6)])
        .await
        .unwrap();
    let pages = async |revision: Option<&RevisionId>| {
        let pages = ledger.list_pages(&t, &document_id("d"), revision).await.unwrap();
        pages
            .into_iter()
            .map(|p| {
                (
                    p.page,
                    p.revision,
                    if let FinalPageState::Done { passages, .. } = p.state {
                        passages
                    } else {
                        0
                    },
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(pages(Some(&r)).await, [(1, r, 6), (2, r, 7)]);
    assert_eq!(pages(Some(&s)).await, [(1, s, 0), (2, s, 0)]);
    assert_eq!(pages(None).await, [(1, r, 6), (2, s, 0)]);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn unfinished_jobs_are_listed_oldest_first_after_restart() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let (late, early, done) = (
        make_job(&a, JobState::Running, 5),
        make_job(&b, JobState::Queued, 3),
        make_job(&a, JobState::Done, 1),
    );
    let entries = [&late, &early, &done].map(|j| LedgerEntry::Job(j.clone()));
    storage.ledger.commit_entries(entries.into()).await.unwrap();
    storage.close().await.unwrap();

    let storage = open_storage(dir.path()).await;
    let ledger = &storage.ledger;
    assert_eq!(
        ledger.list_unfinished_jobs().await.unwrap(),
        [early.clone(), late.clone()]
    );
    let ended = JobRecord {
        state: JobState::Cancelled,
        ..late.clone()
    };
    ledger
        .commit_entries(vec![LedgerEntry::Job(ended.clone())])
        .await
        .unwrap();
    assert_eq!(ledger.list_unfinished_jobs().await.unwrap(), [early]);
    assert_eq!(ledger.find_job(&a, &late.id).await.unwrap(), Some(ended));
    storage.close().await.unwrap();
}

#[tokio::test]
async fn events_are_read_in_order_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let (one, two) = (JobId::new(), JobId::new());
    let entries = (1..=250)
        .rev()
        .flat_map(|seq| [make_event(one, seq), make_event(two, seq)]);
    let entries = entries.map(|e| LedgerEntry::Event(t.clone(), e)).collect();
    storage.ledger.commit_entries(entries).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let piece = storage
            .ledger
            .list_job_events(&t, &one, after, 100)
            .await
            .unwrap();
        assert!(piece.len() <= 100);
        let Some(last) = piece.last() else { break };
        after = last.seq;
        seen.extend(piece);
    }
    assert_eq!(
        seen,
        (1..=250).map(|seq| make_event(one, seq)).collect::<Vec<_>>()
    );
    assert!(
        storage
            .ledger
            .list_job_events(&t, &one, u64::MAX, 10)
            .await
            .unwrap()
            .is_empty()
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn tenant_events_have_positions_in_the_order_of_writing() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let (one, two) = (JobId::new(), JobId::new());
    let written = [
        (&a, make_event(two, 1)),
        (&b, make_event(one, 1)),
        (&a, make_event(one, 1)),
        (&a, make_event(two, 2)),
    ];
    let commit = async |entries: &[(&TenantId, Event)]| {
        let entries = entries
            .iter()
            .map(|(t, e)| LedgerEntry::Event((*t).clone(), e.clone()));
        storage.ledger.commit_entries(entries.collect()).await.unwrap();
    };
    let log = async |t: &TenantId, after| storage.ledger.list_tenant_events(t, after, 10).await.unwrap();
    commit(&written).await;
    let first = log(&a, 0).await;
    let events: Vec<_> = first.iter().map(|(_, e)| e.clone()).collect();
    assert_eq!(
        events,
        [make_event(two, 1), make_event(one, 1), make_event(two, 2)]
    );
    assert!(first.windows(2).all(|pair| pair[0].0 < pair[1].0), "{first:?}");

    // A second write of the same events keeps one row each, at the same position.
    commit(&written).await;
    assert_eq!(log(&a, 0).await, first);
    assert_eq!(log(&b, 0).await.len(), 1);
    commit(&[(&a, make_event(one, 2))]).await;
    let last = log(&a, first[2].0).await;
    assert_eq!(last.len(), 1);
    assert!(last[0].0 > first[2].0);
    assert_eq!(
        storage.ledger.list_tenant_events(&a, 0, 2).await.unwrap(),
        first[..2]
    );

    // A position is not used again, not even that of the last event after all events are removed.
    let registry: &dyn TenantStore = &*storage.ledger;
    registry.remove_tenant(&a).await.unwrap();
    registry.remove_tenant(&b).await.unwrap();
    commit(&[(&a, make_event(one, 1))]).await;
    assert!(log(&a, 0).await[0].0 > last[0].0);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn jobs_and_events_of_a_removed_document_stay() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let r = RevisionId::from_content(b"r");
    let of_a = make_job(&a, JobState::Done, 1);
    let ledger = &storage.ledger;
    let mut entries = vec![
        LedgerEntry::Job(of_a.clone()),
        LedgerEntry::Event(a.clone(), make_event(of_a.id, 1)),
    ];
    for t in [&a, &b] {
        entries.extend([
            LedgerEntry::Document(make_document_record(t, "d", 1)),
            LedgerEntry::Document(make_document_record(t, "e", 1)),
        ]);
        entries.extend([
            page_done_entry(t, "d", 1, &r, 1),
            page_done_entry(t, "e", 1, &r, 1),
        ]);
    }
    ledger.commit_entries(entries).await.unwrap();
    assert!(ledger.erase_document(&a, &document_id("d")).await.unwrap());
    assert!(!ledger.erase_document(&a, &document_id("d")).await.unwrap());
    assert_eq!(
        ledger.list_tenant_documents(&a).await.unwrap(),
        [make_document_record(&a, "e", 1)]
    );
    assert!(
        ledger
            .list_pages(&a, &document_id("d"), None)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        ledger
            .list_pages(&a, &document_id("e"), None)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(ledger.list_tenant_documents(&b).await.unwrap().len(), 2);
    assert_eq!(
        ledger
            .list_pages(&b, &document_id("d"), None)
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(ledger.find_job(&a, &of_a.id).await.unwrap().is_some());
    assert_eq!(
        ledger.list_job_events(&a, &of_a.id, 0, 10).await.unwrap().len(),
        1
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn equal_ids_in_two_tenants_never_mix() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let ledger = &storage.ledger;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let r = RevisionId::from_content(b"r");
    let of_a = make_job(&a, JobState::Running, 1);
    let of_b = JobRecord {
        tenant: b.clone(),
        state: JobState::Failed,
        ..of_a.clone()
    };
    let id = of_a.id;
    ledger
        .commit_entries(vec![
            LedgerEntry::Job(of_a.clone()),
            LedgerEntry::Job(of_b.clone()),
            LedgerEntry::Document(make_document_record(&a, "d", 1)),
            page_done_entry(&a, "d", 1, &r, 1),
            LedgerEntry::Event(a.clone(), make_event(id, 1)),
            LedgerEntry::Event(b.clone(), make_event(id, 1)),
            LedgerEntry::Event(b.clone(), make_event(id, 2)),
        ])
        .await
        .unwrap();
    assert_eq!(ledger.find_job(&a, &id).await.unwrap(), Some(of_a));
    assert_eq!(ledger.find_job(&b, &id).await.unwrap(), Some(of_b));
    assert_eq!(ledger.list_job_events(&a, &id, 0, 10).await.unwrap().len(), 1);
    assert_eq!(ledger.list_job_events(&b, &id, 0, 10).await.unwrap().len(), 2);
    assert_eq!(ledger.find_document(&b, &document_id("d")).await.unwrap(), None);
    assert!(ledger.list_tenant_documents(&b).await.unwrap().is_empty());
    assert!(
        ledger
            .list_pages(&b, &document_id("d"), None)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        ledger
            .list_pages(&b, &document_id("d"), Some(&r))
            .await
            .unwrap()
            .is_empty()
    );
    let set = StateChange {
        key: "k".into(),
        value: Some(b"of a".into()),
    };
    ledger
        .apply_component_state_changes(&a, "p", vec![set])
        .await
        .unwrap();
    assert_eq!(
        ComponentStateStore::get_component_state_value(&**ledger, &b, "p", "k")
            .await
            .unwrap(),
        None
    );
    let delete = StateChange {
        key: "k".into(),
        value: None,
    };
    ledger
        .apply_component_state_changes(&b, "p", vec![delete])
        .await
        .unwrap();
    assert_eq!(
        ledger.list_component_state_value_sizes(&b, "p").await.unwrap(),
        StateSizes::default()
    );
    assert_eq!(
        ComponentStateStore::get_component_state_value(&**ledger, &a, "p", "k")
            .await
            .unwrap()
            .unwrap(),
        b"of a"
    );
    assert_eq!(
        ComponentStateStore::get_component_state_value(&**ledger, &a, "q", "k")
            .await
            .unwrap(),
        None
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn policy_state_stays_within_its_quotas() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    weir_conformance::check_component_state(&*storage.ledger).await;
    // Another pipeline has its own quota.
    let value = Some(vec![0; 64 << 10]);
    let change = |n: u32| StateChange {
        key: n.to_string(),
        value: value.clone(),
    };
    let (t, values) = (TenantId::default_tenant(), (0..15).map(change).collect());
    storage
        .ledger
        .apply_component_state_changes(&t, "q", values)
        .await
        .unwrap();
    storage.close().await.unwrap();
}

#[tokio::test]
async fn separate_reader_sees_writes_and_can_open_after_close() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        SqlLedger::open_read_only(dir.path()),
        Err(StorageError::NotFound { .. })
    ));
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let reader = SqlLedger::open_read_only(dir.path()).unwrap();
    assert!(reader.list_tenant_documents(&t).await.unwrap().is_empty());
    storage
        .ledger
        .commit_entries(vec![LedgerEntry::Document(make_document_record(&t, "d", 1))])
        .await
        .unwrap();
    assert_eq!(reader.list_tenant_documents(&t).await.unwrap().len(), 1);
    storage.close().await.unwrap();
    assert_eq!(reader.list_tenant_documents(&t).await.unwrap().len(), 1);
    let second_reader = SqlLedger::open_read_only(dir.path()).unwrap();
    assert_eq!(
        second_reader.find_document(&t, &document_id("d")).await.unwrap(),
        Some(make_document_record(&t, "d", 1))
    );
}

#[tokio::test]
async fn file_that_is_not_a_ledger_is_reported_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ledger.db");
    std::fs::write(&file, "not a database ".repeat(1000)).unwrap();
    let refused = weir_storage::Storage::open_or_create(dir.path(), fixture::DIMENSIONS, fixture::MODEL)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&refused, StorageError::Damaged { what, .. } if what == "the ledger"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_group_is_committed_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let spoiler = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
    spoiler
        .execute_batch(
            "CREATE TRIGGER spoil BEFORE INSERT ON events BEGIN SELECT raise(ABORT, 'spoiled'); END",
        )
        .unwrap();
    let group = vec![
        LedgerEntry::Document(make_document_record(&t, "d", 1)),
        LedgerEntry::Event(t.clone(), make_event(JobId::new(), 1)),
    ];
    let failed = storage.ledger.commit_entries(group).await.unwrap_err();
    assert!(failed.to_string().contains("spoiled"), "{failed}");
    assert!(storage.ledger.list_tenant_documents(&t).await.unwrap().is_empty());
    storage
        .ledger
        .commit_entries(vec![LedgerEntry::Document(make_document_record(&t, "d", 1))])
        .await
        .unwrap();
    storage.close().await.unwrap();
}

#[tokio::test]
async fn the_sqlite_ledger_passes_the_conformance_suite() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    weir_conformance::check_ledger(storage.ledger.as_ref()).await;
    weir_conformance::check_job_claim_store(storage.ledger.as_ref()).await;
    weir_conformance::check_node_registry(storage.ledger.as_ref()).await;
    let rows = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
    weir_conformance::check_provider_call_store(storage.ledger.as_ref(), async |time| {
        for (table, column) in [
            ("provider_calls", "started_millis"),
            ("provider_call_waits", "since_millis"),
            ("provider_call_waits", "expires_millis"),
        ] {
            let millis = time.as_millis();
            rows.execute(&format!("UPDATE {table} SET {column} = {column} - {millis}"), [])
                .unwrap();
        }
    })
    .await;
    storage.close().await.unwrap();
}

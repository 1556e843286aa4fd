//! What is committed is read back, by its tenant only, also while another process writes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use fixture::{document, open, page_done, tenant};
use weir_core::event::{ErrorNote, Event, EventKind};
use weir_core::ledger::{DocumentRecord, Entry, JobRecord, JobState, PageRecord, PageState};
use weir_core::page::OutlineEntry;
use weir_core::ports::{Ledger, PolicyState};
use weir_core::{JobId, RevisionId, StorageError, TenantId};
use weir_storage::LedgerReader;

fn record(t: &TenantId, name: &str, created_millis: u64) -> DocumentRecord {
    DocumentRecord {
        id: document(name),
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
        created_millis,
    }
}

fn job(t: &TenantId, state: JobState, created_millis: u64) -> JobRecord {
    JobRecord {
        id: JobId::new(),
        tenant: t.clone(),
        pipeline: "default".into(),
        revision: RevisionId::of(b"r"),
        state,
        created_millis,
    }
}

fn event(job: JobId, seq: u64) -> Event {
    Event {
        seq,
        job,
        document: None,
        at_millis: seq * 10,
        what: EventKind::PageDone {
            page: 1,
            searchable: true,
            passages: 2,
        },
    }
}

#[tokio::test]
async fn documents_are_kept_newest_first_with_their_first_date() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = TenantId::single();
    let ledger = &storage.ledger;
    let (old, new) = (record(&t, "old", 1), record(&t, "new", 2));
    ledger
        .commit(vec![Entry::Document(new.clone()), Entry::Document(old.clone())])
        .await
        .unwrap();
    assert_eq!(ledger.documents(&t).await.unwrap(), [new.clone(), old.clone()]);
    let renamed = DocumentRecord {
        name: "renamed.pdf".into(),
        title: None,
        created_millis: 9,
        ..old.clone()
    };
    ledger
        .commit(vec![Entry::Document(renamed.clone())])
        .await
        .unwrap();
    let kept = DocumentRecord {
        created_millis: 1,
        ..renamed
    };
    assert_eq!(ledger.document(&t, &old.id).await.unwrap(), Some(kept));
    assert_eq!(ledger.document(&t, &document("none")).await.unwrap(), None);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn pages_are_kept_by_revision_and_the_latest_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = TenantId::single();
    let (r, s) = (RevisionId::of(b"r"), RevisionId::of(b"s"));
    let ledger = &storage.ledger;
    let failed = |page, revision| {
        Entry::Page(PageRecord {
            tenant: t.clone(),
            document: document("d"),
            page,
            revision,
            job: JobId::new(),
            state: PageState::Failed {
                error: ErrorNote {
                    kind: "k".into(),
                    message: "m".into(),
                },
            },
        })
    };
    ledger
        .commit(vec![page_done(&t, "d", 2, &r, 7), page_done(&t, "d", 1, &r, 5)])
        .await
        .unwrap();
    ledger.commit(vec![failed(2, s), failed(1, s)]).await.unwrap();
    // Page 1 is done again under the first revision, so that is its latest.
    ledger.commit(vec![page_done(&t, "d", 1, &r, 6)]).await.unwrap();
    let pages = async |revision: Option<&RevisionId>| {
        let pages = ledger.pages(&t, &document("d"), revision).await.unwrap();
        pages
            .into_iter()
            .map(|p| {
                (
                    p.page,
                    p.revision,
                    if let PageState::Done { passages, .. } = p.state {
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
async fn unfinished_jobs_are_found_again_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (a, b) = (tenant("a"), tenant("b"));
    let (late, early, done) = (
        job(&a, JobState::Running, 5),
        job(&b, JobState::Queued, 3),
        job(&a, JobState::Done, 1),
    );
    let entries = [&late, &early, &done].map(|j| Entry::Job(j.clone()));
    storage.ledger.commit(entries.into()).await.unwrap();
    storage.close().await.unwrap();

    let storage = open(dir.path()).await;
    let ledger = &storage.ledger;
    assert_eq!(ledger.unfinished().await.unwrap(), [early.clone(), late.clone()]);
    let ended = JobRecord {
        state: JobState::Cancelled,
        ..late.clone()
    };
    ledger.commit(vec![Entry::Job(ended.clone())]).await.unwrap();
    assert_eq!(ledger.unfinished().await.unwrap(), [early]);
    assert_eq!(ledger.job(&a, &late.id).await.unwrap(), Some(ended));
    storage.close().await.unwrap();
}

#[tokio::test]
async fn events_are_read_in_order_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = TenantId::single();
    let (one, two) = (JobId::new(), JobId::new());
    let entries = (1..=250).rev().flat_map(|seq| [event(one, seq), event(two, seq)]);
    let entries = entries.map(|e| Entry::Event(t.clone(), e)).collect();
    storage.ledger.commit(entries).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let piece = storage.ledger.events(&t, &one, after, 100).await.unwrap();
        assert!(piece.len() <= 100);
        let Some(last) = piece.last() else { break };
        after = last.seq;
        seen.extend(piece);
    }
    assert_eq!(seen, (1..=250).map(|seq| event(one, seq)).collect::<Vec<_>>());
    assert!(
        storage
            .ledger
            .events(&t, &one, u64::MAX, 10)
            .await
            .unwrap()
            .is_empty()
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn tenants_with_the_same_ids_never_mix() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let ledger = &storage.ledger;
    let (a, b) = (tenant("a"), tenant("b"));
    let r = RevisionId::of(b"r");
    let of_a = job(&a, JobState::Running, 1);
    let of_b = JobRecord {
        tenant: b.clone(),
        state: JobState::Failed,
        ..of_a.clone()
    };
    let id = of_a.id;
    ledger
        .commit(vec![
            Entry::Job(of_a.clone()),
            Entry::Job(of_b.clone()),
            Entry::Document(record(&a, "d", 1)),
            page_done(&a, "d", 1, &r, 1),
            Entry::Event(a.clone(), event(id, 1)),
            Entry::Event(b.clone(), event(id, 1)),
            Entry::Event(b.clone(), event(id, 2)),
        ])
        .await
        .unwrap();
    assert_eq!(ledger.job(&a, &id).await.unwrap(), Some(of_a));
    assert_eq!(ledger.job(&b, &id).await.unwrap(), Some(of_b));
    assert_eq!(ledger.events(&a, &id, 0, 10).await.unwrap().len(), 1);
    assert_eq!(ledger.events(&b, &id, 0, 10).await.unwrap().len(), 2);
    assert_eq!(ledger.document(&b, &document("d")).await.unwrap(), None);
    assert!(ledger.documents(&b).await.unwrap().is_empty());
    assert!(ledger.pages(&b, &document("d"), None).await.unwrap().is_empty());
    assert!(
        ledger
            .pages(&b, &document("d"), Some(&r))
            .await
            .unwrap()
            .is_empty()
    );
    PolicyState::set(&**ledger, &a, "p", "k", b"of a".into())
        .await
        .unwrap();
    assert_eq!(PolicyState::get(&**ledger, &b, "p", "k").await.unwrap(), None);
    PolicyState::delete(&**ledger, &b, "p", "k").await.unwrap();
    assert_eq!(
        PolicyState::get(&**ledger, &a, "p", "k").await.unwrap().unwrap(),
        b"of a"
    );
    assert_eq!(PolicyState::get(&**ledger, &a, "q", "k").await.unwrap(), None);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn policy_state_keeps_to_its_quotas() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let state: &dyn PolicyState = &*storage.ledger;
    let t = TenantId::single();
    let exhausted = |result: Result<(), ErrorNote>| assert_eq!(result.unwrap_err().kind, "exhausted");
    exhausted(state.set(&t, "p", &"k".repeat(257), Vec::new()).await);
    exhausted(state.set(&t, "p", "k", vec![0; (64 << 10) + 1]).await);
    // Sixteen values of 64 KiB and their keys are just too much.
    for i in 0..15 {
        state
            .set(&t, "p", &format!("k{i}"), vec![0; 64 << 10])
            .await
            .unwrap();
    }
    exhausted(state.set(&t, "p", "last", vec![0; 64 << 10]).await);
    // Replacing counts the new value alone.
    state.set(&t, "p", "k0", vec![1; 64 << 10]).await.unwrap();
    state.delete(&t, "p", "k1").await.unwrap();
    state.set(&t, "p", "last", vec![0; 64 << 10]).await.unwrap();
    assert_eq!(
        state.get(&t, "p", "k0").await.unwrap().unwrap(),
        vec![1; 64 << 10]
    );
    // Another pipeline has a quota of its own, here of keys.
    for i in 0..1000 {
        state.set(&t, "q", &i.to_string(), Vec::new()).await.unwrap();
    }
    exhausted(state.set(&t, "q", "one more", Vec::new()).await);
    state.set(&t, "q", "7", b"x".into()).await.unwrap();
    storage.close().await.unwrap();
}

#[tokio::test]
async fn another_process_reads_while_this_one_writes() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        LedgerReader::open(dir.path()),
        Err(StorageError::Missing { .. })
    ));
    let storage = open(dir.path()).await;
    let t = TenantId::single();
    let reader = LedgerReader::open(dir.path()).unwrap();
    assert!(reader.documents(&t).await.unwrap().is_empty());
    storage
        .ledger
        .commit(vec![Entry::Document(record(&t, "d", 1))])
        .await
        .unwrap();
    assert_eq!(reader.documents(&t).await.unwrap().len(), 1);
    storage.close().await.unwrap();
    assert_eq!(reader.documents(&t).await.unwrap().len(), 1);
    let alone = LedgerReader::open(dir.path()).unwrap();
    assert_eq!(
        alone.document(&t, &document("d")).await.unwrap(),
        Some(record(&t, "d", 1))
    );
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ledger.db");
    std::fs::write(&file, "not a database ".repeat(1000)).unwrap();
    let refused = weir_storage::Storage::open(dir.path(), fixture::DIMENSIONS, fixture::MODEL)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&refused, StorageError::Damaged { what, .. } if *what == file.display().to_string()),
        "{refused}"
    );
}

#[tokio::test]
async fn a_group_is_committed_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = TenantId::single();
    let spoiler = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
    spoiler
        .execute_batch(
            "CREATE TRIGGER spoil BEFORE INSERT ON events BEGIN SELECT raise(ABORT, 'spoiled'); END",
        )
        .unwrap();
    let group = vec![
        Entry::Document(record(&t, "d", 1)),
        Entry::Event(t.clone(), event(JobId::new(), 1)),
    ];
    let failed = storage.ledger.commit(group).await.unwrap_err();
    assert!(failed.to_string().contains("spoiled"), "{failed}");
    assert!(storage.ledger.documents(&t).await.unwrap().is_empty());
    storage
        .ledger
        .commit(vec![Entry::Document(record(&t, "d", 1))])
        .await
        .unwrap();
    storage.close().await.unwrap();
}

//! What is committed is read back, by its tenant only, also while another process writes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use fixture::{document, event, job, open, page_done, tenant};
use weir_core::event::{ErrorNote, Event};
use weir_core::filing::Filing;
use weir_core::ledger::{DocumentRecord, Entry, JobRecord, JobState, PageRecord, PageState};
use weir_core::page::OutlineEntry;
use weir_core::ports::{Ledger, PolicyState};
use weir_core::said::{FailureReport, Frame, LogEntry, LogLevel, Remark, RemarkKind};
use weir_core::state::{StateChange, StateSizes};
use weir_core::tenancy::Registry;
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
        labels: vec![("team".into(), "north".into())],
        requested: Filing::default(),
        created_millis,
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
async fn a_tenants_events_have_places_in_the_order_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (a, b) = (tenant("a"), tenant("b"));
    let (one, two) = (JobId::new(), JobId::new());
    let written = [
        (&a, event(two, 1)),
        (&b, event(one, 1)),
        (&a, event(one, 1)),
        (&a, event(two, 2)),
    ];
    let commit = async |entries: &[(&TenantId, Event)]| {
        let entries = entries.iter().map(|(t, e)| Entry::Event((*t).clone(), e.clone()));
        storage.ledger.commit(entries.collect()).await.unwrap();
    };
    let log = async |t: &TenantId, after| storage.ledger.tenant_events(t, after, 10).await.unwrap();
    commit(&written).await;
    let first = log(&a, 0).await;
    let events: Vec<_> = first.iter().map(|(_, e)| e.clone()).collect();
    assert_eq!(events, [event(two, 1), event(one, 1), event(two, 2)]);
    assert!(first.windows(2).all(|pair| pair[0].0 < pair[1].0), "{first:?}");

    // Written again, each is there once and where it was.
    commit(&written).await;
    assert_eq!(log(&a, 0).await, first);
    assert_eq!(log(&b, 0).await.len(), 1);
    commit(&[(&a, event(one, 2))]).await;
    let last = log(&a, first[2].0).await;
    assert_eq!(last.len(), 1);
    assert!(last[0].0 > first[2].0);
    assert_eq!(storage.ledger.tenant_events(&a, 0, 2).await.unwrap(), first[..2]);

    // A place is not given again, not even that of the last event when all have gone.
    let registry: &dyn Registry = &*storage.ledger;
    registry.remove_tenant(&a).await.unwrap();
    registry.remove_tenant(&b).await.unwrap();
    commit(&[(&a, event(one, 1))]).await;
    assert!(log(&a, 0).await[0].0 > last[0].0);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn a_forgotten_document_leaves_its_jobs_and_events() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (a, b) = (tenant("a"), tenant("b"));
    let r = RevisionId::of(b"r");
    let of_a = job(&a, JobState::Done, 1);
    let ledger = &storage.ledger;
    let mut entries = vec![
        Entry::Job(of_a.clone()),
        Entry::Event(a.clone(), event(of_a.id, 1)),
    ];
    for t in [&a, &b] {
        entries.extend([
            Entry::Document(record(t, "d", 1)),
            Entry::Document(record(t, "e", 1)),
        ]);
        entries.extend([page_done(t, "d", 1, &r, 1), page_done(t, "e", 1, &r, 1)]);
    }
    ledger.commit(entries).await.unwrap();
    assert!(ledger.forget(&a, &document("d")).await.unwrap());
    assert!(!ledger.forget(&a, &document("d")).await.unwrap());
    assert_eq!(ledger.documents(&a).await.unwrap(), [record(&a, "e", 1)]);
    assert!(ledger.pages(&a, &document("d"), None).await.unwrap().is_empty());
    assert_eq!(ledger.pages(&a, &document("e"), None).await.unwrap().len(), 1);
    assert_eq!(ledger.documents(&b).await.unwrap().len(), 2);
    assert_eq!(ledger.pages(&b, &document("d"), None).await.unwrap().len(), 1);
    assert!(ledger.job(&a, &of_a.id).await.unwrap().is_some());
    assert_eq!(ledger.events(&a, &of_a.id, 0, 10).await.unwrap().len(), 1);
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
    let set = StateChange {
        key: "k".into(),
        value: Some(b"of a".into()),
    };
    ledger.apply(&a, "p", vec![set]).await.unwrap();
    assert_eq!(PolicyState::get(&**ledger, &b, "p", "k").await.unwrap(), None);
    let delete = StateChange {
        key: "k".into(),
        value: None,
    };
    ledger.apply(&b, "p", vec![delete]).await.unwrap();
    assert_eq!(ledger.sizes(&b, "p").await.unwrap(), StateSizes::default());
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
    weir_conformance::check_policy_state(&*storage.ledger).await;
    // Another pipeline has a quota of its own.
    let value = Some(vec![0; 64 << 10]);
    let change = |n: u32| StateChange {
        key: n.to_string(),
        value: value.clone(),
    };
    let (t, values) = (TenantId::single(), (0..15).map(change).collect());
    storage.ledger.apply(&t, "q", values).await.unwrap();
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
        matches!(&refused, StorageError::Damaged { what, .. } if what == "the ledger"),
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

fn line(job: JobId, seq: u64) -> LogEntry {
    LogEntry {
        job,
        seq,
        at_millis: 7,
        remark: Remark {
            component: "ours".into(),
            function: "routing.page".into(),
            what: RemarkKind::Line {
                level: LogLevel::Warn,
                message: format!("line {seq}"),
            },
        },
    }
}

#[tokio::test]
async fn what_components_say_is_read_back_by_its_tenant_only() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (a, b, id) = (tenant("a"), tenant("b"), JobId::new());
    let report = FailureReport {
        error: ErrorNote {
            kind: "component-trap".into(),
            message: "it trapped".into(),
        },
        version: "00".into(),
        turn: 3,
        question: None,
        limit: Some("20 ms".into()),
        said: Some("two\nlines".into()),
        backtrace: vec![Frame {
            function: "f".into(),
            file: Some("src/lib.rs".into()),
            line: Some(7),
        }],
    };
    let mut failure = line(id, 2);
    failure.remark.what = RemarkKind::Failure(Box::new(report));
    let entries = [line(id, 1), failure, line(id, 3)];
    let written: Vec<Entry> = entries
        .iter()
        .map(|e| Entry::Said(a.clone(), e.clone()))
        .collect();
    for _ in 0..2 {
        storage.ledger.commit(written.clone()).await.unwrap();
    }
    let ledger = &storage.ledger;
    assert_eq!(ledger.said(&a, &id, 0, 10).await.unwrap(), entries);
    assert_eq!(ledger.said(&a, &id, 1, 1).await.unwrap(), entries[1..2]);
    assert_eq!(ledger.last_said(&a, &id).await.unwrap(), 3);
    assert_eq!(ledger.said(&b, &id, 0, 10).await.unwrap(), []);
    assert_eq!(ledger.last_said(&b, &id).await.unwrap(), 0);
}

#[tokio::test]
async fn a_tenant_keeps_the_latest_ten_thousand_things_its_components_said() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (a, b) = (tenant("a"), tenant("b"));
    let ledger = &storage.ledger;
    let jobs: Vec<JobId> = (0..12).map(|_| JobId::new()).collect();
    assert!(jobs.is_sorted());
    let other = JobId::new();
    ledger
        .commit(vec![Entry::Said(b.clone(), line(other, 1))])
        .await
        .unwrap();
    for job in &jobs {
        let lines = (1..=1000).map(|seq| Entry::Said(a.clone(), line(*job, seq)));
        ledger.commit(lines.collect()).await.unwrap();
    }
    let mut kept = Vec::new();
    for job in &jobs {
        kept.push(ledger.last_said(&a, job).await.unwrap());
    }
    // The eleventh and twelfth were still to say their 999 other lines when older ones were looked for.
    assert_eq!(kept, [[0; 1].as_slice(), [1000; 11].as_slice()].concat());
    assert_eq!(ledger.last_said(&b, &other).await.unwrap(), 1);
}

#[tokio::test]
async fn the_sqlite_ledger_passes_the_conformance_suite() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    weir_conformance::check_ledger(storage.ledger.as_ref()).await;
    storage.close().await.unwrap();
}

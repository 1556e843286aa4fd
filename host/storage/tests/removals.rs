//! Documents that are being removed, and the jobs that need them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::fs;
use std::sync::Arc;

use fixture::{document, event, job, open, order, tenant, tenant_record, word};
use weir_core::event::EventKind;
use weir_core::ledger::{Entry, JobRecord, JobState};
use weir_core::order::{Orders, Put};
use weir_core::original::Originals;
use weir_core::ports::Ledger;
use weir_core::removal::{Begin, Removals};
use weir_core::tenancy::Registry;
use weir_core::{JobId, StorageError, TenantId};
use weir_storage::SqliteLedger;

async fn put(ledger: &SqliteLedger, record: &JobRecord) -> Put {
    ledger.put(record, &order(record), None).await.unwrap()
}

async fn set_state(ledger: &SqliteLedger, record: &JobRecord, state: JobState) {
    let record = JobRecord {
        state,
        ..record.clone()
    };
    ledger.commit(vec![Entry::Job(record)]).await.unwrap();
}

#[tokio::test]
async fn order_is_refused_while_its_document_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (ledger, a, b) = (&storage.ledger, tenant("a"), tenant("b"));
    let document = document("a");
    assert_eq!(ledger.begin(&a, &document).await.unwrap(), Begin::Begun);
    assert_eq!(ledger.begin(&a, &document).await.unwrap(), Begin::Removing);
    let record = job(&a, JobState::Queued, 1);
    let refused = ledger.put(&record, &order(&record), Some(&word("w", 1))).await;
    assert_eq!(refused.unwrap(), Put::Removing(document));
    assert_eq!(
        ledger.earlier(&a, "w").await.unwrap(),
        None,
        "nothing was written"
    );
    assert_eq!(ledger.job(&a, &record.id).await.unwrap(), None);
    assert_eq!(put(ledger, &job(&b, JobState::Queued, 1)).await, Put::New);
    // Also after a crash, until the removal is finished.
    drop(storage);
    let storage = open(dir.path()).await;
    let ledger = &storage.ledger;
    assert_eq!(ledger.unended().await.unwrap(), [(a.clone(), document)]);
    assert_eq!(put(ledger, &record).await, Put::Removing(document));
    ledger.end(&a, &document).await.unwrap();
    assert_eq!(put(ledger, &record).await, Put::New);
    assert_eq!(ledger.jobs_with(&a, &document).await.unwrap(), [record.id]);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn removal_is_refused_while_a_job_needs_the_document() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (ledger, a) = (&storage.ledger, tenant("a"));
    let document = document("a");
    let record = job(&a, JobState::Queued, 1);
    assert_eq!(put(ledger, &record).await, Put::New);
    assert_eq!(ledger.begin(&a, &document).await.unwrap(), Begin::InWork);
    set_state(ledger, &record, JobState::Running).await;
    assert_eq!(ledger.begin(&a, &document).await.unwrap(), Begin::InWork);
    set_state(ledger, &record, JobState::Done).await;
    assert_eq!(ledger.begin(&a, &document).await.unwrap(), Begin::Begun);
    // A job of the command line has no order: its first event of a document tells.
    ledger.end(&a, &document).await.unwrap();
    let run = job(&a, JobState::Running, 2);
    let mut started = event(run.id, 1);
    started.document = Some(document);
    started.what = EventKind::DocumentStarted {
        name: "a.pdf".into(),
        pages: 1,
        already_done: 0,
    };
    let entries = vec![Entry::Job(run.clone()), Entry::Event(a.clone(), started)];
    ledger.commit(entries).await.unwrap();
    assert_eq!(ledger.begin(&a, &document).await.unwrap(), Begin::InWork);
    let mut jobs = ledger.jobs_with(&a, &document).await.unwrap();
    jobs.sort_unstable_by_key(|job: &JobId| job.0);
    let mut both = [record.id, run.id];
    both.sort_unstable_by_key(|job| job.0);
    assert_eq!(jobs, both);
    ledger.create_tenant(&tenant_record(&a)).await.unwrap();
    ledger.remove_tenant(&a).await.unwrap();
    assert!(ledger.jobs_with(&a, &document).await.unwrap().is_empty());
    storage.close().await.unwrap();
}

#[tokio::test]
async fn order_and_removal_at_once_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let document = document("a");
    let (mut orders, mut removals) = (0, 0);
    for number in 0..200 {
        let a: TenantId = format!("a{number}").parse().unwrap();
        let record = job(&a, JobState::Queued, 1);
        let (putting, beginning) = (Arc::clone(&storage.ledger), Arc::clone(&storage.ledger));
        let b = a.clone();
        let put = tokio::spawn(async move { put(&putting, &record).await });
        let begin = tokio::spawn(async move { beginning.begin(&b, &document).await.unwrap() });
        match (put.await.unwrap(), begin.await.unwrap()) {
            (Put::New, Begin::InWork) => orders += 1,
            (Put::Removing(_), Begin::Begun) => removals += 1,
            both => panic!("{both:?}"),
        }
    }
    assert_eq!(orders + removals, 200);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn staged_original_outlives_the_removal_of_its_document() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (originals, a, job) = (&storage.originals, tenant("a"), JobId::new());
    let document = document("a");
    let stage = || originals.stage_kept(&a, &job, &document);
    assert_eq!(stage().await.unwrap(), None);
    let unfinished = originals.unfinished();
    fs::write(&unfinished, "a").unwrap();
    originals.commit(&a, &unfinished, &document).await.unwrap();
    let (first, second) = (stage().await.unwrap().unwrap(), stage().await.unwrap().unwrap());
    assert_ne!(first, second);
    assert!(originals.remove(&a, &document).await.unwrap());
    assert_eq!(stage().await.unwrap(), None);
    for staged in [first, second] {
        assert_eq!(fs::read(&staged).unwrap(), b"a");
        originals.commit(&a, &staged, &document).await.unwrap();
        assert!(!staged.exists(), "one name is left");
        assert_eq!(fs::read(originals.path(&a, &document)).unwrap(), b"a");
    }
    // What is staged goes with its tenant, and with no other.
    let left = stage().await.unwrap().unwrap();
    originals.clear(&tenant("b")).await.unwrap();
    assert!(left.exists());
    originals.clear(&a).await.unwrap();
    assert!(!left.exists());
    let missing = originals.commit(&a, &left, &document).await;
    assert!(
        matches!(missing, Err(StorageError::Missing { .. })),
        "{missing:?}"
    );
    storage.close().await.unwrap();
}

//! Conformance checks of document removals: a removal and a job that needs the document exclude each other.

use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore};
use weir_core::event::{Event, EventKind};
use weir_core::job_request::{IdempotencyKey, JobRequestStore, PutRequestOutcome};
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger;
use weir_core::tenancy::TenantStore;
use weir_core::{DocumentId, TenantId};

use crate::records::{make_job, make_job_request, make_tenant, unique_tenant_id};

/// Checks a store of document removals. Panics if the store breaks the contract of its port.
pub async fn check_document_removal_store(
    store: &(impl DocumentRemovalStore + JobRequestStore + Ledger + TenantStore),
) {
    check_removals_in_progress(store).await;
    check_refused_requests(store).await;
    check_documents_of_active_jobs(store).await;
    check_jobs_without_request(store).await;
    check_concurrent_request_and_removal(store).await;
    check_removed_tenants(store).await;
}

async fn check_removals_in_progress(store: &impl DocumentRemovalStore) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let [d, e] = ["d", "e"].map(document_id);
    let begin = async |tenant, document| store.begin_document_removal(tenant, document).await.unwrap();
    let unfinished = async || {
        let all = store.list_unfinished_removals().await.unwrap();
        let own = all.into_iter().filter(|(tenant, _)| [&a, &b].contains(&tenant));
        let mut own: Vec<(TenantId, DocumentId)> = own.collect();
        own.sort();
        own
    };
    store.end_document_removal(&a, &d).await.unwrap();
    assert_eq!(unfinished().await, []);
    assert_eq!(begin(&a, &d).await, BeginRemovalOutcome::Started);
    assert_eq!(begin(&a, &d).await, BeginRemovalOutcome::AlreadyInProgress);
    assert_eq!(begin(&b, &d).await, BeginRemovalOutcome::Started);
    assert_eq!(begin(&a, &e).await, BeginRemovalOutcome::Started);
    let mut expected = [(a.clone(), d), (a.clone(), e), (b.clone(), d)];
    expected.sort();
    assert_eq!(unfinished().await, expected);
    store.end_document_removal(&a, &d).await.unwrap();
    let mut expected = [(a.clone(), e), (b.clone(), d)];
    expected.sort();
    assert_eq!(unfinished().await, expected, "only this removal has ended");
    assert_eq!(begin(&a, &d).await, BeginRemovalOutcome::Started);
    let (one, two) = tokio::join!(begin(&b, &e), begin(&b, &e));
    assert!(
        one != two && [one, two].contains(&BeginRemovalOutcome::Started),
        "one of two removals starts: {one:?}, {two:?}"
    );
    for (tenant, document) in unfinished().await {
        store.end_document_removal(&tenant, &document).await.unwrap();
    }
}

async fn check_refused_requests(store: &(impl DocumentRemovalStore + JobRequestStore + Ledger)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let [d, e] = ["d", "e"].map(document_id);
    store.begin_document_removal(&a, &d).await.unwrap();
    let record = make_job(&a, JobState::Queued, 1);
    let mut request = make_job_request(&record, e);
    // The document is twice among the files.
    let files = make_job_request(&record, d).files;
    request.files.extend(files.iter().chain(&files).cloned());
    let key = IdempotencyKey {
        key: "key".into(),
        request_digest: [1; 32],
    };
    let refused = store.create_job_with_request(&record, &request, Some(&key)).await;
    assert_eq!(refused.unwrap(), PutRequestOutcome::DocumentBeingRemoved(d));
    let earlier = store.find_request_by_idempotency_key(&a, "key").await;
    assert_eq!(earlier.unwrap(), None, "the refused request wrote nothing");
    assert_eq!(store.find_job(&a, &record.id).await.unwrap(), None);
    assert_eq!(store.find_job_request(&a, &record.id).await.unwrap(), None);
    for document in [&d, &e] {
        assert_eq!(store.list_jobs_with_document(&a, document).await.unwrap(), []);
    }
    let of_b = make_job(&b, JobState::Queued, 1);
    assert_eq!(
        put_request(store, &of_b, d).await,
        PutRequestOutcome::Created,
        "another tenant can use its document"
    );
    let other = make_job(&a, JobState::Queued, 1);
    assert_eq!(
        put_request(store, &other, document_id("f")).await,
        PutRequestOutcome::Created,
        "other documents can be used"
    );

    store.end_document_removal(&a, &d).await.unwrap();
    let accepted = store.create_job_with_request(&record, &request, Some(&key)).await;
    assert_eq!(accepted.unwrap(), PutRequestOutcome::Created);
    for document in [&d, &e] {
        let jobs = store.list_jobs_with_document(&a, document).await.unwrap();
        assert_eq!(jobs, [record.id], "each job is listed once");
    }
    assert_eq!(store.list_jobs_with_document(&b, &d).await.unwrap(), [of_b.id]);
}

async fn check_documents_of_active_jobs(store: &(impl DocumentRemovalStore + JobRequestStore + Ledger)) {
    let (a, b, d) = (unique_tenant_id("a"), unique_tenant_id("b"), document_id("d"));
    let mut jobs = Vec::new();
    for end in [JobState::Done, JobState::Failed, JobState::Cancelled] {
        let record = make_job(&a, JobState::Queued, 1);
        assert_eq!(
            put_request(store, &record, d).await,
            PutRequestOutcome::Created,
            "{end:?}"
        );
        jobs.push(record.id);
        for state in [JobState::Queued, JobState::Running] {
            commit_job_state(store, &record, state).await;
            assert_eq!(
                store.begin_document_removal(&a, &d).await.unwrap(),
                BeginRemovalOutcome::UsedByActiveJob,
                "{state:?}"
            );
        }
        let unfinished = store.list_unfinished_removals().await.unwrap();
        assert!(
            !unfinished.contains(&(a.clone(), d)),
            "a refused removal does not start"
        );
        commit_job_state(store, &record, end).await;
        assert_eq!(
            store.begin_document_removal(&a, &d).await.unwrap(),
            BeginRemovalOutcome::Started,
            "{end:?}"
        );
        store.erase_document(&a, &d).await.unwrap();
        store.end_document_removal(&a, &d).await.unwrap();
        let mut listed = store.list_jobs_with_document(&a, &d).await.unwrap();
        listed.sort();
        assert_eq!(listed, jobs, "the jobs of an erased document are listed");
    }
    assert_eq!(store.list_jobs_with_document(&b, &d).await.unwrap(), []);
}

/// Checks a job of the command line, which has no request. Its document-started event names the document.
async fn check_jobs_without_request(store: &(impl DocumentRemovalStore + Ledger)) {
    let (a, b, d) = (unique_tenant_id("a"), unique_tenant_id("b"), document_id("d"));
    let record = make_job(&a, JobState::Running, 1);
    let started = Event {
        seq: 1,
        job: record.id,
        document: Some(d),
        since_job_created_millis: 1,
        kind: EventKind::DocumentStarted {
            name: "d.pdf".into(),
            pages: 1,
            already_done: 0,
        },
    };
    let entries = vec![
        LedgerEntry::Job(record.clone()),
        LedgerEntry::Event(a.clone(), started),
    ];
    store.commit_entries(entries).await.unwrap();
    assert_eq!(store.list_jobs_with_document(&a, &d).await.unwrap(), [record.id]);
    assert_eq!(
        store.begin_document_removal(&a, &d).await.unwrap(),
        BeginRemovalOutcome::UsedByActiveJob
    );
    assert_eq!(
        store.begin_document_removal(&b, &d).await.unwrap(),
        BeginRemovalOutcome::Started
    );
    commit_job_state(store, &record, JobState::Done).await;
    assert_eq!(
        store.begin_document_removal(&a, &d).await.unwrap(),
        BeginRemovalOutcome::Started
    );
    for tenant in [&a, &b] {
        store.end_document_removal(tenant, &d).await.unwrap();
    }
}

async fn check_concurrent_request_and_removal(store: &(impl DocumentRemovalStore + JobRequestStore)) {
    let d = document_id("d");
    for round in 0..20 {
        let t = unique_tenant_id("t");
        let record = make_job(&t, JobState::Queued, 1);
        let put = put_request(store, &record, d);
        let begin = store.begin_document_removal(&t, &d);
        // Each of the two is polled first in half of the rounds.
        let (put, begun) = if round % 2 == 0 {
            tokio::join!(biased; put, begin)
        } else {
            let (begun, put) = tokio::join!(biased; begin, put);
            (put, begun)
        };
        match (put, begun.unwrap()) {
            (PutRequestOutcome::Created, BeginRemovalOutcome::UsedByActiveJob) => {}
            (PutRequestOutcome::DocumentBeingRemoved(_), BeginRemovalOutcome::Started) => {
                store.end_document_removal(&t, &d).await.unwrap();
            }
            both => panic!("round {round}: exactly one succeeds: {both:?}"),
        }
    }
}

async fn check_removed_tenants(store: &(impl DocumentRemovalStore + JobRequestStore + TenantStore)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let [d, e] = ["d", "e"].map(document_id);
    for tenant in [&a, &b] {
        store.create_tenant(&make_tenant(tenant)).await.unwrap();
        put_request(store, &make_job(tenant, JobState::Done, 1), d).await;
        store.begin_document_removal(tenant, &e).await.unwrap();
    }
    assert!(store.remove_tenant(&a).await.unwrap());
    assert_eq!(store.list_jobs_with_document(&a, &d).await.unwrap(), []);
    assert_eq!(store.list_jobs_with_document(&b, &d).await.unwrap().len(), 1);
    let unfinished = store.list_unfinished_removals().await.unwrap();
    assert!(!unfinished.contains(&(a, e)), "{unfinished:?}");
    assert!(unfinished.contains(&(b.clone(), e)), "{unfinished:?}");
    store.end_document_removal(&b, &e).await.unwrap();
}

fn document_id(name: &str) -> DocumentId {
    DocumentId::from_content(name.as_bytes())
}

async fn put_request(
    store: &impl JobRequestStore,
    record: &JobRecord,
    document: DocumentId,
) -> PutRequestOutcome {
    let request = make_job_request(record, document);
    store
        .create_job_with_request(record, &request, None)
        .await
        .unwrap()
}

async fn commit_job_state(store: &impl Ledger, record: &JobRecord, state: JobState) {
    let changed = JobRecord {
        state,
        ..record.clone()
    };
    store
        .commit_entries(vec![LedgerEntry::Job(changed)])
        .await
        .unwrap();
}

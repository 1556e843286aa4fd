//! Conformance checks of job requests: idempotency keys, lists of jobs, passwords and webhooks.

use weir_core::event::Event;
use weir_core::job_request::{
    EarlierIdempotentRequest, IdempotencyKey, JobFilter, JobRequest, JobRequestStore, JobSnapshot,
    PutRequestOutcome, RequestedFile, WebhookTarget,
};
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger;
use weir_core::tenancy::TenantStore;
use weir_core::{DocumentId, JobId, TenantId};

use crate::records::{make_job, make_job_request, make_tenant, page_done_event, unique_tenant_id};

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// Checks a store of job requests. Panics if the store breaks the contract of its port.
pub async fn check_job_request_store(store: &(impl JobRequestStore + Ledger + TenantStore)) {
    check_created_requests(store).await;
    check_job_snapshots(store).await;
    check_idempotency_keys(store).await;
    check_concurrent_requests_with_one_key(store).await;
    check_job_listing(store).await;
    check_passwords(store).await;
    check_webhooks(store).await;
    check_removed_tenants(store).await;
}

async fn check_created_requests(store: &(impl JobRequestStore + Ledger)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let record = make_job(&a, JobState::Queued, 5);
    let request = make_job_request(&record, document());
    assert_eq!(store.find_job_request(&a, &record.id).await.unwrap(), None);
    let created = store.create_job_with_request(&record, &request, None).await;
    assert_eq!(created.unwrap(), PutRequestOutcome::Created);
    let found = store.find_job_request(&a, &record.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&request));
    assert_eq!(
        store.find_job(&a, &record.id).await.unwrap(),
        Some(record.clone())
    );
    assert_eq!(store.find_job_request(&b, &record.id).await.unwrap(), None);
    assert_eq!(store.find_job_request(&a, &JobId::new()).await.unwrap(), None);

    let running = commit_job_state(store, &record, JobState::Running).await;
    let other_request = make_job_request(&record, DocumentId::from_content(b"other"));
    let refused = store
        .create_job_with_request(&record, &other_request, Some(&make_key(1)))
        .await;
    assert_eq!(
        refused.unwrap_err().kind(),
        "storage-failed",
        "a job has one request"
    );
    assert_eq!(store.find_job(&a, &record.id).await.unwrap(), Some(running));
    let found = store.find_job_request(&a, &record.id).await.unwrap();
    assert_eq!(found, Some(request), "an accepted request does not change");
    let key = store.find_request_by_idempotency_key(&a, "key").await.unwrap();
    assert_eq!(key, None, "the refused call wrote nothing");
}

async fn check_job_snapshots(store: &(impl JobRequestStore + Ledger)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let record = make_job(&a, JobState::Queued, 5);
    let request = make_job_request(&record, document());
    let read = async |tenant, job, after, limit| {
        let snapshot = store.read_job_snapshot(tenant, job, after, limit).await;
        snapshot.unwrap()
    };
    assert_eq!(read(&a, &record.id, 0, 9).await, None);
    let created = store.create_job_with_request(&record, &request, None).await;
    assert_eq!(created.unwrap(), PutRequestOutcome::Created);
    let events: Vec<Event> = (1..=3).map(|seq| page_done_event(record.id, seq)).collect();
    let entries = events.iter().cloned();
    let entries = entries.map(|event| LedgerEntry::Event(a.clone(), event));
    store.commit_entries(entries.collect()).await.unwrap();
    let expected = |events: &[Event]| {
        Some(JobSnapshot {
            record: record.clone(),
            request: Some(request.clone()),
            assigned_revision: None,
            events: events.to_vec(),
        })
    };
    for (after, limit, range) in [(0, 9, 0..3), (1, 1, 1..2), (3, 9, 3..3), (0, 0, 0..0)] {
        let events = events.get(range).unwrap();
        assert_eq!(read(&a, &record.id, after, limit).await, expected(events));
    }
    assert_eq!(
        read(&b, &record.id, 0, 9).await,
        None,
        "the job belongs to another tenant"
    );

    let of_command_line = make_job(&a, JobState::Running, 6);
    let entries = vec![LedgerEntry::Job(of_command_line.clone())];
    store.commit_entries(entries).await.unwrap();
    let snapshot = read(&a, &of_command_line.id, 0, 9).await.unwrap();
    assert_eq!(snapshot.record, of_command_line);
    assert_eq!((snapshot.request, snapshot.events), (None, Vec::new()));
}

async fn check_idempotency_keys(store: &(impl JobRequestStore + Ledger)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let earlier = async |tenant, key| {
        let earlier = store.find_request_by_idempotency_key(tenant, key);
        earlier.await.unwrap()
    };
    assert_eq!(earlier(&a, "key").await, None);
    let (first, outcome) = put_with_key(store, &a, 1, DAY_MILLIS).await;
    assert_eq!(outcome, PutRequestOutcome::Created);
    let expected = EarlierIdempotentRequest {
        request_digest: [1; 32],
        job: first,
    };
    assert_eq!(earlier(&a, "key").await.as_ref(), Some(&expected));
    assert_eq!(earlier(&a, "other").await, None);
    assert_eq!(earlier(&b, "key").await, None);

    let (second, outcome) = put_with_key(store, &a, 1, 2 * DAY_MILLIS).await;
    assert_eq!(
        outcome,
        PutRequestOutcome::AlreadyCreated(first),
        "the key is known for a day"
    );
    let (third, outcome) = put_with_key(store, &a, 2, DAY_MILLIS).await;
    assert_eq!(outcome, PutRequestOutcome::KeyConflict);
    for job in [second, third] {
        assert_eq!(store.find_job(&a, &job).await.unwrap(), None);
        assert_eq!(store.find_job_request(&a, &job).await.unwrap(), None);
    }
    assert_eq!(earlier(&a, "key").await, Some(expected));
    let (_, outcome) = put_with_key(store, &b, 2, DAY_MILLIS).await;
    assert_eq!(
        outcome,
        PutRequestOutcome::Created,
        "each tenant has its own keys"
    );
}

async fn check_concurrent_requests_with_one_key(store: &impl JobRequestStore) {
    for round in 0..5 {
        let t = unique_tenant_id("t");
        let put = || put_with_key(store, &t, 1, 1);
        let (one, two, three, four) = tokio::join!(put(), put(), put(), put());
        let outcomes = [one, two, three, four];
        let is_created = |(_, outcome): &&(JobId, PutRequestOutcome)| *outcome == PutRequestOutcome::Created;
        let created: Vec<JobId> = outcomes.iter().filter(is_created).map(|(job, _)| *job).collect();
        let [job] = created[..] else {
            panic!("round {round}: one request creates a job: {outcomes:?}");
        };
        let repeated = PutRequestOutcome::AlreadyCreated(job);
        let repeated = outcomes.iter().filter(|(_, outcome)| *outcome == repeated);
        assert_eq!(repeated.count(), 3, "round {round}: {outcomes:?}");
        assert_eq!(list_job_ids(store, &t, &filter_jobs(9)).await, [job]);
    }
}

async fn check_job_listing(store: &(impl JobRequestStore + Ledger)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    assert_eq!(store.list_jobs(&a, &filter_jobs(9)).await.unwrap(), []);
    let mut expected = Vec::new();
    for n in 0..9_u64 {
        let state = if n % 3 == 0 {
            JobState::Failed
        } else {
            JobState::Done
        };
        // The creation times do not grow with the ids.
        let record = make_job(&a, state, 100 - n);
        put_request(store, &record).await;
        put_request(store, &make_job(&b, state, n)).await;
        expected.insert(0, record);
    }
    let without_request = make_job(&a, JobState::Done, 1);
    let entries = vec![LedgerEntry::Job(without_request.clone())];
    store.commit_entries(entries).await.unwrap();
    expected.insert(0, without_request);

    assert_eq!(store.list_jobs(&a, &filter_jobs(99)).await.unwrap(), expected);
    assert_eq!(store.list_jobs(&a, &filter_jobs(0)).await.unwrap(), []);
    let mut rest = expected.clone();
    let mut filter = filter_jobs(4);
    while !rest.is_empty() {
        let page: Vec<JobRecord> = rest.drain(..rest.len().min(4)).collect();
        let listed = store.list_jobs(&a, &filter).await.unwrap();
        assert_eq!(listed, page, "the jobs before {:?}", filter.before);
        filter.before = page.last().map(|job| job.id);
    }
    assert_eq!(store.list_jobs(&a, &filter).await.unwrap(), []);

    let failed = JobFilter {
        state: Some(JobState::Failed),
        before: expected.get(2).map(|job| job.id),
        limit: 2,
    };
    let wanted = expected.iter().skip(3).filter(|j| j.state == JobState::Failed);
    let wanted: Vec<JobRecord> = wanted.take(2).cloned().collect();
    assert_eq!(store.list_jobs(&a, &failed).await.unwrap(), wanted);
    let queued = JobFilter {
        state: Some(JobState::Queued),
        ..filter_jobs(9)
    };
    assert_eq!(store.list_jobs(&a, &queued).await.unwrap(), []);
}

async fn check_passwords(store: &(impl JobRequestStore + Ledger)) {
    let t = unique_tenant_id("t");
    for state in [JobState::Done, JobState::Failed, JobState::Cancelled] {
        let record = make_job(&t, JobState::Queued, 1);
        let mut request = make_job_request(&record, document());
        request.files.push(RequestedFile {
            name: "locked.pdf".into(),
            document: DocumentId::from_content(b"locked"),
            bytes: 9,
            password: Some("a password".into()),
        });
        let created = store.create_job_with_request(&record, &request, None).await;
        assert_eq!(created.unwrap(), PutRequestOutcome::Created);
        commit_job_state(store, &record, JobState::Running).await;
        let found = store.find_job_request(&t, &record.id).await.unwrap();
        assert_eq!(
            found.as_ref(),
            Some(&request),
            "a running job keeps its passwords"
        );
        commit_job_state(store, &record, state).await;
        request.files.iter_mut().for_each(|file| file.password = None);
        let found = store.find_job_request(&t, &record.id).await.unwrap();
        assert!(
            found == Some(request),
            "only the passwords of an ended job are removed, {state:?}"
        );
    }
}

async fn check_webhooks(store: &(impl JobRequestStore + Ledger)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let undelivered = async || {
        let all = store.list_undelivered_webhooks().await.unwrap();
        let own = all.into_iter().filter(|(tenant, ..)| [&a, &b].contains(&tenant));
        own.collect::<Vec<_>>()
    };
    let first = put_request_with_webhook(store, &b).await;
    let second = put_request_with_webhook(store, &a).await;
    let without = make_job(&a, JobState::Done, 1);
    put_request(store, &without).await;
    commit_job_state(store, &first, JobState::Running).await;
    assert_eq!(undelivered().await, [], "the jobs have not ended");
    // The newer job ends first.
    commit_job_state(store, &second, JobState::Failed).await;
    commit_job_state(store, &first, JobState::Done).await;
    let of_first = |attempts| (b.clone(), first.id, attempts);
    let of_second = |attempts| (a.clone(), second.id, attempts);
    assert_eq!(
        undelivered().await,
        [of_first(0), of_second(0)],
        "oldest job first"
    );

    let record = async |tenant, job: &JobRecord, attempts| {
        let recorded = store.record_webhook_attempts_or_end(tenant, &job.id, attempts);
        recorded.await.unwrap();
    };
    record(&a, &second, Some(3)).await;
    // These calls have no effect.
    record(&b, &second, None).await;
    record(&b, &second, Some(7)).await;
    record(&a, &without, Some(7)).await;
    assert_eq!(undelivered().await, [of_first(0), of_second(3)]);
    let request = store.find_job_request(&a, &second.id).await.unwrap().unwrap();
    assert!(request.webhook.is_some(), "an undelivered webhook stays");

    record(&a, &second, None).await;
    record(&a, &second, Some(4)).await;
    assert_eq!(
        undelivered().await,
        [of_first(0)],
        "a webhook that has ended stays so"
    );
    let found = store.find_job_request(&a, &second.id).await.unwrap();
    assert_eq!(
        found,
        Some(make_job_request(&second, document())),
        "only the webhook is removed"
    );
}

async fn check_removed_tenants(store: &(impl JobRequestStore + Ledger + TenantStore)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let mut jobs = Vec::new();
    for tenant in [&a, &b] {
        store.create_tenant(&make_tenant(tenant)).await.unwrap();
        jobs.push(put_with_key(store, tenant, 1, 1).await.0);
        let record = put_request_with_webhook(store, tenant).await;
        commit_job_state(store, &record, JobState::Done).await;
        jobs.push(record.id);
    }
    assert!(store.remove_tenant(&a).await.unwrap());
    store.create_tenant(&make_tenant(&a)).await.unwrap();
    assert_eq!(list_job_ids(store, &a, &filter_jobs(9)).await, []);
    for job in &jobs {
        assert_eq!(store.find_job_request(&a, job).await.unwrap(), None);
    }
    let key = store.find_request_by_idempotency_key(&a, "key").await.unwrap();
    assert_eq!(key, None);
    let undelivered = store.list_undelivered_webhooks().await.unwrap();
    let of = |tenant: &TenantId| undelivered.iter().filter(|(owner, ..)| owner == tenant).count();
    assert_eq!((of(&a), of(&b)), (0, 1));
    assert_eq!(list_job_ids(store, &b, &filter_jobs(9)).await.len(), 2);
    let key = store.find_request_by_idempotency_key(&b, "key").await.unwrap();
    assert!(key.is_some(), "another tenant keeps its keys");
}

fn document() -> DocumentId {
    DocumentId::from_content(b"document")
}

/// Returns the idempotency key `key` for a request with this digest.
fn make_key(digest_byte: u8) -> IdempotencyKey {
    IdempotencyKey {
        key: "key".into(),
        request_digest: [digest_byte; 32],
    }
}

fn filter_jobs(limit: usize) -> JobFilter {
    JobFilter {
        limit,
        ..JobFilter::default()
    }
}

async fn list_job_ids(store: &impl JobRequestStore, tenant: &TenantId, filter: &JobFilter) -> Vec<JobId> {
    let jobs = store.list_jobs(tenant, filter).await.unwrap();
    jobs.into_iter().map(|job| job.id).collect()
}

async fn put_request(store: &impl JobRequestStore, record: &JobRecord) {
    let request = make_job_request(record, document());
    let outcome = store.create_job_with_request(record, &request, None).await;
    assert_eq!(outcome.unwrap(), PutRequestOutcome::Created);
}

/// Creates a queued job with the idempotency key `key`.
async fn put_with_key(
    store: &impl JobRequestStore,
    tenant: &TenantId,
    digest_byte: u8,
    created_millis: u64,
) -> (JobId, PutRequestOutcome) {
    let record = make_job(tenant, JobState::Queued, created_millis);
    let request = make_job_request(&record, document());
    let key = make_key(digest_byte);
    let outcome = store.create_job_with_request(&record, &request, Some(&key)).await;
    (record.id, outcome.unwrap())
}

async fn put_request_with_webhook(store: &impl JobRequestStore, tenant: &TenantId) -> JobRecord {
    let record = make_job(tenant, JobState::Queued, 1);
    let request = JobRequest {
        webhook: Some(WebhookTarget {
            url: "https://example.org/hook".into(),
            secret: "a secret".into(),
        }),
        ..make_job_request(&record, document())
    };
    let outcome = store.create_job_with_request(&record, &request, None).await;
    assert_eq!(outcome.unwrap(), PutRequestOutcome::Created);
    record
}

async fn commit_job_state(store: &impl Ledger, record: &JobRecord, state: JobState) -> JobRecord {
    let changed = JobRecord {
        state,
        ..record.clone()
    };
    store
        .commit_entries(vec![LedgerEntry::Job(changed.clone())])
        .await
        .unwrap();
    changed
}

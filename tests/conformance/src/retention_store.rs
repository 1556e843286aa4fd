//! Conformance checks of the removal of expired records: only expired records of one tenant, a job with everything that is its own.

use weir_core::DocumentId;
use weir_core::clock::unix_time_millis;
use weir_core::document_removal::DocumentRemovalStore;
use weir_core::event::{Event, EventKind};
use weir_core::job_request::{IdempotencyKey, JobRequest, JobRequestStore, PutRequestOutcome, WebhookTarget};
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger;
use weir_core::retention::{RecordKind, RetentionStore};
use weir_core::revision::PipelineStore;
use weir_core::shadow::{ShadowRun, ShadowStore};
use weir_core::tenancy::TenantStore;
use weir_core::usage::{Usage, UsageStore};

use crate::ledger::component_log_entry;
use crate::pipeline_store::{add_revision, create_tenant};
use crate::records::{
    make_api_key, make_document, make_job, make_job_request, make_tenant, unique_name, unique_tenant_id,
};
use crate::shadow_store::make_run;

const DAY: u64 = 24 * 60 * 60 * 1000;

/// Checks a store of expiring records. Panics if the store breaks the contract of its port.
pub async fn check_retention_store(
    store: &(
         impl RetentionStore
         + Ledger
         + JobRequestStore
         + DocumentRemovalStore
         + TenantStore
         + UsageStore
         + PipelineStore
         + ShadowStore
     ),
) {
    check_expired_jobs(store).await;
    check_unread_documents(store).await;
    check_usage_days(store).await;
    check_keys(store).await;
    check_audit_log(store).await;
}

fn document_id(name: &str) -> DocumentId {
    DocumentId::from_content(name.as_bytes())
}

/// Creates a job with a request, and then lets it have this state and as many events.
async fn create_job(
    store: &(impl Ledger + JobRequestStore),
    record: &JobRecord,
    document: DocumentId,
    events: u64,
) {
    let queued = JobRecord {
        state: JobState::Queued,
        ..record.clone()
    };
    let key = IdempotencyKey {
        key: record.id.to_string(),
        request_digest: [1; 32],
    };
    let request = make_job_request(record, document);
    let created = store.create_job_with_request(&queued, &request, Some(&key)).await;
    assert_eq!(created.unwrap(), PutRequestOutcome::Created);
    let mut entries: Vec<LedgerEntry> = (1..=events)
        .map(|seq| {
            let event = Event {
                seq,
                job: record.id,
                document: Some(document),
                since_job_created_millis: 1,
                kind: EventKind::PageDone {
                    page: 1,
                    searchable: true,
                    passages: 1,
                },
            };
            LedgerEntry::Event(record.tenant.clone(), event)
        })
        .collect();
    entries.push(LedgerEntry::Job(record.clone()));
    store.commit_entries(entries).await.unwrap();
}

/// Waits until jobs that end from now on end later than all that have ended, and returns a time in between.
fn wait_for_later_millis() -> u64 {
    let now = unix_time_millis();
    while unix_time_millis() <= now + 1 {
        std::thread::yield_now();
    }
    now + 1
}

async fn check_expired_jobs(
    store: &(impl RetentionStore + Ledger + JobRequestStore + DocumentRemovalStore + ShadowStore),
) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    // Jobs expire by their end, not by their submission.
    let first = make_job(&a, JobState::Failed, 20);
    let second = make_job(&a, JobState::Done, 10);
    let with_webhook = make_job(&a, JobState::Done, 1);
    let running = make_job(&a, JobState::Running, 5);
    let of_b = make_job(&b, JobState::Done, 10);
    let recent = make_job(&a, JobState::Cancelled, 1);
    let request = JobRequest {
        webhook: Some(WebhookTarget {
            url: "https://example.com".into(),
            secret: "secret".into(),
        }),
        ..make_job_request(&with_webhook, document_id("w"))
    };
    let created = store.create_job_with_request(&with_webhook, &request, None).await;
    assert_eq!(created.unwrap(), PutRequestOutcome::Created);
    // More events than one transaction removes.
    create_job(store, &first, document_id("d"), 2500).await;
    let after_first = wait_for_later_millis();
    for record in [&second, &running, &of_b] {
        create_job(store, record, document_id("d"), 1).await;
    }
    let after_second = wait_for_later_millis();
    create_job(store, &recent, document_id("d"), 1).await;
    let list = async |tenant, before, limit| store.list_expired_jobs(tenant, before, limit).await.unwrap();
    assert_eq!(
        list(&a, after_second, 9).await,
        [first.id, second.id],
        "the oldest first"
    );
    assert_eq!(list(&a, after_second, 1).await, [first.id]);
    assert_eq!(list(&a, after_first, 9).await, [first.id]);
    let count = store
        .count_expired_records(&a, RecordKind::EndedJobs, after_second)
        .await;
    assert_eq!(count.unwrap(), 2);

    let log_entry = LedgerEntry::ComponentLog(a.clone(), component_log_entry(first.id, 1));
    store.commit_entries(vec![log_entry]).await.unwrap();
    let shadow_run = ShadowRun {
        job: first.id,
        ..make_run(&a, 1, 1)
    };
    store.put_shadow_run(&shadow_run).await.unwrap();
    let shadow_runs = async || store.list_shadow_runs(&a, "ours", 1, 0).await.unwrap().len();
    assert_eq!(shadow_runs().await, 1);
    let removed = store
        .remove_ended_jobs(&a, &[first.id, running.id, of_b.id])
        .await;
    assert_eq!(removed.unwrap(), 1, "only ended jobs of the tenant are removed");
    assert_eq!(store.find_job(&a, &first.id).await.unwrap(), None);
    assert_eq!(store.find_job_request(&a, &first.id).await.unwrap(), None);
    assert_eq!(store.list_job_events(&a, &first.id, 0, 9).await.unwrap(), []);
    assert_eq!(store.list_component_log(&a, &first.id, 0, 9).await.unwrap(), []);
    assert_eq!(shadow_runs().await, 0);
    store.put_shadow_run(&shadow_run).await.unwrap();
    assert_eq!(shadow_runs().await, 0, "a removed job gets no late comparison");
    let jobs = store
        .list_jobs_with_document(&a, &document_id("d"))
        .await
        .unwrap();
    assert!(!jobs.contains(&first.id) && jobs.contains(&second.id), "{jobs:?}");
    for (tenant, stays) in [(&a, &second), (&a, &recent), (&a, &running), (&b, &of_b)] {
        assert_eq!(
            store.find_job(tenant, &stays.id).await.unwrap().as_ref(),
            Some(stays)
        );
        assert_eq!(
            store
                .list_job_events(tenant, &stays.id, 0, 9)
                .await
                .unwrap()
                .len(),
            1
        );
        assert!(store.find_job_request(tenant, &stays.id).await.unwrap().is_some());
    }
    // The idempotency key of a removed job can be used for another.
    let again = make_job(&a, JobState::Queued, 200);
    let key = IdempotencyKey {
        key: first.id.to_string(),
        request_digest: [2; 32],
    };
    let request = make_job_request(&again, document_id("d"));
    let created = store.create_job_with_request(&again, &request, Some(&key)).await;
    assert_eq!(created.unwrap(), PutRequestOutcome::Created);
    let earlier = store.find_request_by_idempotency_key(&a, &key.key).await.unwrap();
    assert_eq!(earlier.map(|earlier| earlier.job), Some(again.id));
}

async fn check_unread_documents(store: &(impl RetentionStore + Ledger + JobRequestStore)) {
    let t = unique_tenant_id("t");
    let [shared, own] = ["shared", "own"].map(document_id);
    let jobs = [1, 2, 3].map(|created| make_job(&t, JobState::Failed, created));
    for (job, document) in jobs.iter().zip([shared, shared, own]) {
        create_job(store, job, document, 0).await;
    }
    let list = async |jobs: &[&JobRecord]| {
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        let mut documents = store.list_unread_documents_of_jobs(&t, &ids).await.unwrap();
        documents.sort_unstable();
        documents
    };
    let [first, second, third] = &jobs;
    assert_eq!(list(&[first]).await, [], "another job has the document");
    let mut both = [shared, own];
    both.sort_unstable();
    assert_eq!(list(&[first, second, third]).await, both);
    let read = make_document(&t, "own", 1);
    store
        .commit_entries(vec![LedgerEntry::Document(read)])
        .await
        .unwrap();
    assert_eq!(list(&[third]).await, [], "the document was read");
}

async fn check_usage_days(store: &(impl RetentionStore + TenantStore + UsageStore)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    for tenant in [&a, &b] {
        store.create_tenant(&make_tenant(tenant)).await.unwrap();
        for day in [1, 2, 3, 4] {
            let usage = Usage {
                requests: 1,
                ..Usage::default()
            };
            store
                .add_daily_usage_of_tenants(day, vec![(tenant.clone(), usage)])
                .await
                .unwrap();
        }
    }
    // A day has expired when it ended before the limit.
    let count = store
        .count_expired_records(&a, RecordKind::Usage, 4 * DAY + 1)
        .await;
    assert_eq!(count.unwrap(), 3);
    let remove = async |limit| {
        let removed = store.remove_expired_records(&a, RecordKind::Usage, 4 * DAY + 1, limit);
        removed.await.unwrap()
    };
    assert_eq!((remove(2).await, remove(2).await, remove(2).await), (2, 1, 0));
    let days = async |tenant| store.list_daily_usage(tenant, 0, u32::MAX).await.unwrap().len();
    assert_eq!((days(&a).await, days(&b).await), (1, 4));
}

async fn check_keys(store: &(impl RetentionStore + TenantStore)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    for tenant in [&a, &b] {
        store.create_tenant(&make_tenant(tenant)).await.unwrap();
    }
    let id = |name: &str| unique_name(name);
    let [usable, expired, revoked, of_b] = ["usable", "expired", "revoked", "other"].map(id);
    for (tenant, id, expires, revoked) in [
        (&a, &usable, None, None),
        (&a, &expired, Some(10), None),
        (&a, &revoked, None, Some(10)),
        (&b, &of_b, Some(10), None),
    ] {
        let mut key = make_api_key(tenant, id, 1);
        (key.expires_millis, key.revoked_millis) = (expires, revoked);
        store.put_api_key(&key).await.unwrap();
    }
    let kind = RecordKind::RevokedKeys;
    assert_eq!(store.count_expired_records(&a, kind, 10).await.unwrap(), 0);
    assert_eq!(store.count_expired_records(&a, kind, 11).await.unwrap(), 2);
    assert_eq!(store.remove_expired_records(&a, kind, 11, 9).await.unwrap(), 2);
    let ids = async |tenant| {
        let keys = store.list_api_keys(tenant).await.unwrap();
        keys.into_iter().map(|key| key.id).collect::<Vec<_>>()
    };
    assert_eq!((ids(&a).await, ids(&b).await), (vec![usable], vec![of_b]));
}

async fn check_audit_log(store: &(impl RetentionStore + PipelineStore + TenantStore)) {
    let (t, key) = create_tenant(store).await;
    for (pipeline, at) in [("p", 1_u32), ("p", 2), ("p", 3), ("q", 1)] {
        add_revision(store, &t, pipeline, &key, (100 + at).into(), at.into()).await;
    }
    let kind = RecordKind::AuditLog;
    assert_eq!(store.count_expired_records(&t, kind, 2).await.unwrap(), 1);
    assert_eq!(store.count_expired_records(&t, kind, 100).await.unwrap(), 2);
    let remove = async |limit| store.remove_expired_records(&t, kind, 100, limit).await.unwrap();
    assert_eq!((remove(1).await, remove(9).await, remove(9).await), (1, 1, 0));
    // The last entry of each pipeline stays, and numbers are not used again.
    add_revision(store, &t, "p", &key, 300, 4).await;
    let log = store.list_audit_log(&t, "p", None, 9).await.unwrap();
    let numbers: Vec<u64> = log.iter().map(|entry| entry.seq).collect();
    assert_eq!(numbers, [4, 3]);
}

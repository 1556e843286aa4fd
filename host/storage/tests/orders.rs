//! Job requests: written with their jobs, once for each idempotency key, and found after a crash.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use fixture::{
    document_id, make_idempotency, make_job, make_job_request, make_tenant, open_storage, sleep_random_time,
    tenant_id,
};
use weir_core::job_request::{
    JobFilter, JobRequest, JobRequestStore, PutRequestOutcome, RequestedFile, WebhookTarget,
};
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::{BlobStore, Ledger};
use weir_core::tenancy::TenantStore;
use weir_core::uploads::UploadStore;
use weir_core::usage::{Usage, UsageStore};
use weir_core::{DocumentId, JobId, TenantId};
use weir_storage::SqliteLedger;

const DATA_VARIABLE: &str = "WEIR_TEST_DATA";
const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

async fn put_job_request(orders: &SqliteLedger, record: &JobRecord) -> PutRequestOutcome {
    orders
        .put_job_request(record, &make_job_request(record), None)
        .await
        .unwrap()
}

fn filter_all_jobs(limit: usize) -> JobFilter {
    JobFilter {
        limit,
        ..JobFilter::default()
    }
}

#[tokio::test]
async fn job_request_and_job_are_found_by_their_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let record = make_job(&a, JobState::Queued, 5);
    assert_eq!(
        put_job_request(&storage.ledger, &record).await,
        PutRequestOutcome::Created
    );
    storage.close().await.unwrap();

    let storage = open_storage(dir.path()).await;
    let ledger = &storage.ledger;
    assert_eq!(
        ledger.find_job_request(&a, &record.id).await.unwrap(),
        Some(make_job_request(&record))
    );
    assert_eq!(ledger.find_job_request(&b, &record.id).await.unwrap(), None);
    assert_eq!(
        ledger.find_job(&a, &record.id).await.unwrap(),
        Some(record.clone())
    );
    assert_eq!(
        ledger.list_unfinished_jobs().await.unwrap(),
        std::slice::from_ref(&record)
    );
    // An accepted job request cannot be written again, and its job keeps its state.
    let running = JobRecord {
        state: JobState::Running,
        ..record.clone()
    };
    ledger
        .commit_entries(vec![LedgerEntry::Job(running.clone())])
        .await
        .unwrap();
    let again = ledger
        .put_job_request(
            &record,
            &make_job_request(&record),
            Some(&make_idempotency("w", 1)),
        )
        .await;
    assert_eq!(again.unwrap_err().kind(), "storage-failed");
    assert_eq!(ledger.find_job(&a, &record.id).await.unwrap(), Some(running));
    // The failed call wrote nothing, not even the idempotency key.
    let other = make_job(&a, JobState::Queued, 6);
    let put = ledger
        .put_job_request(&other, &make_job_request(&other), Some(&make_idempotency("w", 2)))
        .await;
    assert_eq!(put.unwrap(), PutRequestOutcome::Created);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn idempotency_key_makes_one_job_per_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let put = async |t: &TenantId, asked| {
        let record = make_job(t, JobState::Queued, 1);
        let put = storage
            .ledger
            .put_job_request(
                &record,
                &make_job_request(&record),
                Some(&make_idempotency("w", asked)),
            )
            .await;
        (record.id, put.unwrap())
    };
    let (first, new) = put(&a, 1).await;
    assert_eq!(new, PutRequestOutcome::Created);
    let (second, before) = put(&a, 1).await;
    assert_eq!(before, PutRequestOutcome::AlreadyCreated(first));
    assert_eq!(put(&a, 2).await.1, PutRequestOutcome::KeyConflict);
    let earlier = storage
        .ledger
        .find_earlier_request(&a, "w")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (earlier.job, earlier.request_digest),
        (first, make_idempotency("w", 1).request_digest)
    );
    assert_eq!(
        storage.ledger.find_earlier_request(&a, "other").await.unwrap(),
        None
    );
    assert_eq!(storage.ledger.find_earlier_request(&b, "w").await.unwrap(), None);
    assert_eq!(put(&b, 2).await.1, PutRequestOutcome::Created);
    assert_eq!(storage.ledger.find_job(&a, &second).await.unwrap(), None);
    assert_eq!(storage.ledger.find_job_request(&a, &second).await.unwrap(), None);
    assert_eq!(
        storage
            .ledger
            .list_jobs(&a, &filter_all_jobs(10))
            .await
            .unwrap()
            .len(),
        1
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn of_fifty_concurrent_requests_with_one_key_one_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    for round in 0..5 {
        let puts = (0..50).map(|_| {
            let (ledger, record) = (Arc::clone(&storage.ledger), make_job(&t, JobState::Queued, 1));
            tokio::spawn(async move {
                let idempotency = make_idempotency(&format!("w{round}"), 1);
                let put = ledger
                    .put_job_request(&record, &make_job_request(&record), Some(&idempotency))
                    .await
                    .unwrap();
                (record.id, put)
            })
        });
        let mut answers = Vec::new();
        for put in puts.collect::<Vec<_>>() {
            answers.push(put.await.unwrap());
        }
        let new: Vec<_> = answers
            .iter()
            .filter(|(_, put)| *put == PutRequestOutcome::Created)
            .collect();
        assert_eq!(new.len(), 1);
        let others = answers
            .iter()
            .filter(|(_, put)| *put == PutRequestOutcome::AlreadyCreated(new[0].0))
            .count();
        assert_eq!(others, 49);
    }
    assert_eq!(
        storage
            .ledger
            .list_jobs(&t, &filter_all_jobs(1000))
            .await
            .unwrap()
            .len(),
        5
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn idempotency_key_is_known_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let put = async |key: &str, at| {
        let record = make_job(&t, JobState::Queued, at);
        let idempotency = make_idempotency(key, 1);
        storage
            .ledger
            .put_job_request(&record, &make_job_request(&record), Some(&idempotency))
            .await
            .unwrap()
    };
    let begin = 50 * DAY_MILLIS;
    for n in 0..20 {
        assert_eq!(put(&format!("w{n}"), begin).await, PutRequestOutcome::Created);
    }
    assert_ne!(put("w0", begin + DAY_MILLIS).await, PutRequestOutcome::Created);
    assert_eq!(put("other", begin + DAY_MILLIS).await, PutRequestOutcome::Created);
    assert_ne!(put("w1", begin + DAY_MILLIS).await, PutRequestOutcome::Created);
    // Later requests delete expired keys.
    for n in 0..10 {
        assert_eq!(
            put(&format!("x{n}"), begin + DAY_MILLIS + 1).await,
            PutRequestOutcome::Created
        );
    }
    for n in 0..20 {
        assert_eq!(
            put(&format!("w{n}"), begin + DAY_MILLIS + 1).await,
            PutRequestOutcome::Created
        );
    }
    storage.close().await.unwrap();
}

#[tokio::test]
async fn jobs_are_listed_newest_first_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let mut made = Vec::new();
    for n in 0..25_u64 {
        let state = if n % 5 == 0 {
            JobState::Failed
        } else {
            JobState::Done
        };
        let record = make_job(&a, state, n);
        put_job_request(&storage.ledger, &record).await;
        put_job_request(&storage.ledger, &make_job(&b, state, n)).await;
        made.push(record);
    }
    made.reverse();
    let (mut seen, mut filter) = (Vec::new(), filter_all_jobs(10));
    loop {
        let piece = storage.ledger.list_jobs(&a, &filter).await.unwrap();
        assert!(piece.len() <= 10);
        let Some(last) = piece.last() else { break };
        filter.before = Some(last.id);
        seen.extend(piece);
    }
    assert_eq!(seen, made);
    let failed = JobFilter {
        state: Some(JobState::Failed),
        before: Some(made[4].id),
        limit: 3,
    };
    let failed = storage.ledger.list_jobs(&a, &failed).await.unwrap();
    let expected = made.iter().skip(5).filter(|j| j.state == JobState::Failed);
    assert_eq!(failed, expected.take(3).cloned().collect::<Vec<_>>());
    storage.close().await.unwrap();
}

#[tokio::test]
async fn passwords_of_ended_jobs_leave_the_ledger_files() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let secret = "swordfish-of-the-test";
    let mut records = Vec::new();
    for n in 0..20 {
        let record = make_job(&t, JobState::Queued, n);
        let mut request = make_job_request(&record);
        request.files.push(RequestedFile {
            name: "locked.pdf".into(),
            document: document_id("locked"),
            bytes: 9,
            password: Some(secret.into()),
        });
        storage
            .ledger
            .put_job_request(&record, &request, None)
            .await
            .unwrap();
        records.push(record);
    }
    assert!(ledger_files_contain(dir.path(), secret));
    for record in &records {
        end_job(&storage.ledger, record).await;
        let request = storage
            .ledger
            .find_job_request(&t, &record.id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(request.files.len(), 2);
        assert!(request.files.iter().all(|file| file.password.is_none()));
    }
    wait_until_not_in_files(dir.path(), secret).await;
    storage.close().await.unwrap();
    assert!(!ledger_files_contain(dir.path(), secret));
}

/// Commits the end of a job.
async fn end_job(ledger: &SqliteLedger, record: &JobRecord) {
    let ended = JobRecord {
        state: JobState::Failed,
        ..record.clone()
    };
    ledger
        .commit_entries(vec![LedgerEntry::Job(ended)])
        .await
        .unwrap();
}

/// Waits until the ledger's files do not contain these bytes.
async fn wait_until_not_in_files(data: &Path, text: &str) {
    for _ in 0..600 {
        if !ledger_files_contain(data, text) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{text} is still in the files");
}

/// Returns whether the ledger's files contain these bytes.
fn ledger_files_contain(data: &Path, text: &str) -> bool {
    ["ledger.db", "ledger.db-wal"].iter().any(|name| {
        let bytes = std::fs::read(data.join(name)).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn webhook_is_pending_from_the_end_of_its_job_until_settled() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let record = make_job(&t, JobState::Queued, 1);
    let with_webhook = JobRequest {
        webhook: Some(WebhookTarget {
            url: "https://example.org/hook".into(),
            secret: "the-secret".into(),
        }),
        ..make_job_request(&record)
    };
    storage
        .ledger
        .put_job_request(&record, &with_webhook, None)
        .await
        .unwrap();
    let without = make_job(&t, JobState::Done, 2);
    put_job_request(&storage.ledger, &without).await;
    assert!(
        storage
            .ledger
            .list_undelivered_webhooks()
            .await
            .unwrap()
            .is_empty()
    );
    let ended = JobRecord {
        state: JobState::Failed,
        ..record.clone()
    };
    storage
        .ledger
        .commit_entries(vec![LedgerEntry::Job(ended)])
        .await
        .unwrap();
    let owed = |tries| [(t.clone(), record.id, tries)];
    assert_eq!(storage.ledger.list_undelivered_webhooks().await.unwrap(), owed(0));
    storage
        .ledger
        .record_webhook_attempt(&t, &record.id, Some(3))
        .await
        .unwrap();
    storage.close().await.unwrap();

    let storage = open_storage(dir.path()).await;
    assert_eq!(storage.ledger.list_undelivered_webhooks().await.unwrap(), owed(3));
    let request = storage.ledger.find_job_request(&t, &record.id).await.unwrap();
    assert_eq!(request, Some(with_webhook));
    assert!(ledger_files_contain(dir.path(), "the-secret"));
    storage
        .ledger
        .record_webhook_attempt(&t, &record.id, None)
        .await
        .unwrap();
    assert!(
        storage
            .ledger
            .list_undelivered_webhooks()
            .await
            .unwrap()
            .is_empty()
    );
    let request = storage
        .ledger
        .find_job_request(&t, &record.id)
        .await
        .unwrap()
        .unwrap();
    assert!(request.webhook.is_none());
    wait_until_not_in_files(dir.path(), "the-secret").await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn usage_is_added_up_by_day() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let ledger = &storage.ledger;
    for t in [&a, &b] {
        ledger.create_tenant(&make_tenant(t)).await.unwrap();
    }
    let used = |n| Usage {
        requests: n,
        jobs: n + 1,
        upload_bytes: n + 2,
        pages: n + 3,
        inference_micros: n + 4,
        guest_micros: n + 5,
        searches: n + 6,
        refusals: n + 7,
        llm_calls: n + 8,
        llm_prompt_tokens: n + 9,
        llm_answer_tokens: n + 10,
        llm_cost_micros: n + 11,
    };
    let gone = (tenant_id("gone"), used(1));
    ledger
        .add_usage(10, vec![(a.clone(), used(1)), (b.clone(), used(7)), gone])
        .await
        .unwrap();
    ledger.add_usage(10, vec![(a.clone(), used(20))]).await.unwrap();
    ledger.add_usage(12, vec![(a.clone(), used(5))]).await.unwrap();
    ledger
        .add_usage(14, vec![(a.clone(), used(u64::MAX / 2 - 13))])
        .await
        .unwrap();
    ledger.add_usage(14, vec![(a.clone(), used(1000))]).await.unwrap();
    storage.close().await.unwrap();

    let storage = open_storage(dir.path()).await;
    let ledger = &storage.ledger;
    let mut sum = used(1);
    sum.add(&used(20));
    let days = ledger.list_daily_usage(&a, 9, 12).await.unwrap();
    assert_eq!(days, [(10, sum), (12, used(5))]);
    assert_eq!(ledger.list_daily_usage(&a, 11, 11).await.unwrap(), []);
    assert_eq!(
        ledger.list_daily_usage(&b, 0, u32::MAX).await.unwrap(),
        [(10, used(7))]
    );
    // A sum over the maximum is stored as the maximum.
    let most = u64::try_from(i64::MAX).unwrap();
    assert_eq!(
        ledger.list_daily_usage(&a, 14, 14).await.unwrap()[0].1.pages,
        most
    );
    assert_eq!(
        ledger.list_daily_usage(&tenant_id("gone"), 0, 99).await.unwrap(),
        []
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn storage_usage_is_known_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    let storage = open_storage(dir.path()).await;
    storage.blobs.put_blob(&t, "d/1", &[0; 1000]).await.unwrap();
    let blobs = Arc::clone(&storage.blobs);
    storage.close().await.unwrap();
    // The saved number is exact from here on, so no file may change.
    assert!(blobs.put_blob(&t, "d/2", &[0; 1]).await.is_err());
    assert!(blobs.delete_prefix(&t, "d/1").await.is_err());
    // A file that was not put proves that the number is the saved one and not counted.
    std::fs::write(dir.path().join("blobs/default/d/stray"), "stray").unwrap();
    let storage = open_storage(dir.path()).await;
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 1000);
    storage.blobs.put_blob(&t, "e/1", &[0; 10]).await.unwrap();
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 1010);
    drop(storage);
    std::fs::write(dir.path().join("blobs/default/e/stray"), "other").unwrap();

    // After a drop without a close, only the blobs that were changing are measured.
    let storage = open_storage(dir.path()).await;
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 1015);
    storage.close().await.unwrap();
}

/// Writes job requests as fast as possible, each with an upload and a blob, and deletes blobs. Prints `ack JOB DOCUMENT` after each.
#[tokio::test]
#[ignore = "runs until it is killed: the test below starts it"]
async fn server_in_another_process() {
    let Ok(data) = std::env::var(DATA_VARIABLE) else {
        panic!("set {DATA_VARIABLE}");
    };
    let storage = open_storage(Path::new(&data)).await;
    let t = TenantId::default_tenant();
    println!();
    let mut earlier = None;
    loop {
        let record = make_job(&t, JobState::Queued, 1);
        let bytes = record.id.to_string().repeat(50);
        let unfinished = storage.uploads.new_temporary_path();
        std::fs::write(&unfinished, &bytes).unwrap();
        let document = DocumentId::from_content(bytes.as_bytes());
        storage
            .uploads
            .commit_upload(&t, &unfinished, &document)
            .await
            .unwrap();
        let mut request = make_job_request(&record);
        request.files[0].document = document;
        let idempotency = make_idempotency(&record.id.to_string(), 1);
        let put = storage
            .ledger
            .put_job_request(&record, &request, Some(&idempotency))
            .await
            .unwrap();
        assert_eq!(put, PutRequestOutcome::Created);
        println!("ack {} {document}", record.id);
        storage
            .blobs
            .put_blob(&t, &format!("{document}/1"), &[0; 100])
            .await
            .unwrap();
        // Every second document loses its blobs.
        if let Some(document) = earlier.take() {
            let prefix = format!("{document}/");
            storage.blobs.delete_prefix(&t, &prefix).await.unwrap();
        } else {
            earlier = Some(document);
        }
    }
}

#[tokio::test]
async fn five_kills_lose_no_job_request_and_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    let mut acknowledged: Vec<(JobId, DocumentId)> = Vec::new();
    for round in 0..5 {
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server_in_another_process", "--ignored", "--nocapture"])
            .env(DATA_VARIABLE, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let ack = |line: Result<String, _>| {
            let line = line.unwrap();
            let (job, document) = line.strip_prefix("ack ")?.split_once(' ')?;
            // The last line may be incomplete.
            Some((job.parse::<JobId>().ok()?, document.parse::<DocumentId>().ok()?))
        };
        acknowledged.extend(lines.by_ref().filter_map(ack).take(20 + round * 7));
        sleep_random_time();
        server.kill().unwrap();
        acknowledged.extend(lines.filter_map(ack));
        server.wait().unwrap();

        let storage = open_storage(dir.path()).await;
        for (job, document) in &acknowledged {
            let record = storage.ledger.find_job(&t, job).await.unwrap().unwrap();
            let request = storage.ledger.find_job_request(&t, job).await.unwrap().unwrap();
            assert_eq!(request.files[0].document, *document);
            let original = std::fs::read(storage.uploads.upload_path(&t, document)).unwrap();
            assert_eq!(DocumentId::from_content(&original), *document);
            let idempotency = make_idempotency(&job.to_string(), 1);
            let put = storage
                .ledger
                .put_job_request(&record, &request, Some(&idempotency))
                .await
                .unwrap();
            assert_eq!(put, PutRequestOutcome::AlreadyCreated(*job));
        }
        let jobs = storage
            .ledger
            .list_jobs(&t, &filter_all_jobs(10_000))
            .await
            .unwrap();
        assert!(
            jobs.len() - acknowledged.len() <= round + 1,
            "at most one job request per kill may be unacknowledged"
        );
        let there: u64 = ["uploads", "blobs"]
            .iter()
            .map(|folder| folder_size(&dir.path().join(folder).join("default")))
            .sum();
        assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), there);
        // Dropped, not closed, like a killed process.
        drop(storage);
    }
    assert!(acknowledged.len() > 100);
}

/// Returns the bytes of all files below a folder.
fn folder_size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            data if data.is_dir() => folder_size(&entry.path()),
            data => data.len(),
        })
        .sum()
}

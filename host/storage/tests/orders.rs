//! Orders: written with their jobs, once for each word, and found again after any end.
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

use fixture::{document, job, open, order, tenant, tenant_record, word};
use weir_core::ledger::{Entry, JobRecord, JobState};
use weir_core::order::{JobFilter, Order, OrderedFile, Orders, Put, Webhook};
use weir_core::original::Originals;
use weir_core::ports::{BlobStore, Ledger};
use weir_core::tenancy::Registry;
use weir_core::usage::{Usage, UsageBook};
use weir_core::{DocumentId, JobId, TenantId};
use weir_storage::SqliteLedger;

const DATA: &str = "WEIR_TEST_DATA";
const DAY: u64 = 24 * 60 * 60 * 1000;

async fn put_in(orders: &SqliteLedger, record: &JobRecord) -> Put {
    orders.put(record, &order(record), None).await.unwrap()
}

fn all(limit: usize) -> JobFilter {
    JobFilter {
        limit,
        ..JobFilter::default()
    }
}

#[tokio::test]
async fn an_order_and_its_job_are_found_by_their_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (a, b) = (tenant("a"), tenant("b"));
    let record = job(&a, JobState::Queued, 5);
    assert_eq!(put_in(&storage.ledger, &record).await, Put::New);
    storage.close().await.unwrap();

    let storage = open(dir.path()).await;
    let ledger = &storage.ledger;
    assert_eq!(ledger.order(&a, &record.id).await.unwrap(), Some(order(&record)));
    assert_eq!(ledger.order(&b, &record.id).await.unwrap(), None);
    assert_eq!(ledger.job(&a, &record.id).await.unwrap(), Some(record.clone()));
    assert_eq!(ledger.unfinished().await.unwrap(), std::slice::from_ref(&record));
    // It is not changed once it is accepted, nor is its job begun anew.
    let running = JobRecord {
        state: JobState::Running,
        ..record.clone()
    };
    ledger.commit(vec![Entry::Job(running.clone())]).await.unwrap();
    let again = ledger.put(&record, &order(&record), Some(&word("w", 1))).await;
    assert_eq!(again.unwrap_err().kind(), "storage-failed");
    assert_eq!(ledger.job(&a, &record.id).await.unwrap(), Some(running));
    // Of that, nothing was written, not even the word.
    let other = job(&a, JobState::Queued, 6);
    let put = ledger.put(&other, &order(&other), Some(&word("w", 2))).await;
    assert_eq!(put.unwrap(), Put::New);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn a_word_counts_once_for_its_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (a, b) = (tenant("a"), tenant("b"));
    let put = async |t: &TenantId, asked| {
        let record = job(t, JobState::Queued, 1);
        let put = storage
            .ledger
            .put(&record, &order(&record), Some(&word("w", asked)))
            .await;
        (record.id, put.unwrap())
    };
    let (first, new) = put(&a, 1).await;
    assert_eq!(new, Put::New);
    let (second, before) = put(&a, 1).await;
    assert_eq!(before, Put::Before(first));
    assert_eq!(put(&a, 2).await.1, Put::Differs);
    let earlier = storage.ledger.earlier(&a, "w").await.unwrap().unwrap();
    assert_eq!((earlier.job, earlier.digest), (first, word("w", 1).digest));
    assert_eq!(storage.ledger.earlier(&a, "other").await.unwrap(), None);
    assert_eq!(storage.ledger.earlier(&b, "w").await.unwrap(), None);
    assert_eq!(put(&b, 2).await.1, Put::New);
    assert_eq!(storage.ledger.job(&a, &second).await.unwrap(), None);
    assert_eq!(storage.ledger.order(&a, &second).await.unwrap(), None);
    assert_eq!(storage.ledger.jobs(&a, &all(10)).await.unwrap().len(), 1);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn of_fifty_at_once_with_one_word_one_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = TenantId::single();
    for round in 0..5 {
        let puts = (0..50).map(|_| {
            let (ledger, record) = (Arc::clone(&storage.ledger), job(&t, JobState::Queued, 1));
            tokio::spawn(async move {
                let word = word(&format!("w{round}"), 1);
                let put = ledger.put(&record, &order(&record), Some(&word)).await.unwrap();
                (record.id, put)
            })
        });
        let mut answers = Vec::new();
        for put in puts.collect::<Vec<_>>() {
            answers.push(put.await.unwrap());
        }
        let new: Vec<_> = answers.iter().filter(|(_, put)| *put == Put::New).collect();
        assert_eq!(new.len(), 1);
        let others = answers
            .iter()
            .filter(|(_, put)| *put == Put::Before(new[0].0))
            .count();
        assert_eq!(others, 49);
    }
    assert_eq!(storage.ledger.jobs(&t, &all(1000)).await.unwrap().len(), 5);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn a_word_is_known_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = TenantId::single();
    let put = async |key: &str, at| {
        let record = job(&t, JobState::Queued, at);
        let word = word(key, 1);
        storage
            .ledger
            .put(&record, &order(&record), Some(&word))
            .await
            .unwrap()
    };
    let begin = 50 * DAY;
    for n in 0..20 {
        assert_eq!(put(&format!("w{n}"), begin).await, Put::New);
    }
    assert_ne!(put("w0", begin + DAY).await, Put::New);
    assert_eq!(put("other", begin + DAY).await, Put::New);
    assert_ne!(put("w1", begin + DAY).await, Put::New);
    // Later ones make room: no word is kept for good.
    for n in 0..10 {
        assert_eq!(put(&format!("x{n}"), begin + DAY + 1).await, Put::New);
    }
    for n in 0..20 {
        assert_eq!(put(&format!("w{n}"), begin + DAY + 1).await, Put::New);
    }
    storage.close().await.unwrap();
}

#[tokio::test]
async fn jobs_are_listed_newest_first_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (a, b) = (tenant("a"), tenant("b"));
    let mut made = Vec::new();
    for n in 0..25_u64 {
        let state = if n % 5 == 0 {
            JobState::Failed
        } else {
            JobState::Done
        };
        let record = job(&a, state, n);
        put_in(&storage.ledger, &record).await;
        put_in(&storage.ledger, &job(&b, state, n)).await;
        made.push(record);
    }
    made.reverse();
    let (mut seen, mut filter) = (Vec::new(), all(10));
    loop {
        let piece = storage.ledger.jobs(&a, &filter).await.unwrap();
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
    let failed = storage.ledger.jobs(&a, &failed).await.unwrap();
    let expected = made.iter().skip(5).filter(|j| j.state == JobState::Failed);
    assert_eq!(failed, expected.take(3).cloned().collect::<Vec<_>>());
    storage.close().await.unwrap();
}

#[tokio::test]
async fn forgotten_passwords_are_nowhere_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = TenantId::single();
    let secret = "swordfish-of-the-test";
    let mut records = Vec::new();
    for n in 0..20 {
        let record = job(&t, JobState::Queued, n);
        let mut order = order(&record);
        order.files.push(OrderedFile {
            name: "locked.pdf".into(),
            document: document("locked"),
            bytes: 9,
            password: Some(secret.into()),
        });
        storage.ledger.put(&record, &order, None).await.unwrap();
        records.push(record);
    }
    assert!(in_files(dir.path(), secret));
    for record in &records {
        end(&storage.ledger, record).await;
        let order = storage.ledger.order(&t, &record.id).await.unwrap().unwrap();
        assert_eq!(order.files.len(), 2);
        assert!(order.files.iter().all(|file| file.password.is_none()));
    }
    assert_leaves_files(dir.path(), secret).await;
    storage.close().await.unwrap();
    assert!(!in_files(dir.path(), secret));
}

/// The commit that ends a job.
async fn end(ledger: &SqliteLedger, record: &JobRecord) {
    let ended = JobRecord {
        state: JobState::Failed,
        ..record.clone()
    };
    ledger.commit(vec![Entry::Job(ended)]).await.unwrap();
}

/// Waits until the ledger's files have these bytes no more.
async fn assert_leaves_files(data: &Path, text: &str) {
    for _ in 0..600 {
        if !in_files(data, text) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{text} is still in the files");
}

/// Whether the ledger's files have these bytes.
fn in_files(data: &Path, text: &str) -> bool {
    ["ledger.db", "ledger.db-wal"].iter().any(|name| {
        let bytes = std::fs::read(data.join(name)).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn a_webhook_is_owed_from_the_end_of_its_job_until_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = TenantId::single();
    let record = job(&t, JobState::Queued, 1);
    let with_webhook = Order {
        webhook: Some(Webhook {
            url: "https://example.org/hook".into(),
            secret: "the-secret".into(),
        }),
        ..order(&record)
    };
    storage.ledger.put(&record, &with_webhook, None).await.unwrap();
    let without = job(&t, JobState::Done, 2);
    put_in(&storage.ledger, &without).await;
    assert!(storage.ledger.owed_webhooks().await.unwrap().is_empty());
    let ended = JobRecord {
        state: JobState::Failed,
        ..record.clone()
    };
    storage.ledger.commit(vec![Entry::Job(ended)]).await.unwrap();
    let owed = |tries| [(t.clone(), record.id, tries)];
    assert_eq!(storage.ledger.owed_webhooks().await.unwrap(), owed(0));
    storage
        .ledger
        .webhook_tried(&t, &record.id, Some(3))
        .await
        .unwrap();
    storage.close().await.unwrap();

    let storage = open(dir.path()).await;
    assert_eq!(storage.ledger.owed_webhooks().await.unwrap(), owed(3));
    let order = storage.ledger.order(&t, &record.id).await.unwrap();
    assert_eq!(order, Some(with_webhook));
    assert!(in_files(dir.path(), "the-secret"));
    storage.ledger.webhook_tried(&t, &record.id, None).await.unwrap();
    assert!(storage.ledger.owed_webhooks().await.unwrap().is_empty());
    let order = storage.ledger.order(&t, &record.id).await.unwrap().unwrap();
    assert!(order.webhook.is_none());
    assert_leaves_files(dir.path(), "the-secret").await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn usage_is_added_up_by_day() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (a, b) = (tenant("a"), tenant("b"));
    let ledger = &storage.ledger;
    for t in [&a, &b] {
        ledger.create_tenant(&tenant_record(t)).await.unwrap();
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
    let gone = (tenant("gone"), used(1));
    ledger
        .add(10, vec![(a.clone(), used(1)), (b.clone(), used(7)), gone])
        .await
        .unwrap();
    ledger.add(10, vec![(a.clone(), used(20))]).await.unwrap();
    ledger.add(12, vec![(a.clone(), used(5))]).await.unwrap();
    ledger
        .add(14, vec![(a.clone(), used(u64::MAX / 2 - 13))])
        .await
        .unwrap();
    ledger.add(14, vec![(a.clone(), used(1000))]).await.unwrap();
    storage.close().await.unwrap();

    let storage = open(dir.path()).await;
    let ledger = &storage.ledger;
    let mut sum = used(1);
    sum.add(&used(20));
    let days = ledger.usage(&a, 9, 12).await.unwrap();
    assert_eq!(days, [(10, sum), (12, used(5))]);
    assert_eq!(ledger.usage(&a, 11, 11).await.unwrap(), []);
    assert_eq!(ledger.usage(&b, 0, u32::MAX).await.unwrap(), [(10, used(7))]);
    // Too much to be kept, and still no error.
    let most = u64::try_from(i64::MAX).unwrap();
    assert_eq!(ledger.usage(&a, 14, 14).await.unwrap()[0].1.pages, most);
    assert_eq!(ledger.usage(&tenant("gone"), 0, 99).await.unwrap(), []);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn what_is_kept_is_known_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::single();
    let storage = open(dir.path()).await;
    storage.blobs.put(&t, "d/1", &[0; 1000]).await.unwrap();
    let blobs = Arc::clone(&storage.blobs);
    storage.close().await.unwrap();
    // It was believed from here on, so it may not change any more.
    assert!(blobs.put(&t, "d/2", &[0; 1]).await.is_err());
    assert!(blobs.delete(&t, "d/1").await.is_err());
    // Proof that the number was kept and not counted: a file that nobody put.
    std::fs::write(dir.path().join("blobs/default/d/stray"), "stray").unwrap();
    let storage = open(dir.path()).await;
    storage.counted().await;
    assert_eq!(storage.ledger.stored_bytes(&t).await.unwrap(), 1000);
    drop(storage);

    // Dropped, not closed: not believed.
    let storage = open(dir.path()).await;
    storage.counted().await;
    assert_eq!(storage.ledger.stored_bytes(&t).await.unwrap(), 1005);
    storage.close().await.unwrap();
}

/// Takes orders as fast as it can, each with an original and a blob, and acknowledges each: `ack DOCUMENT JOB`.
#[tokio::test]
#[ignore = "runs until it is killed: started by the test below"]
async fn a_server() {
    let Ok(data) = std::env::var(DATA) else {
        panic!("set {DATA}");
    };
    let storage = open(Path::new(&data)).await;
    let t = TenantId::single();
    println!();
    loop {
        let record = job(&t, JobState::Queued, 1);
        let bytes = record.id.to_string().repeat(50);
        let unfinished = storage.originals.unfinished();
        std::fs::write(&unfinished, &bytes).unwrap();
        let document = DocumentId::of(bytes.as_bytes());
        storage
            .originals
            .commit(&t, &unfinished, &document)
            .await
            .unwrap();
        let mut order = order(&record);
        order.files[0].document = document;
        let word = word(&record.id.to_string(), 1);
        let put = storage.ledger.put(&record, &order, Some(&word)).await.unwrap();
        assert_eq!(put, Put::New);
        println!("ack {} {document}", record.id);
        storage
            .blobs
            .put(&t, &format!("{document}/1"), &[0; 100])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn five_kills_lose_no_order_and_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::single();
    let mut acknowledged: Vec<(JobId, DocumentId)> = Vec::new();
    for round in 0..5 {
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_server", "--ignored", "--nocapture"])
            .env(DATA, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let ack = |line: Result<String, _>| {
            let line = line.unwrap();
            let (job, document) = line.strip_prefix("ack ")?.split_once(' ')?;
            // The last line may be cut.
            Some((job.parse::<JobId>().ok()?, document.parse::<DocumentId>().ok()?))
        };
        acknowledged.extend(lines.by_ref().filter_map(ack).take(20 + round * 7));
        server.kill().unwrap();
        acknowledged.extend(lines.filter_map(ack));
        server.wait().unwrap();

        let storage = open(dir.path()).await;
        for (job, document) in &acknowledged {
            let record = storage.ledger.job(&t, job).await.unwrap().unwrap();
            let order = storage.ledger.order(&t, job).await.unwrap().unwrap();
            assert_eq!(order.files[0].document, *document);
            let original = std::fs::read(storage.originals.path(&t, document)).unwrap();
            assert_eq!(DocumentId::of(&original), *document);
            let word = word(&job.to_string(), 1);
            let put = storage.ledger.put(&record, &order, Some(&word)).await.unwrap();
            assert_eq!(put, Put::Before(*job));
        }
        let jobs = storage.ledger.jobs(&t, &all(10_000)).await.unwrap();
        assert!(
            jobs.len() - acknowledged.len() <= round + 1,
            "one at most was in work"
        );
        storage.counted().await;
        let there: u64 = ["originals", "blobs"]
            .iter()
            .map(|folder| bytes(&dir.path().join(folder).join("default")))
            .sum();
        assert_eq!(storage.ledger.stored_bytes(&t).await.unwrap(), there);
        // Dropped, not closed, as if it were killed as well.
        drop(storage);
    }
    assert!(acknowledged.len() > 100);
}

/// Bytes of all files below a folder.
fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            data if data.is_dir() => bytes(&entry.path()),
            data => data.len(),
        })
        .sum()
}

//! Acknowledged writes survive kill -9, exactly once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use fixture::{
    document_id, make_idempotency, make_job_request, make_point, make_query, open_storage, page_done_entry,
    sleep_random_time, unit_vector,
};
use weir_conformance::records::make_job;
use weir_core::job_request::{JobFilter, JobRequestStore, PutRequestOutcome};
use weir_core::ledger::JobState;
use weir_core::ports::Ledger;
use weir_core::usage::UsageStore;
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, TenantId};

const PASSAGES_PER_PAGE: u32 = 10;
const DATA_VARIABLE: &str = "WEIR_TEST_DATA";
const ROUND_VARIABLE: &str = "WEIR_TEST_ROUND";

/// Writes page after page of a document. After each page is flushed and committed, prints `ack PAGE`. The next page also writes the page
/// before it a second time. Every seventh page removes the third page before it.
#[tokio::test]
#[ignore = "runs until it is killed: the test below starts it"]
async fn page_writer_in_another_process() {
    let (Ok(data), Ok(round)) = (std::env::var(DATA_VARIABLE), std::env::var(ROUND_VARIABLE)) else {
        panic!("set {DATA_VARIABLE} and {ROUND_VARIABLE}");
    };
    let storage = open_storage(Path::new(&data)).await;
    let (t, revision) = (TenantId::default_tenant(), RevisionId::from_content(b"r"));
    let points = |page, version: u32| {
        (0..PASSAGES_PER_PAGE)
            .map(|passage| {
                make_point(
                    &round,
                    page,
                    passage,
                    &passage_text(page, passage, version),
                    unit_vector(0.0),
                )
            })
            .collect()
    };
    println!();
    for page in 1.. {
        storage
            .vectors
            .upsert_points(&t, "main", points(page, 1))
            .await
            .unwrap();
        if page > 1 {
            storage
                .vectors
                .upsert_points(&t, "main", points(page - 1, 2))
                .await
                .unwrap();
        }
        if removes_a_page(page) {
            storage
                .vectors
                .remove_document_or_page_points(&t, &document_id(&round), Some(&[page - 3]))
                .await
                .unwrap();
        }
        storage
            .blobs
            .put_blob(&t, &image_key(&round, page), &vec![7; 100_000])
            .await
            .unwrap();
        storage
            .blobs
            .put_blob(&t, &lines_key(&round, page), &make_lines(page))
            .await
            .unwrap();
        let (vectors, blobs) = tokio::join!(storage.vectors.flush_points(), storage.blobs.flush_blobs());
        vectors.and(blobs).unwrap();
        storage
            .ledger
            .commit_entries(vec![page_done_entry(
                &t,
                &round,
                page,
                &revision,
                PASSAGES_PER_PAGE,
            )])
            .await
            .unwrap();
        println!("ack {page}");
    }
}

fn passage_text(page: PageNumber, passage: u32, version: u32) -> String {
    format!("page{page} passage{passage} version{version}")
}

fn image_key(round: &str, page: PageNumber) -> String {
    format!("{round}/{page}/image/150.jpg")
}

fn lines_key(round: &str, page: PageNumber) -> String {
    format!("{round}/{page}/ocr.json")
}

fn make_lines(page: PageNumber) -> Vec<u8> {
    format!("line of page {page}").repeat(500).into_bytes()
}

const fn removes_a_page(page: PageNumber) -> bool {
    page.is_multiple_of(7)
}

/// Starts the writer, kills it at a random time after `acks` acknowledgements, and returns the last acknowledged page.
fn kill_writer_after(data: &Path, round: &str, acks: u32) -> PageNumber {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "page_writer_in_another_process",
            "--ignored",
            "--nocapture",
        ])
        .env(DATA_VARIABLE, data)
        .env(ROUND_VARIABLE, round)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let acknowledged =
        |line: Result<String, _>| line.unwrap().strip_prefix("ack ")?.parse::<PageNumber>().ok();
    let mut last = lines
        .by_ref()
        .filter_map(acknowledged)
        .nth(acks as usize - 1)
        .unwrap();
    // At a random point of the next page.
    sleep_random_time();
    writer.kill().unwrap();
    if let Some(page) = lines.filter_map(acknowledged).last() {
        last = page;
    }
    writer.wait().unwrap();
    last
}

#[tokio::test]
async fn ten_kills_lose_and_duplicate_no_page() {
    kill_ten_times_and_check(0).await;
}

#[tokio::test]
async fn ten_kills_beside_100_000_passages_lose_and_duplicate_no_page() {
    kill_ten_times_and_check(100_000).await;
}

/// Writes passages of another document of the same tenant.
async fn write_other_passages(data: &Path, count: u32) {
    let storage = open_storage(data).await;
    for first in (0..count).step_by(1000) {
        let passages = (first..first + 1000).map(|number| {
            let angle = f32::from(u16::try_from(number % 36_000).unwrap()) / 100.0;
            make_point(
                "other",
                number / 100 + 1,
                number % 100,
                &format!("other {number}"),
                unit_vector(angle),
            )
        });
        let t = TenantId::default_tenant();
        storage
            .vectors
            .upsert_points(&t, "main", passages.collect())
            .await
            .unwrap();
    }
    storage.close().await.unwrap();
}

/// Kills the writer ten times and checks after each time that all acknowledged pages are there once, beside `other_passages` passages.
async fn kill_ten_times_and_check(other_passages: u32) {
    let dir = tempfile::tempdir().unwrap();
    let (t, revision) = (TenantId::default_tenant(), RevisionId::from_content(b"r"));
    write_other_passages(dir.path(), other_passages).await;
    let mut rounds = Vec::new();
    for round in 0..10_u32 {
        let name = format!("round{round}");
        let last = kill_writer_after(dir.path(), &name, 1 + round * 2);
        rounds.push((name, last));
        let storage = open_storage(dir.path()).await;
        let others = storage
            .vectors
            .count_passages_by_page(&t, &document_id("other"))
            .await
            .unwrap();
        assert_eq!(others.iter().map(|(_, count)| count).sum::<u32>(), other_passages);
        for (name, last) in &rounds {
            let mut found: BTreeMap<PageNumber, Vec<String>> = BTreeMap::new();
            let mut all = make_query("", unit_vector(0.0), weir_storage::MAX_HITS);
            all.documents = vec![document_id(name)];
            for hit in storage
                .vectors
                .search_by_vector_and_words(&t, &all)
                .await
                .unwrap()
            {
                found.entry(hit.page).or_default().push(hit.text);
            }
            let counted: BTreeMap<_, _> = storage
                .vectors
                .count_passages_by_page(&t, &document_id(name))
                .await
                .unwrap()
                .into_iter()
                .collect();
            for page in 1..=*last {
                let removed = (page + 1..=*last).any(|later| removes_a_page(later) && later - 3 == page);
                // The page after the last acknowledged one was being written, and may have removed an earlier page.
                let may_be_removed = removes_a_page(last + 1) && last + 1 - 3 == page;
                if removed || (may_be_removed && !counted.contains_key(&page)) {
                    assert_eq!(
                        (counted.get(&page), found.get(&page)),
                        (None, None),
                        "{name} page {page} of {last}"
                    );
                } else {
                    assert_eq!(
                        counted.get(&page),
                        Some(&PASSAGES_PER_PAGE),
                        "{name} page {page} of {last}"
                    );
                    let mut texts = found.remove(&page).unwrap_or_default();
                    texts.sort();
                    let second = page < *last || texts.first().is_some_and(|text| text.ends_with('2'));
                    let expected: Vec<_> = (0..PASSAGES_PER_PAGE)
                        .map(|p| passage_text(page, p, if second { 2 } else { 1 }))
                        .collect();
                    assert_eq!(texts, expected, "{name} page {page} of {last}");
                }
                let blob = storage.blobs.get_blob(&t, &image_key(name, page)).await.unwrap();
                assert_eq!(blob.map(|bytes| bytes.len()), Some(100_000));
                let lines = storage.blobs.get_blob(&t, &lines_key(name, page)).await.unwrap();
                assert_eq!(lines, Some(make_lines(page)));
            }
            let done = storage
                .ledger
                .list_pages(&t, &document_id(name), Some(&revision))
                .await
                .unwrap();
            let done: Vec<_> = done.iter().map(|p| p.page).collect();
            assert_eq!(
                done.get(..*last as usize),
                Some(&(1..=*last).collect::<Vec<_>>()[..])
            );
            // The page that was being written can be written again.
            let again = (0..PASSAGES_PER_PAGE)
                .map(|p| make_point(name, last + 1, p, &passage_text(last + 1, p, 1), unit_vector(0.0)));
            storage
                .vectors
                .upsert_points(&t, "main", again.collect())
                .await
                .unwrap();
            let pages = storage
                .vectors
                .count_passages_by_page(&t, &document_id(name))
                .await
                .unwrap();
            assert_eq!(pages.last(), Some(&(last + 1, PASSAGES_PER_PAGE)));
        }
        // Dropped, not closed: the next writer must handle that too.
        drop(storage);
    }
}

/// Writes job requests as fast as possible, each with an upload and a blob, and deletes blobs. Prints `ack JOB DOCUMENT` after each.
#[tokio::test]
#[ignore = "runs until it is killed: the test below starts it"]
async fn request_writer_in_another_process() {
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
        let document = weir_conformance::store_upload(&*storage.uploads, &t, bytes.as_bytes()).await;
        let mut request = make_job_request(&record);
        request.files[0].document = document;
        let idempotency = make_idempotency(&record.id.to_string(), 1);
        let put = storage
            .ledger
            .create_job_with_request(&record, &request, Some(&idempotency))
            .await
            .unwrap();
        assert_eq!(put, PutRequestOutcome::Created);
        println!("ack {} {document}", record.id);
        storage
            .blobs
            .put_blob(&t, &format!("{document}/1"), &[0; 40_000])
            .await
            .unwrap();
        storage
            .blobs
            .put_blob(&t, &format!("{document}/2"), &[0; 100])
            .await
            .unwrap();
        // Every second document loses its blobs.
        if let Some(document) = earlier.take() {
            let prefix = format!("{document}/");
            storage.blobs.delete_blobs_with_prefix(&t, &prefix).await.unwrap();
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
            .args([
                "--exact",
                "request_writer_in_another_process",
                "--ignored",
                "--nocapture",
            ])
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
            let upload = storage.uploads.open_upload(&t, document).await.unwrap().unwrap();
            let upload = std::fs::read(upload.path()).unwrap();
            assert_eq!(DocumentId::from_content(&upload), *document);
            let idempotency = make_idempotency(&job.to_string(), 1);
            let put = storage
                .ledger
                .create_job_with_request(&record, &request, Some(&idempotency))
                .await
                .unwrap();
            assert_eq!(put, PutRequestOutcome::AlreadyCreated(*job));
        }
        let all_jobs = JobFilter {
            limit: 10_000,
            ..JobFilter::default()
        };
        let jobs = storage.ledger.list_jobs(&t, &all_jobs).await.unwrap();
        assert!(
            jobs.len() - acknowledged.len() <= round + 1,
            "at most one job request per kill may be unacknowledged"
        );
        let stored_bytes: u64 = ["uploads", "blobs"]
            .iter()
            .map(|folder| folder_size(&dir.path().join(folder).join("default")))
            .sum();
        let small_blobs = rusqlite::Connection::open(dir.path().join("blobs.db"))
            .unwrap()
            .query_row("SELECT coalesce(sum(length(bytes)), 0) FROM blobs", [], |row| {
                row.get::<_, i64>(0)
            });
        assert_eq!(
            storage.ledger.count_stored_bytes(&t).await.unwrap(),
            stored_bytes + u64::try_from(small_blobs.unwrap()).unwrap()
        );
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

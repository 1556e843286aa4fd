//! What was acknowledged survives kill -9, exactly once.
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

use fixture::{direction, document, open, page_done, point, query};
use weir_core::ports::{BlobStore, Ledger, VectorStore};
use weir_core::{PageNumber, RevisionId, TenantId};

const PASSAGES: u32 = 10;
const DATA: &str = "WEIR_TEST_DATA";
const ROUND: &str = "WEIR_TEST_ROUND";

/// Writes page after page of a document and acknowledges each on stdout once it is flushed and committed: `ack PAGE`. Every
/// page is written a second time with the next one; every seventh page removes the third before it.
#[tokio::test]
#[ignore = "runs until it is killed: started by the test below"]
async fn a_writer() {
    let (Ok(data), Ok(round)) = (std::env::var(DATA), std::env::var(ROUND)) else {
        panic!("set {DATA} and {ROUND}");
    };
    let storage = open(Path::new(&data)).await;
    let (t, revision) = (TenantId::single(), RevisionId::of(b"r"));
    let points = |page, version: u32| {
        (0..PASSAGES)
            .map(|passage| {
                point(
                    &round,
                    page,
                    passage,
                    &text(page, passage, version),
                    direction(0.0),
                )
            })
            .collect()
    };
    println!();
    for page in 1.. {
        storage.vectors.upsert(&t, "main", points(page, 1)).await.unwrap();
        if page > 1 {
            storage
                .vectors
                .upsert(&t, "main", points(page - 1, 2))
                .await
                .unwrap();
        }
        if removes(page) {
            storage
                .vectors
                .remove(&t, &document(&round), Some(&[page - 3]))
                .await
                .unwrap();
        }
        storage
            .blobs
            .put(&t, &blob(&round, page), &vec![7; 100_000])
            .await
            .unwrap();
        let (vectors, blobs) = tokio::join!(storage.vectors.flush(), storage.blobs.flush());
        vectors.and(blobs).unwrap();
        storage
            .ledger
            .commit(vec![page_done(&t, &round, page, &revision, PASSAGES)])
            .await
            .unwrap();
        println!("ack {page}");
    }
}

fn text(page: PageNumber, passage: u32, version: u32) -> String {
    format!("page{page} passage{passage} version{version}")
}

fn blob(round: &str, page: PageNumber) -> String {
    format!("{round}/{page}/image/150.jpg")
}

const fn removes(page: PageNumber) -> bool {
    page.is_multiple_of(7)
}

/// Starts the writer, kills it a random moment after `acks` acknowledgements, and says which page was the last.
fn write_and_kill(data: &Path, round: &str, acks: u32) -> PageNumber {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_writer", "--ignored", "--nocapture"])
        .env(DATA, data)
        .env(ROUND, round)
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
    // Some way into the next page, another way each time.
    std::thread::sleep(std::time::Duration::from_micros(moment() % 20_000));
    writer.kill().unwrap();
    if let Some(page) = lines.filter_map(acknowledged).last() {
        last = page;
    }
    writer.wait().unwrap();
    last
}

#[tokio::test]
async fn ten_kills_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (t, revision) = (TenantId::single(), RevisionId::of(b"r"));
    let mut rounds = Vec::new();
    for round in 0..10_u32 {
        let name = format!("round{round}");
        let last = write_and_kill(dir.path(), &name, 1 + round * 2);
        rounds.push((name, last));
        let storage = open(dir.path()).await;
        for (name, last) in &rounds {
            let mut found: BTreeMap<PageNumber, Vec<String>> = BTreeMap::new();
            let mut all = query("", direction(0.0), weir_storage::MAX_HITS);
            all.documents = vec![document(name)];
            for hit in storage.vectors.search(&t, &all).await.unwrap() {
                found.entry(hit.page).or_default().push(hit.text);
            }
            let counted: BTreeMap<_, _> = storage
                .vectors
                .pages(&t, &document(name))
                .await
                .unwrap()
                .into_iter()
                .collect();
            for page in 1..=*last {
                let removed = (page + 1..=*last).any(|later| removes(later) && later - 3 == page);
                // The page after the last acknowledged one was in work, and so was what it does to those before it.
                let in_work = removes(last + 1) && last + 1 - 3 == page;
                if removed || (in_work && !counted.contains_key(&page)) {
                    assert_eq!(
                        (counted.get(&page), found.get(&page)),
                        (None, None),
                        "{name} page {page} of {last}"
                    );
                } else {
                    assert_eq!(
                        counted.get(&page),
                        Some(&PASSAGES),
                        "{name} page {page} of {last}"
                    );
                    let mut texts = found.remove(&page).unwrap_or_default();
                    texts.sort();
                    let second = page < *last || texts.first().is_some_and(|text| text.ends_with('2'));
                    let expected: Vec<_> = (0..PASSAGES)
                        .map(|p| text(page, p, if second { 2 } else { 1 }))
                        .collect();
                    assert_eq!(texts, expected, "{name} page {page} of {last}");
                }
                let blob = storage.blobs.get(&t, &blob(name, page)).await.unwrap();
                assert_eq!(blob.map(|bytes| bytes.len()), Some(100_000));
            }
            let done = storage
                .ledger
                .pages(&t, &document(name), Some(&revision))
                .await
                .unwrap();
            let done: Vec<_> = done.iter().map(|p| p.page).collect();
            assert_eq!(
                done.get(..*last as usize),
                Some(&(1..=*last).collect::<Vec<_>>()[..])
            );
            // What was being written is seen again as if for the first time.
            let again =
                (0..PASSAGES).map(|p| point(name, last + 1, p, &text(last + 1, p, 1), direction(0.0)));
            storage.vectors.upsert(&t, "main", again.collect()).await.unwrap();
            let pages = storage.vectors.pages(&t, &document(name)).await.unwrap();
            assert_eq!(pages.last(), Some(&(last + 1, PASSAGES)));
        }
        // Dropped, not closed: the next writer must cope with that as well.
        drop(storage);
    }
}

/// A number that differs each time.
fn moment() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(0)
}

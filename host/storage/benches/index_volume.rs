//! How the costs of the embedded index grow up to a million passages: `cargo bench -p weir-storage --bench index_volume`.
//!
//! One tenant gets 10,000, 100,000 and 1,000,000 passages, and 100 tenants beside it have 1,000 each. `WEIR_BENCH_PASSAGES` is the last
//! size, and `WEIR_BENCH_DIR` the folder for the data (2.5 GB for a million). The vectors are in clusters, as embeddings are. Recall is
//! that of the vector ranking against a comparison with all vectors.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fastrand::Rng;
use uuid::Uuid;
use weir_core::search::{IndexPoint, SearchQuery};
use weir_core::{DocumentId, Rect, TenantId};
use weir_storage::Storage;

const DIMENSIONS: usize = 384;
const MODEL: &str = "bench";
const CLUSTERS: u64 = 20_000;
/// The share of a vector that is not its cluster's.
const NOISE: f32 = 0.7;
const VOCABULARY: f64 = 60_000.0;
const PASSAGES_PER_PAGE: u32 = 10;
/// Passages of a document.
const PASSAGES_PER_DOCUMENT: u64 = 10_000;
const PASSAGES_PER_WRITE: u64 = 64;
const SMALL_TENANTS: u64 = 100;
const SMALL_TENANT_PASSAGES: u64 = 1000;
const SEARCHES: u64 = 300;
const SEARCHES_AFTER_WRITES: u64 = 50;
const RECALL_QUERIES: u64 = 100;
/// Set in the process that is killed.
const KILLED_WRITER_VARIABLE: &str = "WEIR_BENCH_KILLED_WRITER";

fn random_vector(rng: &mut Rng) -> Vec<f32> {
    (0..DIMENSIONS).map(|_| rng.f32() - 0.5).collect()
}

fn to_unit_length(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

/// Returns the vector of a passage, or of a query if `rng` has another seed.
fn vector_in_cluster(rng: &mut Rng) -> Vec<f32> {
    let mut center = random_vector(&mut Rng::with_seed(rng.u64(0..CLUSTERS)));
    for (x, noise) in center.iter_mut().zip(random_vector(rng)) {
        *x = *x * (1.0 - NOISE) + noise * NOISE;
    }
    to_unit_length(center)
}

fn passage_vector(number: u64) -> Vec<f32> {
    vector_in_cluster(&mut Rng::with_seed(number + 1_000_000))
}

/// Returns a text whose words are as frequent as those of a language (Zipf).
fn random_text(rng: &mut Rng, words: usize) -> String {
    let word = |_| format!("w{:.0}", VOCABULARY.powf(rng.f64()));
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

fn make_passage(owner: u64, number: u64) -> IndexPoint {
    let mut rng = Rng::with_seed(number);
    let document = number / PASSAGES_PER_DOCUMENT;
    let on_document = u32::try_from(number % PASSAGES_PER_DOCUMENT).unwrap();
    let words = rng.usize(40..110);
    IndexPoint {
        id: Uuid::from_u64_pair(owner, number),
        document: document_id(document),
        document_name: format!("document {document}.pdf"),
        page: on_document / PASSAGES_PER_PAGE + 1,
        passage: on_document % PASSAGES_PER_PAGE,
        text: random_text(&mut rng, words),
        rect: Rect::WHOLE_PAGE,
        dense_vector: passage_vector(number),
        labels: vec![("part".into(), (document % 10).to_string())],
        image: None,
        lines: None,
    }
}

fn document_id(number: u64) -> DocumentId {
    DocumentId::from_content(&number.to_le_bytes())
}

fn make_query(number: u64) -> SearchQuery {
    let mut rng = Rng::with_seed(u64::MAX - number);
    let words = rng.usize(3..13);
    SearchQuery {
        query_text: random_text(&mut rng, words),
        dense_vector: vector_in_cluster(&mut rng),
        top_k: 10,
        documents: Vec::new(),
        collection: None,
        labels: Vec::new(),
    }
}

async fn write_passages(
    storage: &Storage,
    tenant: &TenantId,
    owner: u64,
    numbers: std::ops::Range<u64>,
) -> Duration {
    let mut spent = Duration::ZERO;
    for first in numbers.clone().step_by(PASSAGES_PER_WRITE as usize) {
        let last = (first + PASSAGES_PER_WRITE).min(numbers.end);
        let points: Vec<_> = (first..last).map(|number| make_passage(owner, number)).collect();
        let begin = Instant::now();
        storage
            .vectors
            .upsert_points(tenant, "main", points)
            .await
            .unwrap();
        storage.vectors.flush_points().await.unwrap();
        spent += begin.elapsed();
    }
    spent
}

/// Returns the time of a search in milliseconds.
async fn time_search(storage: &Storage, tenant: &TenantId, query: &SearchQuery) -> f64 {
    let begin = Instant::now();
    let found = storage.vectors.search_by_vector_and_words(tenant, query).await;
    let elapsed = begin.elapsed();
    found.unwrap();
    elapsed.as_secs_f64() * 1000.0
}

/// Returns the median and the 95th percentile of searches, in milliseconds.
async fn measure_searches(
    storage: &Storage,
    tenant: &TenantId,
    change: impl Fn(&mut SearchQuery),
) -> (f64, f64) {
    let mut times = Vec::new();
    for number in 0..SEARCHES {
        let mut query = make_query(number);
        change(&mut query);
        times.push(time_search(storage, tenant, &query).await);
    }
    percentiles(times)
}

/// Like [`measure_searches`], with a write of the tenant before each search.
async fn measure_searches_after_writes(storage: &Storage, tenant: &TenantId, first: u64) -> (f64, f64) {
    let mut times = Vec::new();
    for number in 0..SEARCHES_AFTER_WRITES {
        let begins = first + number * PASSAGES_PER_WRITE;
        write_passages(storage, tenant, 0, begins..begins + PASSAGES_PER_WRITE).await;
        times.push(time_search(storage, tenant, &make_query(number)).await);
    }
    percentiles(times)
}

fn percentiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 95 / 100])
}

/// Returns the share of the ten nearest passages that searches find.
async fn measure_recall(storage: &Storage, tenant: &TenantId, passages: u64) -> f64 {
    let queries: Vec<_> = (0..RECALL_QUERIES).map(make_query).collect();
    let mut nearest: Vec<Vec<(f32, u64)>> = vec![Vec::new(); queries.len()];
    for number in 0..passages {
        let vector = passage_vector(number);
        for (query, nearest) in queries.iter().zip(&mut nearest) {
            let similarity: f32 = vector.iter().zip(&query.dense_vector).map(|(a, b)| a * b).sum();
            if nearest.len() < 10 || similarity > nearest[9].0 {
                let place = nearest.partition_point(|(other, _)| *other >= similarity);
                nearest.insert(place, (similarity, number));
                nearest.truncate(10);
            }
        }
    }
    let mut found = 0_u32;
    for (mut query, nearest) in queries.into_iter().zip(nearest) {
        query.query_text.clear();
        let hits = storage
            .vectors
            .search_by_vector_and_words(tenant, &query)
            .await
            .unwrap();
        let is_hit = |number: u64| {
            let passage = make_passage(0, number);
            hits.iter()
                .any(|hit| hit.page == passage.page && hit.text == passage.text)
        };
        found += nearest
            .iter()
            .filter(|(_, number)| is_hit(*number))
            .map(|_| 1)
            .sum::<u32>();
    }
    f64::from(found) / (10 * RECALL_QUERIES) as f64
}

fn bytes_of_folder(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_of_folder(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Returns the resident memory of this process without pages of files, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

async fn open(folder: &Path) -> Storage {
    Storage::open_or_create(folder, DIMENSIONS, MODEL).await.unwrap()
}

/// Opens the folder and searches once. Returns the storage, the time and the number of the hits.
async fn open_and_search(folder: &Path, tenant: &TenantId) -> (Storage, Duration, Duration) {
    let begin = Instant::now();
    let storage = open(folder).await;
    let opened = begin.elapsed();
    let hits = storage
        .vectors
        .search_by_vector_and_words(tenant, &make_query(0))
        .await
        .unwrap();
    assert_eq!(hits.len(), 10);
    (storage, opened, begin.elapsed())
}

async fn remove_document(storage: &Storage, tenant: &TenantId, document: &DocumentId) {
    let removed = storage
        .vectors
        .remove_document_or_page_points(tenant, document, None);
    removed.await.unwrap();
    storage.vectors.flush_points().await.unwrap();
}

async fn assert_finds_nothing(storage: &Storage, tenant: &TenantId, query: &SearchQuery) {
    let found = storage.vectors.search_by_vector_and_words(tenant, query).await;
    assert!(found.unwrap().is_empty());
}

#[tokio::main]
async fn main() {
    let tenant = TenantId::default_tenant();
    if let Ok(folder) = std::env::var(KILLED_WRITER_VARIABLE) {
        // More than the indexes have when the process ends.
        let storage = open(Path::new(&folder)).await;
        let first = 2_000_000;
        write_passages(&storage, &tenant, 0, first..first + 4000).await;
        std::process::abort();
    }
    let last: u64 = std::env::var("WEIR_BENCH_PASSAGES").map_or(1_000_000, |size| size.parse().unwrap());
    let folder =
        tempfile::tempdir_in(std::env::var("WEIR_BENCH_DIR").unwrap_or_else(|_| ".".into())).unwrap();
    let mut storage = open(folder.path()).await;
    let idle_mib = resident_mib();
    let small = |number: u64| format!("small-{number}").parse::<TenantId>().unwrap();
    for number in 0..SMALL_TENANTS {
        let first = 3_000_000 + number * SMALL_TENANT_PASSAGES;
        write_passages(
            &storage,
            &small(number),
            number + 1,
            first..first + SMALL_TENANT_PASSAGES,
        )
        .await;
    }
    println!(
        "passages   inserts/s   hybrid p50 / p95   recall@10   small tenant p50 / p95   label filter p95   memory   bytes each   disk"
    );
    let mut written = 0;
    for size in [10_000, 100_000, 1_000_000] {
        if size > last {
            break;
        }
        // The rate of the last tenth, or of all.
        let measured = if size == 10_000 { size } else { size / 10 };
        write_passages(&storage, &tenant, 0, written..size - measured).await;
        let spent = write_passages(&storage, &tenant, 0, size - measured..size).await;
        written = size;
        let (p50, p95) = measure_searches(&storage, &tenant, |_| ()).await;
        let (small50, small95) = measure_searches(&storage, &small(7), |_| ()).await;
        let (_, label95) = measure_searches(&storage, &tenant, |query| {
            query.labels = vec![("part".into(), "3".into())]
        })
        .await;
        let recall = measure_recall(&storage, &tenant, size).await;
        let memory = resident_mib() - idle_mib;
        println!(
            "{size:>8}   {:>9.0}   {p50:>6.1} / {p95:>5.1} ms   {recall:>9.3}   {small50:>8.2} / {small95:>5.2} ms      {label95:>6.1} ms   {memory:>4} MiB   {:>8}   {:>4} MB",
            measured as f64 / spent.as_secs_f64(),
            (memory << 20) / size,
            bytes_of_folder(folder.path()) / 1_000_000,
        );
    }
    let (p50, p95) = measure_searches_after_writes(&storage, &tenant, 4_000_000).await;
    println!(
        "search right after a write of {PASSAGES_PER_WRITE} passages of the same tenant: {p50:.1} / {p95:.1} ms"
    );
    let writes = write_passages(&storage, &tenant, 0, 5_000_000..5_010_000);
    let small_tenant = small(7);
    let ((p50, p95), _) = tokio::join!(measure_searches(&storage, &small_tenant, |_| ()), writes);
    println!("small tenant while the large one writes: {p50:.2} / {p95:.2} ms");
    storage.close().await.unwrap();
    let (opened, after_close, with_search) = open_and_search(folder.path(), &tenant).await;
    storage = opened;
    println!("opening after a clean stop: {after_close:.2?}, with the first search {with_search:.2?}");

    let document = document_id(1);
    let begin = Instant::now();
    remove_document(&storage, &tenant, &document).await;
    let removed = begin.elapsed();
    let query = SearchQuery {
        documents: vec![document],
        ..make_query(1)
    };
    let begin = Instant::now();
    assert_finds_nothing(&storage, &tenant, &query).await;
    println!(
        "removal of a document of 10,000 passages: {removed:.2?}, and the next search {:.2?}",
        begin.elapsed()
    );
    let begin = Instant::now();
    storage.compact_index().await.unwrap();
    println!("its text gone from all files: {:.2?}", begin.elapsed());
    let ends = PASSAGES_PER_DOCUMENT * 2;
    let spent = write_passages(&storage, &tenant, 0, PASSAGES_PER_DOCUMENT..ends).await;
    println!("the document written again: {spent:.2?}");
    remove_document(&storage, &tenant, &document).await;
    storage.close().await.unwrap();

    let killed = Command::new(std::env::current_exe().unwrap())
        .env(KILLED_WRITER_VARIABLE, folder.path())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!killed.success());
    let (storage, opened, with_search) = open_and_search(folder.path(), &tenant).await;
    println!("opening after a killed process: {opened:.2?}, with the first search {with_search:.2?}");
    let counted = storage
        .vectors
        .count_passages_by_page(&tenant, &document_id(200))
        .await
        .unwrap();
    assert_eq!(counted.iter().map(|(_, passages)| passages).sum::<u32>(), 4000);
    assert_finds_nothing(&storage, &tenant, &query).await;
    storage.close().await.unwrap();
}

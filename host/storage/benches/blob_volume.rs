//! Measures the blobs of many pages, 1,000 in each document: `cargo bench -p weir-storage --bench blob_volume`.
//!
//! Environment: `WEIR_BENCH_DIR`, the folder on the disk to measure (default: the current folder); `WEIR_BENCH_PAGES`, the number of
//! pages (default: 1000); `WEIR_BENCH_IMAGE_BYTES`, the size of a page image (default: 100000); `WEIR_BENCH_FLUSH_PAGES`, the pages
//! between two flushes (default: 8).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::future::join_all;
use weir_core::search::{page_image_blob_key, page_lines_blob_key};
use weir_core::{DocumentId, TenantId};
use weir_storage::Storage;

/// Bytes of the lines of a page, as in a text page of the samples.
const LINES_BYTES: usize = 8_000;
/// Names the data folder for the process that fills it and is killed.
const FILL_VARIABLE: &str = "WEIR_BENCH_FILL";

fn document_of_page(page: u32) -> DocumentId {
    DocumentId::from_content(&((page - 1) / 1000).to_le_bytes())
}

fn number_from_environment(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

async fn open_storage(data: &Path) -> Storage {
    Storage::open_or_create(data, 16, "bench").await.unwrap()
}

/// Writes the pages. The blobs of a group of pages are put at the same time and then flushed.
async fn fill(storage: &Storage, pages: u32) -> Vec<Duration> {
    let tenant = TenantId::default_tenant();
    let image = vec![7; number_from_environment("WEIR_BENCH_IMAGE_BYTES", 100_000) as usize];
    let flush_pages = number_from_environment("WEIR_BENCH_FLUSH_PAGES", 8);
    let mut times = Vec::new();
    let all: Vec<u32> = (1..=pages).collect();
    for group in all.chunks(flush_pages as usize) {
        let begin = Instant::now();
        join_all(group.iter().map(|page| {
            let lines = format!("{page:08}").repeat(LINES_BYTES / 8);
            let (tenant, image) = (&tenant, &image);
            async move {
                let document = &document_of_page(*page);
                let key = page_image_blob_key(document, *page, 150, "jpg");
                storage.blobs.put_blob(tenant, &key, image).await.unwrap();
                let key = page_lines_blob_key(document, *page);
                storage
                    .blobs
                    .put_blob(tenant, &key, lines.as_bytes())
                    .await
                    .unwrap();
            }
        }))
        .await;
        storage.blobs.flush_blobs().await.unwrap();
        times.push(begin.elapsed());
    }
    times
}

/// Returns the files, the folders and the bytes of their blocks in a data folder's blobs.
fn count_files(data: &Path) -> (u64, u64, u64) {
    let (mut files, mut folders, mut bytes) = (0, 0, 0);
    let mut paths = vec![
        data.join("blobs"),
        data.join("blobs.db"),
        data.join("blobs.db-wal"),
        data.join("blobs.db-shm"),
    ];
    while let Some(path) = paths.pop() {
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            folders += 1;
            paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files += 1;
        }
    }
    (files, folders, bytes)
}

/// Returns the seconds of CPU time that this process has used.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum();
    ticks / 100.0
}

#[tokio::main]
async fn main() {
    let pages = number_from_environment("WEIR_BENCH_PAGES", 1000);
    if let Ok(data) = std::env::var(FILL_VARIABLE) {
        let storage = open_storage(Path::new(&data)).await;
        fill(&storage, pages).await;
        std::process::abort();
    }
    let folder = std::env::var("WEIR_BENCH_DIR").unwrap_or_else(|_| ".".into());
    let dir = tempfile::tempdir_in(&folder).unwrap();
    let data = dir.path().join("data");
    let storage = open_storage(&data).await;
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let mut times = fill(&storage, pages).await;
    let (took, cpu) = (begin.elapsed(), cpu_seconds() - cpu);
    times.sort_unstable();
    println!(
        "write {pages} pages: {:.2} s, CPU {cpu:.2} s; a group of pages and its flush: median {:.1} ms, worst {:.1} ms",
        took.as_secs_f64(),
        times[times.len() / 2].as_secs_f64() * 1000.0,
        times[times.len() - 1].as_secs_f64() * 1000.0
    );
    let tenant = TenantId::default_tenant();
    for run in ["first", "second"] {
        let (begin, cpu) = (Instant::now(), cpu_seconds());
        for page in 1..=pages {
            let key = page_lines_blob_key(&document_of_page(page), page);
            let lines = storage.blobs.get_blob(&tenant, &key).await.unwrap().unwrap();
            assert_eq!(lines.len(), LINES_BYTES);
        }
        println!(
            "{run} read of the lines in order: {:.0} ms, CPU {:.2} s",
            begin.elapsed().as_secs_f64() * 1000.0,
            cpu_seconds() - cpu
        );
    }
    let begin = Instant::now();
    for page in 1..=pages {
        let key = page_image_blob_key(&document_of_page(page), page, 150, "jpg");
        storage.blobs.get_blob(&tenant, &key).await.unwrap().unwrap();
    }
    println!(
        "read of the images in order: {:.0} ms",
        begin.elapsed().as_secs_f64() * 1000.0
    );
    storage.close().await.unwrap();
    let (files, folders, bytes) = count_files(&data);
    println!(
        "{files} files, {folders} folders, {:.2} MB on the disk",
        bytes as f64 / 1e6
    );
    let storage = open_storage(&data).await;
    let begin = Instant::now();
    storage
        .blobs
        .delete_blobs_with_prefix(&tenant, &format!("{}/", document_of_page(1)))
        .await
        .unwrap();
    storage.blobs.flush_blobs().await.unwrap();
    println!(
        "delete of the first document and its flush: {:.0} ms",
        begin.elapsed().as_secs_f64() * 1000.0
    );
    storage.close().await.unwrap();

    let data = dir.path().join("killed");
    let filled = Command::new(std::env::current_exe().unwrap())
        .env(FILL_VARIABLE, &data)
        .status()
        .unwrap();
    assert!(!filled.success(), "the process must end by its signal");
    for start in ["after the kill", "after a close"] {
        let begin = Instant::now();
        let storage = open_storage(&data).await;
        println!("open {start}: {:.0} ms", begin.elapsed().as_secs_f64() * 1000.0);
        storage.close().await.unwrap();
    }
}

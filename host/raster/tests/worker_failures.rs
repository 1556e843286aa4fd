//! Workers that die or hang, and memory that is always released.
//!
//! Child processes belong to the whole process, so these tests run one at a time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{
    PIXELS_AND_JPEG, PIXELS_AT_72_DPI, TempFiles, child_pids, open_in_new_pool, pixel_at, test_config,
};
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use weir_core::error::RasterError;
use weir_core::page::RawPageImage;
use weir_core::ports::{OpenedPdf, PdfFileToOpen, RasterizeOptions, RasterizeOutput, Rasterizer as _};
use weir_raster::{RasterConfig, RasterPool};

static TEST_LOCK: Mutex<()> = Mutex::const_new(());

async fn lock_test() -> MutexGuard<'static, ()> {
    let guard = TEST_LOCK.lock().await;
    assert_eq!(child_pids(), HashSet::new());
    guard
}

fn one_worker() -> RasterConfig {
    RasterConfig {
        workers: 1,
        ..test_config()
    }
}

/// Process id of the only worker.
fn only_worker_pid() -> u32 {
    let workers: Vec<u32> = child_pids().into_iter().collect();
    assert_eq!(workers.len(), 1);
    workers[0]
}

fn send_signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Returns the CPU time of a process, in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let field = |n: usize| {
        after
            .split_whitespace()
            .nth(n)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    field(11) + field(12)
}

/// Returns the state of a process; `Z` for one that has died and is not reaped yet.
fn process_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}

/// Waits until `done` returns true, for one minute at most.
async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A document with one page that takes about a second to draw.
fn slow_page_pdf() -> Vec<u8> {
    weir_samples::document_with_many_objects(60_000)
}

/// Draws a page in the background.
async fn spawn_draw(
    document: &Arc<dyn OpenedPdf>,
    page: u32,
    drawing: RasterizeOptions,
) -> JoinHandle<Result<RasterizeOutput, RasterError>> {
    let document = Arc::clone(document);
    let handle = tokio::spawn(async move { document.reserve_and_rasterize_page(page, drawing).await });
    tokio::task::yield_now().await;
    handle
}

fn has_dark_pixels(image: &RawPageImage) -> bool {
    (0..image.height).any(|y| image.row_pixels(y).unwrap().iter().any(|byte| *byte < 64))
}

#[tokio::test]
async fn killed_worker_costs_one_retry_of_its_page() {
    let _guard = lock_test().await;
    let (pool, document) = open_in_new_pool(one_worker(), &slow_page_pdf()).await;
    let first = only_worker_pid();
    let before = cpu_ticks(first);
    let drawing = spawn_draw(&document, 1, PIXELS_AND_JPEG).await;
    wait_until("drawing", || cpu_ticks(first) > before + 10).await;
    send_signal(first, Signal::KILL);
    let page = drawing.await.unwrap().unwrap();
    assert!(has_dark_pixels(&page.image.unwrap()) && page.encoded.is_some());
    assert_eq!(
        (
            pool.snapshot_counters().workers_lost,
            pool.snapshot_counters().workers_started
        ),
        (1, 2)
    );
    assert_ne!(only_worker_pid(), first);
    assert_eq!(pool.available_image_bytes(), test_config().max_image_bytes);
    drop(pool);
}

#[tokio::test]
async fn page_that_kills_every_worker_fails_after_two() {
    let _guard = lock_test().await;
    let (pool, document) =
        open_in_new_pool(one_worker(), &weir_samples::document_with_many_objects(240_000)).await;
    let drawing = spawn_draw(&document, 1, PIXELS_AND_JPEG).await;
    let mut killed = HashSet::new();
    wait_until("the end of the page", || {
        for pid in child_pids() {
            // Not while it starts or opens the document: that is not the fault of the page, and takes a fraction of the time that drawing
            // this page takes.
            if pool.snapshot_counters().workers_started > killed.len() as u64
                && cpu_ticks(pid) > 80
                && killed.insert(pid)
            {
                send_signal(pid, Signal::KILL);
            }
        }
        drawing.is_finished()
    })
    .await;
    let error = drawing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), "worker-died", "{error}");
    assert_eq!((killed.len(), pool.snapshot_counters().workers_lost), (2, 2));
    assert_eq!(pool.available_image_bytes(), test_config().max_image_bytes);
}

#[tokio::test]
async fn worker_that_died_idle_is_replaced_without_using_a_retry() {
    let _guard = lock_test().await;
    let (pool, document) = open_in_new_pool(one_worker(), &weir_samples::generate_text_document(2, 1)).await;
    document
        .reserve_and_rasterize_page(1, PIXELS_AT_72_DPI)
        .await
        .unwrap();
    let first = only_worker_pid();
    send_signal(first, Signal::KILL);
    wait_until("its death", || process_state(first) == Some('Z')).await;
    document
        .reserve_and_rasterize_page(2, PIXELS_AT_72_DPI)
        .await
        .unwrap();
    assert_eq!(
        (
            pool.snapshot_counters().workers_lost,
            pool.snapshot_counters().workers_started
        ),
        (1, 2)
    );
    assert_ne!(only_worker_pid(), first);
}

#[tokio::test]
async fn stuck_worker_is_replaced_after_the_stall_timeout() {
    let _guard = lock_test().await;
    let stalling = RasterConfig {
        stall_timeout_seconds: 1,
        ..one_worker()
    };
    let (pool, document) = open_in_new_pool(stalling, &weir_samples::generate_text_document(2, 1)).await;
    document
        .reserve_and_rasterize_page(1, PIXELS_AT_72_DPI)
        .await
        .unwrap();
    let first = only_worker_pid();
    send_signal(first, Signal::STOP);
    let begun = Instant::now();
    let page = document
        .reserve_and_rasterize_page(2, PIXELS_AT_72_DPI)
        .await
        .unwrap();
    assert!(has_dark_pixels(&page.image.unwrap()));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(
        (
            pool.snapshot_counters().workers_lost,
            pool.snapshot_counters().workers_started
        ),
        (1, 2)
    );
    assert_ne!(only_worker_pid(), first);
}

#[tokio::test]
async fn page_on_which_every_worker_hangs_fails_after_two() {
    let _guard = lock_test().await;
    // The longer timeout applies to a worker that is stopped while it opens the document again.
    let impatient = RasterConfig {
        stall_timeout_seconds: 2,
        page_timeout_seconds: 6,
        ..one_worker()
    };
    let (pool, document) = open_in_new_pool(impatient, &slow_page_pdf()).await;
    let drawing = spawn_draw(&document, 1, PIXELS_AND_JPEG).await;
    let mut stopped = HashSet::new();
    wait_until("the end of the page", || {
        for pid in child_pids() {
            // Not while it starts: that is not the fault of the page.
            if pool.snapshot_counters().workers_started > pool.snapshot_counters().workers_lost
                && cpu_ticks(pid) > 5
                && stopped.insert(pid)
            {
                send_signal(pid, Signal::STOP);
            }
        }
        drawing.is_finished()
    })
    .await;
    let error = drawing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), "page-timeout", "{error}");
    assert_eq!(pool.snapshot_counters().workers_lost, 2);
    assert_eq!(pool.available_image_bytes(), test_config().max_image_bytes);
}

#[tokio::test]
async fn page_with_progress_fails_after_the_page_timeout() {
    let _guard = lock_test().await;
    let hasty = RasterConfig {
        page_timeout_seconds: 1,
        stall_timeout_seconds: 3600,
        ..one_worker()
    };
    let (pool, document) = open_in_new_pool(hasty, &weir_samples::document_with_many_objects(600_000)).await;
    let begun = Instant::now();
    let error = document
        .reserve_and_rasterize_page(1, PIXELS_AND_JPEG)
        .await
        .unwrap_err();
    assert_eq!(error, RasterError::PageTimeout { page: 1, seconds: 1 });
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(
        (
            pool.snapshot_counters().workers_lost,
            pool.available_image_bytes()
        ),
        (2, test_config().max_image_bytes)
    );
}

#[tokio::test]
async fn page_images_stay_within_the_budget_and_release_all_of_it() {
    let _guard = lock_test().await;
    let tight = RasterConfig {
        max_image_bytes: 24 << 20,
        max_page_image_bytes: 16 << 20,
        ..test_config()
    };
    let (pool, document) = open_in_new_pool(tight, &weir_samples::generate_text_document(200, 1)).await;
    let held = std::cell::Cell::new(0_u64);
    let peak = std::cell::Cell::new(0_u64);
    let pages = (1..=200).map(|number| {
        let (document, pool, held, most) = (&document, &pool, &held, &peak);
        async move {
            let page = document
                .reserve_and_rasterize_page(number, PIXELS_AND_JPEG)
                .await
                .unwrap();
            let image = page.image.unwrap();
            let bytes = (image.stride * image.height as usize) as u64;
            held.set(held.get() + bytes);
            most.set(most.get().max(held.get()));
            assert!(held.get() <= (24 << 20) - pool.available_image_bytes());
            // A later stage uses the image and needs the text of the page for that.
            assert!(!document.read_text_layer(number).await.unwrap().is_empty());
            held.set(held.get() - bytes);
        }
    });
    join_all(pages).await;
    let counters = pool.snapshot_counters();
    assert!(
        peak.get() >= 2 * 2_000_000,
        "pages were drawn one by one: {}",
        peak.get()
    );
    assert!(counters.peak_image_bytes <= 24 << 20, "{counters:?}");
    assert_eq!(pool.available_image_bytes(), 24 << 20);
    assert_eq!((counters.workers_lost, counters.queued_requests), (0, 0));
}

#[tokio::test]
async fn small_page_waits_behind_large_page_until_it_is_canceled() {
    let _guard = lock_test().await;
    let tight = RasterConfig {
        max_image_bytes: 24 << 20,
        ..one_worker()
    };
    let (pool, document) = open_in_new_pool(tight, &weir_samples::generate_scanned_book(3)).await;
    let first = document
        .reserve_and_rasterize_page(1, PIXELS_AND_JPEG)
        .await
        .unwrap();
    let second = document
        .reserve_and_rasterize_page(2, PIXELS_AND_JPEG)
        .await
        .unwrap();
    // Both images are held, so a third page has to wait, and so does a small page behind it. Text does not wait.
    let third = spawn_draw(&document, 3, PIXELS_AND_JPEG).await;
    wait_until("queueing", || pool.snapshot_counters().queued_requests == 1).await;
    let small = spawn_draw(&document, 3, PIXELS_AT_72_DPI).await;
    assert!(document.read_text_layer(3).await.unwrap().is_empty());
    assert!(!third.is_finished() && !small.is_finished());
    // The page at the front is canceled, and the small page fits.
    third.abort();
    assert!(third.await.unwrap_err().is_cancelled());
    small.await.unwrap().unwrap();
    drop((first, second));
    assert_eq!(pool.available_image_bytes(), 24 << 20);
}

#[tokio::test]
async fn one_flow_leaves_memory_and_workers_for_another() {
    let _guard = lock_test().await;
    let tight = RasterConfig {
        max_image_bytes: 32 << 20,
        ..one_worker()
    };
    let pool = RasterPool::new(tight).unwrap();
    let files = TempFiles::new();
    let bulk = pool
        .open_document(&files.write_source("bulk.pdf", &weir_samples::generate_scanned_book(20)))
        .await
        .unwrap();
    let source = PdfFileToOpen {
        flow_id: 1,
        ..files.write_source("small.pdf", &weir_samples::generate_text_document(1, 1))
    };
    let small = pool.open_document(&source).await.unwrap();
    // The first flow holds its page images, as an OCR stage that does not finish would; its other pages wait.
    let drawn = Arc::new(std::sync::Mutex::new(Vec::new()));
    let pages: Vec<_> = (1..=20)
        .map(|page| {
            let (bulk, drawn) = (Arc::clone(&bulk), Arc::clone(&drawn));
            tokio::spawn(async move {
                let page = bulk
                    .reserve_and_rasterize_page(page, PIXELS_AND_JPEG)
                    .await
                    .unwrap();
                drawn.lock().unwrap().push(page);
            })
        })
        .collect();
    let held = || drawn.lock().unwrap().len();
    wait_until("holding its share", || {
        let held = held() as u64;
        held > 1 && pool.snapshot_counters().queued_requests + held == 20
    })
    .await;
    let before = held();
    let page = tokio::time::timeout(
        Duration::from_secs(60),
        small.reserve_and_rasterize_page(1, PIXELS_AND_JPEG),
    )
    .await;
    page.expect("no memory was left for the other flow").unwrap();
    assert_eq!(held(), before);
    pages.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn dropped_draw_futures_release_memory_and_leave_the_queue() {
    let _guard = lock_test().await;
    let (pool, document) = open_in_new_pool(one_worker(), &slow_page_pdf()).await;
    let first = only_worker_pid();
    let before = cpu_ticks(first);
    let drawing = spawn_draw(&document, 1, PIXELS_AND_JPEG).await;
    let waiting = spawn_draw(&document, 1, PIXELS_AND_JPEG).await;
    wait_until("drawing", || cpu_ticks(first) > before + 10).await;
    wait_until("queueing", || pool.snapshot_counters().queued_requests == 1).await;
    drawing.abort();
    waiting.abort();
    assert!(drawing.await.unwrap_err().is_cancelled() && waiting.await.unwrap_err().is_cancelled());
    wait_until("giving back", || {
        pool.available_image_bytes() == test_config().max_image_bytes
    })
    .await;
    assert_eq!(pool.snapshot_counters().queued_requests, 0);
    // A worker serves the next request, whether the old one noticed the cancellation in time or was replaced.
    assert!(document.read_page_facts(1..2).await.unwrap()[0].readable);
}

#[tokio::test]
async fn workers_are_recycled_and_page_images_outlive_them() {
    let _guard = lock_test().await;
    let young = RasterConfig {
        max_pages_per_worker: 5,
        ..one_worker()
    };
    let (pool, document) = open_in_new_pool(young, &weir_samples::generate_text_document(12, 1)).await;
    let mut images = Vec::new();
    for page in 1..=12 {
        let image = document
            .reserve_and_rasterize_page(page, PIXELS_AT_72_DPI)
            .await
            .unwrap()
            .image
            .unwrap();
        assert_eq!(pixel_at(&image, 0.01, 0.01), [255; 3]);
        images.push(image);
    }
    // Page images outlive the workers that drew them.
    assert!(images.iter().all(has_dark_pixels));
    let counters = pool.snapshot_counters();
    assert_eq!(
        (
            counters.workers_recycled,
            counters.workers_started,
            counters.workers_lost
        ),
        (2, 3, 0)
    );
}

//! Workers that die or get stuck, and memory that is always given back.
//!
//! Children belong to the whole process, so these tests take turns.

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

use common::{BOTH, COARSE, Files, children, colour, config, opened};
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use weir_core::error::RasterError;
use weir_core::page::PageImage;
use weir_core::ports::{Drawing, DrawnPage, OpenDocument, Rasterizer as _, Source};
use weir_raster::{RasterConfig, RasterPool};

static TURN: Mutex<()> = Mutex::const_new(());

async fn turn() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().await;
    assert_eq!(children(), HashSet::new());
    turn
}

fn one_worker() -> RasterConfig {
    RasterConfig {
        workers: 1,
        ..config()
    }
}

/// The only worker.
fn worker() -> u32 {
    let workers: Vec<u32> = children().into_iter().collect();
    assert_eq!(workers.len(), 1);
    workers[0]
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Hundredths of a second of processor time it has used.
fn processor_time(pid: u32) -> u64 {
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

/// `Z` for one that is dead and not yet reaped.
fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}

/// Waits until `done`, which must not take long.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A page that takes about a second.
fn slow_page() -> Vec<u8> {
    weir_samples::many_objects(60_000)
}

/// Draws in the background.
async fn draw(
    document: &Arc<dyn OpenDocument>,
    page: u32,
    drawing: Drawing,
) -> JoinHandle<Result<DrawnPage, RasterError>> {
    let document = Arc::clone(document);
    let handle = tokio::spawn(async move { document.draw(page, drawing).await });
    tokio::task::yield_now().await;
    handle
}

fn is_drawn(image: &PageImage) -> bool {
    (0..image.height).any(|y| image.row(y).unwrap().iter().any(|byte| *byte < 64))
}

#[tokio::test]
async fn a_worker_killed_in_mid_page_costs_one_retry() {
    let _turn = turn().await;
    let (pool, document) = opened(one_worker(), &slow_page()).await;
    let first = worker();
    let before = processor_time(first);
    let drawing = draw(&document, 1, BOTH).await;
    until("drawing", || processor_time(first) > before + 10).await;
    signal(first, Signal::KILL);
    let page = drawing.await.unwrap().unwrap();
    assert!(is_drawn(&page.image.unwrap()) && page.encoded.is_some());
    assert_eq!((pool.counters().lost, pool.counters().started), (1, 2));
    assert_ne!(worker(), first);
    assert_eq!(pool.free_image_bytes(), config().image_bytes);
    drop(pool);
}

#[tokio::test]
async fn a_page_that_kills_every_worker_is_given_up_after_two() {
    let _turn = turn().await;
    let (pool, document) = opened(one_worker(), &weir_samples::many_objects(240_000)).await;
    let drawing = draw(&document, 1, BOTH).await;
    let mut killed = HashSet::new();
    until("the end of the page", || {
        for pid in children() {
            // Not while it starts or opens the document, which is no fault of the page and takes a fraction of the
            // time that this page does.
            if pool.counters().started > killed.len() as u64 && processor_time(pid) > 80 && killed.insert(pid)
            {
                signal(pid, Signal::KILL);
            }
        }
        drawing.is_finished()
    })
    .await;
    let error = drawing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), "worker-died", "{error}");
    assert_eq!((killed.len(), pool.counters().lost), (2, 2));
    assert_eq!(pool.free_image_bytes(), config().image_bytes);
}

#[tokio::test]
async fn a_worker_that_died_idle_is_replaced_without_using_up_a_try() {
    let _turn = turn().await;
    let (pool, document) = opened(one_worker(), &weir_samples::text_document(2, 1)).await;
    document.draw(1, COARSE).await.unwrap();
    let first = worker();
    signal(first, Signal::KILL);
    until("its death", || state_of(first) == Some('Z')).await;
    document.draw(2, COARSE).await.unwrap();
    assert_eq!((pool.counters().lost, pool.counters().started), (1, 2));
    assert_ne!(worker(), first);
}

#[tokio::test]
async fn a_stuck_worker_is_replaced_after_the_stall_deadline() {
    let _turn = turn().await;
    let stalling = RasterConfig {
        stall_seconds: 1,
        ..one_worker()
    };
    let (pool, document) = opened(stalling, &weir_samples::text_document(2, 1)).await;
    document.draw(1, COARSE).await.unwrap();
    let first = worker();
    signal(first, Signal::STOP);
    let begun = Instant::now();
    let page = document.draw(2, COARSE).await.unwrap();
    assert!(is_drawn(&page.image.unwrap()));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!((pool.counters().lost, pool.counters().started), (1, 2));
    assert_ne!(worker(), first);
}

#[tokio::test]
async fn a_page_on_which_every_worker_gets_stuck_is_given_up_after_two() {
    let _turn = turn().await;
    // The longer deadline is for a worker that is stopped while it opens the document again.
    let impatient = RasterConfig {
        stall_seconds: 2,
        page_seconds: 6,
        ..one_worker()
    };
    let (pool, document) = opened(impatient, &slow_page()).await;
    let drawing = draw(&document, 1, BOTH).await;
    let mut stopped = HashSet::new();
    until("the end of the page", || {
        for pid in children() {
            // Not while it starts: that is no fault of the page.
            if pool.counters().started > pool.counters().lost
                && processor_time(pid) > 5
                && stopped.insert(pid)
            {
                signal(pid, Signal::STOP);
            }
        }
        drawing.is_finished()
    })
    .await;
    let error = drawing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), "page-deadline", "{error}");
    assert_eq!(pool.counters().lost, 2);
    assert_eq!(pool.free_image_bytes(), config().image_bytes);
}

#[tokio::test]
async fn a_page_that_gets_on_but_takes_too_long_is_given_up() {
    let _turn = turn().await;
    let hasty = RasterConfig {
        page_seconds: 1,
        stall_seconds: 3600,
        ..one_worker()
    };
    let (pool, document) = opened(hasty, &weir_samples::many_objects(600_000)).await;
    let begun = Instant::now();
    let error = document.draw(1, BOTH).await.unwrap_err();
    assert_eq!(error, RasterError::Deadline { page: 1, seconds: 1 });
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(
        (pool.counters().lost, pool.free_image_bytes()),
        (2, config().image_bytes)
    );
}

#[tokio::test]
async fn page_images_never_take_more_than_the_budget_and_all_of_it_comes_back() {
    let _turn = turn().await;
    let tight = RasterConfig {
        image_bytes: 24 << 20,
        page_bytes: 16 << 20,
        ..config()
    };
    let (pool, document) = opened(tight, &weir_samples::text_document(200, 1)).await;
    let held = std::cell::Cell::new(0_u64);
    let most = std::cell::Cell::new(0_u64);
    let pages = (1..=200).map(|number| {
        let (document, pool, held, most) = (&document, &pool, &held, &most);
        async move {
            let page = document.draw(number, BOTH).await.unwrap();
            let image = page.image.unwrap();
            let bytes = (image.stride * image.height as usize) as u64;
            held.set(held.get() + bytes);
            most.set(most.get().max(held.get()));
            assert!(held.get() <= (24 << 20) - pool.free_image_bytes());
            // Someone downstream works with it, and needs the page's text for that.
            assert!(!document.text(number).await.unwrap().is_empty());
            held.set(held.get() - bytes);
        }
    });
    join_all(pages).await;
    let counters = pool.counters();
    assert!(
        most.get() >= 2 * 2_000_000,
        "pages were drawn one by one: {}",
        most.get()
    );
    assert!(counters.peak_image_bytes <= 24 << 20, "{counters:?}");
    assert_eq!(pool.free_image_bytes(), 24 << 20);
    assert_eq!((counters.lost, counters.queued), (0, 0));
}

#[tokio::test]
async fn a_large_page_is_not_overtaken_for_ever() {
    let _turn = turn().await;
    let tight = RasterConfig {
        image_bytes: 24 << 20,
        ..one_worker()
    };
    let (pool, document) = opened(tight, &weir_samples::scanned_book(3)).await;
    let first = document.draw(1, BOTH).await.unwrap();
    let second = document.draw(2, BOTH).await.unwrap();
    // Both are held, so a third has to wait, and a small one behind it, too; text does not.
    let third = draw(&document, 3, BOTH).await;
    until("queueing", || pool.counters().queued == 1).await;
    let small = draw(&document, 3, COARSE).await;
    assert!(document.text(3).await.unwrap().is_empty());
    assert!(!third.is_finished() && !small.is_finished());
    // The one in front is not wanted any more: the small one fits.
    third.abort();
    assert!(third.await.unwrap_err().is_cancelled());
    small.await.unwrap().unwrap();
    drop((first, second));
    assert_eq!(pool.free_image_bytes(), 24 << 20);
}

#[tokio::test]
async fn one_party_leaves_memory_and_workers_for_another() {
    let _turn = turn().await;
    let tight = RasterConfig {
        image_bytes: 32 << 20,
        ..one_worker()
    };
    let pool = RasterPool::new(tight).unwrap();
    let files = Files::new();
    let bulk = pool
        .open(&files.source("bulk.pdf", &weir_samples::scanned_book(20)))
        .await
        .unwrap();
    let source = Source {
        party: 1,
        ..files.source("small.pdf", &weir_samples::text_document(1, 1))
    };
    let small = pool.open(&source).await.unwrap();
    // The pages of one are held as by OCR that does not come to an end; the others of it wait.
    let drawn = Arc::new(std::sync::Mutex::new(Vec::new()));
    let pages: Vec<_> = (1..=20)
        .map(|page| {
            let (bulk, drawn) = (Arc::clone(&bulk), Arc::clone(&drawn));
            tokio::spawn(async move {
                let page = bulk.draw(page, BOTH).await.unwrap();
                drawn.lock().unwrap().push(page);
            })
        })
        .collect();
    let held = || drawn.lock().unwrap().len();
    until("holding its share", || {
        let held = held() as u64;
        held > 1 && pool.counters().queued + held == 20
    })
    .await;
    let before = held();
    let page = tokio::time::timeout(Duration::from_secs(60), small.draw(1, BOTH)).await;
    page.expect("there is no memory left").unwrap();
    assert_eq!(held(), before);
    pages.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn dropped_futures_leave_nothing_behind() {
    let _turn = turn().await;
    let (pool, document) = opened(one_worker(), &slow_page()).await;
    let first = worker();
    let before = processor_time(first);
    let drawing = draw(&document, 1, BOTH).await;
    let waiting = draw(&document, 1, BOTH).await;
    until("drawing", || processor_time(first) > before + 10).await;
    until("queueing", || pool.counters().queued == 1).await;
    drawing.abort();
    waiting.abort();
    assert!(drawing.await.unwrap_err().is_cancelled() && waiting.await.unwrap_err().is_cancelled());
    until("giving back", || pool.free_image_bytes() == config().image_bytes).await;
    assert_eq!(pool.counters().queued, 0);
    // The worker is there for the next one, whether it noticed in time or was replaced.
    assert!(document.facts(1..2).await.unwrap()[0].readable);
}

#[tokio::test]
async fn workers_are_recycled() {
    let _turn = turn().await;
    let young = RasterConfig {
        recycle_pages: 5,
        ..one_worker()
    };
    let (pool, document) = opened(young, &weir_samples::text_document(12, 1)).await;
    let mut images = Vec::new();
    for page in 1..=12 {
        let image = document.draw(page, COARSE).await.unwrap().image.unwrap();
        assert_eq!(colour(&image, 0.01, 0.01), [255; 3]);
        images.push(image);
    }
    // Pages outlive the workers that drew them.
    assert!(images.iter().all(is_drawn));
    let counters = pool.counters();
    assert_eq!((counters.recycled, counters.started, counters.lost), (2, 3, 0));
}

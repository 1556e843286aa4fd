//! Nothing is left when a pool or its host ends. This is the only test in its program, because descriptors and child processes
//! belong to the whole process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod common;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{PIXELS_AND_JPEG, TempFiles, child_pids, open_descriptor_count, test_config};
use futures::future::join_all;
use weir_core::ports::Rasterizer;
use weir_raster::RasterPool;

/// Set in the environment of a test program that acts as a host and is killed.
const HOST_ROLE_VARIABLE: &str = "WEIR_TEST_HOST";

async fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn no_worker_or_descriptor_is_left_after_shutdown() {
    if std::env::var_os(HOST_ROLE_VARIABLE).is_some() {
        return run_as_host().await;
    }
    check_dropped_pool_leaves_no_process_or_descriptor().await;
    check_workers_end_with_a_killed_host().await;
}

async fn check_dropped_pool_leaves_no_process_or_descriptor() {
    let before = open_descriptor_count();
    let files = TempFiles::new();
    let source = files.write_source("a.pdf", &weir_samples::generate_text_document(30, 1));
    for _round in 0..3 {
        let pool = RasterPool::new(test_config()).unwrap();
        let document = pool.open_document(&source).await.unwrap();
        let pages = (1..=30).map(|page| document.reserve_and_rasterize_page(page, PIXELS_AND_JPEG));
        let mut pages = Box::pin(join_all(pages));
        // Some pages are being drawn when the pool is dropped.
        tokio::select! {
            biased;
            _ = &mut pages => panic!("all pages were drawn before the pool was dropped"),
            () = wait_until(|| pool.snapshot_counters().pages_processed >= 3) => {}
        }
        assert!(!child_pids().is_empty());
        drop(pool);
        assert_eq!(child_pids(), HashSet::new());
        let ended = pages.await;
        assert!(ended.iter().any(Result::is_ok) && ended.iter().any(Result::is_err));
        for error in ended.iter().filter_map(|page| page.as_ref().err()) {
            assert_eq!(error.kind(), "rasterizer-unavailable", "{error}");
        }
        let error = document.read_text_layer(1).await.unwrap_err();
        assert_eq!(error.kind(), "rasterizer-unavailable");
    }
    wait_until(|| open_descriptor_count() <= before).await;
}

async fn run_as_host() {
    let pool = RasterPool::new(test_config()).unwrap();
    let files = TempFiles::new();
    let source = files.write_source("a.pdf", &weir_samples::generate_text_document(1, 1));
    let document = pool.open_document(&source).await.unwrap();
    document
        .reserve_and_rasterize_page(1, PIXELS_AND_JPEG)
        .await
        .unwrap();
    println!("workers: {:?}", child_pids());
    std::future::pending().await
}

async fn check_workers_end_with_a_killed_host() {
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "no_worker_or_descriptor_is_left_after_shutdown",
            "--nocapture",
        ])
        .env(HOST_ROLE_VARIABLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let printed_pid = lines.map_while(Result::ok).find_map(|line| {
        let (_, pids) = line.split_once("workers: {")?;
        pids.strip_suffix('}')?.parse::<u32>().ok()
    });
    let worker = printed_pid.expect("the host did not print the process id of its worker");
    let process = format!("/proc/{worker}");
    assert!(Path::new(&process).exists());
    host.kill().unwrap();
    host.wait().unwrap();
    wait_until(|| !Path::new(&process).exists()).await;
}

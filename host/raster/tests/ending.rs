//! Nothing is left when a pool or its host ends. One test alone in its program, because descriptors and children belong to
//! the whole process.

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

use common::{BOTH, Files, children, config, descriptors};
use futures::future::join_all;
use weir_core::ports::Rasterizer;
use weir_raster::RasterPool;

/// Set for a program that is a host to be killed.
const HOST: &str = "WEIR_TEST_HOST";

async fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn nothing_is_left() {
    if std::env::var_os(HOST).is_some() {
        return be_a_host().await;
    }
    dropping_the_pool_leaves_no_process_and_no_descriptor().await;
    no_worker_survives_a_host_that_is_killed().await;
}

async fn dropping_the_pool_leaves_no_process_and_no_descriptor() {
    let before = descriptors();
    let files = Files::new();
    let source = files.source("a.pdf", &weir_samples::text_document(30, 1));
    for _round in 0..3 {
        let pool = RasterPool::new(config()).unwrap();
        let document = pool.open(&source).await.unwrap();
        let pages = (1..=30).map(|page| document.draw(page, BOTH));
        let mut pages = Box::pin(join_all(pages));
        // Some are under way when the pool goes.
        tokio::select! {
            biased;
            _ = &mut pages => panic!("the pages were drawn before the pool could be dropped"),
            () = until(|| pool.counters().pages >= 3) => {}
        }
        assert!(!children().is_empty());
        drop(pool);
        assert_eq!(children(), HashSet::new());
        let ended = pages.await;
        assert!(ended.iter().any(Result::is_ok) && ended.iter().any(Result::is_err));
        for error in ended.iter().filter_map(|page| page.as_ref().err()) {
            assert_eq!(error.kind(), "rasterizer-unavailable", "{error}");
        }
        let error = document.text(1).await.unwrap_err();
        assert_eq!(error.kind(), "rasterizer-unavailable");
    }
    until(|| descriptors() <= before).await;
}

async fn be_a_host() {
    let pool = RasterPool::new(config()).unwrap();
    let files = Files::new();
    let source = files.source("a.pdf", &weir_samples::text_document(1, 1));
    let document = pool.open(&source).await.unwrap();
    document.draw(1, BOTH).await.unwrap();
    println!("workers: {:?}", children());
    std::future::pending().await
}

async fn no_worker_survives_a_host_that_is_killed() {
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nothing_is_left", "--nocapture"])
        .env(HOST, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let said = lines.map_while(Result::ok).find_map(|line| {
        let (_, pids) = line.split_once("workers: {")?;
        pids.strip_suffix('}')?.parse::<u32>().ok()
    });
    let worker = said.expect("the host did not say which worker it has");
    let process = format!("/proc/{worker}");
    assert!(Path::new(&process).exists());
    host.kill().unwrap();
    host.wait().unwrap();
    until(|| !Path::new(&process).exists()).await;
}

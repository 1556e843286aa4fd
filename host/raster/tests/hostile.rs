//! Files that are broken or meant to do harm, and a sandbox that holds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::{BOTH, COARSE, Files, config, opened, refused};
use weir_core::error::RasterError;
use weir_core::ports::{Drawing, Rasterizer, Source};
use weir_raster::{Lock, RasterConfig, RasterPool, sandbox_report};

#[tokio::test]
async fn what_is_no_pdf_is_told_apart() {
    assert_eq!(refused(config(), b"", None).await, RasterError::Empty);
    let text = refused(config(), b"Dear reader, this is a letter.", None).await;
    assert_eq!(text.kind(), "not-a-pdf");
    let late = [vec![b' '; 1020], b"%PDF-1.7".to_vec()].concat();
    assert_eq!(refused(config(), &late, None).await.kind(), "not-a-pdf");
    assert_eq!(
        refused(config(), b"%PDF-1.7\nnothing follows", None).await.kind(),
        "damaged-pdf"
    );
    let cut = refused(config(), &weir_samples::truncated(), None).await;
    assert_eq!(cut.kind(), "damaged-pdf", "{cut}");
    assert_eq!(
        refused(config(), &weir_samples::zero_pages(), None).await,
        RasterError::NoPages
    );
}

#[tokio::test]
async fn passwords_are_asked_for_and_checked() {
    let safe = weir_samples::encrypted("open sesame");
    assert_eq!(refused(config(), &safe, None).await, RasterError::Encrypted);
    assert_eq!(
        refused(config(), &safe, Some("guess")).await,
        RasterError::WrongPassword
    );
    assert_eq!(
        refused(config(), &safe, Some("open\0sesame")).await,
        RasterError::WrongPassword
    );
}

#[tokio::test]
async fn a_document_with_too_many_pages_is_refused() {
    let config = RasterConfig {
        max_pages: 10,
        ..config()
    };
    let error = refused(config, &weir_samples::empty_pages(11), None).await;
    assert_eq!(error, RasterError::TooManyPages { pages: 11, limit: 10 });
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named() {
    let pool = RasterPool::new(config()).unwrap();
    let files = Files::new();
    let denied = files.source("denied.pdf", b"%PDF-1.7");
    std::fs::set_permissions(&denied.path, PermissionsExt::from_mode(0o000)).unwrap();
    let pipe = files.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let mut cases = vec![
        (files.path("missing.pdf"), "there is no such file"),
        (files.path("."), "it is a directory"),
        (pipe, "it is not a regular file"),
    ];
    if !rustix::process::geteuid().is_root() {
        cases.push((denied.path, "permission denied"));
    }
    for (path, why) in cases {
        let source = Source {
            path,
            password: None,
            party: 0,
        };
        let error = pool.open(&source).await.err().unwrap();
        let expected = RasterError::File { reason: why.into() };
        assert_eq!(error, expected);
    }
    // None of this took a worker.
    assert_eq!(pool.counters().started, 0);
}

#[tokio::test]
async fn without_pdfium_or_a_worker_it_says_what_is_missing() {
    let files = Files::new();
    let source = files.source("a.pdf", &weir_samples::text_document(1, 1));
    let no_library = RasterConfig {
        pdfium: "/nowhere/libpdfium.so".into(),
        ..config()
    };
    let program = |path: &str| RasterConfig {
        worker_command: path.split(' ').map(Into::into).collect(),
        ..config()
    };
    // No program, one that ends at once, one that answers with what it is told, and none at all.
    let no_command = RasterConfig {
        worker_command: Vec::new(),
        ..config()
    };
    for config in [
        no_library,
        program("/nowhere/weir"),
        program("/bin/true"),
        program("/bin/sh -c cat>&0"),
        no_command,
    ] {
        let error = RasterPool::new(config)
            .unwrap()
            .open(&source)
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), "rasterizer-unavailable");
    }
}

#[tokio::test]
async fn a_page_of_two_hundred_inches_is_refused_at_once_or_drawn_coarsely() {
    let (_pool, document) = opened(config(), &weir_samples::huge_page()).await;
    let begun = Instant::now();
    let error = document.draw(1, BOTH).await.unwrap_err();
    assert!(
        matches!(
            error,
            RasterError::PageTooLarge {
                page: 1,
                width: 14_400,
                ..
            }
        ),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
    let roomy = RasterConfig {
        page_bytes: 256 << 20,
        image_bytes: 256 << 20,
        ..config()
    };
    let (_pool, document) = opened(roomy, &weir_samples::huge_page()).await;
    let page = document.draw(1, COARSE).await.unwrap();
    assert!((36..72).contains(&page.dpi), "{page:?}");
}

#[tokio::test]
async fn a_decompression_bomb_harms_nobody() {
    let small = RasterConfig {
        workers: 1,
        worker_bytes: 256 << 20,
        ..config()
    };
    let pool = RasterPool::new(small).unwrap();
    let files = Files::new();
    let bomb = files.source("bomb.pdf", &weir_samples::decompression_bomb());
    let good = files.source("good.pdf", &weir_samples::text_document(2, 1));
    let good = pool.open(&good).await.unwrap();
    good.draw(1, BOTH).await.unwrap();
    match pool.open(&bomb).await {
        Ok(bomb) => {
            let error = bomb.draw(1, BOTH).await.map(|page| page.dpi);
            assert!(
                matches!(
                    &error,
                    Ok(150) | Err(RasterError::WorkerDied { .. } | RasterError::PageUnreadable { .. })
                ),
                "{error:?}"
            );
            let facts = bomb.facts(1..2).await.unwrap();
            assert_eq!(facts.len(), 1);
        }
        Err(error) => assert_eq!(error.kind(), "worker-died", "{error}"),
    }
    good.draw(2, BOTH).await.unwrap();
    assert_eq!(pool.free_image_bytes(), config().image_bytes);
}

#[tokio::test]
async fn one_unreadable_page_does_not_spoil_the_others() {
    let (pool, document) = opened(config(), &weir_samples::one_bad_page(5, 3)).await;
    let facts = document.facts(1..6).await.unwrap();
    let readable: Vec<_> = facts.iter().map(|f| f.readable).collect();
    assert_eq!(readable, [true, true, false, true, true]);
    for page in 1..6 {
        let (drawn, text) = (document.draw(page, BOTH).await, document.text(page).await);
        if page == 3 {
            assert_eq!(drawn.unwrap_err().kind(), "page-unreadable");
            assert_eq!(text.unwrap_err().kind(), "page-unreadable");
        } else {
            assert_eq!(drawn.unwrap().dpi, 150);
            assert_eq!(text.unwrap().len(), 2);
        }
    }
    assert_eq!(pool.counters().lost, 0);
}

#[tokio::test]
async fn a_page_of_very_many_objects_does_not_take_long() {
    let (_pool, document) = opened(config(), &weir_samples::many_objects(60_000)).await;
    let begun = Instant::now();
    let facts = document.facts(1..2).await.unwrap();
    assert!(facts[0].readable && facts[0].text_chars > 60_000);
    assert!(!document.text(1).await.unwrap().is_empty());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_file_truncated_while_it_is_open_costs_a_worker_and_not_the_host() {
    let pool = RasterPool::new(RasterConfig {
        workers: 1,
        ..config()
    })
    .unwrap();
    let files = Files::new();
    let source = files.source("shrinking.pdf", &weir_samples::text_document(300, 1));
    let document = pool.open(&source).await.unwrap();
    document.text(1).await.unwrap();
    std::fs::File::options()
        .write(true)
        .open(&source.path)
        .unwrap()
        .set_len(10)
        .unwrap();
    let error = document.text(200).await.unwrap_err();
    assert!(matches!(error.kind(), "worker-died" | "damaged-pdf"), "{error}");
    let good = files.source("good.pdf", &weir_samples::text_document(1, 1));
    pool.open(&good).await.unwrap().draw(1, BOTH).await.unwrap();
}

#[tokio::test]
async fn the_sandbox_denies_what_it_says() {
    let report = sandbox_report(&config()).await.unwrap();
    assert_eq!(report.leaks, []);
    assert_eq!(report.sandbox.seccomp, Lock::Full);
}

#[tokio::test]
async fn a_drawing_may_ask_for_any_resolution() {
    let (_pool, document) = opened(config(), &weir_samples::text_document(1, 1)).await;
    for (asked, given) in [(0, 36), (36, 36), (300, 300), (u32::MAX, 600)] {
        let drawing = Drawing {
            dpi: asked,
            pixels: false,
            encoded: true,
        };
        let roomy = document.draw(1, drawing).await.unwrap();
        // At 600 dpi a page of A4 is more than the 64 MiB that one may take.
        assert!(
            roomy.dpi == given || (given == 600 && roomy.dpi > 400),
            "{roomy:?}"
        );
    }
}

//! Damaged and hostile files, and a sandbox that contains them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::{PIXELS_AND_JPEG, PIXELS_AT_72_DPI, TempFiles, open_error, open_in_new_pool, test_config};
use weir_core::error::RasterError;
use weir_core::ports::{PdfFileToOpen, RasterizeOptions, Rasterizer};
use weir_raster::{EnforcementLevel, RasterConfig, RasterPool, probe_sandbox};

#[tokio::test]
async fn non_pdf_and_damaged_files_have_distinct_errors() {
    assert_eq!(open_error(test_config(), b"", None).await, RasterError::Empty);
    let text = open_error(test_config(), b"Dear reader, this is a letter.", None).await;
    assert_eq!(text.kind(), "not-a-pdf");
    let late = [vec![b' '; 1020], b"%PDF-1.7".to_vec()].concat();
    assert_eq!(open_error(test_config(), &late, None).await.kind(), "not-a-pdf");
    assert_eq!(
        open_error(test_config(), b"%PDF-1.7\nnothing follows", None)
            .await
            .kind(),
        "damaged-pdf"
    );
    let truncated = open_error(test_config(), &weir_samples::truncated_document(), None).await;
    assert_eq!(truncated.kind(), "damaged-pdf", "{truncated}");
    assert_eq!(
        open_error(test_config(), &weir_samples::document_without_pages(), None).await,
        RasterError::NoPages
    );
}

#[tokio::test]
async fn missing_and_wrong_passwords_are_refused() {
    let safe = weir_samples::encrypted_document("open sesame");
    assert_eq!(
        open_error(test_config(), &safe, None).await,
        RasterError::Encrypted
    );
    assert_eq!(
        open_error(test_config(), &safe, Some("guess")).await,
        RasterError::WrongPassword
    );
    assert_eq!(
        open_error(test_config(), &safe, Some("open\0sesame")).await,
        RasterError::WrongPassword
    );
}

#[tokio::test]
async fn a_document_with_too_many_pages_is_refused() {
    let config = RasterConfig {
        max_document_pages: 10,
        ..test_config()
    };
    let error = open_error(config, &weir_samples::document_of_empty_pages(11), None).await;
    assert_eq!(error, RasterError::TooManyPages { pages: 11, limit: 10 });
}

#[tokio::test]
async fn unreadable_file_reports_why() {
    let pool = RasterPool::new(test_config()).unwrap();
    let files = TempFiles::new();
    let denied = files.write_source("denied.pdf", b"%PDF-1.7");
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
        let source = PdfFileToOpen {
            path,
            password: None,
            flow_id: 0,
        };
        let error = pool.open_document(&source).await.err().unwrap();
        let expected = RasterError::FileUnreadable { reason: why.into() };
        assert_eq!(error, expected);
    }
    // None of these cases started a worker.
    assert_eq!(pool.snapshot_counters().workers_started, 0);
}

#[tokio::test]
async fn missing_pdfium_or_worker_reports_rasterizer_unavailable() {
    let files = TempFiles::new();
    let source = files.write_source("a.pdf", &weir_samples::generate_text_document(1, 1));
    let no_library = RasterConfig {
        pdfium_path: "/nowhere/libpdfium.so".into(),
        ..test_config()
    };
    let program = |path: &str| RasterConfig {
        worker_command: path.split(' ').map(Into::into).collect(),
        ..test_config()
    };
    // No library, no such program, a program that exits at once, one that echoes its input, and no command.
    let no_command = RasterConfig {
        worker_command: Vec::new(),
        ..test_config()
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
            .open_document(&source)
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), "rasterizer-unavailable");
    }
}

#[tokio::test]
async fn huge_page_is_refused_at_once_or_drawn_at_low_resolution() {
    let (_pool, document) = open_in_new_pool(test_config(), &weir_samples::document_with_huge_page()).await;
    let begun = Instant::now();
    let error = document
        .reserve_and_rasterize_page(1, PIXELS_AND_JPEG)
        .await
        .unwrap_err();
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
    let large_limits = RasterConfig {
        max_page_image_bytes: 256 << 20,
        max_image_bytes: 256 << 20,
        ..test_config()
    };
    let (_pool, document) = open_in_new_pool(large_limits, &weir_samples::document_with_huge_page()).await;
    let page = document
        .reserve_and_rasterize_page(1, PIXELS_AT_72_DPI)
        .await
        .unwrap();
    assert!((36..72).contains(&page.dpi), "{page:?}");
}

#[tokio::test]
async fn decompression_bomb_does_not_affect_other_documents() {
    let small = RasterConfig {
        workers: 1,
        max_worker_heap_bytes: 256 << 20,
        ..test_config()
    };
    let pool = RasterPool::new(small).unwrap();
    let files = TempFiles::new();
    let bomb = files.write_source("bomb.pdf", &weir_samples::decompression_bomb_document());
    let good = files.write_source("good.pdf", &weir_samples::generate_text_document(2, 1));
    let good = pool.open_document(&good).await.unwrap();
    good.reserve_and_rasterize_page(1, PIXELS_AND_JPEG).await.unwrap();
    match pool.open_document(&bomb).await {
        Ok(bomb) => {
            let error = bomb
                .reserve_and_rasterize_page(1, PIXELS_AND_JPEG)
                .await
                .map(|page| page.dpi);
            assert!(
                matches!(
                    &error,
                    Ok(150) | Err(RasterError::WorkerDied { .. } | RasterError::PageUnreadable { .. })
                ),
                "{error:?}"
            );
            let facts = bomb.read_page_facts(1..2).await.unwrap();
            assert_eq!(facts.len(), 1);
        }
        Err(error) => assert_eq!(error.kind(), "worker-died", "{error}"),
    }
    good.reserve_and_rasterize_page(2, PIXELS_AND_JPEG).await.unwrap();
    assert_eq!(pool.available_image_bytes(), test_config().max_image_bytes);
}

#[tokio::test]
async fn one_unreadable_page_does_not_affect_the_others() {
    let (pool, document) = open_in_new_pool(test_config(), &weir_samples::document_with_bad_page(5, 3)).await;
    let facts = document.read_page_facts(1..6).await.unwrap();
    let readable: Vec<_> = facts.iter().map(|f| f.readable).collect();
    assert_eq!(readable, [true, true, false, true, true]);
    for page in 1..6 {
        let (drawn, text) = (
            document.reserve_and_rasterize_page(page, PIXELS_AND_JPEG).await,
            document.read_text_layer(page).await,
        );
        if page == 3 {
            assert_eq!(drawn.unwrap_err().kind(), "page-unreadable");
            assert_eq!(text.unwrap_err().kind(), "page-unreadable");
        } else {
            assert_eq!(drawn.unwrap().dpi, 150);
            assert_eq!(text.unwrap().len(), 2);
        }
    }
    assert_eq!(pool.snapshot_counters().workers_lost, 0);
}

#[tokio::test]
async fn page_with_very_many_objects_is_read_in_time() {
    let (_pool, document) =
        open_in_new_pool(test_config(), &weir_samples::document_with_many_objects(60_000)).await;
    let begun = Instant::now();
    let facts = document.read_page_facts(1..2).await.unwrap();
    assert!(facts[0].readable && facts[0].text_chars > 60_000);
    assert!(!document.read_text_layer(1).await.unwrap().is_empty());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn file_truncated_while_open_costs_a_worker_not_the_host() {
    let pool = RasterPool::new(RasterConfig {
        workers: 1,
        ..test_config()
    })
    .unwrap();
    let files = TempFiles::new();
    let source = files.write_source("shrinking.pdf", &weir_samples::generate_text_document(300, 1));
    let document = pool.open_document(&source).await.unwrap();
    document.read_text_layer(1).await.unwrap();
    std::fs::File::options()
        .write(true)
        .open(&source.path)
        .unwrap()
        .set_len(10)
        .unwrap();
    let error = document.read_text_layer(200).await.unwrap_err();
    assert!(matches!(error.kind(), "worker-died" | "damaged-pdf"), "{error}");
    let good = files.write_source("good.pdf", &weir_samples::generate_text_document(1, 1));
    pool.open_document(&good)
        .await
        .unwrap()
        .reserve_and_rasterize_page(1, PIXELS_AND_JPEG)
        .await
        .unwrap();
}

#[tokio::test]
async fn sandbox_blocks_every_probe() {
    let report = probe_sandbox(&test_config()).await.unwrap();
    assert_eq!(report.unblocked_probes, []);
    assert_eq!(report.status.seccomp, EnforcementLevel::Full);
}

#[tokio::test]
async fn requested_resolution_is_clamped() {
    let (_pool, document) =
        open_in_new_pool(test_config(), &weir_samples::generate_text_document(1, 1)).await;
    for (requested_dpi, expected_dpi) in [(0, 36), (36, 36), (300, 300), (u32::MAX, 600)] {
        let drawing = RasterizeOptions {
            dpi: requested_dpi,
            want_pixels: false,
            want_encoded: true,
        };
        let page = document.reserve_and_rasterize_page(1, drawing).await.unwrap();
        // An A4 page at 600 dpi exceeds the limit of 64 MiB for one page.
        assert!(
            page.dpi == expected_dpi || (expected_dpi == 600 && page.dpi > 400),
            "{page:?}"
        );
    }
}

//! Drawing, text and facts of valid documents.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::sync::Arc;

use common::{PIXELS_AND_JPEG, PIXELS_AT_72_DPI, TempFiles, open_in_new_pool, pixel_at, test_config};
use metrics_exporter_prometheus::PrometheusBuilder;
use pdf_writer::types::{AnnotationFlags, FieldType};
use pdf_writer::{Content, Finish, Pdf, Rect, Ref, TextStr};
use weir_core::page::PixelFormat;
use weir_core::page_text::Line;
use weir_core::ports::{OpenedPdf, RasterizeOptions, Rasterizer};
use weir_raster::{RasterConfig, RasterPool};
use weir_samples::fonts::Typeface;
use weir_samples::pdf_document::{A4_POINTS, Document, Page};

fn one_page_pdf(draw: impl FnOnce(&mut Page)) -> Vec<u8> {
    let mut page = Page::new(A4_POINTS);
    draw(&mut page);
    Document {
        pages: vec![page],
        ..Document::default()
    }
    .to_pdf_bytes()
}

#[tokio::test]
async fn rectangle_is_drawn_in_its_place_and_color() {
    // The upper left quarter of the page.
    let pdf = one_page_pdf(|page| {
        page.content.set_fill_rgb(1.0, 0.0, 0.0);
        page.content
            .rect(0.0, A4_POINTS.1 / 2.0, A4_POINTS.0 / 2.0, A4_POINTS.1 / 2.0)
            .fill_nonzero();
    });
    let (pool, document) = open_in_new_pool(test_config(), &pdf).await;
    let page = document
        .reserve_and_rasterize_page(1, PIXELS_AND_JPEG)
        .await
        .unwrap();
    let image = page.image.unwrap();
    assert_eq!((page.dpi, image.width, image.height), (150, 1240, 1754));
    let (red, white) = ([0, 0, 255], [255, 255, 255]);
    assert_eq!(pixel_at(&image, 0.01, 0.01), red);
    assert_eq!(pixel_at(&image, 0.49, 0.49), red);
    assert_eq!(pixel_at(&image, 0.51, 0.49), white);
    assert_eq!(pixel_at(&image, 0.49, 0.51), white);
    let encoded = page.encoded.unwrap();
    assert_eq!(
        (encoded.media_type, encoded.file_extension()),
        ("image/jpeg", "jpg")
    );
    let decoded = image::load_from_memory(&encoded.bytes).unwrap().to_rgb8();
    assert_eq!(decoded.dimensions(), (1240, 1754));
    assert!(decoded.get_pixel(300, 400).0[0] > 200 && decoded.get_pixel(300, 400).0[1] < 60);
    assert!(decoded.get_pixel(900, 1500).0.iter().all(|c| *c > 200));
    pool.close().await;
}

#[tokio::test]
async fn page_is_gray_only_if_nothing_on_it_has_a_color() {
    let text = |page: &mut Page| page.draw_text(Typeface::Serif, 12.0, 72.0, 700.0, "Black on white.");
    let gray = one_page_pdf(|page| {
        page.content.set_fill_gray(0.3).set_stroke_rgb(0.5, 0.5, 0.5);
        page.content
            .rect(50.0, 50.0, 300.0, 300.0)
            .fill_nonzero_and_stroke();
        text(page);
    });
    let filled = one_page_pdf(|page| {
        text(page);
        page.content.set_fill_rgb(0.0, 0.0, 0.2);
        page.content.rect(50.0, 50.0, 300.0, 300.0).fill_nonzero();
    });
    let stroked = one_page_pdf(|page| {
        text(page);
        page.content.set_stroke_rgb(0.0, 0.9, 0.2);
        page.content.rect(50.0, 50.0, 300.0, 300.0).stroke();
    });
    let written = one_page_pdf(|page| {
        page.content.set_fill_rgb(1.0, 0.0, 0.0);
        text(page);
    });
    let scanned = weir_samples::generate_scanned_book(1);
    let cases = [
        (gray, PixelFormat::Gray),
        (filled, PixelFormat::Bgr),
        (stroked, PixelFormat::Bgr),
        (written, PixelFormat::Bgr),
        (scanned, PixelFormat::Bgr),
    ];
    for (number, (pdf, format)) in cases.into_iter().enumerate() {
        let (_pool, document) = open_in_new_pool(test_config(), &pdf).await;
        let page = document
            .reserve_and_rasterize_page(1, PIXELS_AND_JPEG)
            .await
            .unwrap();
        let image = page.image.unwrap();
        assert_eq!(image.format, format, "{number}");
        let decoded = image::load_from_memory(&page.encoded.unwrap().bytes).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (image.width, image.height));
        // The encoded file shows the same colors as the pixels.
        let [b, g, r] = pixel_at(&image, 0.3, 0.8);
        let shown = decoded
            .to_rgb8()
            .get_pixel(image.width * 3 / 10, image.height * 8 / 10)
            .0;
        for (drawn, shown) in [r, g, b].into_iter().zip(shown) {
            assert!(drawn.abs_diff(shown) < 12, "{number}: {drawn} {shown}");
        }
    }
}

#[tokio::test]
async fn only_requested_outputs_are_produced() {
    let (pool, document) = open_in_new_pool(test_config(), &weir_samples::generate_text_document(1, 1)).await;
    let pixels = document
        .reserve_and_rasterize_page(1, PIXELS_AT_72_DPI)
        .await
        .unwrap();
    assert!(pixels.image.is_some() && pixels.encoded.is_none());
    drop(pixels);
    let encoded = RasterizeOptions {
        want_pixels: false,
        want_encoded: true,
        ..PIXELS_AT_72_DPI
    };
    let encoded = document.reserve_and_rasterize_page(1, encoded).await.unwrap();
    assert!(encoded.image.is_none() && encoded.encoded.is_some());
    // The pixels were released when the call ended.
    assert_eq!(pool.available_image_bytes(), test_config().max_image_bytes);
}

fn find_line<'l>(lines: &'l [Line], text: &str) -> &'l Line {
    lines.iter().find(|line| line.text == text).unwrap_or_else(|| {
        panic!(
            "'{text}' is not among {:?}",
            lines.iter().map(|l| &l.text).collect::<Vec<_>>()
        )
    })
}

fn is_near(a: f32, b: f32) -> bool {
    (a - b).abs() < 0.012
}

#[tokio::test]
async fn text_is_returned_as_lines_with_boxes_and_sizes() {
    let pdf = one_page_pdf(|page| {
        page.draw_text(Typeface::Sans, 24.0, 72.0, 742.0, "A heading");
        page.draw_text(
            Typeface::Serif,
            12.0,
            72.0,
            700.0,
            "The left column has this line",
        );
        page.draw_text(
            Typeface::Serif,
            12.0,
            320.0,
            700.0,
            "and the right column that one.",
        );
        page.draw_text(Typeface::Serif, 12.0, 72.0, 686.0, "A line below  with   spaces.");
    });
    let (_pool, document) = open_in_new_pool(test_config(), &pdf).await;
    let lines = document.read_text_layer(1).await.unwrap();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let heading = find_line(&lines, "A heading");
    assert!((heading.size - 24.0).abs() < 0.1 && heading.confidence == 1.0);
    assert!(is_near(heading.rect.x, 72.0 / A4_POINTS.0), "{heading:?}");
    assert!(
        is_near(heading.rect.bottom(), 1.0 - 742.0 / A4_POINTS.1 + 0.006),
        "{heading:?}"
    );
    let (left, right) = (
        find_line(&lines, "The left column has this line"),
        find_line(&lines, "and the right column that one."),
    );
    assert!(left.rect.right() < right.rect.x && is_near(right.rect.x, 320.0 / A4_POINTS.0));
    assert!(is_near(left.rect.y, right.rect.y) && (left.size - 12.0).abs() < 0.1);
    assert!(find_line(&lines, "A line below with spaces.").rect.y > left.rect.y);
}

#[tokio::test]
async fn rotated_pages_have_their_displayed_orientation() {
    let (_pool, document) =
        open_in_new_pool(test_config(), &weir_samples::document_with_rotated_pages()).await;
    let facts = document.read_page_facts(1..5).await.unwrap();
    let sizes: Vec<_> = facts.iter().map(|f| (f.width, f.height)).collect();
    let turned = (A4_POINTS.1, A4_POINTS.0);
    assert_eq!(sizes, [A4_POINTS, turned, A4_POINTS, turned]);
    for (number, degrees) in (1..).zip([0, 90, 180, 270]) {
        let lines = document.read_text_layer(number).await.unwrap();
        let line = find_line(&lines, &format!("This page is turned by {degrees} degrees."));
        assert!((line.size - 18.0).abs() < 0.1);
        // The box of the line contains dark pixels; the box mirrored through the center of the page contains none.
        let page = document
            .reserve_and_rasterize_page(number, PIXELS_AT_72_DPI)
            .await
            .unwrap()
            .image
            .unwrap();
        assert!(
            dark_pixel_share(&page, line.rect.x, line.rect.y, line.rect.width, line.rect.height) > 0.05,
            "{line:?}"
        );
        let (x, y) = (1.0 - line.rect.right(), 1.0 - line.rect.bottom());
        assert!(
            dark_pixel_share(&page, x, y, line.rect.width, line.rect.height) < 0.001,
            "{line:?}"
        );
    }
}

/// Returns the share of dark pixels in a part of a page.
fn dark_pixel_share(image: &weir_core::page::RawPageImage, x: f32, y: f32, width: f32, height: f32) -> f32 {
    let (mut dark, mut all) = (0.0, 0.0);
    for i in 0..200_u8 {
        for j in 0..50_u8 {
            let at = (x + width * f32::from(i) / 200.0, y + height * f32::from(j) / 50.0);
            all += 1.0;
            dark += f32::from(u8::from(
                pixel_at(image, at.0.min(0.999), at.1.min(0.999))[1] < 128,
            ));
        }
    }
    dark / all
}

#[tokio::test]
async fn facts_distinguish_text_from_scans() {
    let (_pool, book) = open_in_new_pool(test_config(), &weir_samples::generate_book(20, 3)).await;
    let facts = book.read_page_facts(1..21).await.unwrap();
    assert_eq!(facts.len(), 20);
    for (number, page) in (1..).zip(&facts) {
        assert!(
            page.number == number && page.readable && page.text_chars > 300,
            "{page:?}"
        );
        assert_eq!(page.image_coverage, 0.0);
    }
    assert_eq!(book.read_page_facts(19..40).await.unwrap().len(), 2);
    assert!(book.read_page_facts(21..25).await.unwrap().is_empty());
    let (_pool, scan) = open_in_new_pool(test_config(), &weir_samples::generate_scanned_book(3)).await;
    for page in scan.read_page_facts(1..4).await.unwrap() {
        assert!(page.image_coverage > 0.9 && page.text_chars == 0, "{page:?}");
    }
}

#[tokio::test]
async fn title_and_outline_are_complete() {
    let (_pool, document) = open_in_new_pool(test_config(), &weir_samples::document_with_outline(437)).await;
    let outline = &document.document_info().outline;
    assert_eq!((document.document_info().pages, outline.len()), (3, 437));
    for (i, entry) in outline.iter().enumerate() {
        assert_eq!(entry.title, format!("Entry {} – water & weir", i + 1));
        assert_eq!(usize::from(entry.level), i % 3 + 1);
        assert_eq!(entry.page, Some(i as u32 % 3 + 1));
    }
    let (_pool, book) = open_in_new_pool(test_config(), &weir_samples::generate_book(2, 7)).await;
    assert_eq!(
        book.document_info().title.as_deref(),
        Some("A book of many things, 7")
    );
}

#[tokio::test]
async fn outline_of_fifty_thousand_entries_is_truncated() {
    let (_pool, document) =
        open_in_new_pool(test_config(), &weir_samples::document_with_outline(50_000)).await;
    assert_eq!(document.document_info().outline.len(), 10_000);
}

#[tokio::test]
async fn an_encrypted_document_opens_with_its_password() {
    let pool = RasterPool::new(test_config()).unwrap();
    let files = TempFiles::new();
    let mut source = files.write_source("safe.pdf", &weir_samples::encrypted_document("open sesame"));
    source.password = Some("open sesame".into());
    let document = pool.open_document(&source).await.unwrap();
    let lines = document.read_text_layer(1).await.unwrap();
    find_line(&lines, "The combination of the safe is 4 - 18 - 31.");
}

#[tokio::test]
async fn a_page_the_document_does_not_have_is_refused() {
    let (_pool, document) =
        open_in_new_pool(test_config(), &weir_samples::generate_text_document(2, 1)).await;
    for page in [0, 3, u32::MAX] {
        let error = document
            .reserve_and_rasterize_page(page, PIXELS_AT_72_DPI)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), "page-unreadable");
        assert_eq!(
            document.read_text_layer(page).await.unwrap_err().kind(),
            "page-unreadable"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_documents_are_served_by_few_workers() {
    let pool = RasterPool::new(RasterConfig { ..test_config() }).unwrap();
    let files = TempFiles::new();
    let mut documents: Vec<Arc<dyn OpenedPdf>> = Vec::new();
    for i in 0..24 {
        let pdf =
            one_page_pdf(|page| page.draw_text(Typeface::Serif, 12.0, 72.0, 700.0, &format!("Document {i}")));
        documents.push(
            pool.open_document(&files.write_source(&format!("{i}.pdf"), &pdf))
                .await
                .unwrap(),
        );
    }
    for _round in 0..2 {
        let texts = documents.iter().map(|document| document.read_text_layer(1));
        let texts = futures::future::try_join_all(texts).await.unwrap();
        for (i, lines) in texts.iter().enumerate() {
            assert_eq!(lines[0].text, format!("Document {i}"));
        }
    }
    assert_eq!(
        (
            pool.snapshot_counters().workers_started,
            pool.snapshot_counters().workers_lost
        ),
        (2, 0)
    );
}

#[tokio::test]
async fn metrics_report_image_bytes_and_busy_workers() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let value = |name: &str| -> f64 {
        let text = recorder.handle().render();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .trim()
            .parse()
            .unwrap()
    };
    let pool = metrics::with_local_recorder(&recorder, || RasterPool::new(test_config())).unwrap();
    let files = TempFiles::new();
    let pdf = weir_samples::generate_text_document(2, 1);
    let document = pool
        .open_document(&files.write_source("document.pdf", &pdf))
        .await
        .unwrap();
    let first = document
        .reserve_and_rasterize_page(1, PIXELS_AT_72_DPI)
        .await
        .unwrap();
    let one = value("weir_page_image_memory_bytes ");
    let pixels = first.image.as_ref().unwrap();
    assert!(one >= f64::from(pixels.width * pixels.height), "{one}");
    let second = document
        .reserve_and_rasterize_page(2, PIXELS_AT_72_DPI)
        .await
        .unwrap();
    assert_eq!(value("weir_page_image_memory_bytes "), 2.0 * one);
    drop((first, second));
    assert_eq!(value("weir_page_image_memory_bytes "), 0.0);
    assert_eq!(value("weir_raster_workers_busy "), 0.0);
    // A worker counts as busy as soon as it is assigned the task.
    let mut pending_read = Box::pin(document.read_text_layer(1));
    assert!(futures::poll!(pending_read.as_mut()).is_pending());
    assert_eq!(value("weir_raster_workers_busy "), 1.0);
    pending_read.await.unwrap();
    assert_eq!(value("weir_raster_workers_busy "), 0.0);
}

/// A page that contains only a form field whose appearance is a black square.
fn filled_form_pdf() -> Vec<u8> {
    let mut pdf = Pdf::new();
    let [catalog, tree, page, field, appearance] = [1, 2, 3, 4, 5].map(Ref::new);
    let square = Rect::new(100.0, 100.0, 200.0, 200.0);
    pdf.catalog(catalog).pages(tree).form().fields([field]);
    pdf.pages(tree).kids([page]).count(1);
    pdf.page(page)
        .parent(tree)
        .media_box(Rect::new(0.0, 0.0, 300.0, 300.0))
        .annotations([field]);
    let mut widget = pdf.form_field(field);
    widget.partial_name(TextStr("name")).field_type(FieldType::Text);
    let mut widget = widget.into_annotation();
    widget.rect(square).flags(AnnotationFlags::PRINT);
    widget.appearance().normal().stream(appearance);
    widget.finish();
    let mut content = Content::new();
    content.rect(0.0, 0.0, 100.0, 100.0).fill_nonzero();
    pdf.form_xobject(appearance, &content.finish())
        .bbox(Rect::new(0.0, 0.0, 100.0, 100.0));
    pdf.finish()
}

#[tokio::test]
async fn filled_form_fields_are_drawn() {
    let (_pool, document) = open_in_new_pool(test_config(), &filled_form_pdf()).await;
    for _again in 0..2 {
        let image = document
            .reserve_and_rasterize_page(1, PIXELS_AT_72_DPI)
            .await
            .unwrap()
            .image
            .unwrap();
        assert_eq!(pixel_at(&image, 0.5, 0.5), [0; 3]);
        assert_eq!(pixel_at(&image, 0.1, 0.1), [255; 3]);
    }
    assert!(document.read_text_layer(1).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_short_document_does_not_wait_for_a_long_one() {
    let one_worker = RasterConfig {
        workers: 1,
        ..test_config()
    };
    let pool = RasterPool::new(one_worker).unwrap();
    let files = TempFiles::new();
    let long = pool
        .open_document(&files.write_source("long.pdf", &weir_samples::generate_text_document(100, 1)))
        .await
        .unwrap();
    let short = pool
        .open_document(&files.write_source("short.pdf", &weir_samples::generate_text_document(1, 2)))
        .await
        .unwrap();
    // This loads the page sizes, so that all pages queue at once.
    long.reserve_and_rasterize_page(1, PIXELS_AT_72_DPI)
        .await
        .unwrap();
    let before = pool.snapshot_counters().pages_processed;
    let pages = (1..=100).map(async |page| {
        long.reserve_and_rasterize_page(page, PIXELS_AT_72_DPI)
            .await
            .unwrap()
            .dpi
    });
    let mut pages = Box::pin(futures::future::join_all(pages));
    let mut drawn = Box::pin(async {
        short
            .reserve_and_rasterize_page(1, PIXELS_AT_72_DPI)
            .await
            .unwrap();
        pool.snapshot_counters().pages_processed - before
    });
    let overtaken = tokio::select! {
        biased;
        _ = &mut pages => panic!("the long document was drawn first"),
        overtaken = &mut drawn => overtaken,
    };
    assert!(
        overtaken <= 6,
        "{overtaken} pages of the long document were drawn first"
    );
    assert_eq!(pages.await, [72; 100]);
}

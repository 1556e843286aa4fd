//! What is drawn, read and known of good documents.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::sync::Arc;

use common::{BOTH, COARSE, Files, colour, config, opened};
use metrics_exporter_prometheus::PrometheusBuilder;
use pdf_writer::types::{AnnotationFlags, FieldType};
use pdf_writer::{Content, Finish, Pdf, Rect, Ref, TextStr};
use weir_core::page::PixelFormat;
use weir_core::ports::{Drawing, OpenDocument, Rasterizer};
use weir_core::text::Line;
use weir_raster::{RasterConfig, RasterPool};
use weir_samples::fonts::Face;
use weir_samples::pdf::{A4, Document, Page};

fn one_page(draw: impl FnOnce(&mut Page)) -> Vec<u8> {
    let mut page = Page::new(A4);
    draw(&mut page);
    Document {
        pages: vec![page],
        ..Document::default()
    }
    .write()
}

#[tokio::test]
async fn a_rectangle_is_where_it_should_be_and_has_its_colour() {
    // A quarter of the page: the upper left one.
    let pdf = one_page(|page| {
        page.content.set_fill_rgb(1.0, 0.0, 0.0);
        page.content
            .rect(0.0, A4.1 / 2.0, A4.0 / 2.0, A4.1 / 2.0)
            .fill_nonzero();
    });
    let (pool, document) = opened(config(), &pdf).await;
    let page = document.draw(1, BOTH).await.unwrap();
    let image = page.image.unwrap();
    assert_eq!((page.dpi, image.width, image.height), (150, 1240, 1754));
    let (red, white) = ([0, 0, 255], [255, 255, 255]);
    assert_eq!(colour(&image, 0.01, 0.01), red);
    assert_eq!(colour(&image, 0.49, 0.49), red);
    assert_eq!(colour(&image, 0.51, 0.49), white);
    assert_eq!(colour(&image, 0.49, 0.51), white);
    let encoded = page.encoded.unwrap();
    assert_eq!((encoded.media_type, encoded.extension()), ("image/jpeg", "jpg"));
    let decoded = image::load_from_memory(&encoded.bytes).unwrap().to_rgb8();
    assert_eq!(decoded.dimensions(), (1240, 1754));
    assert!(decoded.get_pixel(300, 400).0[0] > 200 && decoded.get_pixel(300, 400).0[1] < 60);
    assert!(decoded.get_pixel(900, 1500).0.iter().all(|c| *c > 200));
    pool.close().await;
}

#[tokio::test]
async fn a_page_is_gray_only_if_nothing_on_it_has_a_colour() {
    let text = |page: &mut Page| page.text(Face::Serif, 12.0, 72.0, 700.0, "Black on white.");
    let gray = one_page(|page| {
        page.content.set_fill_gray(0.3).set_stroke_rgb(0.5, 0.5, 0.5);
        page.content
            .rect(50.0, 50.0, 300.0, 300.0)
            .fill_nonzero_and_stroke();
        text(page);
    });
    let filled = one_page(|page| {
        text(page);
        page.content.set_fill_rgb(0.0, 0.0, 0.2);
        page.content.rect(50.0, 50.0, 300.0, 300.0).fill_nonzero();
    });
    let stroked = one_page(|page| {
        text(page);
        page.content.set_stroke_rgb(0.0, 0.9, 0.2);
        page.content.rect(50.0, 50.0, 300.0, 300.0).stroke();
    });
    let written = one_page(|page| {
        page.content.set_fill_rgb(1.0, 0.0, 0.0);
        text(page);
    });
    let scanned = weir_samples::scanned_book(1);
    let cases = [
        (gray, PixelFormat::Gray),
        (filled, PixelFormat::Bgr),
        (stroked, PixelFormat::Bgr),
        (written, PixelFormat::Bgr),
        (scanned, PixelFormat::Bgr),
    ];
    for (number, (pdf, format)) in cases.into_iter().enumerate() {
        let (_pool, document) = opened(config(), &pdf).await;
        let page = document.draw(1, BOTH).await.unwrap();
        let image = page.image.unwrap();
        assert_eq!(image.format, format, "{number}");
        let decoded = image::load_from_memory(&page.encoded.unwrap().bytes).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (image.width, image.height));
        // The file shows what the pixels do.
        let [b, g, r] = colour(&image, 0.3, 0.8);
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
async fn only_what_is_asked_for_is_made() {
    let (pool, document) = opened(config(), &weir_samples::text_document(1, 1)).await;
    let pixels = document.draw(1, COARSE).await.unwrap();
    assert!(pixels.image.is_some() && pixels.encoded.is_none());
    drop(pixels);
    let encoded = Drawing {
        pixels: false,
        encoded: true,
        ..COARSE
    };
    let encoded = document.draw(1, encoded).await.unwrap();
    assert!(encoded.image.is_none() && encoded.encoded.is_some());
    // The pixels did not outlive the call.
    assert_eq!(pool.free_image_bytes(), config().image_bytes);
}

fn find<'l>(lines: &'l [Line], text: &str) -> &'l Line {
    lines.iter().find(|line| line.text == text).unwrap_or_else(|| {
        panic!(
            "'{text}' is not among {:?}",
            lines.iter().map(|l| &l.text).collect::<Vec<_>>()
        )
    })
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() < 0.012
}

#[tokio::test]
async fn text_comes_in_lines_with_boxes_and_sizes() {
    let pdf = one_page(|page| {
        page.text(Face::Sans, 24.0, 72.0, 742.0, "A heading");
        page.text(Face::Serif, 12.0, 72.0, 700.0, "The left column has this line");
        page.text(Face::Serif, 12.0, 320.0, 700.0, "and the right column that one.");
        page.text(Face::Serif, 12.0, 72.0, 686.0, "A line below  with   spaces.");
    });
    let (_pool, document) = opened(config(), &pdf).await;
    let lines = document.text(1).await.unwrap();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let heading = find(&lines, "A heading");
    assert!((heading.size - 24.0).abs() < 0.1 && heading.confidence == 1.0);
    assert!(near(heading.rect.x, 72.0 / A4.0), "{heading:?}");
    assert!(
        near(heading.rect.bottom(), 1.0 - 742.0 / A4.1 + 0.006),
        "{heading:?}"
    );
    let (left, right) = (
        find(&lines, "The left column has this line"),
        find(&lines, "and the right column that one."),
    );
    assert!(left.rect.right() < right.rect.x && near(right.rect.x, 320.0 / A4.0));
    assert!(near(left.rect.y, right.rect.y) && (left.size - 12.0).abs() < 0.1);
    assert!(find(&lines, "A line below with spaces.").rect.y > left.rect.y);
}

#[tokio::test]
async fn rotated_pages_are_seen_as_a_reader_sees_them() {
    let (_pool, document) = opened(config(), &weir_samples::rotated()).await;
    let facts = document.facts(1..5).await.unwrap();
    let sizes: Vec<_> = facts.iter().map(|f| (f.width, f.height)).collect();
    let turned = (A4.1, A4.0);
    assert_eq!(sizes, [A4, turned, A4, turned]);
    for (number, degrees) in (1..).zip([0, 90, 180, 270]) {
        let lines = document.text(number).await.unwrap();
        let line = find(&lines, &format!("This page is turned by {degrees} degrees."));
        assert!((line.size - 18.0).abs() < 0.1);
        // The box holds ink, and a box as large on the other side of the page holds none.
        let page = document.draw(number, COARSE).await.unwrap().image.unwrap();
        assert!(
            ink(&page, line.rect.x, line.rect.y, line.rect.width, line.rect.height) > 0.05,
            "{line:?}"
        );
        let (x, y) = (1.0 - line.rect.right(), 1.0 - line.rect.bottom());
        assert!(
            ink(&page, x, y, line.rect.width, line.rect.height) < 0.001,
            "{line:?}"
        );
    }
}

/// The share of dark pixels in a part of a page.
fn ink(image: &weir_core::page::PageImage, x: f32, y: f32, width: f32, height: f32) -> f32 {
    let (mut dark, mut all) = (0.0, 0.0);
    for i in 0..200_u8 {
        for j in 0..50_u8 {
            let at = (x + width * f32::from(i) / 200.0, y + height * f32::from(j) / 50.0);
            all += 1.0;
            dark += f32::from(u8::from(colour(image, at.0.min(0.999), at.1.min(0.999))[1] < 128));
        }
    }
    dark / all
}

#[tokio::test]
async fn facts_tell_text_from_scans() {
    let (_pool, book) = opened(config(), &weir_samples::book(20, 3)).await;
    let facts = book.facts(1..21).await.unwrap();
    assert_eq!(facts.len(), 20);
    for (number, page) in (1..).zip(&facts) {
        assert!(
            page.number == number && page.readable && page.text_chars > 300,
            "{page:?}"
        );
        assert_eq!(page.image_coverage, 0.0);
    }
    assert_eq!(book.facts(19..40).await.unwrap().len(), 2);
    assert!(book.facts(21..25).await.unwrap().is_empty());
    let (_pool, scan) = opened(config(), &weir_samples::scanned_book(3)).await;
    for page in scan.facts(1..4).await.unwrap() {
        assert!(page.image_coverage > 0.9 && page.text_chars == 0, "{page:?}");
    }
}

#[tokio::test]
async fn title_and_outline_are_complete() {
    let (_pool, document) = opened(config(), &weir_samples::outline(437)).await;
    let outline = &document.info().outline;
    assert_eq!((document.info().pages, outline.len()), (3, 437));
    for (i, entry) in outline.iter().enumerate() {
        assert_eq!(entry.title, format!("Entry {} – water & weir", i + 1));
        assert_eq!(usize::from(entry.level), i % 3 + 1);
        assert_eq!(entry.page, Some(i as u32 % 3 + 1));
    }
    let (_pool, book) = opened(config(), &weir_samples::book(2, 7)).await;
    assert_eq!(book.info().title.as_deref(), Some("A book of many things, 7"));
}

#[tokio::test]
async fn an_outline_of_fifty_thousand_entries_is_cut() {
    let (_pool, document) = opened(config(), &weir_samples::outline(50_000)).await;
    assert_eq!(document.info().outline.len(), 10_000);
}

#[tokio::test]
async fn an_encrypted_document_opens_with_its_password() {
    let pool = RasterPool::new(config()).unwrap();
    let files = Files::new();
    let mut source = files.source("safe.pdf", &weir_samples::encrypted("open sesame"));
    source.password = Some("open sesame".into());
    let document = pool.open(&source).await.unwrap();
    let lines = document.text(1).await.unwrap();
    find(&lines, "The combination of the safe is 4 - 18 - 31.");
}

#[tokio::test]
async fn a_page_the_document_does_not_have_is_refused() {
    let (_pool, document) = opened(config(), &weir_samples::text_document(2, 1)).await;
    for page in [0, 3, u32::MAX] {
        let error = document.draw(page, COARSE).await.unwrap_err();
        assert_eq!(error.kind(), "page-unreadable");
        assert_eq!(document.text(page).await.unwrap_err().kind(), "page-unreadable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_documents_are_served_by_few_workers() {
    let pool = RasterPool::new(RasterConfig { ..config() }).unwrap();
    let files = Files::new();
    let mut documents: Vec<Arc<dyn OpenDocument>> = Vec::new();
    for i in 0..24 {
        let pdf = one_page(|page| page.text(Face::Serif, 12.0, 72.0, 700.0, &format!("Document {i}")));
        documents.push(pool.open(&files.source(&format!("{i}.pdf"), &pdf)).await.unwrap());
    }
    for _round in 0..2 {
        let texts = documents.iter().map(|document| document.text(1));
        let texts = futures::future::try_join_all(texts).await.unwrap();
        for (i, lines) in texts.iter().enumerate() {
            assert_eq!(lines[0].text, format!("Document {i}"));
        }
    }
    assert_eq!((pool.counters().started, pool.counters().lost), (2, 0));
}

#[tokio::test]
async fn recorders_hear_of_images_and_busy_workers() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let value = |name: &str| -> f64 {
        let text = recorder.handle().render();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).trim().parse().unwrap()
    };
    let pool = metrics::with_local_recorder(&recorder, || RasterPool::new(config())).unwrap();
    let files = Files::new();
    let pdf = weir_samples::text_document(2, 1);
    let document = pool.open(&files.source("document.pdf", &pdf)).await.unwrap();
    let first = document.draw(1, COARSE).await.unwrap();
    let one = value("weir_page_image_bytes ");
    let pixels = first.image.as_ref().unwrap();
    assert!(one >= f64::from(pixels.width * pixels.height), "{one}");
    let second = document.draw(2, COARSE).await.unwrap();
    assert_eq!(value("weir_page_image_bytes "), 2.0 * one);
    drop((first, second));
    assert_eq!(value("weir_page_image_bytes "), 0.0);
    assert_eq!(value("weir_raster_workers_busy "), 0.0);
    // A worker is counted from the moment it is given the request.
    let mut asking = Box::pin(document.text(1));
    assert!(futures::poll!(asking.as_mut()).is_pending());
    assert_eq!(value("weir_raster_workers_busy "), 1.0);
    asking.await.unwrap();
    assert_eq!(value("weir_raster_workers_busy "), 0.0);
}

/// A page with a form field that looks like a black square, and nothing else.
fn filled_form() -> Vec<u8> {
    let mut pdf = Pdf::new();
    let [catalog, tree, page, field, look] = [1, 2, 3, 4, 5].map(Ref::new);
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
    widget.appearance().normal().stream(look);
    widget.finish();
    let mut content = Content::new();
    content.rect(0.0, 0.0, 100.0, 100.0).fill_nonzero();
    pdf.form_xobject(look, &content.finish())
        .bbox(Rect::new(0.0, 0.0, 100.0, 100.0));
    pdf.finish()
}

#[tokio::test]
async fn what_is_filled_into_a_form_is_drawn() {
    let (_pool, document) = opened(config(), &filled_form()).await;
    for _again in 0..2 {
        let image = document.draw(1, COARSE).await.unwrap().image.unwrap();
        assert_eq!(colour(&image, 0.5, 0.5), [0; 3]);
        assert_eq!(colour(&image, 0.1, 0.1), [255; 3]);
    }
    assert!(document.text(1).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_short_document_does_not_wait_for_a_long_one() {
    let one_worker = RasterConfig {
        workers: 1,
        ..config()
    };
    let pool = RasterPool::new(one_worker).unwrap();
    let files = Files::new();
    let long = pool
        .open(&files.source("long.pdf", &weir_samples::text_document(100, 1)))
        .await
        .unwrap();
    let short = pool
        .open(&files.source("short.pdf", &weir_samples::text_document(1, 2)))
        .await
        .unwrap();
    // Its sizes are known then, so that all pages queue at once.
    long.draw(1, COARSE).await.unwrap();
    let before = pool.counters().pages;
    let pages = (1..=100).map(async |page| long.draw(page, COARSE).await.unwrap().dpi);
    let mut pages = Box::pin(futures::future::join_all(pages));
    let mut drawn = Box::pin(async {
        short.draw(1, COARSE).await.unwrap();
        pool.counters().pages - before
    });
    let overtaken = tokio::select! {
        biased;
        _ = &mut pages => panic!("the long document went first"),
        overtaken = &mut drawn => overtaken,
    };
    assert!(
        overtaken <= 6,
        "{overtaken} pages of the long document went first"
    );
    assert_eq!(pages.await, [72; 100]);
}

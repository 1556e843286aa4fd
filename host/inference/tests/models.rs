//! The real models on real input.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use image::GrayImage;
use weir_core::page::{Lane, PageImage, PixelFormat};
use weir_core::ports::Account;
use weir_core::settings::{DeviceChoice, Settings};
use weir_core::text::Line;
use weir_inference::{Capability, Inference, InferenceConfig};

/// Resolution the test page was drawn at.
const DPI: u32 = 150;

fn assets() -> PathBuf {
    let folder = std::env::var_os("WEIR_PATHS_ASSETS").map_or_else(
        || {
            let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
            let home = std::env::home_dir().unwrap();
            data.unwrap_or_else(|| home.join(".local/share"))
                .join("weir/assets")
        },
        PathBuf::from,
    );
    let library = folder.join("lib/libonnxruntime.so");
    assert!(
        library.is_file(),
        "{} is missing: run `make setup`",
        library.display()
    );
    folder
}

fn config() -> InferenceConfig {
    InferenceConfig {
        device: DeviceChoice::Cpu,
        quantized: false,
        ..InferenceConfig::from_settings(&Settings::default(), assets())
    }
}

fn account() -> Account {
    Account {
        tenant: "test".parse().unwrap(),
        lane: Lane::Bulk,
        linger: Duration::from_millis(500),
        weight: 1.0,
    }
}

fn page() -> GrayImage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages/weir.jpg");
    image::open(path).unwrap().into_luma8()
}

fn truth() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages/weir.txt")).unwrap()
}

fn gray(image: GrayImage) -> PageImage {
    PageImage {
        width: image.width(),
        height: image.height(),
        stride: image.width() as usize,
        format: PixelFormat::Gray,
        pixels: Arc::new(image.into_raw()),
    }
}

/// The same page as a rasterizer with padded rows would give it.
fn bgr(image: &GrayImage) -> PageImage {
    let stride = image.width() as usize * 3 + 40;
    let mut pixels = Vec::new();
    for row in image.rows() {
        let start = pixels.len();
        pixels.extend(row.flat_map(|p| [p.0[0]; 3]));
        pixels.resize(start + stride, 99);
    }
    PageImage {
        width: image.width(),
        height: image.height(),
        stride,
        format: PixelFormat::Bgr,
        pixels: Arc::new(pixels),
    }
}

/// The page as a bad scan: turned, blurred and with grain.
fn scanned(page: &GrayImage, degrees: f32) -> GrayImage {
    use imageproc::geometric_transformations::{Border, Interpolation, rotate_about_center};
    let white = Border::Constant(image::Luma([255]));
    let turned = rotate_about_center(page, degrees.to_radians(), Interpolation::Bilinear, white);
    let mut scan = imageproc::filter::gaussian_blur_f32(&turned, 0.6);
    imageproc::noise::gaussian_noise_mut(&mut scan, -8.0, 13.0, 7);
    scan
}

/// All characters but spaces, row by row from the top, each row from the left; `degrees` is how the page is turned.
fn characters(lines: &[Line], image: (f32, f32), degrees: f32) -> String {
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    let mut placed: Vec<(f32, f32, f32, &str)> = lines
        .iter()
        .map(|line| {
            let x = (line.rect.x + line.rect.width / 2.0 - 0.5) * image.0;
            let y = (line.rect.y + line.rect.height / 2.0 - 0.5) * image.1;
            (
                y * cos + x * sin,
                x * cos - y * sin,
                line.size,
                line.text.as_str(),
            )
        })
        .collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut rows: Vec<Vec<(f32, f32, f32, &str)>> = Vec::new();
    for line in placed {
        match rows.last_mut() {
            Some(row) if line.0 - row[0].0 < row[0].2 => row.push(line),
            _ => rows.push(vec![line]),
        }
    }
    rows.iter_mut()
        .flat_map(|row| {
            row.sort_by(|a, b| a.1.total_cmp(&b.1));
            row.iter().map(|line| line.3)
        })
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect()
}

/// Edits that make one of the other, as a share of `truth`.
fn error_rate(truth: &str, read: &str) -> f32 {
    let truth: Vec<char> = truth.chars().filter(|c| !c.is_whitespace()).collect();
    let read: Vec<char> = read.chars().collect();
    let mut row: Vec<usize> = (0..=read.len()).collect();
    for (i, a) in truth.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in read.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[read.len()] as f32 / truth.len() as f32
}

#[tokio::test]
async fn a_clean_page_is_read_to_the_letter() {
    let inference = Inference::load(config()).unwrap();
    let image = page();
    let size = (image.width() as f32, image.height() as f32);
    let (reader, account) = (inference.reader(), account());
    let lines = reader.read(&account, gray(image.clone()), DPI).await.unwrap();
    let steps = inference.stats().ocr.requests;
    assert!(steps > 2, "{steps} steps for {} lines", lines.len());
    let rate = error_rate(&truth(), &characters(&lines, size, 0.0));
    assert!(rate < 0.005, "{rate}: {lines:#?}");

    let line = |start: &str| lines.iter().find(|l| l.text.starts_with(start)).unwrap();
    let title = line("The Weir");
    assert!((title.rect.x - 50.0 / 595.0).abs() < 0.01, "{title:?}");
    assert!(
        (title.rect.y + title.rect.height / 2.0 - 34.0 / 420.0).abs() < 0.01,
        "{title:?}"
    );
    for (start, size) in [
        ("The Weir", 18.0),
        ("A weir is", 12.0),
        ("The flow", 10.0),
        ("Notes in", 8.0),
    ] {
        let found = line(start).size;
        assert!((found / size - 1.0).abs() < 0.4, "{start}: {found} for {size}");
    }
    assert!(lines.iter().all(|l| (0.5..=1.0).contains(&l.confidence)));

    let padded = reader.read(&account, bgr(&image), DPI).await.unwrap();
    assert_eq!(padded, lines);
    let stats = inference.stats().ocr;
    assert_eq!((stats.requests, stats.waiting), (2 * steps, 0));
}

#[tokio::test]
async fn what_is_read_does_not_depend_on_who_reads_it() {
    let pages = [image::imageops::rotate90(&page()), page()].map(gray);
    let mut readings = Vec::new();
    for workers in [1, 3] {
        let inference = Inference::load(InferenceConfig {
            ocr_workers: workers,
            ..config()
        })
        .unwrap();
        let (reader, account) = (inference.reader(), account());
        let all = pages.iter().map(|page| reader.read(&account, page.clone(), DPI));
        readings.push(futures::future::try_join_all(all).await.unwrap());
    }
    assert_eq!(readings[0], readings[1]);
    assert!(readings[0].iter().all(|lines| lines.len() > 10));
}

#[tokio::test]
async fn a_turned_and_noisy_scan_is_read() {
    let inference = Inference::load(config()).unwrap();
    for degrees in [0.6, -2.5] {
        let scan = scanned(&page(), degrees);
        let size = (scan.width() as f32, scan.height() as f32);
        let lines = inference
            .reader()
            .read(&account(), gray(scan), DPI)
            .await
            .unwrap();
        let rate = error_rate(&truth(), &characters(&lines, size, degrees));
        assert!(rate < 0.02, "{rate} at {degrees}: {lines:#?}");
    }
}

#[tokio::test]
async fn a_page_without_ink_has_no_lines_and_opens_on() {
    let inference = Inference::load(config()).unwrap();
    let reader = inference.reader();
    let blank = GrayImage::from_pixel(400, 300, image::Luma([244]));
    assert!(
        reader
            .read(&account(), gray(blank), DPI)
            .await
            .unwrap()
            .is_empty()
    );
    let speck = GrayImage::from_fn(400, 300, |x, y| {
        image::Luma([if x / 6 == 30 && y / 6 == 20 { 0 } else { 255 }])
    });
    let lines = reader.read(&account(), gray(speck), DPI).await.unwrap();
    assert!(lines.iter().all(|l| l.text.chars().count() <= 1), "{lines:?}");
    let torn = PageImage {
        height: 301,
        ..gray(GrayImage::new(400, 300))
    };
    let error = reader.read(&account(), torn, DPI).await.unwrap_err();
    assert_eq!(error.kind(), "model-input");
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[derive(serde::Deserialize)]
struct Reference {
    text: String,
    tokens: u32,
    vector: Vec<f32>,
}

/// Made with Python's onnxruntime and tokenizers from the same model.
fn references() -> Vec<Reference> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn vectors_and_token_counts_are_the_reference_ones() {
    let inference = Inference::load(config()).unwrap();
    let embedder = inference.embedder();
    let references = references();
    let texts = references.iter().map(|r| r.text.clone()).collect();
    let vectors = embedder.embed(&account(), texts).await.unwrap();
    assert_eq!(vectors.len(), references.len());
    for (vector, reference) in vectors.iter().zip(&references) {
        assert_eq!(vector.len(), embedder.dimensions());
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
        let similar = cosine(vector, &reference.vector);
        assert!(similar > 0.9999, "{similar}: {}", reference.text);
        assert_eq!(embedder.count_tokens(&reference.text).unwrap(), reference.tokens);
    }
    assert!(references.iter().any(|r| r.tokens > embedder.max_tokens()));
}

#[tokio::test]
async fn the_order_survives_batches_and_company_changes_nothing() {
    let inference = Inference::load(config()).unwrap();
    let embedder = inference.embedder();
    let texts: Vec<String> = (0..40)
        .map(|n| format!("Reading {n} of gauge {}. ", n * 7 % 13).repeat(1 + n * 5 % 9))
        .collect();
    let together = embedder.embed(&account(), texts.clone()).await.unwrap();
    for n in [0, 1, 17, 39] {
        let alone = embedder.embed(&account(), vec![texts[n].clone()]).await.unwrap();
        assert!(cosine(&alone[0], &together[n]) > 0.9999, "{n}");
    }
    let stats = inference.stats().embedding;
    assert_eq!(stats.requests, 44);
    assert!(stats.largest_batch <= 8);
    assert!(embedder.embed(&account(), Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn alike_texts_are_nearer_than_others_quantized_or_not() {
    for quantized in [false, true] {
        let config = InferenceConfig {
            quantized,
            ..config()
        };
        let inference = Inference::load(config).unwrap();
        let texts = [
            "The lock keeper opens the gate in the morning.",
            "Every morning the gate is opened by the keeper of the lock.",
            "Interest rates rose by half a percent.",
        ];
        let texts = texts.map(String::from).to_vec();
        let vectors = inference.embedder().embed(&account(), texts).await.unwrap();
        let (alike, other) = (cosine(&vectors[0], &vectors[1]), cosine(&vectors[0], &vectors[2]));
        assert!(alike > 0.8 && other < 0.2, "{alike} {other}");
    }
}

#[test]
fn what_is_missing_is_named_with_the_command_that_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let broken = InferenceConfig {
        assets: folder.path().to_owned(),
        ..config()
    };
    let error = Inference::load(broken.clone()).err().unwrap();
    assert_eq!(error.kind(), "model-unavailable");
    assert!(
        error.to_string().ends_with("is not available: run `make setup`"),
        "{error}"
    );
    let error = broken.check(Capability::Read).unwrap_err();
    assert!(error.to_string().contains("libonnxruntime.so"), "{error}");
    config().check(Capability::Read).unwrap();
    config().check(Capability::Embed).unwrap();
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_only_when_asked_for() {
    let asked = InferenceConfig {
        // No machine has this many.
        device: DeviceChoice::Cuda(99),
        ..config()
    };
    let error = Inference::load(asked).err().unwrap();
    assert_eq!(error.kind(), "model-unavailable");
    assert!(
        error.to_string().contains("cuda:99") && error.to_string().contains("driver"),
        "{error}"
    );
    assert!(!error.to_string().contains('\n'));
    let auto = InferenceConfig {
        device: DeviceChoice::Auto,
        ..config()
    };
    let inference = Inference::load(auto).unwrap();
    assert_eq!(inference.device_name() == "cpu", !inference.device().gpu);
    assert!(inference.device().memory_bytes > 0 && inference.device().cores > 0);
}

#[tokio::test]
async fn dropping_inference_ends_the_page_in_work() {
    let inference = Inference::load(config()).unwrap();
    let reader = inference.reader();
    let reading = tokio::spawn({
        let reader = Arc::clone(&reader);
        async move { reader.read(&account(), gray(page()), DPI).await }
    });
    while inference.stats().ocr.running == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::task::spawn_blocking(move || drop(inference))
        .await
        .unwrap();
    assert_eq!(reading.await.unwrap().unwrap_err().kind(), "model-failed");
    let late = reader.read(&account(), gray(page()), DPI).await;
    assert_eq!(late.unwrap_err().kind(), "model-failed");
}

#[tokio::test]
async fn a_page_nobody_waits_for_is_given_up() {
    let config = InferenceConfig {
        ocr_workers: 1,
        ..config()
    };
    let inference = Inference::load(config).unwrap();
    let reader = inference.reader();
    reader.read(&account(), gray(page()), DPI).await.unwrap();
    let (whole, steps) = (busy(&inference).await, inference.stats().ocr.requests);
    let abandoned = tokio::spawn({
        let reader = Arc::clone(&reader);
        async move { reader.read(&account(), gray(page()), DPI).await }
    });
    while inference.stats().ocr.running == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    abandoned.abort();
    let blank = GrayImage::from_pixel(40, 30, image::Luma([244]));
    reader.read(&account(), gray(blank), DPI).await.unwrap();
    let abandoned = busy(&inference).await - whole;
    let stats = inference.stats().ocr;
    assert!(stats.requests < steps + steps / 2, "{steps} steps of {stats:?}");
    assert!(abandoned * 2 < whole, "{abandoned} ms of {whole} ms");
}

/// Milliseconds the one OCR worker has worked, once it rests: an answer is sent before its worker is counted as free.
async fn busy(inference: &Inference) -> u64 {
    while inference.stats().ocr.running > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    inference.stats().ocr.busy_millis
}

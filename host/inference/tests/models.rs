//! Tests of the real models with real input.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use image::GrayImage;
use weir_core::page::{PixelFormat, PriorityLane, RawPageImage};
use weir_core::page_text::Line;
use weir_core::ports::SchedulingContext;
use weir_core::settings::{DeviceChoice, Settings};
use weir_inference::{InferenceConfig, InferenceHost, ModelKind};

/// Resolution of the test page.
const PAGE_DPI: u32 = 150;

fn assets_folder() -> PathBuf {
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

fn cpu_config() -> InferenceConfig {
    InferenceConfig {
        device: DeviceChoice::Cpu,
        use_quantized_model: false,
        ..InferenceConfig::from_settings(&Settings::default(), assets_folder())
    }
}

fn test_scheduling_context() -> SchedulingContext {
    SchedulingContext {
        tenant: "test".parse().unwrap(),
        lane: PriorityLane::Bulk,
        group: 0,
        batch_linger: Duration::from_millis(500),
        tenant_weight: 1.0,
    }
}

fn load_test_page() -> GrayImage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages/weir.jpg");
    image::open(path).unwrap().into_luma8()
}

fn load_expected_text() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages/weir.txt")).unwrap()
}

fn to_gray_page_image(image: GrayImage) -> RawPageImage {
    RawPageImage {
        width: image.width(),
        height: image.height(),
        stride: image.width() as usize,
        format: PixelFormat::Gray,
        pixels: Arc::new(image.into_raw()),
    }
}

/// The same page in color, with padded rows as from a rasterizer.
fn to_padded_bgr_page_image(image: &GrayImage) -> RawPageImage {
    let stride = image.width() as usize * 3 + 40;
    let mut pixels = Vec::new();
    for row in image.rows() {
        let start = pixels.len();
        pixels.extend(row.flat_map(|p| [p.0[0]; 3]));
        pixels.resize(start + stride, 99);
    }
    RawPageImage {
        width: image.width(),
        height: image.height(),
        stride,
        format: PixelFormat::Bgr,
        pixels: Arc::new(pixels),
    }
}

/// The page as a bad scan: rotated, blurred and with noise.
fn simulate_scan(page: &GrayImage, degrees: f32) -> GrayImage {
    use imageproc::geometric_transformations::{Border, Interpolation, rotate_about_center};
    let white = Border::Constant(image::Luma([255]));
    let rotated = rotate_about_center(page, degrees.to_radians(), Interpolation::Bilinear, white);
    let mut scan = imageproc::filter::gaussian_blur_f32(&rotated, 0.6);
    imageproc::noise::gaussian_noise_mut(&mut scan, -8.0, 13.0, 7);
    scan
}

/// Returns all characters except spaces, row by row from the top, each row from the left. The page is rotated by `degrees`.
fn characters_in_reading_order(lines: &[Line], image: (f32, f32), degrees: f32) -> String {
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

/// Returns the number of edits between the two texts as a share of the length of `truth`.
fn character_error_rate(truth: &str, read: &str) -> f32 {
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
async fn clean_page_is_read_without_errors() {
    let inference = InferenceHost::load_runtime(cpu_config()).unwrap();
    let image = load_test_page();
    let size = (image.width() as f32, image.height() as f32);
    let (reader, scheduling) = (inference.ocr_engine(), test_scheduling_context());
    let lines = reader
        .recognize_text(&scheduling, to_gray_page_image(image.clone()), PAGE_DPI)
        .await
        .unwrap();
    let steps = inference.stats().ocr.requests;
    assert!(steps > 2, "{steps} steps for {} lines", lines.len());
    let rate = character_error_rate(
        &load_expected_text(),
        &characters_in_reading_order(&lines, size, 0.0),
    );
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

    let padded = reader
        .recognize_text(&scheduling, to_padded_bgr_page_image(&image), PAGE_DPI)
        .await
        .unwrap();
    assert_eq!(padded, lines);
    let stats = inference.stats().ocr;
    assert_eq!((stats.requests, stats.queued_requests), (2 * steps, 0));
}

#[tokio::test]
async fn ocr_result_does_not_depend_on_the_number_of_workers() {
    let pages = [image::imageops::rotate90(&load_test_page()), load_test_page()].map(to_gray_page_image);
    let mut readings = Vec::new();
    for workers in [1, 3] {
        let inference = InferenceHost::load_runtime(InferenceConfig {
            ocr_workers: workers,
            ..cpu_config()
        })
        .unwrap();
        let (reader, scheduling) = (inference.ocr_engine(), test_scheduling_context());
        let all = pages
            .iter()
            .map(|page| reader.recognize_text(&scheduling, page.clone(), PAGE_DPI));
        readings.push(futures::future::try_join_all(all).await.unwrap());
    }
    assert_eq!(readings[0], readings[1]);
    assert!(readings[0].iter().all(|lines| lines.len() > 10));
}

#[tokio::test]
async fn rotated_and_noisy_scan_is_read() {
    let inference = InferenceHost::load_runtime(cpu_config()).unwrap();
    for degrees in [0.6, -2.5] {
        let scan = simulate_scan(&load_test_page(), degrees);
        let size = (scan.width() as f32, scan.height() as f32);
        let lines = inference
            .ocr_engine()
            .recognize_text(&test_scheduling_context(), to_gray_page_image(scan), PAGE_DPI)
            .await
            .unwrap();
        let rate = character_error_rate(
            &load_expected_text(),
            &characters_in_reading_order(&lines, size, degrees),
        );
        assert!(rate < 0.02, "{rate} at {degrees}: {lines:#?}");
    }
}

#[tokio::test]
async fn blank_or_nearly_blank_page_has_no_text_lines() {
    let inference = InferenceHost::load_runtime(cpu_config()).unwrap();
    let reader = inference.ocr_engine();
    let blank = GrayImage::from_pixel(400, 300, image::Luma([244]));
    assert!(
        reader
            .recognize_text(&test_scheduling_context(), to_gray_page_image(blank), PAGE_DPI)
            .await
            .unwrap()
            .is_empty()
    );
    let speck = GrayImage::from_fn(400, 300, |x, y| {
        image::Luma([if x / 6 == 30 && y / 6 == 20 { 0 } else { 255 }])
    });
    let lines = reader
        .recognize_text(&test_scheduling_context(), to_gray_page_image(speck), PAGE_DPI)
        .await
        .unwrap();
    assert!(lines.iter().all(|l| l.text.chars().count() <= 1), "{lines:?}");
    let truncated_image = RawPageImage {
        height: 301,
        ..to_gray_page_image(GrayImage::new(400, 300))
    };
    let error = reader
        .recognize_text(&test_scheduling_context(), truncated_image, PAGE_DPI)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), "model-input");
}

fn cosine_similarity(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[derive(serde::Deserialize)]
struct ReferenceEmbedding {
    text: String,
    tokens: u32,
    vector: Vec<f32>,
}

/// Loads embeddings that Python's onnxruntime and tokenizers computed with the same model.
fn load_reference_embeddings() -> Vec<ReferenceEmbedding> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn vectors_and_token_counts_match_the_reference() {
    let inference = InferenceHost::load_runtime(cpu_config()).unwrap();
    let embedder = inference.embedder();
    let references = load_reference_embeddings();
    let texts = references.iter().map(|r| r.text.clone()).collect();
    let vectors = embedder
        .embed_texts(&test_scheduling_context(), texts)
        .await
        .unwrap();
    assert_eq!(vectors.len(), references.len());
    for (vector, reference) in vectors.iter().zip(&references) {
        assert_eq!(vector.len(), embedder.vector_dimensions());
        assert!((cosine_similarity(vector, vector) - 1.0).abs() < 1e-5);
        let similar = cosine_similarity(vector, &reference.vector);
        assert!(similar > 0.9999, "{similar}: {}", reference.text);
        assert_eq!(embedder.count_tokens(&reference.text).unwrap(), reference.tokens);
    }
    assert!(references.iter().any(|r| r.tokens > embedder.max_input_tokens()));
}

#[tokio::test]
async fn batching_keeps_order_and_does_not_change_vectors() {
    let inference = InferenceHost::load_runtime(cpu_config()).unwrap();
    let embedder = inference.embedder();
    let texts: Vec<String> = (0..40)
        .map(|n| format!("Reading {n} of gauge {}. ", n * 7 % 13).repeat(1 + n * 5 % 9))
        .collect();
    let together = embedder
        .embed_texts(&test_scheduling_context(), texts.clone())
        .await
        .unwrap();
    for n in [0, 1, 17, 39] {
        let alone = embedder
            .embed_texts(&test_scheduling_context(), vec![texts[n].clone()])
            .await
            .unwrap();
        assert!(cosine_similarity(&alone[0], &together[n]) > 0.9999, "{n}");
    }
    let stats = inference.stats().embedding;
    assert_eq!(stats.requests, 44);
    assert!(stats.largest_batch <= 8);
    assert!(
        embedder
            .embed_texts(&test_scheduling_context(), Vec::new())
            .await
            .unwrap()
            .is_empty()
    );
}

/// The quantized model has no mask for padding, so texts of other lengths must not run in the same batch.
#[tokio::test]
async fn quantized_vectors_are_close_to_the_reference_in_batches_and_alone() {
    let config = InferenceConfig {
        use_quantized_model: true,
        ..cpu_config()
    };
    let quantized_file = config.assets_folder.join("models/minilm/model-quantized.onnx");
    assert!(
        quantized_file.is_file(),
        "run `make setup` with CPython 3.11 to 3.14"
    );
    let inference = InferenceHost::load_runtime(config).unwrap();
    let embedder = inference.embedder();
    let references = load_reference_embeddings();
    let texts: Vec<String> = references.iter().map(|r| r.text.clone()).collect();
    let together = embedder
        .embed_texts(&test_scheduling_context(), texts.clone())
        .await
        .unwrap();
    for ((text, reference), vector) in texts.into_iter().zip(&references).zip(&together) {
        let similar = cosine_similarity(vector, &reference.vector);
        assert!(similar > 0.97, "{similar}: {text}");
        let alone = embedder
            .embed_texts(&test_scheduling_context(), vec![text])
            .await
            .unwrap();
        let similar = cosine_similarity(&alone[0], vector);
        assert!(similar > 0.99, "{similar}: {}", reference.text);
    }
}

#[tokio::test]
async fn similar_texts_have_closer_vectors_quantized_or_not() {
    for quantized in [false, true] {
        let config = InferenceConfig {
            use_quantized_model: quantized,
            ..cpu_config()
        };
        let inference = InferenceHost::load_runtime(config).unwrap();
        let texts = [
            "The lock keeper opens the gate in the morning.",
            "Every morning the gate is opened by the keeper of the lock.",
            "Interest rates rose by half a percent.",
        ];
        let texts = texts.map(String::from).to_vec();
        let vectors = inference
            .embedder()
            .embed_texts(&test_scheduling_context(), texts)
            .await
            .unwrap();
        let (alike, other) = (
            cosine_similarity(&vectors[0], &vectors[1]),
            cosine_similarity(&vectors[0], &vectors[2]),
        );
        assert!(alike > 0.8 && other < 0.2, "{alike} {other}");
    }
}

#[test]
fn missing_files_are_named_with_the_setup_command() {
    let folder = tempfile::tempdir().unwrap();
    let broken = InferenceConfig {
        assets_folder: folder.path().to_owned(),
        ..cpu_config()
    };
    let error = InferenceHost::load_runtime(broken.clone()).err().unwrap();
    assert_eq!(error.kind(), "model-unavailable");
    assert!(
        error.to_string().ends_with("is not available: run `make setup`"),
        "{error}"
    );
    let error = broken.check_model_files_exist(ModelKind::Ocr).unwrap_err();
    assert!(error.to_string().contains("libonnxruntime.so"), "{error}");
    cpu_config().check_model_files_exist(ModelKind::Ocr).unwrap();
    cpu_config()
        .check_model_files_exist(ModelKind::Embedding)
        .unwrap();
}

#[test]
fn missing_gpu_is_an_error_only_if_requested_explicitly() {
    let explicit_gpu_config = InferenceConfig {
        // No machine has this many GPUs.
        device: DeviceChoice::Cuda(99),
        ..cpu_config()
    };
    let error = InferenceHost::load_runtime(explicit_gpu_config).err().unwrap();
    assert_eq!(error.kind(), "model-unavailable");
    assert!(
        error.to_string().contains("cuda:99") && error.to_string().contains("driver"),
        "{error}"
    );
    assert!(!error.to_string().contains('\n'));
    let auto = InferenceConfig {
        device: DeviceChoice::Auto,
        ..cpu_config()
    };
    let inference = InferenceHost::load_runtime(auto).unwrap();
    assert_eq!(
        inference.device_name() == "cpu",
        inference.compute_device().kind == weir_core::decision::DeviceKind::Cpu
    );
    assert!(inference.compute_device().memory_bytes > 0 && inference.compute_device().cores > 0);
}

#[tokio::test]
async fn dropping_inference_fails_the_active_page() {
    let inference = InferenceHost::load_runtime(cpu_config()).unwrap();
    let reader = inference.ocr_engine();
    let reading = tokio::spawn({
        let reader = Arc::clone(&reader);
        async move {
            reader
                .recognize_text(
                    &test_scheduling_context(),
                    to_gray_page_image(load_test_page()),
                    PAGE_DPI,
                )
                .await
        }
    });
    while inference.stats().ocr.busy_workers == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::task::spawn_blocking(move || drop(inference))
        .await
        .unwrap();
    assert_eq!(reading.await.unwrap().unwrap_err().kind(), "model-failed");
    let late = reader
        .recognize_text(
            &test_scheduling_context(),
            to_gray_page_image(load_test_page()),
            PAGE_DPI,
        )
        .await;
    assert_eq!(late.unwrap_err().kind(), "model-failed");
}

#[tokio::test]
async fn dropped_page_request_stops_its_work() {
    let config = InferenceConfig {
        ocr_workers: 1,
        ..cpu_config()
    };
    let inference = InferenceHost::load_runtime(config).unwrap();
    let reader = inference.ocr_engine();
    reader
        .recognize_text(
            &test_scheduling_context(),
            to_gray_page_image(load_test_page()),
            PAGE_DPI,
        )
        .await
        .unwrap();
    let (whole, steps) = (
        wait_until_idle_and_read_busy_millis(&inference).await,
        inference.stats().ocr.requests,
    );
    let abandoned = tokio::spawn({
        let reader = Arc::clone(&reader);
        async move {
            reader
                .recognize_text(
                    &test_scheduling_context(),
                    to_gray_page_image(load_test_page()),
                    PAGE_DPI,
                )
                .await
        }
    });
    while inference.stats().ocr.busy_workers == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    abandoned.abort();
    let blank = GrayImage::from_pixel(40, 30, image::Luma([244]));
    reader
        .recognize_text(&test_scheduling_context(), to_gray_page_image(blank), PAGE_DPI)
        .await
        .unwrap();
    let abandoned = wait_until_idle_and_read_busy_millis(&inference).await - whole;
    let stats = inference.stats().ocr;
    assert!(stats.requests < steps + steps / 2, "{steps} steps of {stats:?}");
    assert!(abandoned * 2 < whole, "{abandoned} ms of {whole} ms");
}

/// Waits until the only OCR worker is idle and returns its busy time in milliseconds. A result is sent before its worker counts
/// as idle.
async fn wait_until_idle_and_read_busy_millis(inference: &InferenceHost) -> u64 {
    while inference.stats().ocr.busy_workers > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    inference.stats().ocr.busy_millis
}

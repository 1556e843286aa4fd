//! Checks that a device works and measures its speed: embeds 512 texts and reads four copies of the test page.
//!
//! `device_check [auto|cpu|cuda:N] [ASSETS]`. Defaults are `cuda:0` and the assets folder of the user. It fails if the device
//! does not work, or if the text differs too much from the expected text.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use weir_core::TenantId;
use weir_core::page::{PixelFormat, PriorityLane, RawPageImage};
use weir_core::ports::SchedulingContext;
use weir_core::settings::Settings;
use weir_inference::{InferenceConfig, InferenceHost};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

const TEXT_COUNT: usize = 512;
const PAGE_COUNT: usize = 4;
const PAGE_DPI: u32 = 150;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let device = arguments.next().unwrap_or_else(|| "cuda:0".into());
    let assets = arguments.next().map_or_else(default_assets_folder, PathBuf::from);
    let mut settings = Settings::default();
    settings.set("inference.device", &device)?;
    settings.set("inference.max_embedding_batch_texts", "64")?;

    let began = Instant::now();
    let inference = InferenceHost::load_runtime(InferenceConfig::from_settings(&settings, assets))?;
    println!(
        "device      {} {:?}",
        inference.device_name(),
        inference.compute_device()
    );
    println!("loaded in   {:.2?}", began.elapsed());

    let scheduling = SchedulingContext {
        tenant: TenantId::default_tenant(),
        lane: PriorityLane::Bulk,
        group: 0,
        batch_linger: Duration::ZERO,
        tenant_weight: 1.0,
    };
    let texts: Vec<String> = (0..TEXT_COUNT)
        .map(|n| {
            format!(
                "Passage {n}. {}",
                "A weir holds the river at its height and lets the rest pass. ".repeat(1 + n % 12)
            )
        })
        .collect();
    let embedder = inference.embedder();
    for round in ["first", "second"] {
        let began = Instant::now();
        let vectors = embedder.embed_texts(&scheduling, texts.clone()).await?;
        let rate = vectors.len() as f64 / began.elapsed().as_secs_f64();
        println!("embedding   {rate:.1} texts/s ({round} round)");
    }

    let reader = inference.ocr_engine();
    let page = load_test_page()?;
    let mut text = String::new();
    for round in ["first", "second"] {
        let began = Instant::now();
        let pages =
            try_join_all((0..PAGE_COUNT).map(|_| reader.recognize_text(&scheduling, page.clone(), PAGE_DPI)))
                .await?;
        let rate = pages.len() as f64 / began.elapsed().as_secs_f64();
        println!("reading     {rate:.2} pages/s ({round} round)");
        text = pages
            .iter()
            .flatten()
            .map(|line| format!("{}\n", line.text))
            .collect();
    }
    let truth = std::fs::read_to_string(test_pages_folder().join("weir.txt"))?;
    let (all, found) = (
        truth.lines().count(),
        truth.lines().filter(|l| text.contains(l)).count(),
    );
    println!("lines       {found} of {all} read without errors");
    println!("statistics  {:?}", inference.stats());
    if found * 10 < all * 7 {
        return Err("too few lines were read without errors: the device computes wrong results".into());
    }
    Ok(())
}

fn test_pages_folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pages"))
}

fn load_test_page() -> Result<RawPageImage, AnyError> {
    let image = image::open(test_pages_folder().join("weir.jpg"))?.into_luma8();
    Ok(RawPageImage {
        width: image.width(),
        height: image.height(),
        stride: image.width() as usize,
        format: PixelFormat::Gray,
        pixels: Arc::new(image.into_raw()),
    })
}

fn default_assets_folder() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_PATHS_ASSETS") {
        return path.into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = std::env::home_dir().unwrap_or_default();
    data.unwrap_or_else(|| home.join(".local/share"))
        .join("weir/assets")
}

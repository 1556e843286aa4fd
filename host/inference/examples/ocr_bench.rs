//! Reads page images (PGM) repeatedly and prints pages per second and the recognized lines as JSON.
//!
//! `ocr_bench [--assets DIR] [--workers N] [--rounds N] [--dpi N] PAGE.pgm…`; `tests/bench/ocr.py` runs it beside RapidOCR.

#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use weir_core::TenantId;
use weir_core::page::{PixelFormat, PriorityLane, RawPageImage};
use weir_core::ports::SchedulingContext;
use weir_core::settings::Settings;
use weir_inference::{InferenceConfig, InferenceHost};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let (mut assets, mut workers, mut rounds, mut dpi) = (default_assets_folder(), 0, 1, 150);
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--assets" => assets = value()?.into(),
            "--workers" => workers = value()?.parse()?,
            "--rounds" => rounds = value()?.parse()?,
            "--dpi" => dpi = value()?.parse()?,
            _ => files.push(PathBuf::from(argument)),
        }
    }
    let config = InferenceConfig {
        ocr_workers: workers,
        ..InferenceConfig::from_settings(&Settings::default(), assets)
    };
    let inference = InferenceHost::load_runtime(config)?;
    let reader = inference.ocr_engine();
    let scheduling = Arc::new(SchedulingContext {
        tenant: TenantId::default_tenant(),
        lane: PriorityLane::Bulk,
        group: 0,
        batch_linger: Duration::ZERO,
        tenant_weight: 1.0,
    });
    let pages = files
        .iter()
        .map(|f| load_pgm(f))
        .collect::<Result<Vec<_>, AnyError>>()?;
    // This opens the sessions before the measurement.
    let warm = (0..reader.worker_count()).filter_map(|_| pages.first().cloned());
    try_join_all(warm.map(|page| reader.recognize_text(&scheduling, page, dpi))).await?;

    let before = inference.stats().ocr;
    let began = Instant::now();
    let (mut last, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        last = try_join_all(
            pages
                .iter()
                .map(|page| reader.recognize_text(&scheduling, page.clone(), dpi)),
        )
        .await?;
        resident.push(process_status_kib("VmRSS:"));
    }
    let seconds = began.elapsed().as_secs_f64();
    let busy = inference.stats().ocr.busy_millis - before.busy_millis;
    let count = pages.len() * rounds;
    let results: Vec<_> = files
        .iter()
        .zip(&last)
        .map(|(file, lines)| serde_json::json!({ "file": file, "lines": lines }))
        .collect();
    println!(
        "{}",
        serde_json::json!({
            "device": inference.device_name(),
            "workers": reader.worker_count(),
            "pages": count,
            "seconds": seconds,
            "pages_per_second": count as f64 / seconds,
            "busy_millis": busy,
            "resident_kib": resident,
            "resident_peak_kib": process_status_kib("VmHWM:"),
            "results": results,
        })
    );
    Ok(())
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

/// Loads a binary PGM file: `P5`, width, height, 255, then the pixels.
fn load_pgm(path: &Path) -> Result<RawPageImage, AnyError> {
    let bytes = std::fs::read(path)?;
    let wrong = || format!("{} is not a binary PGM file", path.display());
    let mut fields = bytes.splitn(4, |b| b.is_ascii_whitespace());
    let mut field = || {
        fields
            .next()
            .and_then(|f| std::str::from_utf8(f).ok())
            .ok_or_else(wrong)
    };
    if field()? != "P5" {
        return Err(wrong().into());
    }
    let (width, height): (u32, u32) = (field()?.parse()?, field()?.parse()?);
    let size = width as usize * height as usize;
    let start = bytes.len().checked_sub(size).ok_or_else(wrong)?;
    Ok(RawPageImage {
        width,
        height,
        stride: width as usize,
        format: PixelFormat::Gray,
        pixels: Arc::new(bytes.get(start..).unwrap_or_default().to_vec()),
    })
}

/// Returns a value of the process's own status, in KiB.
fn process_status_kib(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

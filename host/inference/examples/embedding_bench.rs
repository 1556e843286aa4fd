//! Embeds the texts of a JSON array repeatedly and prints the times and the vectors as JSON.
//!
//! `embedding_bench [--assets DIR] [--workers N] [--rounds N] TEXTS.json`; `tests/bench/embedding.py` runs it beside Python's
//! onnxruntime.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use weir_core::TenantId;
use weir_core::page::PriorityLane;
use weir_core::ports::SchedulingContext;
use weir_core::settings::Settings;
use weir_inference::{InferenceConfig, InferenceHost};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let (mut assets, mut workers, mut rounds, mut file) = (None, 0, 1, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--assets" => assets = Some(PathBuf::from(value()?)),
            "--workers" => workers = value()?.parse()?,
            "--rounds" => rounds = value()?.parse()?,
            _ => file = Some(PathBuf::from(argument)),
        }
    }
    let texts: Vec<String> =
        serde_json::from_slice(&std::fs::read(file.ok_or("a file with texts is missing")?)?)?;
    let config = InferenceConfig {
        embedding_workers: workers,
        ..InferenceConfig::from_settings(&Settings::default(), assets.unwrap_or_else(default_assets_folder))
    };
    let inference = InferenceHost::load_runtime(config)?;
    let embedder = inference.embedder();
    let scheduling = SchedulingContext {
        tenant: TenantId::default_tenant(),
        lane: PriorityLane::Bulk,
        group: 0,
        batch_linger: Duration::ZERO,
        tenant_weight: 1.0,
    };
    // This opens the model and fills the caches before the measurement.
    let first = texts.iter().take(8).cloned().collect();
    embedder.embed_texts(&scheduling, first).await?;

    let (mut vectors, mut seconds, mut cpu_seconds) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (began, cpu_before) = (Instant::now(), process_cpu_seconds()?);
        vectors = embedder.embed_texts(&scheduling, texts.clone()).await?;
        seconds.push(began.elapsed().as_secs_f64());
        cpu_seconds.push(process_cpu_seconds()? - cpu_before);
    }
    println!(
        "{}",
        serde_json::json!({
            "device": inference.device_name(),
            "workers": embedder.worker_count(),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "vectors": vectors,
        })
    );
    Ok(())
}

/// Returns the time that all threads of this process have computed. The scheduler counts it in nanoseconds for each thread.
fn process_cpu_seconds() -> Result<f64, AnyError> {
    let mut nanos = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let statistics = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let running = statistics.split_ascii_whitespace().next();
        nanos += running.ok_or("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(nanos as f64 / 1e9)
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

//! `weir doctor`: checks the installation, the device and the settings, and says how to fix problems. It sends one small request
//! to each language model.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use weir_core::manifest::Role;
use weir_core::ports::Embedder;
use weir_core::settings::SandboxMode;
use weir_core::settings::{ProviderSettings, Settings};
use weir_inference::{InferenceConfig, InferenceHost, ModelKind};
use weir_llm::{ProviderCheckResult, UsageAccounting, check_providers};
use weir_raster::{EnforcementLevel, RasterConfig, probe_sandbox};

use crate::app_folders::AppFolders;
use crate::host_services;
use crate::ledger_access::connect_postgres;
use crate::store_connections;
use crate::terminal::{EXIT_FAILED, await_with_progress, out_line};

const LANGUAGE_MODEL_CHECK: &str = "language model";

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum CheckState {
    Ok,
    /// Weir works, but slower, less protected or without one feature.
    Degraded,
    /// Weir does not work.
    Missing,
}

/// The finding of one check.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    state: CheckState,
    detail: String,
}

/// Runs all checks and prints their findings. The exit code is 1 if a required part is missing.
pub(crate) async fn run(json: bool, settings: &Settings, folders: &AppFolders) -> Result<ExitCode> {
    let mut findings = vec![
        check_default_component_files(&folders.default_components),
        check_data_folder(&folders.data),
    ];
    findings.extend(check_postgres_server(settings).await);
    let checked_bucket = await_with_progress("checking the S3 bucket", check_s3_bucket(settings)).await;
    findings.extend(checked_bucket);
    findings.extend(check_redis_server(settings).await);
    let (models, inference) = check_models_and_load_runtime(settings, folders);
    findings.extend(models);
    if let Some(inference) = &inference {
        let embedder = inference.embedder();
        findings.extend(check_qdrant_server(settings, embedder.vector_dimensions()).await);
        let checks = check_language_models(settings, &embedder);
        findings.extend(await_with_progress("checking the language models", checks).await);
    }
    let config = host_services::raster_config(settings, folders)?;
    findings.extend(
        await_with_progress(
            "checking the sandbox of PDF workers",
            check_rasterizer_sandbox(&config),
        )
        .await,
    );
    let missing = findings.iter().any(|f| f.state == CheckState::Missing);

    if json {
        out_line!(
            "{}",
            serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "findings": findings })
        )?;
    } else {
        out_line!("weir {}", env!("CARGO_PKG_VERSION"))?;
        for finding in &findings {
            let mark = match finding.state {
                CheckState::Ok => "ok      ",
                CheckState::Degraded => "degraded",
                CheckState::Missing => "MISSING ",
            };
            out_line!("{mark}  {:<16} {}", finding.check, finding.detail)?;
        }
    }
    Ok(if missing {
        ExitCode::from(EXIT_FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn new_finding(what: impl Into<String>, state: CheckState, detail: impl Into<String>) -> Finding {
    Finding {
        check: what.into(),
        state,
        detail: detail.into(),
    }
}

fn check_default_component_files(folder: &Path) -> Finding {
    let absent: Vec<_> = Role::ALL
        .iter()
        .map(|role| format!("{}.wasm", role.name()))
        .filter(|file| !folder.join(file).is_file())
        .collect();
    if absent.is_empty() {
        new_finding("components", CheckState::Ok, folder.display().to_string())
    } else {
        let detail = format!(
            "no {} in {}: run `make components`",
            absent.join(", "),
            folder.display()
        );
        new_finding("components", CheckState::Missing, detail)
    }
}

fn check_data_folder(folder: &Path) -> Finding {
    let probe = folder.join(".weir-write-test");
    match std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&probe, b"")) {
        Ok(()) => {
            let _ = std::fs::remove_file(probe);
            new_finding("data folder", CheckState::Ok, folder.display().to_string())
        }
        Err(error) => new_finding(
            "data folder",
            CheckState::Missing,
            format!(
                "cannot write to {}: {error}: set another folder with --data",
                folder.display()
            ),
        ),
    }
}

/// Checks the files of the ONNX models and loads ONNX Runtime. Returns the inference if it loads.
fn check_models_and_load_runtime(
    settings: &Settings,
    folders: &AppFolders,
) -> (Vec<Finding>, Option<InferenceHost>) {
    let config = InferenceConfig::from_settings(settings, folders.assets.clone());
    let quantized = folders
        .assets
        .join("models/minilm/model-quantized.onnx")
        .is_file();
    let mut findings = Vec::new();
    for (what, capability) in [("text embedding", ModelKind::Embedding), ("OCR", ModelKind::Ocr)] {
        findings.push(match config.check_model_files_exist(capability) {
            Err(error) => new_finding(what, CheckState::Missing, error.to_string()),
            Ok(()) if capability == ModelKind::Embedding && !quantized => {
                let detail = "all-MiniLM-L6-v2; the quantized model, three times as fast on a CPU, is missing: run `make setup`";
                new_finding(what, CheckState::Degraded, detail)
            }
            Ok(()) if capability == ModelKind::Embedding => new_finding(what, CheckState::Ok, "all-MiniLM-L6-v2, also quantized"),
            Ok(()) => new_finding(what, CheckState::Ok, "PP-OCRv6"),
        });
    }
    match InferenceHost::load_runtime(config) {
        Ok(inference) => {
            let detail = format!("ONNX Runtime on {}", inference.device_name());
            findings.push(new_finding("inference", CheckState::Ok, detail));
            (findings, Some(inference))
        }
        Err(error) => {
            findings.push(new_finding("inference", CheckState::Missing, error.to_string()));
            (findings, None)
        }
    }
}

/// Connects to the Qdrant server of the settings. `None` if the passages are in the data folder.
async fn check_qdrant_server(settings: &Settings, dimensions: usize) -> Option<Finding> {
    let connected = store_connections::connect_qdrant(settings, dimensions).await;
    match connected.transpose()? {
        Ok(_) => Some(new_finding(
            "index",
            CheckState::Ok,
            settings.storage_vectors.clone(),
        )),
        Err(error) => Some(new_finding(
            "index",
            CheckState::Missing,
            format!("{error:#}: start the server, or correct storage.vectors"),
        )),
    }
}

/// Connects to the PostgreSQL server of the settings. `None` if the ledger is in the data folder.
async fn check_postgres_server(settings: &Settings) -> Option<Finding> {
    match connect_postgres(settings).await.transpose()? {
        Ok(_) => Some(new_finding(
            "ledger",
            CheckState::Ok,
            settings.storage_ledger.clone(),
        )),
        Err(error) => Some(new_finding(
            "ledger",
            CheckState::Missing,
            format!("{error:#}: start the server, or correct storage.ledger"),
        )),
    }
}

/// Connects to the S3 bucket of the settings, and writes, reads, lists and deletes an object. `None` if `storage.blobs` is empty.
async fn check_s3_bucket(settings: &Settings) -> Option<Finding> {
    let connected = store_connections::connect_s3_bucket(settings).await;
    let checked = match connected.transpose()? {
        Ok(bucket) => bucket.check_access().await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    Some(match checked {
        Ok(()) => new_finding("blobs", CheckState::Ok, settings.storage_blobs.clone()),
        Err(error) => new_finding(
            "blobs",
            CheckState::Missing,
            format!("{error:#}: correct storage.blobs and storage.s3_*, or the server and its permissions"),
        ),
    })
}

/// Checks that the Redis server of the settings responds. `None` if `cluster.redis` is empty.
async fn check_redis_server(settings: &Settings) -> Option<Finding> {
    let checked = match store_connections::connect_redis(settings, "doctor").transpose()? {
        Ok(redis) => redis.check_access().await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    Some(match checked {
        Ok(()) => new_finding("redis", CheckState::Ok, settings.cluster_redis.clone()),
        // Not fatal: nodes work without it.
        Err(error) => new_finding(
            "redis",
            CheckState::Degraded,
            format!(
                "{error:#}: start the server, or correct cluster.redis; without it, nodes share limits less exactly"
            ),
        ),
    })
}

/// Checks each language model of the settings separately, so that a provider with invalid settings does not hide the others.
/// The findings contain no API keys, because the errors of providers contain none.
async fn check_language_models(settings: &Settings, embedder: &Arc<dyn Embedder>) -> Vec<Finding> {
    let settings_with_provider = |provider: Option<&ProviderSettings>| Settings {
        llm_providers: provider.into_iter().cloned().collect(),
        ..settings.clone()
    };
    let each: Vec<Settings> = match settings.llm_providers.as_slice() {
        [] => vec![settings_with_provider(None)],
        providers => providers
            .iter()
            .map(|provider| settings_with_provider(Some(provider)))
            .collect(),
    };
    let mut findings = Vec::new();
    for settings in each {
        match weir_llm::build_language_model(
            &settings,
            embedder,
            None,
            UsageAccounting::default(),
            None,
            |name| std::env::var(name).ok(),
        ) {
            Err(error) => findings.push(new_finding(
                LANGUAGE_MODEL_CHECK,
                CheckState::Missing,
                error.to_string(),
            )),
            Ok(language_model) => {
                let checks = check_providers(language_model.router().providers()).await;
                findings.extend(checks.iter().map(llm_provider_finding));
            }
        }
    }
    findings
}

fn llm_provider_finding(check: &ProviderCheckResult) -> Finding {
    let provider_and_model = if check.name == check.model {
        check.name.clone()
    } else {
        format!("{}, {}", check.name, check.model)
    };
    match &check.outcome {
        Ok(took) => {
            let note = check.setup_note.as_ref().map(|remark| format!("; {remark}"));
            let detail = format!(
                "{provider_and_model}: responded in {:.1} s{}",
                took.as_secs_f64(),
                note.unwrap_or_default()
            );
            new_finding(LANGUAGE_MODEL_CHECK, CheckState::Ok, detail)
        }
        // Not fatal: a run works without the provider and reports the summaries that fail.
        Err(fault) => {
            let remedy = fault
                .describe_remedy(&check.name)
                .map(|remedy| format!("; {remedy}"));
            let detail = format!("{provider_and_model}: {fault}{}", remedy.unwrap_or_default());
            new_finding(LANGUAGE_MODEL_CHECK, CheckState::Degraded, detail)
        }
    }
}

async fn check_rasterizer_sandbox(config: &RasterConfig) -> Vec<Finding> {
    let report = match probe_sandbox(config).await {
        Ok(report) => report,
        Err(error) => return vec![new_finding("PDFium", CheckState::Missing, error.to_string())],
    };
    let mut findings = vec![new_finding(
        "PDFium",
        CheckState::Ok,
        config.pdfium_path.display().to_string(),
    )];
    let required = config.sandbox_mode == SandboxMode::Required;
    let without = "not available in this kernel or container";
    let (state, detail) = if required {
        let allow = "PDF workers do not start without it: enable it, or set raster.sandbox_mode=best-effort";
        (CheckState::Missing, format!("{without}; {allow}"))
    } else {
        (
            CheckState::Degraded,
            format!("{without}: PDF workers are less restricted"),
        )
    };
    for (what, lock, part_is_enough) in [
        ("landlock", report.status.landlock, true),
        ("seccomp", report.status.seccomp, false),
    ] {
        findings.push(match lock {
            EnforcementLevel::Full => new_finding(what, CheckState::Ok, "PDF workers are restricted"),
            EnforcementLevel::Partial if part_is_enough => new_finding(
                what,
                CheckState::Ok,
                "PDF workers are restricted; a newer kernel would restrict more",
            ),
            EnforcementLevel::Partial | EnforcementLevel::None => new_finding(what, state, detail.clone()),
        });
    }
    if !report.unblocked_probes.is_empty() {
        let detail = format!(
            "the sandbox allows forbidden operations of a PDF worker: {:?}",
            report.unblocked_probes
        );
        findings.push(new_finding("sandbox", CheckState::Degraded, detail));
    }
    findings
}

//! `weir doctor`: what is installed, which device is used, what is missing and how to get it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use weir_core::manifest::Role;
use weir_core::settings::Settings;
use weir_inference::{Capability, Inference, InferenceConfig};
use weir_raster::{Lock, RasterConfig, sandbox_report};

use crate::places::Places;
use crate::{FAILED, host};

/// How a thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Well,
    /// Weir runs, with less than it could have.
    Weak,
    /// Weir does not run.
    Missing,
}

/// A thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    detail: String,
}

/// Looks at everything a run needs and tries what can be tried.
#[allow(clippy::print_stdout)]
pub(crate) async fn run(json: bool, settings: &Settings, places: &Places) -> Result<ExitCode> {
    let mut findings = vec![components(&places.components), data(&places.data)];
    findings.extend(models(settings, places));
    findings.extend(rasterizer(&host::raster_config(settings, places)?).await);
    let missing = findings.iter().any(|f| f.state == State::Missing);

    if json {
        println!(
            "{}",
            serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "findings": findings })
        );
    } else {
        println!("weir {}", env!("CARGO_PKG_VERSION"));
        for finding in &findings {
            let mark = match finding.state {
                State::Well => "ok     ",
                State::Weak => "weak   ",
                State::Missing => "MISSING",
            };
            println!("{mark}  {:<16} {}", finding.what, finding.detail);
        }
    }
    Ok(if missing {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn finding(what: &'static str, state: State, detail: impl Into<String>) -> Finding {
    Finding {
        what,
        state,
        detail: detail.into(),
    }
}

fn components(folder: &Path) -> Finding {
    let absent: Vec<_> = Role::ALL
        .iter()
        .map(|role| format!("{}.wasm", role.name()))
        .filter(|file| !folder.join(file).is_file())
        .collect();
    if absent.is_empty() {
        finding("components", State::Well, folder.display().to_string())
    } else {
        let detail = format!(
            "no {} in {}: run `make components`",
            absent.join(", "),
            folder.display()
        );
        finding("components", State::Missing, detail)
    }
}

fn data(folder: &Path) -> Finding {
    let probe = folder.join(".weir-write-test");
    match std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&probe, b"")) {
        Ok(()) => {
            let _ = std::fs::remove_file(probe);
            finding("data folder", State::Well, folder.display().to_string())
        }
        Err(error) => finding(
            "data folder",
            State::Missing,
            format!("{}: {error}: give another with --data", folder.display()),
        ),
    }
}

fn models(settings: &Settings, places: &Places) -> Vec<Finding> {
    let config = InferenceConfig::from_settings(settings, places.assets.clone());
    let quantized = places.assets.join("models/minilm/model-quantized.onnx").is_file();
    let mut findings = Vec::new();
    for (what, capability) in [("text embedding", Capability::Embed), ("OCR", Capability::Read)] {
        findings.push(match config.check(capability) {
            Err(error) => finding(what, State::Missing, error.to_string()),
            Ok(()) if capability == Capability::Embed && !quantized => {
                let detail = "all-MiniLM-L6-v2; the quantized model, twice as quick on a CPU, is not there: run `make setup`";
                finding(what, State::Weak, detail)
            }
            Ok(()) if capability == Capability::Embed => finding(what, State::Well, "all-MiniLM-L6-v2, also quantized"),
            Ok(()) => finding(what, State::Well, "PP-OCRv6"),
        });
    }
    findings.push(match Inference::load(config) {
        Ok(inference) => finding(
            "inference",
            State::Well,
            format!("ONNX Runtime on {}", inference.device_name()),
        ),
        Err(error) => finding("inference", State::Missing, error.to_string()),
    });
    findings
}

async fn rasterizer(config: &RasterConfig) -> Vec<Finding> {
    let report = match sandbox_report(config).await {
        Ok(report) => report,
        Err(error) => return vec![finding("PDFium", State::Missing, error.to_string())],
    };
    let mut findings = vec![finding(
        "PDFium",
        State::Well,
        config.pdfium.display().to_string(),
    )];
    for (what, lock) in [
        ("landlock", report.sandbox.landlock),
        ("seccomp", report.sandbox.seccomp),
    ] {
        findings.push(match lock {
            Lock::Full => finding(what, State::Well, "PDF workers are locked in"),
            Lock::Partial => finding(
                what,
                State::Weak,
                "this kernel holds only a part of it: a newer one would hold all",
            ),
            Lock::None => finding(
                what,
                State::Weak,
                "this kernel does not have it: PDF workers are less locked in",
            ),
        });
    }
    if !report.leaks.is_empty() {
        let detail = format!("a PDF worker could do what it must not: {:?}", report.leaks);
        findings.push(finding("sandbox", State::Weak, detail));
    }
    findings
}

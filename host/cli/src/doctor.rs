//! `weir doctor`: what is installed, which device is used, what is missing and how to get it. Each language model is asked something small.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use weir_core::manifest::Role;
use weir_core::ports::Embedder;
use weir_core::settings::SandboxMode;
use weir_core::settings::{ProviderSettings, Settings};
use weir_inference::{Capability, Inference, InferenceConfig};
use weir_llm::{Accounts, Examined, examine};
use weir_raster::{Lock, RasterConfig, sandbox_report};

use crate::places::Places;
use crate::terminal::{announce, out_line};
use crate::{FAILED, host};

const LANGUAGE_MODEL: &str = "language model";

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
    what: String,
    state: State,
    detail: String,
}

/// Looks at everything a run needs and tries what can be tried.
pub(crate) async fn run(json: bool, settings: &Settings, places: &Places) -> Result<ExitCode> {
    let mut findings = vec![components(&places.components), data(&places.data)];
    let (models, inference) = models(settings, places);
    findings.extend(models);
    if let Some(inference) = &inference {
        let embedder = inference.embedder();
        let asked = language_models(settings, &embedder);
        findings.extend(announce("asking the language models", asked).await);
    }
    let config = host::raster_config(settings, places)?;
    findings.extend(announce("trying the sandbox of PDF workers", rasterizer(&config)).await);
    let missing = findings.iter().any(|f| f.state == State::Missing);

    if json {
        out_line!(
            "{}",
            serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "findings": findings })
        )?;
    } else {
        out_line!("weir {}", env!("CARGO_PKG_VERSION"))?;
        for finding in &findings {
            let mark = match finding.state {
                State::Well => "ok     ",
                State::Weak => "weak   ",
                State::Missing => "MISSING",
            };
            out_line!("{mark}  {:<16} {}", finding.what, finding.detail)?;
        }
    }
    Ok(if missing {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn finding(what: impl Into<String>, state: State, detail: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
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

/// What ONNX Runtime runs, and ONNX Runtime itself if it is there.
fn models(settings: &Settings, places: &Places) -> (Vec<Finding>, Option<Inference>) {
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
    match Inference::load(config) {
        Ok(inference) => {
            let detail = format!("ONNX Runtime on {}", inference.device_name());
            findings.push(finding("inference", State::Well, detail));
            (findings, Some(inference))
        }
        Err(error) => {
            findings.push(finding("inference", State::Missing, error.to_string()));
            (findings, None)
        }
    }
}

/// Each language model of the settings by itself, so that one that cannot be set up hides no other. What is said of it has no key in it:
/// neither errors nor faults repeat one.
async fn language_models(settings: &Settings, embedder: &Arc<dyn Embedder>) -> Vec<Finding> {
    let alone = |provider: Option<&ProviderSettings>| Settings {
        llm_providers: provider.into_iter().cloned().collect(),
        ..settings.clone()
    };
    let each: Vec<Settings> = match settings.llm_providers.as_slice() {
        [] => vec![alone(None)],
        providers => providers.iter().map(|provider| alone(Some(provider))).collect(),
    };
    let mut findings = Vec::new();
    for settings in each {
        match weir_llm::from_settings(&settings, embedder, None, Accounts::default(), |name| {
            std::env::var(name).ok()
        }) {
            Err(error) => findings.push(finding(LANGUAGE_MODEL, State::Missing, error.to_string())),
            Ok(answers) => {
                let examined = examine(answers.router().members()).await;
                findings.extend(examined.iter().map(language_model));
            }
        }
    }
    findings
}

fn language_model(of: &Examined) -> Finding {
    let named = if of.name == of.model {
        of.name.clone()
    } else {
        format!("{}, {}", of.name, of.model)
    };
    match &of.outcome {
        Ok(took) => {
            let remark = of.remark.as_ref().map(|remark| format!("; {remark}"));
            let detail = format!(
                "{named}: answered within {:.1} s{}",
                took.as_secs_f64(),
                remark.unwrap_or_default()
            );
            finding(LANGUAGE_MODEL, State::Well, detail)
        }
        // A run does without: what it cannot summarize it says.
        Err(fault) => {
            let remedy = fault.remedy(&of.name).map(|remedy| format!("; {remedy}"));
            let detail = format!("{named}: {fault}{}", remedy.unwrap_or_default());
            finding(LANGUAGE_MODEL, State::Weak, detail)
        }
    }
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
    let required = config.sandbox == SandboxMode::Required;
    let without = "this kernel or container does not offer it";
    let (state, detail) = if required {
        let allow = "PDF workers do not start: allow it, or set raster.sandbox=best-effort";
        (State::Missing, format!("{without}, and {allow}"))
    } else {
        (State::Weak, format!("{without}: PDF workers are less locked in"))
    };
    for (what, lock, part_is_enough) in [
        ("landlock", report.sandbox.landlock, true),
        ("seccomp", report.sandbox.seccomp, false),
    ] {
        findings.push(match lock {
            Lock::Full => finding(what, State::Well, "PDF workers are locked in"),
            Lock::Partial if part_is_enough => finding(
                what,
                State::Well,
                "PDF workers are locked in; a newer kernel would deny some of it twice",
            ),
            Lock::Partial | Lock::None => finding(what, state, detail.clone()),
        });
    }
    if !report.leaks.is_empty() {
        let detail = format!("a PDF worker could do what it must not: {:?}", report.leaks);
        findings.push(finding("sandbox", State::Weak, detail));
    }
    findings
}

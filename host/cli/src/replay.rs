//! `weir replay`: a job's decisions had again, by the components it ran or by others, before any job runs them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use weir_core::component::Gate as _;
use weir_core::event::ErrorNote;
use weir_core::manifest::{ComponentFile, Manifest, Pipeline};
use weir_core::ports::PolicyState;
use weir_core::replay::{Effect, ReplayError, ReplayReport};
use weir_core::settings::Settings;
use weir_core::state::{StateChange, StateSizes};
use weir_core::tenancy::Scope;
use weir_core::{JobId, TenantId};
use weir_policy::{Frame, Opened, PolicyHost, read_recording};

use crate::host::{policy_config, retention};
use crate::pipeline;
use crate::places::Places;
use crate::said::check_tenant;
use crate::target::Target;
use crate::terminal::{announce, out_line};

/// `weir replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir replay JOB                              the components it ran decide the same again
  weir replay JOB --with routing.wasm          what this component would decide otherwise (data folder only)
  weir replay JOB --with pipeline.toml         … or this pipeline (data folder only)
  weir replay JOB --revision 4                 … or this revision of its pipeline (on a server only)

On a server the key needs the scope components. Exit code 1 says that a decision differs.")]
pub(crate) struct Replay {
    /// The job
    pub(crate) job: JobId,
    /// A component, for the roles it has, or a pipeline's manifest; in the data folder only
    #[arg(long, value_name = "FILE", conflicts_with = "revision")]
    pub(crate) with: Option<PathBuf>,
    /// A revision of the job's pipeline; on a server only
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u32>,
    /// Whose job it is, in the data folder [default: default]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
}

impl Replay {
    /// Refuses options that do not exist on this side.
    pub(crate) fn check(&self, target: &Target) -> Result<()> {
        match target {
            Target::Folder if self.revision.is_some() => bail!(
                "--revision is for a server only: give --server URL or set WEIR_SERVER, or name a manifest with --with pipeline.toml"
            ),
            Target::Server { .. } if self.with.is_some() => bail!(
                "--with is for the data folder only: push the component or manifest to the server, and name the revision with --revision N"
            ),
            _ => check_tenant(self.tenant.as_ref(), target),
        }
    }

    fn tenant(&self) -> TenantId {
        self.tenant.clone().unwrap_or_else(TenantId::single)
    }
}

/// Replays a job.
pub(crate) async fn run(
    replay: &Replay,
    json: bool,
    settings: &Settings,
    places: &Places,
    target: &Target,
) -> Result<ExitCode> {
    let report = match target.server(Scope::Components)? {
        Some(remote) => {
            let path = format!("/v1/jobs/{}/replay", replay.job);
            let with = json!({ "revision": replay.revision });
            serde_json::from_value(remote.post(&path, &with).await?)?
        }
        None => announce("replaying the job's decisions", here(replay, settings, places)).await?,
    };
    if json {
        out_line!("{}", serde_json::to_string(&report)?)?;
    } else {
        show(&report)?;
    }
    Ok(ExitCode::from(u8::from(report.differing > 0)))
}

async fn here(replay: &Replay, settings: &Settings, places: &Places) -> Result<ReplayReport> {
    let folder = places.data.join("recordings").join(replay.tenant().as_str());
    let path = folder.join(format!("{}.calls", replay.job));
    let frames = match read_recording(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let why = retention(settings).outlived(&replay.job);
            return Err(match why {
                Some(why) => ReplayError::NotKept(replay.job, why),
                None => ReplayError::NotRecorded(replay.job),
            })
            .with_context(|| format!("{} is not there", path.display()));
        }
        frames => frames.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let opened = frames.iter().find_map(|frame| match frame {
        Frame::Opened(opened) => Some(opened.as_ref().clone()),
        _ => None,
    });
    let opened = opened.context("the recording has no calls")?;
    let host = PolicyHost::new(policy_config(settings, places, Arc::new(Nothing))?)?;
    let pipeline = match &replay.with {
        None => recorded(&opened, replay, places)?,
        Some(path) if path.extension().is_some_and(|end| end == "toml") => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            pipeline::build(Manifest::parse(path, &text)?, &places.components)?
        }
        Some(path) => {
            let file = pipeline::component(path)?;
            let facts = host.inspect(&replay.tenant(), &file).await?;
            let mut pipeline = recorded(&opened, replay, places)?;
            pipeline.manifest.capabilities.grant.extend(facts.capabilities);
            for role in facts.roles {
                pipeline.components.insert(role, file.clone());
            }
            Pipeline::new(pipeline.manifest, pipeline.components, pipeline.defaults)
        }
    };
    Ok(host.replay_frames(frames, &pipeline).await?)
}

/// The pipeline that the job ran, with the files that have its components' digests.
fn recorded(opened: &Opened, replay: &Replay, places: &Places) -> Result<Pipeline> {
    let pushed = places.data.join("components").join(replay.tenant().as_str());
    let mut files = BTreeMap::new();
    for folder in [&places.components, &pushed] {
        for path in wasm(folder)? {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(<[u8; 32]>::from(Sha256::digest(&bytes)), path);
        }
    }
    let mut missing = None;
    let pipeline = opened.pipeline(|component| {
        let path = files.get(&component.digest).cloned();
        if path.is_none() {
            missing.get_or_insert_with(|| component.name.clone());
        }
        ComponentFile {
            name: component.name.clone(),
            path: path.unwrap_or_default(),
            digest: component.digest,
        }
    });
    match missing {
        Some(name) => bail!(
            "the component '{name}' that the job ran is not here any more: name the pipeline with --with pipeline.toml"
        ),
        None => Ok(pipeline),
    }
}

fn wasm(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    let paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    Ok(paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "wasm"))
        .collect())
}

type Count = fn(&Effect) -> u64;

fn show(report: &ReplayReport) -> std::io::Result<()> {
    for difference in &report.differences {
        out_line!("{}, {}", difference.function, difference.about)?;
        out_line!("  - {}", difference.before)?;
        out_line!("  + {}", difference.after)?;
    }
    let told = report.differences.len() as u64;
    if report.differing > told {
        out_line!("… and {} more", report.differing - told)?;
    }
    out_line!("{} decisions, {} differ", report.decisions, report.differing)?;
    let lines: [(&str, Count); 12] = [
        ("batches", |e| e.batches),
        ("pages in batches", |e| e.batch_pages),
        ("pages by text layer", |e| e.text_layer),
        ("pages by OCR", |e| e.ocr),
        ("pages by vision model", |e| e.vision_model),
        ("pages not read", |e| e.not_read),
        ("passages", |e| e.passages),
        ("model calls", |e| e.model_calls),
        ("retries", |e| e.retries),
        ("given up", |e| e.given_up),
        ("updates", |e| e.updates),
        ("not decided", |e| e.errors),
    ];
    for (name, of) in lines {
        let (before, after) = (of(&report.before), of(&report.after));
        if before != after {
            out_line!("  {name}: {before} → {after}")?;
        }
    }
    if report.missed > 0 {
        out_line!(
            "  {} questions to the host were new and had no answer",
            report.missed
        )?;
    }
    if let Some(why) = &report.incomplete {
        out_line!("  the recording ends before the job did: {why}")?;
    }
    Ok(())
}

/// Replayed components have a state of their own.
struct Nothing;

#[async_trait]
impl PolicyState for Nothing {
    async fn get(&self, _: &TenantId, _: &str, _: &str) -> Result<Option<Vec<u8>>, ErrorNote> {
        Ok(None)
    }

    async fn sizes(&self, _: &TenantId, _: &str) -> Result<StateSizes, ErrorNote> {
        Ok(StateSizes::default())
    }

    async fn apply(&self, _: &TenantId, _: &str, _: Vec<StateChange>) -> Result<(), ErrorNote> {
        Ok(())
    }
}

//! `weir replay`: repeats the recorded policy calls of a job, with the components of the job or with others, and reports the
//! decisions that differ.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use weir_core::component::{ComponentDigest, ComponentValidator as _};
use weir_core::local_file::LocalFile;
use weir_core::manifest::{Manifest, ResolvedComponentFile, ResolvedPipeline};
use weir_core::memory_component_state::MemoryComponentState;
use weir_core::recording::RecordingStore;
use weir_core::replay::{DecidedActionCounts, ReplayError, ReplayReport};
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;
use weir_core::{JobId, TenantId};
use weir_policy::{PolicyHost, RecordedComponent, RecordingFrame, SessionHeader, read_recording};
use weir_storage::{FileRecordingStore, S3Bucket, S3RecordingStore};

use crate::app_folders::AppFolders;
use crate::command_target::CommandTarget;
use crate::component_log::reject_tenant_on_server;
use crate::host_services::{policy_config, recording_retention};
use crate::pipeline_loader;
use crate::store_connections::connect_s3_bucket;
use crate::terminal::{await_with_progress, out_line};

/// Arguments of `weir replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir replay JOB                              check that the components of the job decide the same again
  weir replay JOB --with routing.wasm          compare with the decisions of this component (data folder only)
  weir replay JOB --with pipeline.toml         compare with the decisions of this pipeline (data folder only)
  weir replay JOB --revision 4                 compare with the decisions of this revision (server only)

On a server, the API key needs the scope components. Exit code 1 means that a decision differs.")]
pub(crate) struct ReplayArgs {
    /// Id of the job
    pub(crate) job: JobId,
    /// Component, which replaces the job's component in its roles, or manifest of a pipeline; data folder only
    #[arg(long, value_name = "FILE", conflicts_with = "revision")]
    pub(crate) with: Option<PathBuf>,
    /// Revision of the job's pipeline; server only
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u32>,
    /// Tenant of the job; only for jobs in the data folder, not with --server [default: default]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
}

impl ReplayArgs {
    /// Returns an error if an option is not supported on this target.
    pub(crate) fn validate_for_target(&self, target: &CommandTarget) -> Result<()> {
        match target {
            CommandTarget::Folder if self.revision.is_some() => bail!(
                "--revision is for a server only: set --server URL or WEIR_SERVER, or use --with pipeline.toml"
            ),
            CommandTarget::Server { .. } if self.with.is_some() => bail!(
                "--with is for the data folder only: push the component or manifest to the server and use --revision N"
            ),
            _ => reject_tenant_on_server(self.tenant.as_ref(), target),
        }
    }

    fn tenant_or_default(&self) -> TenantId {
        self.tenant.clone().unwrap_or_else(TenantId::default_tenant)
    }
}

/// Replays a job and prints the report.
pub(crate) async fn run(
    replay: &ReplayArgs,
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
    target: &CommandTarget,
) -> Result<ExitCode> {
    let report = match target.server_client(KeyScope::Components)? {
        Some(remote) => {
            let path = format!("/v1/jobs/{}/replay", replay.job);
            let body = json!({ "revision": replay.revision });
            serde_json::from_value(remote.post(&path, &body).await?)?
        }
        None => {
            await_with_progress(
                "replaying the job's decisions",
                replay_in_data_folder(replay, settings, folders),
            )
            .await?
        }
    };
    if json {
        out_line!("{}", serde_json::to_string(&report)?)?;
    } else {
        print_report(&report)?;
    }
    Ok(ExitCode::from(u8::from(report.differing > 0)))
}

async fn replay_in_data_folder(
    replay: &ReplayArgs,
    settings: &Settings,
    folders: &AppFolders,
) -> Result<ReplayReport> {
    let bucket = connect_s3_bucket(settings).await?;
    let recordings: Box<dyn RecordingStore> = match &bucket {
        Some(bucket) => Box::new(S3RecordingStore::new(Arc::clone(bucket))),
        None => Box::new(FileRecordingStore::new(&folders.data)),
    };
    let frames = read_recording(&*recordings, &replay.tenant_or_default(), &replay.job).await?;
    if frames.is_empty() {
        return Err(match recording_retention(settings).explain_expiry(&replay.job) {
            Some(why) => ReplayError::RecordingRemoved(replay.job, why),
            None => ReplayError::NotRecorded(replay.job),
        }
        .into());
    }
    let found_header = frames.iter().find_map(|frame| match frame {
        RecordingFrame::SessionStarted(opened) => Some(opened.as_ref().clone()),
        _ => None,
    });
    let session_header = found_header.context("the recording has no calls")?;
    // The replayer keeps the state of replayed components itself, so nothing is written here.
    let state = Arc::new(MemoryComponentState::default());
    let host = PolicyHost::new(policy_config(settings, folders, state)?)?;
    let pipeline = match &replay.with {
        None => rebuild_recorded_pipeline(&session_header, replay, bucket.as_deref(), folders).await?,
        Some(path) if path.extension().is_some_and(|end| end == "toml") => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            pipeline_loader::build_pipeline_from_manifest(
                Manifest::parse(path, &text)?,
                &folders.default_components,
            )?
        }
        Some(path) => {
            let file = pipeline_loader::hash_component_file(path)?;
            let facts = host.inspect_component(&replay.tenant_or_default(), &file).await?;
            let mut pipeline =
                rebuild_recorded_pipeline(&session_header, replay, bucket.as_deref(), folders).await?;
            pipeline.manifest.capabilities.grant.extend(facts.capabilities);
            for role in facts.roles {
                pipeline.components.insert(role, file.clone());
            }
            ResolvedPipeline::new(
                pipeline.manifest,
                pipeline.components,
                pipeline.default_components,
            )
        }
    };
    Ok(host.replay_frames(frames, &pipeline).await?)
}

/// Returns the pipeline of the recorded job, with the component files that have the recorded digests. Fails if a file is missing.
async fn rebuild_recorded_pipeline(
    session_header: &SessionHeader,
    replay: &ReplayArgs,
    bucket: Option<&S3Bucket>,
    folders: &AppFolders,
) -> Result<ResolvedPipeline> {
    let pushed = folders
        .data
        .join("components")
        .join(replay.tenant_or_default().as_str());
    let mut files = BTreeMap::new();
    for folder in [&folders.default_components, &pushed] {
        for path in list_wasm_files(folder)? {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(<[u8; 32]>::from(Sha256::digest(&bytes)), LocalFile::from(path));
        }
    }
    let mut missing = BTreeMap::new();
    session_header.to_pipeline(|component| {
        if !files.contains_key(&component.digest) {
            missing.insert(component.digest, component.name.clone());
        }
        resolve_recorded_component(component, &files)
    });
    if !missing.is_empty() {
        for (digest, name) in missing {
            let digest = ComponentDigest(digest);
            let stored = match bucket {
                Some(bucket) => {
                    bucket
                        .read_component(&replay.tenant_or_default(), &digest)
                        .await?
                }
                None => None,
            };
            let bytes = stored.with_context(|| {
                format!("the component '{name}' of the job is no longer stored: use --with pipeline.toml")
            })?;
            files.insert(digest.0, write_temporary_component(folders, &digest, &bytes)?);
        }
    }
    Ok(session_header.to_pipeline(|component| resolve_recorded_component(component, &files)))
}

fn resolve_recorded_component(
    component: &RecordedComponent,
    files: &BTreeMap<[u8; 32], LocalFile>,
) -> ResolvedComponentFile {
    let file = files.get(&component.digest).cloned();
    ResolvedComponentFile {
        name: component.name.clone(),
        file: file.unwrap_or_else(|| PathBuf::new().into()),
        digest: component.digest,
    }
}

/// Writes a component to a file that is removed after the replay.
fn write_temporary_component(
    folders: &AppFolders,
    digest: &ComponentDigest,
    bytes: &[u8],
) -> Result<LocalFile> {
    let digits = digest.to_string().replace("sha256:", "");
    let path = folders
        .cache
        .join(format!("replay-{}-{digits}.wasm", std::process::id()));
    let remove_guard = Arc::new(RemoveFileOnDrop(path.clone()));
    std::fs::create_dir_all(&folders.cache)
        .and_then(|()| std::fs::write(&path, bytes))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(LocalFile::with_lease(path, remove_guard))
}

struct RemoveFileOnDrop(PathBuf);

impl Drop for RemoveFileOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn list_wasm_files(folder: &Path) -> Result<Vec<PathBuf>> {
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

type TotalsField = fn(&DecidedActionCounts) -> u64;

fn print_report(report: &ReplayReport) -> std::io::Result<()> {
    for difference in &report.differences {
        out_line!("{}, {}", difference.function, difference.subject)?;
        out_line!("  - {}", difference.before)?;
        out_line!("  + {}", difference.after)?;
    }
    let printed = report.differences.len() as u64;
    if report.differing > printed {
        out_line!("… and {} more", report.differing - printed)?;
    }
    out_line!("{} decisions, {} differ", report.decisions, report.differing)?;
    let lines: [(&str, TotalsField); 12] = [
        ("batches", |e| e.batches),
        ("pages in batches", |e| e.batch_pages),
        ("pages by text layer", |e| e.text_layer),
        ("pages by OCR", |e| e.ocr),
        ("pages by vision model", |e| e.vision_model),
        ("pages not read", |e| e.not_read),
        ("passages", |e| e.passages),
        ("model calls", |e| e.model_calls),
        ("retries", |e| e.retries),
        ("pages or documents failed", |e| e.given_up),
        ("progress updates", |e| e.updates),
        ("failed calls", |e| e.errors),
    ];
    for (name, of) in lines {
        let (before, after) = (of(&report.before), of(&report.after));
        if before != after {
            out_line!("  {name}: {before} → {after}")?;
        }
    }
    if report.missing_capability_responses > 0 {
        out_line!(
            "  {} host calls were not recorded and got no response",
            report.missing_capability_responses
        )?;
    }
    if let Some(why) = &report.incomplete_reason {
        out_line!("  the recording ends before the end of the job: {why}")?;
    }
    Ok(())
}

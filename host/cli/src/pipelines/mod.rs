//! `weir pipeline …`: a tenant's logic on a running server, pushed and rolled out.

mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use weir_core::manifest::Manifest;
use weir_core::tenancy::Scope;

use crate::registry::{Access, Place};
use crate::remote::Remote;
use crate::target::Target;
use crate::terminal::out_line;

use show::{at, show_history, show_pipelines, show_revision, show_revisions, show_rollout, text};

/// `weir pipeline …`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  weir pipeline push pipeline.toml                     the next revision, with the components it names
  weir pipeline push pipeline.toml --activate          … which new jobs get at once
  weir pipeline canary reports 4 10                    10 of 100 new jobs get revision 4, until it is judged
  weir pipeline shadow reports 5                       what revision 5 would decide, without effect
  weir pipeline rollback reports                       back to what was before

It works on the server of --server or WEIR_SERVER; the key, of WEIR_KEY or --key-file, needs the scope components.")]
pub(crate) enum PipelineCommand {
    /// Push a manifest and its components as the next revision
    Push {
        /// The manifest
        #[arg(default_value = "pipeline.toml")]
        manifest: PathBuf,
        /// New jobs get it at once
        #[arg(long, conflicts_with = "canary")]
        activate: bool,
        /// So many of 100 new jobs get it
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=99))]
        canary: Option<u32>,
        #[command(flatten)]
        access: Access,
    },
    /// List the tenant's pipelines
    List,
    /// Show which revision new jobs get, and how a canary does
    Show {
        /// The pipeline
        name: String,
    },
    /// List a pipeline's revisions
    Revisions {
        /// The pipeline
        name: String,
    },
    /// List what was done to a pipeline, by whom and when
    History {
        /// The pipeline
        name: String,
    },
    /// New jobs get this revision
    Activate {
        /// The pipeline
        name: String,
        /// The revision's number
        revision: u32,
    },
    /// So many of 100 new jobs get this revision, until it is promoted or rolled back
    Canary {
        /// The pipeline
        name: String,
        /// The revision's number
        revision: u32,
        /// Of 100 new jobs
        #[arg(value_parser = clap::value_parser!(u32).range(1..=99))]
        percent: u32,
    },
    /// The canary becomes what new jobs get
    Promote {
        /// The pipeline
        name: String,
    },
    /// The canary ends or, where there is none, what was before is again
    Rollback {
        /// The pipeline
        name: String,
    },
    /// New jobs get this revision, and no change is taken until it is unpinned
    Pin {
        /// The pipeline
        name: String,
        /// The revision's number
        revision: u32,
    },
    /// Ask this revision after each job what it would have decided, without effect
    Shadow {
        /// The pipeline
        name: String,
        /// The revision's number
        revision: u32,
    },
    /// Ask the shadow no more
    Unshadow {
        /// The pipeline
        name: String,
    },
    /// Take changes again
    Unpin {
        /// The pipeline
        name: String,
    },
}

/// How an answer is shown to a person.
type Show = fn(&Value) -> std::io::Result<()>;

/// Does it.
pub(crate) async fn run(command: &PipelineCommand, json: bool, target: &Target) -> Result<ExitCode> {
    use PipelineCommand as C;
    let remote = &target.only_server(Scope::Components)?;
    let (answer, show): (Value, Show) = match command {
        C::Push {
            manifest,
            activate,
            canary,
            access,
        } => {
            let revision = push(remote, manifest, *access).await?;
            let (name, number) = (text(&revision, "pipeline"), at(&revision, "/number"));
            let action = match (activate, canary) {
                (true, _) => Some(json!({ "action": "activate", "revision": number })),
                (_, Some(percent)) => {
                    Some(json!({ "action": "canary", "revision": number, "percent": percent }))
                }
                _ => None,
            };
            if let Some(action) = action {
                change(remote, &name, &action).await?;
            }
            (revision, show_revision)
        }
        C::List => (remote.get("/v1/pipelines").await?, show_pipelines),
        C::Show { name } => {
            let path = format!("/v1/pipelines/{}/rollout", segment(name));
            (remote.get(&path).await?, show_rollout)
        }
        C::Revisions { name } => {
            let path = format!("/v1/pipelines/{}/revisions?limit=200", segment(name));
            (remote.get(&path).await?, show_revisions)
        }
        C::History { name } => {
            let path = format!("/v1/pipelines/{}/history?limit=200", segment(name));
            (remote.get(&path).await?, show_history)
        }
        C::Activate { name, revision } => {
            changed(
                remote,
                name,
                &json!({ "action": "activate", "revision": revision }),
            )
            .await?
        }
        C::Canary {
            name,
            revision,
            percent,
        } => {
            let action = json!({ "action": "canary", "revision": revision, "percent": percent });
            changed(remote, name, &action).await?
        }
        C::Promote { name } => changed(remote, name, &json!({ "action": "promote" })).await?,
        C::Rollback { name } => changed(remote, name, &json!({ "action": "rollback" })).await?,
        C::Pin { name, revision } => {
            changed(remote, name, &json!({ "action": "pin", "revision": revision })).await?
        }
        C::Shadow { name, revision } => {
            changed(remote, name, &json!({ "action": "shadow", "revision": revision })).await?
        }
        C::Unshadow { name } => changed(remote, name, &json!({ "action": "unshadow" })).await?,
        C::Unpin { name } => changed(remote, name, &json!({ "action": "unpin" })).await?,
    };
    if json {
        out_line!("{answer}")?;
    } else {
        show(&answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn changed(remote: &Remote, name: &str, action: &Value) -> Result<(Value, Show)> {
    let answer = change(remote, name, action).await?;
    Ok((json!({ "rollout": answer }), show_rollout))
}

async fn change(remote: &Remote, name: &str, action: &Value) -> Result<Value> {
    remote
        .post(&format!("/v1/pipelines/{}/rollout", segment(name)), action)
        .await
}

/// Pushes the components a manifest names, and the manifest.
async fn push(remote: &Remote, path: &Path, access: Access) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest = Manifest::parse(path, &text)?;
    let mut components = Map::new();
    for (role, file) in &manifest.components {
        let pushed = push_component(remote, &Place::of(file)?, None, access).await?;
        components.insert(role.name().into(), at(&pushed, "/digest").clone());
    }
    let settings: Map<String, Value> = manifest
        .settings
        .iter()
        .map(|(name, value)| Ok((name.clone(), serde_json::to_value(value)?)))
        .collect::<Result<_>>()?;
    let judge = &manifest.judge;
    let body = json!({
        "components": components,
        "settings": settings,
        "capabilities": manifest.capabilities.grant,
        "on_trap": manifest.on_trap,
        "limits": { "call_millis": manifest.limits.call_millis, "memory_bytes": manifest.limits.memory_bytes },
        "judge": {
            "automatic": judge.automatic, "jobs": judge.jobs, "slower": judge.slower, "failures": judge.failures,
            "timeouts": judge.timeouts, "traps": judge.traps, "skipped": judge.skipped,
        },
    });
    remote
        .post(
            &format!("/v1/pipelines/{}/revisions", segment(&manifest.name)),
            &body,
        )
        .await
}

/// Pushes a component, under its own name if no other is given. What is in a registry is pulled first: the server sees bytes.
pub(crate) async fn push_component(
    remote: &Remote,
    place: &Place,
    name: Option<&str>,
    access: Access,
) -> Result<Value> {
    let (own, bytes) = place.read(access).await?;
    remote
        .push(&segment(name.unwrap_or(&own)), bytes)
        .await
        .with_context(|| format!("{place} is not let in"))
}

/// A name as a part of a path. Names have no character that would have to be written otherwise; what is no name the server
/// refuses.
fn segment(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    name.chars().map(|c| if plain(c) { c } else { '~' }).collect()
}

//! `weir pipeline …`: pushes pipelines to a server and controls their rollout.

mod response_printer;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use weir_core::manifest::Manifest;
use weir_core::tenancy::KeyScope;

use crate::command_target::CommandTarget;
use crate::registry::{ComponentLocation, PlainHttpArg};
use crate::server_client::ServerClient;
use crate::terminal::out_line;

use response_printer::{
    field_or_dash, print_pipelines, print_revision, print_revisions, print_rollout, print_rollout_history,
    value_at_pointer,
};

/// The subcommands of `weir pipeline`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  weir pipeline push pipeline.toml                     create the next revision, with the components it names
  weir pipeline push pipeline.toml --activate          … and use it for new jobs at once
  weir pipeline canary reports 4 10                    use revision 4 for 10 % of new jobs, until the canary analysis ends
  weir pipeline shadow reports 5                       compare the decisions of revision 5, without effect on jobs
  weir pipeline rollback reports                       return to the previous revision

The command works on the server of --server or WEIR_SERVER. The API key in WEIR_KEY or --key-file needs the scope
components.")]
pub(crate) enum PipelineCommand {
    /// Push a manifest and its components as the next revision
    Push {
        /// File of the manifest
        #[arg(default_value = "pipeline.toml")]
        manifest: PathBuf,
        /// Use the revision for new jobs at once
        #[arg(long, conflicts_with = "canary")]
        activate: bool,
        /// Use the revision for this percentage of new jobs
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=99))]
        canary: Option<u32>,
        #[command(flatten)]
        access: PlainHttpArg,
    },
    /// List the tenant's pipelines
    List,
    /// Show the active revision, the canary with its metrics, and the shadow
    Show {
        /// Name of the pipeline
        name: String,
    },
    /// List the revisions of a pipeline
    Revisions {
        /// Name of the pipeline
        name: String,
    },
    /// List the changes of a pipeline's rollout, with author and time
    History {
        /// Name of the pipeline
        name: String,
    },
    /// Use a revision for all new jobs
    Activate {
        /// Name of the pipeline
        name: String,
        /// Number of the revision
        revision: u32,
    },
    /// Use a revision for a percentage of new jobs, until it is promoted or rolled back
    Canary {
        /// Name of the pipeline
        name: String,
        /// Number of the revision
        revision: u32,
        /// Percentage of new jobs
        #[arg(value_parser = clap::value_parser!(u32).range(1..=99))]
        percent: u32,
    },
    /// Use the canary's revision for all new jobs
    Promote {
        /// Name of the pipeline
        name: String,
    },
    /// End the canary or, if there is none, return to the previous revision
    Rollback {
        /// Name of the pipeline
        name: String,
    },
    /// Use a revision for all new jobs and reject further changes until `unpin`
    Pin {
        /// Name of the pipeline
        name: String,
        /// Number of the revision
        revision: u32,
    },
    /// Compare the decisions of a revision after each job, without effect on jobs
    Shadow {
        /// Name of the pipeline
        name: String,
        /// Number of the revision
        revision: u32,
    },
    /// Stop the comparison with the shadow
    Unshadow {
        /// Name of the pipeline
        name: String,
    },
    /// Accept changes again after `pin`
    Unpin {
        /// Name of the pipeline
        name: String,
    },
}

/// A function that prints a server's response as text.
type ResponsePrinter = fn(&Value) -> std::io::Result<()>;

/// Runs a `weir pipeline` command.
pub(crate) async fn run(command: &PipelineCommand, json: bool, target: &CommandTarget) -> Result<ExitCode> {
    use PipelineCommand as C;
    let remote = &target.require_server_client(KeyScope::Components)?;
    let (response, print_response): (Value, ResponsePrinter) = match command {
        C::Push {
            manifest,
            activate,
            canary,
            access,
        } => {
            let revision = push_pipeline(remote, manifest, *access).await?;
            let (name, number) = (
                field_or_dash(&revision, "pipeline"),
                value_at_pointer(&revision, "/number"),
            );
            let action = match (activate, canary) {
                (true, _) => Some(json!({ "action": "activate", "revision": number })),
                (_, Some(percent)) => {
                    Some(json!({ "action": "canary", "revision": number, "percent": percent }))
                }
                _ => None,
            };
            if let Some(action) = action {
                post_rollout_action(remote, &name, &action).await?;
            }
            (revision, print_revision)
        }
        C::List => (remote.get("/v1/pipelines").await?, print_pipelines),
        C::Show { name } => {
            let path = format!("/v1/pipelines/{}/rollout", sanitize_path_segment(name));
            (remote.get(&path).await?, print_rollout)
        }
        C::Revisions { name } => {
            let path = format!(
                "/v1/pipelines/{}/revisions?limit=200",
                sanitize_path_segment(name)
            );
            (remote.get(&path).await?, print_revisions)
        }
        C::History { name } => {
            let path = format!("/v1/pipelines/{}/history?limit=200", sanitize_path_segment(name));
            (remote.get(&path).await?, print_rollout_history)
        }
        C::Activate { name, revision } => {
            change_rollout_and_select_printer(
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
            change_rollout_and_select_printer(remote, name, &action).await?
        }
        C::Promote { name } => {
            change_rollout_and_select_printer(remote, name, &json!({ "action": "promote" })).await?
        }
        C::Rollback { name } => {
            change_rollout_and_select_printer(remote, name, &json!({ "action": "rollback" })).await?
        }
        C::Pin { name, revision } => {
            change_rollout_and_select_printer(remote, name, &json!({ "action": "pin", "revision": revision }))
                .await?
        }
        C::Shadow { name, revision } => {
            change_rollout_and_select_printer(
                remote,
                name,
                &json!({ "action": "shadow", "revision": revision }),
            )
            .await?
        }
        C::Unshadow { name } => {
            change_rollout_and_select_printer(remote, name, &json!({ "action": "unshadow" })).await?
        }
        C::Unpin { name } => {
            change_rollout_and_select_printer(remote, name, &json!({ "action": "unpin" })).await?
        }
    };
    if json {
        out_line!("{response}")?;
    } else {
        print_response(&response)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn change_rollout_and_select_printer(
    remote: &ServerClient,
    name: &str,
    action: &Value,
) -> Result<(Value, ResponsePrinter)> {
    let response = post_rollout_action(remote, name, action).await?;
    Ok((json!({ "rollout": response }), print_rollout))
}

async fn post_rollout_action(remote: &ServerClient, name: &str, action: &Value) -> Result<Value> {
    remote
        .post(
            &format!("/v1/pipelines/{}/rollout", sanitize_path_segment(name)),
            action,
        )
        .await
}

/// Pushes the components that a manifest names, then the manifest. Returns the new revision.
async fn push_pipeline(remote: &ServerClient, path: &Path, access: PlainHttpArg) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest = Manifest::parse(path, &text)?;
    let mut components = Map::new();
    for (role, file) in &manifest.components {
        let pushed = push_component(
            remote,
            &ComponentLocation::from_path_in_manifest(file)?,
            None,
            access,
        )
        .await?;
        components.insert(role.name().into(), value_at_pointer(&pushed, "/digest").clone());
    }
    let settings: Map<String, Value> = manifest
        .settings
        .iter()
        .map(|(name, value)| Ok((name.clone(), serde_json::to_value(value)?)))
        .collect::<Result<_>>()?;
    let (limits, analysis) = (&manifest.limits, &manifest.canary_analysis);
    let body = json!({
        "components": components,
        "settings": settings,
        "capabilities": manifest.capabilities.grant,
        "on_component_failure": manifest.on_component_failure,
        "limits": { "call_timeout_millis": limits.call_timeout_millis, "max_memory_bytes": limits.max_memory_bytes },
        "canary_analysis": {
            "automatic": analysis.automatic,
            "min_jobs": analysis.min_jobs,
            "max_slowdown": analysis.max_slowdown,
            "max_failure_increase": analysis.max_failure_increase,
            "max_timeout_increase": analysis.max_timeout_increase,
            "max_trap_increase": analysis.max_trap_increase,
            "max_skipped_increase": analysis.max_skipped_increase,
        },
    });
    remote
        .post(
            &format!(
                "/v1/pipelines/{}/revisions",
                sanitize_path_segment(&manifest.name)
            ),
            &body,
        )
        .await
}

/// Pushes a component. Without `name`, the name comes from its file or reference. A component in a registry is pulled first,
/// because the server accepts only bytes.
pub(crate) async fn push_component(
    remote: &ServerClient,
    location: &ComponentLocation,
    name: Option<&str>,
    access: PlainHttpArg,
) -> Result<Value> {
    let (default_name, bytes) = location.read_or_pull_component(access).await?;
    remote
        .upload_component(&sanitize_path_segment(name.unwrap_or(&default_name)), bytes)
        .await
        .with_context(|| format!("cannot push {location}"))
}

/// Returns a name as a segment of a URL path. Valid names need no escaping. Other characters become `~`, which the server
/// rejects.
fn sanitize_path_segment(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    name.chars().map(|c| if plain(c) { c } else { '~' }).collect()
}

//! `weir nodes`: lists the nodes of a server or of the ledger in the settings.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use weir_core::node::NodeRegistry as _;
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;
use weir_server::NodeView;

use crate::app_folders::AppFolders;
use crate::command_target::CommandTarget;
use crate::ledger_access::open_ledger_to_read;
use crate::terminal::{out_line, replace_control_characters};

/// Prints the nodes.
pub(crate) async fn run(
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
    target: &CommandTarget,
) -> Result<ExitCode> {
    let nodes = match target.server_client(KeyScope::Admin)? {
        Some(server) => server.get("/v1/nodes").await?,
        None => json!({ "nodes": list_nodes_of_ledger(settings, folders).await? }),
    };
    if json {
        out_line!("{nodes}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = nodes.get("nodes").and_then(Value::as_array);
    match rows.map(Vec::as_slice).unwrap_or_default() {
        [] => out_line!("no node runs: start one with `weir serve`")?,
        rows => {
            out_line!(
                "{:<24} {:<7} {:<9} {:<6} {:>10} {:>10}  JOBS",
                "NODE",
                "ROLE",
                "VERSION",
                "STATE",
                "UPTIME",
                "RENEWED"
            )?;
            rows.iter().try_for_each(print_node)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list_nodes_of_ledger(settings: &Settings, folders: &AppFolders) -> Result<Vec<NodeView>> {
    let Some(ledger) = open_ledger_to_read(settings, folders).await? else {
        return Ok(Vec::new());
    };
    Ok(ledger
        .list_nodes()
        .await?
        .into_iter()
        .map(NodeView::from)
        .collect())
}

fn print_node(node: &Value) -> std::io::Result<()> {
    let text = |name: &str| node.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| node.get(name).and_then(Value::as_u64).unwrap_or_default();
    let state = match node.get("alive") {
        Some(Value::Bool(true)) => "alive",
        _ => "lost",
    };
    let jobs = node.get("jobs").and_then(Value::as_array).map(Vec::as_slice);
    let job_texts = jobs.unwrap_or_default().iter().map(|job| {
        let text = |name: &str| job.get(name).and_then(Value::as_str).unwrap_or_default();
        format!("{}/{}", text("tenant"), text("job"))
    });
    let jobs = job_texts.collect::<Vec<_>>().join(" ");
    out_line!(
        "{:<24} {:<7} {:<9} {:<6} {:>10} {:>10}  {}",
        replace_control_characters(text("name")),
        text("role"),
        text("version"),
        state,
        format_age(number("uptime_millis")),
        format!("{} ago", format_age(number("renewed_millis_ago"))),
        if jobs.is_empty() {
            "-".into()
        } else {
            replace_control_characters(&jobs)
        }
    )
}

fn format_age(millis: u64) -> String {
    let seconds = Duration::from_millis(millis).as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

//! `weir component push`, `list` and `remove`: manage the components on a server.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;
use weir_core::component::ComponentDigest;
use weir_core::tenancy::KeyScope;

use crate::command_target::CommandTarget;
use crate::pipeline_commands::push_component;
use crate::registry::{ComponentLocation, PlainHttpArg};
use crate::terminal::out_line;

/// Runs `weir component push`.
pub(super) async fn push_component_command(
    location: &ComponentLocation,
    name: Option<&str>,
    access: PlainHttpArg,
    target: &CommandTarget,
    json: bool,
) -> Result<ExitCode> {
    let pushed = push_component(
        &target.require_server_client(KeyScope::Components)?,
        location,
        name,
        access,
    )
    .await?;
    if json {
        out_line!("{pushed}")?;
    } else {
        print_component(&pushed)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `weir component list`.
pub(super) async fn list_components(target: &CommandTarget, json: bool) -> Result<ExitCode> {
    let listed = target
        .require_server_client(KeyScope::Components)?
        .get("/v1/components")
        .await?;
    if json {
        out_line!("{listed}")?;
    } else {
        let components = listed.get("components").and_then(Value::as_array);
        components.into_iter().flatten().try_for_each(print_component)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `weir component remove`.
pub(super) async fn remove_component(digest: &ComponentDigest, target: &CommandTarget) -> Result<ExitCode> {
    target
        .require_server_client(KeyScope::Components)?
        .delete(&format!("/v1/components/{digest}"))
        .await?;
    Ok(ExitCode::SUCCESS)
}

fn print_component(component: &Value) -> std::io::Result<()> {
    let text = |field: &str| component.get(field).and_then(Value::as_str).unwrap_or_default();
    let roles = component.get("roles").and_then(Value::as_array);
    let roles: Vec<&str> = roles.into_iter().flatten().filter_map(Value::as_str).collect();
    out_line!("{}  {:<24} {}", text("digest"), text("name"), roles.join(","))
}

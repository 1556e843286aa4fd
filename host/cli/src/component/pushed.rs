//! Components on a server: pushed, listed, removed.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;
use weir_core::component::ComponentDigest;
use weir_core::tenancy::Scope;

use crate::pipelines::push_component;
use crate::registry::{Access, Place};
use crate::target::Target;
use crate::terminal::out_line;

/// `weir component push`.
pub(super) async fn push(
    place: &Place,
    name: Option<&str>,
    access: Access,
    target: &Target,
    json: bool,
) -> Result<ExitCode> {
    let pushed = push_component(&target.only_server(Scope::Components)?, place, name, access).await?;
    if json {
        out_line!("{pushed}")?;
    } else {
        show(&pushed)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `weir component list`.
pub(super) async fn list(target: &Target, json: bool) -> Result<ExitCode> {
    let listed = target
        .only_server(Scope::Components)?
        .get("/v1/components")
        .await?;
    if json {
        out_line!("{listed}")?;
    } else {
        let components = listed.get("components").and_then(Value::as_array);
        components.into_iter().flatten().try_for_each(show)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `weir component remove`.
pub(super) async fn remove(digest: &ComponentDigest, target: &Target) -> Result<ExitCode> {
    target
        .only_server(Scope::Components)?
        .delete(&format!("/v1/components/{digest}"))
        .await?;
    Ok(ExitCode::SUCCESS)
}

fn show(component: &Value) -> std::io::Result<()> {
    let text = |field: &str| component.get(field).and_then(Value::as_str).unwrap_or_default();
    let roles = component.get("roles").and_then(Value::as_array);
    let roles: Vec<&str> = roles.into_iter().flatten().filter_map(Value::as_str).collect();
    out_line!("{}  {:<24} {}", text("digest"), text("name"), roles.join(","))
}

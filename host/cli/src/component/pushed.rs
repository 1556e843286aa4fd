//! Components on a server: pushed, listed, removed.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;
use weir_core::component::ComponentDigest;

use crate::pipelines::push_component;
use crate::registry::{Access, Place};
use crate::remote::{Remote, ServerArgs};

/// `weir component push`.
#[allow(clippy::print_stdout)]
pub(super) async fn push(
    place: &Place,
    name: Option<&str>,
    access: Access,
    server: &ServerArgs,
    json: bool,
) -> Result<ExitCode> {
    let pushed = push_component(&Remote::new(server)?, place, name, access).await?;
    if json {
        println!("{pushed}");
    } else {
        show(&pushed);
    }
    Ok(ExitCode::SUCCESS)
}

/// `weir component list`.
#[allow(clippy::print_stdout)]
pub(super) async fn list(server: &ServerArgs, json: bool) -> Result<ExitCode> {
    let listed = Remote::new(server)?.get("/v1/components").await?;
    if json {
        println!("{listed}");
    } else {
        let components = listed.get("components").and_then(Value::as_array);
        components.into_iter().flatten().for_each(show);
    }
    Ok(ExitCode::SUCCESS)
}

/// `weir component remove`.
pub(super) async fn remove(digest: &ComponentDigest, server: &ServerArgs) -> Result<ExitCode> {
    Remote::new(server)?
        .delete(&format!("/v1/components/{digest}"))
        .await?;
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout)]
fn show(component: &Value) {
    let text = |field: &str| component.get(field).and_then(Value::as_str).unwrap_or_default();
    let roles = component.get("roles").and_then(Value::as_array);
    let roles: Vec<&str> = roles.into_iter().flatten().filter_map(Value::as_str).collect();
    println!("{}  {:<24} {}", text("digest"), text("name"), roles.join(","));
}

//! `weir documents`: lists the ingested documents of a server or the data folder.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use weir_core::id::TenantId;
use weir_core::ledger::FinalPageState;
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;

use crate::app_folders::AppFolders;
use crate::command_target::CommandTarget;
use crate::host_services;
use crate::ledger_access::open_ledger_to_read;
use crate::server_client::ServerClient;
use crate::terminal::{out_line, replace_control_characters};

/// Number of documents per request. It is the maximum of the HTTP API.
const DOCUMENTS_PER_REQUEST: usize = 1000;

/// Lists the documents, newest first. The data folder may be in use by another process.
pub(crate) async fn run(
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
    target: &CommandTarget,
) -> Result<ExitCode> {
    let rows = match target.server_client(KeyScope::Read)? {
        Some(remote) => list_on_server(&remote).await?,
        None => list_in_data_folder(settings, folders).await?,
    };
    if json {
        out_line!("{}", json!({ "documents": rows }))?;
    } else if rows.is_empty() {
        out_line!("no documents have been ingested yet")?;
    } else {
        rows.iter().try_for_each(print_document_row)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the documents of a server. They have no count of finished pages, because the server does not return it.
pub(crate) async fn list_on_server(remote: &ServerClient) -> Result<Vec<Value>> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut part = remote
            .get(&format!("/v1/documents?limit={DOCUMENTS_PER_REQUEST}{cursor}"))
            .await?;
        if let Some(Value::Array(documents)) = part.get_mut("documents").map(Value::take) {
            rows.extend(documents);
        }
        match part.get("next").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(rows),
        }
    }
}

async fn list_in_data_folder(settings: &Settings, folders: &AppFolders) -> Result<Vec<Value>> {
    let tenant = TenantId::default_tenant();
    let Some(ledger) = open_ledger_to_read(settings, folders).await? else {
        return Ok(Vec::new());
    };
    let mut rows = Vec::new();
    for d in ledger.list_tenant_documents(&tenant).await? {
        let pages = ledger.list_pages(&tenant, &d.id, None).await?;
        let failed = pages
            .iter()
            .filter(|p| matches!(p.state, FinalPageState::Failed { .. }))
            .count();
        rows.push(json!({
            "document": d.id, "name": d.name, "title": d.title, "bytes": d.bytes, "pages": d.pages,
            "done": pages.len() - failed, "failed": failed, "collection": d.collection,
            "labels": d.labels.iter().cloned().collect::<BTreeMap<_, _>>(), "created_millis": d.created_millis,
        }));
    }
    Ok(rows)
}

fn print_document_row(row: &Value) -> std::io::Result<()> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| row.get(name).and_then(Value::as_u64);
    let pages = number("pages").unwrap_or(0);
    let pages = match (number("done"), number("failed").unwrap_or(0)) {
        (Some(done), 0) => format!("{done:>5} of {pages} pages"),
        (Some(done), failed) => format!("{done:>5} of {pages} pages, {failed} failed"),
        (None, _) => format!("{pages:>5} pages"),
    };
    let id: String = text("document").chars().take(12).collect();
    let labels: BTreeMap<String, String> = row
        .get("labels")
        .and_then(|labels| serde_json::from_value(labels.clone()).ok())
        .unwrap_or_default();
    let labels = match labels.is_empty() {
        true => String::new(),
        false => format!(
            "  ({})",
            replace_control_characters(&host_services::format_labels(labels.iter()))
        ),
    };
    out_line!(
        "{id}  {pages}  {}{labels}",
        replace_control_characters(text("name"))
    )
}

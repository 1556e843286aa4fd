//! `weir documents`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use weir_core::id::TenantId;
use weir_core::ledger::PageState;
use weir_core::tenancy::Scope;

use crate::host;
use crate::places::Places;
use crate::remote::Remote;
use crate::target::Target;
use crate::terminal::{one_line, out_line};

/// Documents that a server is asked for at a time; the most it gives.
const PART: usize = 1000;

/// Lists what has been ingested, newest first, on a server or in the data folder. Works beside a run in another process.
pub(crate) async fn run(json: bool, places: &Places, target: &Target) -> Result<ExitCode> {
    let rows = match target.server(Scope::Read)? {
        Some(remote) => on_server(&remote).await?,
        None => in_folder(places).await?,
    };
    if json {
        out_line!("{}", json!({ "documents": rows }))?;
    } else if rows.is_empty() {
        out_line!("nothing has been ingested yet")?;
    } else {
        rows.iter().try_for_each(show)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A server's documents. It does not count their pages that are done.
pub(crate) async fn on_server(remote: &Remote) -> Result<Vec<Value>> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut part = remote.get(&format!("/v1/documents?limit={PART}{cursor}")).await?;
        if let Some(Value::Array(documents)) = part.get_mut("documents").map(Value::take) {
            rows.extend(documents);
        }
        match part.get("next").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(rows),
        }
    }
}

async fn in_folder(places: &Places) -> Result<Vec<Value>> {
    let tenant = TenantId::single();
    let Some(ledger) = host::read_ledger(places)? else {
        return Ok(Vec::new());
    };
    let mut rows = Vec::new();
    for d in ledger.documents(&tenant).await? {
        let pages = ledger.pages(&tenant, &d.id, None).await?;
        let failed = pages
            .iter()
            .filter(|p| matches!(p.state, PageState::Failed { .. }))
            .count();
        rows.push(json!({
            "document": d.id, "name": d.name, "title": d.title, "bytes": d.bytes, "pages": d.pages,
            "done": pages.len() - failed, "failed": failed, "collection": d.collection,
            "labels": d.labels.iter().cloned().collect::<BTreeMap<_, _>>(), "created_millis": d.created_millis,
        }));
    }
    Ok(rows)
}

fn show(row: &Value) -> std::io::Result<()> {
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
        false => format!("  ({})", one_line(&host::label_list(labels.iter()))),
    };
    out_line!("{id}  {pages}  {}{labels}", one_line(text("name")))
}

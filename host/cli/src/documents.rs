//! `weir documents`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use weir_core::id::TenantId;
use weir_core::ledger::PageState;

use crate::host;
use crate::places::Places;

/// Lists what has been ingested, newest first. Works beside a run in another process.
#[allow(clippy::print_stdout)]
pub(crate) async fn run(json: bool, places: &Places) -> Result<ExitCode> {
    let tenant = TenantId::single();
    let mut rows = Vec::new();
    if let Some(ledger) = host::read_ledger(places)? {
        for document in ledger.documents(&tenant).await? {
            let pages = ledger.pages(&tenant, &document.id, None).await?;
            let failed = pages
                .iter()
                .filter(|p| matches!(p.state, PageState::Failed { .. }))
                .count();
            rows.push((document, pages.len() - failed, failed));
        }
    }
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(d, done, failed)| {
                serde_json::json!({
                    "document": d.id, "name": d.name, "title": d.title, "bytes": d.bytes, "pages": d.pages,
                    "done": done, "failed": failed, "collection": d.collection,
                    "labels": d.labels.iter().cloned().collect::<BTreeMap<_, _>>(), "created_millis": d.created_millis,
                })
            })
            .collect();
        println!("{}", serde_json::json!({ "documents": rows }));
    } else if rows.is_empty() {
        println!("nothing has been ingested yet: weir run FILE…");
    } else {
        for (d, done, failed) in &rows {
            let id = d.id.to_string();
            let failed = if *failed > 0 {
                format!(", {failed} failed")
            } else {
                String::new()
            };
            let labels = if d.labels.is_empty() {
                String::new()
            } else {
                let labels = d.labels.iter().map(|(name, value)| (name, value));
                format!("  ({})", host::label_list(labels))
            };
            println!(
                "{}  {:>5} of {} pages{failed}  {}{labels}",
                id.get(..12).unwrap_or(&id),
                done,
                d.pages,
                d.name
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

//! `weir search`: searches passages on a server or in the data folder, and prints them.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use weir_core::Rect;
use weir_core::id::{DocumentId, TenantId};
use weir_core::page::PriorityLane;
use weir_core::ports::{Ledger as _, SchedulingContext, VectorStore as _};
use weir_core::search::{SearchHit, SearchQuery};
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;
use weir_engine::SearchRequest;
use weir_inference::{InferenceConfig, InferenceHost};

use crate::app_folders::AppFolders;
use crate::args::SearchArgs;
use crate::command_target::CommandTarget;
use crate::host_services;
use crate::ledger_access::open_ledger_to_read;
use crate::server_client::ServerClient;
use crate::store_connections::{EMBEDDING_MODEL, connect_qdrant};
use crate::terminal::{out_line, replace_control_characters};

/// Searches and prints the passages. The data folder may be in use by another process.
pub(crate) async fn run(
    search: &SearchArgs,
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
    target: &CommandTarget,
) -> Result<ExitCode> {
    let response = match target.server_client(KeyScope::Read)? {
        Some(remote) => search_on_server(search, &remote).await?,
        None => json!({ "hits": search_data_folder(search, settings, folders).await? }),
    };
    if json {
        out_line!("{response}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let hits: Vec<SearchHit> = serde_json::from_value(response.get("hits").cloned().unwrap_or_default())
        .context(
            "cannot parse the hits in the server's response: the server may have another version of weir",
        )?;
    let strong_hits: Vec<&SearchHit> = hits.iter().filter(|hit| !hit.weak).collect();
    for (index, hit) in strong_hits.iter().enumerate() {
        print_hit(index + 1, hit)?;
    }
    match (strong_hits.len(), hits.len() - strong_hits.len()) {
        (0, 0) => out_line!("nothing found")?,
        (0, weak) => {
            out_line!(
                "nothing found: the {weak} nearest passages have no word of the query; --json lists them"
            )?;
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn print_hit(rank: usize, hit: &SearchHit) -> std::io::Result<()> {
    let on_page = if hit.summary {
        format!("summary of a section from page {}", hit.page)
    } else {
        format!("page {}{}", hit.page, describe_position(&hit.rect))
    };
    let name = replace_control_characters(&hit.name);
    out_line!("{rank}. {name}, {on_page}  (score {:.3})", hit.score)?;
    if !hit.labels.is_empty() {
        out_line!(
            "   {}",
            replace_control_characters(&host_services::format_labels(hit.labels.iter()))
        )?;
    }
    for line in hit.text.lines() {
        out_line!("   {}", replace_control_characters(line))?;
    }
    out_line!("")
}

/// A passage that covers more than this fraction of the page's width or height has no position in that direction.
const MAX_POSITIONED_EXTENT: f32 = 0.6;

/// Returns the position of a passage on its page as text, such as `, top left`. Empty if the passage fills the page.
fn describe_position(rect: &Rect) -> String {
    let third = |from: f32, size: f32, names: [&'static str; 3]| {
        let [first, middle, last] = names;
        match from + size / 2.0 {
            _ if size > MAX_POSITIONED_EXTENT => "",
            center if center < 1.0 / 3.0 => first,
            center if center <= 2.0 / 3.0 => middle,
            _ => last,
        }
    };
    let vertical = third(rect.y, rect.height, ["top", "middle", "bottom"]);
    let horizontal = third(rect.x, rect.width, ["left", "center", "right"]);
    let words = [vertical, horizontal].into_iter().filter(|word| !word.is_empty());
    match words.collect::<Vec<_>>().join(" ") {
        words if words.is_empty() => words,
        words => format!(", {words}"),
    }
}

async fn search_data_folder(
    search: &SearchArgs,
    settings: &Settings,
    folders: &AppFolders,
) -> Result<Vec<SearchHit>> {
    let tenant = TenantId::default_tenant();
    let mut documents = Vec::new();
    if let Some(prefix) = &search.document {
        let known = match open_ledger_to_read(settings, folders).await? {
            Some(ledger) => ledger.list_tenant_documents(&tenant).await?,
            None => Vec::new(),
        };
        documents.push(find_document_by_id_prefix(
            known.iter().map(|document| document.id),
            prefix,
        )?);
    }
    let request = SearchRequest {
        top_k: search.top_k as usize,
        documents,
        collection: search.collection.clone(),
        labels: search.labels.clone(),
        ..SearchRequest::new(tenant, search.text.clone())
    };
    search_passages(settings, folders, request).await
}

/// Searches passages. Opens nothing for writing, so that it works while another process ingests.
async fn search_passages(
    settings: &Settings,
    folders: &AppFolders,
    request: SearchRequest,
) -> Result<Vec<SearchHit>> {
    let inference =
        InferenceHost::load_runtime(InferenceConfig::from_settings(settings, folders.assets.clone()))?;
    let scheduling = SchedulingContext {
        tenant: request.tenant.clone(),
        lane: PriorityLane::Interactive,
        group: 0,
        batch_linger: Duration::ZERO,
        tenant_weight: 1.0,
    };
    let dense_vector = inference
        .embedder()
        .embed_texts(&scheduling, vec![request.text.clone()])
        .await?
        .pop()
        .unwrap_or_default();
    let query = SearchQuery {
        query_text: request.text,
        dense_vector,
        top_k: request.top_k,
        documents: request.documents,
        collection: request.collection,
        labels: request.labels,
    };
    if let Some(qdrant) = connect_qdrant(settings, query.dense_vector.len()).await? {
        let hits = qdrant.search_by_vector_and_words(&request.tenant, &query).await?;
        return Ok(hits);
    }
    weir_storage::search_data_folder(&folders.data, EMBEDDING_MODEL, &request.tenant, &query)
        .await
        .with_context(|| folders.data_folder_error_context())
}

async fn search_on_server(search: &SearchArgs, remote: &ServerClient) -> Result<Value> {
    let mut documents = Vec::new();
    if let Some(prefix) = &search.document {
        let known = crate::documents::list_on_server(remote).await?;
        let ids = known
            .iter()
            .filter_map(|document| document.get("document")?.as_str()?.parse().ok());
        documents.push(find_document_by_id_prefix(ids, prefix)?);
    }
    let labels: BTreeMap<_, _> = search.labels.iter().cloned().collect();
    let filter = json!({ "documents": documents, "collection": search.collection, "labels": labels });
    let query = json!({ "query": search.text, "top_k": search.top_k, "filter": filter });
    remote.post("/v1/search", &query).await
}

/// Returns the document whose id starts with `prefix`. Fails if there is none, or more than one.
fn find_document_by_id_prefix(known: impl Iterator<Item = DocumentId>, prefix: &str) -> Result<DocumentId> {
    let mut matching_ids = known.filter(|id| id.to_string().starts_with(prefix));
    match (matching_ids.next(), matching_ids.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => bail!("several document ids start with {prefix}: use more digits"),
        (None, _) => bail!("no document id starts with {prefix}: `weir documents` lists the ids"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_names_the_part_of_the_page() {
        let at = |x, y, width, height| {
            let rect = Rect { x, y, width, height };
            describe_position(&rect)
        };
        assert_eq!(at(0.1, 0.05, 0.8, 0.1), ", top");
        assert_eq!(at(0.1, 0.7, 0.35, 0.2), ", bottom left");
        assert_eq!(at(0.55, 0.1, 0.35, 0.8), ", right");
        assert_eq!(at(0.4, 0.45, 0.2, 0.1), ", middle center");
        assert_eq!(describe_position(&Rect::WHOLE_PAGE), "");
    }
}

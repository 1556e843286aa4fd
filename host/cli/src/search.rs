//! `weir search`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use weir_core::Rect;
use weir_core::id::{DocumentId, TenantId};
use weir_core::search::Hit;
use weir_core::settings::Settings;
use weir_core::tenancy::Scope;
use weir_engine::SearchRequest;

use crate::args::Search;
use crate::host;
use crate::places::Places;
use crate::remote::Remote;
use crate::target::Target;
use crate::terminal::{one_line, out_line};

/// Finds passages, on a server or in the data folder, also while another process ingests into the same folder.
pub(crate) async fn run(
    search: &Search,
    json: bool,
    settings: &Settings,
    places: &Places,
    target: &Target,
) -> Result<ExitCode> {
    let answer = match target.server(Scope::Read)? {
        Some(remote) => on_server(search, &remote).await?,
        None => json!({ "hits": in_folder(search, settings, places).await? }),
    };
    if json {
        out_line!("{answer}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let hits: Vec<Hit> = serde_json::from_value(answer.get("hits").cloned().unwrap_or_default())
        .context("the server's answer has no hits as this version of weir knows them")?;
    let fitting: Vec<&Hit> = hits.iter().filter(|hit| !hit.weak).collect();
    for (place, hit) in fitting.iter().enumerate() {
        show(place + 1, hit)?;
    }
    match (fitting.len(), hits.len() - fitting.len()) {
        (0, 0) => out_line!("nothing found")?,
        (0, weak) => {
            out_line!(
                "nothing found: the {weak} nearest passages have no word of the query, and --json lists them"
            )?;
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn show(place: usize, hit: &Hit) -> std::io::Result<()> {
    let on_page = if hit.summary {
        format!("summary of a section from page {}", hit.page)
    } else {
        format!("page {}{}", hit.page, position(&hit.rect))
    };
    let name = one_line(&hit.name);
    out_line!("{place}. {name}, {on_page}  (score {:.3})", hit.score)?;
    if !hit.labels.is_empty() {
        out_line!("   {}", one_line(&host::label_list(hit.labels.iter())))?;
    }
    for line in hit.text.lines() {
        out_line!("   {}", one_line(line))?;
    }
    out_line!("")
}

/// A passage that takes more of its page than this, in one direction, has no position in that direction.
const LARGE: f32 = 0.6;

/// Where a passage stands on its page, as a reader would look for it: `, top left`. Empty if it fills the page.
fn position(rect: &Rect) -> String {
    let third = |from: f32, size: f32, names: [&'static str; 3]| {
        let [first, middle, last] = names;
        match from + size / 2.0 {
            _ if size > LARGE => "",
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

async fn in_folder(search: &Search, settings: &Settings, places: &Places) -> Result<Vec<Hit>> {
    let tenant = TenantId::single();
    let mut documents = Vec::new();
    if let Some(prefix) = &search.document {
        let known = match host::read_ledger(places)? {
            Some(ledger) => ledger.documents(&tenant).await?,
            None => Vec::new(),
        };
        documents.push(document(known.iter().map(|known| known.id), prefix)?);
    }
    let request = SearchRequest {
        top_k: search.top_k as usize,
        documents,
        collection: search.collection.clone(),
        labels: search.labels.clone(),
        ..SearchRequest::new(tenant, search.text.clone())
    };
    host::search(settings, places, request).await
}

async fn on_server(search: &Search, remote: &Remote) -> Result<Value> {
    let mut documents = Vec::new();
    if let Some(prefix) = &search.document {
        let known = crate::documents::on_server(remote).await?;
        let ids = known
            .iter()
            .filter_map(|known| known.get("document")?.as_str()?.parse().ok());
        documents.push(document(ids, prefix)?);
    }
    let labels: BTreeMap<_, _> = search.labels.iter().cloned().collect();
    let filter = json!({ "documents": documents, "collection": search.collection, "labels": labels });
    let query = json!({ "query": search.text, "top_k": search.top_k, "filter": filter });
    remote.post("/v1/search", &query).await
}

/// The document whose id begins with `prefix`.
fn document(known: impl Iterator<Item = DocumentId>, prefix: &str) -> Result<DocumentId> {
    let mut fitting = known.filter(|id| id.to_string().starts_with(prefix));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => bail!("several documents begin with {prefix}: give more digits"),
        (None, _) => bail!("no document begins with {prefix}: `weir documents` lists them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_names_the_part_of_the_page() {
        let at = |x, y, width, height| {
            let rect = Rect { x, y, width, height };
            position(&rect)
        };
        assert_eq!(at(0.1, 0.05, 0.8, 0.1), ", top");
        assert_eq!(at(0.1, 0.7, 0.35, 0.2), ", bottom left");
        assert_eq!(at(0.55, 0.1, 0.35, 0.8), ", right");
        assert_eq!(at(0.4, 0.45, 0.2, 0.1), ", middle center");
        assert_eq!(position(&Rect::PAGE), "");
    }
}

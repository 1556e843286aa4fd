//! `weir search`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use weir_core::id::{DocumentId, TenantId};
use weir_core::search::Hit;
use weir_core::settings::Settings;
use weir_engine::SearchRequest;

use crate::args::Search;
use crate::host;
use crate::places::Places;

/// Finds passages, also while another process ingests into the same folder.
#[allow(clippy::print_stdout)]
pub(crate) async fn run(
    search: &Search,
    json: bool,
    settings: &Settings,
    places: &Places,
) -> Result<ExitCode> {
    let tenant = TenantId::single();
    let mut documents = Vec::new();
    if let Some(prefix) = &search.document {
        documents.push(document(places, &tenant, prefix).await?);
    }
    let request = SearchRequest {
        top_k: search.top_k as usize,
        documents,
        collection: search.collection.clone(),
        labels: search.labels.clone(),
        ..SearchRequest::new(tenant, search.text.clone())
    };
    let hits = host::search(settings, places, request).await?;
    if json {
        println!("{}", serde_json::json!({ "hits": hits }));
    } else if hits.is_empty() {
        println!("nothing found");
    } else {
        for (place, hit) in hits.iter().enumerate() {
            show(place + 1, hit);
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout)]
fn show(place: usize, hit: &Hit) {
    let b = &hit.rect;
    println!(
        "{place}. {}, {}page {}  (score {:.3})",
        hit.name,
        if hit.summary {
            "summary of what begins on "
        } else {
            ""
        },
        hit.page,
        hit.score
    );
    let percent = |share: f32| (share * 100.0).round();
    println!(
        "   at {} %, {} % of the page, {} % × {} % large",
        percent(b.x),
        percent(b.y),
        percent(b.width),
        percent(b.height)
    );
    if !hit.labels.is_empty() {
        println!("   {}", host::label_list(hit.labels.iter()));
    }
    for line in hit.text.lines() {
        println!("   {line}");
    }
    println!();
}

/// The document whose id begins with `prefix`.
async fn document(places: &Places, tenant: &TenantId, prefix: &str) -> Result<DocumentId> {
    let known = match host::read_ledger(places)? {
        Some(ledger) => ledger.documents(tenant).await?,
        None => Vec::new(),
    };
    let mut fitting = known.iter().filter(|d| d.id.to_string().starts_with(prefix));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one.id),
        (Some(_), Some(_)) => bail!("several documents begin with {prefix}: give more digits"),
        (None, _) => bail!("no document begins with {prefix}: `weir documents` lists them"),
    }
}

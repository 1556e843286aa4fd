//! `weir retention`: shows how long records are kept, and removes expired ones.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use weir_control::retention::{ExpiredRecordRemover, list_retention_periods};
use weir_core::TenantId;
use weir_core::clock::unix_time_millis;
use weir_core::node::NodeRegistry as _;
use weir_core::retention::{RecordKind, RetentionPeriods, RetentionStore as _};
use weir_core::settings::Settings;
use weir_storage::{JobRecordStores, SqlLedger};

use crate::app_folders::AppFolders;
use crate::args::RetentionCommand;
use crate::host_services::connect_external_stores;
use crate::ledger_access::open_ledger_to_change_tenants;
use crate::terminal::{await_with_progress, out_line};

/// The records of one kind of a tenant.
struct RetainedRecords {
    tenant: TenantId,
    kind: RecordKind,
    /// How long they are kept; 0 for no limit.
    days: u64,
    /// The time before which they have expired, in milliseconds since 1970.
    before: Option<u64>,
    /// How many have expired.
    expired: u64,
}

/// Runs a `weir retention` command.
pub(crate) async fn run(
    command: &RetentionCommand,
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
) -> Result<ExitCode> {
    match command {
        RetentionCommand::Show => {
            let ledger = open_ledger_to_change_tenants(settings, folders).await?;
            print_records(&list_records(&ledger, settings).await?, json)?;
        }
        RetentionCommand::Run { dry_run: true } => {
            let ledger = open_ledger_to_change_tenants(settings, folders).await?;
            print_removed(&list_records(&ledger, settings).await?, true, json)?;
        }
        RetentionCommand::Run { dry_run: false } => {
            let external = connect_external_stores(settings, weir_inference::EMBEDDING_DIMENSIONS).await?;
            let stores = JobRecordStores::open(&folders.data, external)
                .await
                .with_context(|| folders.data_folder_error_context())?;
            refuse_beside_live_nodes(&stores.ledger).await?;
            let removed =
                await_with_progress("removing expired records", remove_records(&stores, settings)).await;
            stores.close().await;
            print_removed(&removed?, false, json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Nodes remove the records themselves, and two that remove the same jobs leave them for later.
async fn refuse_beside_live_nodes(ledger: &SqlLedger) -> Result<()> {
    let nodes = ledger.list_nodes().await?;
    match nodes.iter().find(|node| node.is_alive) {
        Some(node) => bail!(
            "node {} runs, and nodes remove expired records each hour: stop all nodes, or wait",
            node.node.id
        ),
        None => Ok(()),
    }
}

async fn list_records(ledger: &SqlLedger, settings: &Settings) -> Result<Vec<RetainedRecords>> {
    let (host, now) = (RetentionPeriods::from_settings(settings), unix_time_millis());
    let mut all = Vec::new();
    for (tenant, periods) in list_retention_periods(ledger, &host).await? {
        for kind in RecordKind::ALL {
            let before = periods.expiry_millis(kind, now);
            let expired = match before {
                Some(before) => ledger.count_expired_records(&tenant, kind, before).await?,
                None => 0,
            };
            all.push(RetainedRecords {
                tenant: tenant.clone(),
                kind,
                days: periods.days(kind),
                before,
                expired,
            });
        }
    }
    Ok(all)
}

/// Removes all expired records. Returns how many of each kind there were.
async fn remove_records(stores: &JobRecordStores, settings: &Settings) -> Result<Vec<RetainedRecords>> {
    let remover = ExpiredRecordRemover {
        records: &*stores.ledger,
        document_removals: &*stores.ledger,
        uploads: &*stores.uploads,
        recordings: &stores.recordings,
    };
    let mut all = list_records(&stores.ledger, settings).await?;
    for records in &mut all {
        records.expired = 0;
        let Some(before) = records.before else { continue };
        loop {
            let batch = remover.remove_expired_batch(&records.tenant, records.kind, before);
            match batch.await? {
                0 => break,
                removed => records.expired += removed,
            }
        }
    }
    Ok(all)
}

fn print_records(all: &[RetainedRecords], json: bool) -> Result<()> {
    if json {
        let records = all.iter().map(|records| {
            json!({
                "tenant": records.tenant, "kind": records.kind.name(), "days": records.days, "expired": records.expired,
            })
        });
        out_line!("{}", json!({ "records": records.collect::<Vec<_>>() }))?;
        return Ok(());
    }
    out_line!(
        "{:<24} {:<14} {:>10} {:>10}",
        "TENANT",
        "RECORDS",
        "KEPT",
        "EXPIRED"
    )?;
    for records in all {
        let kept = match records.days {
            0 => "no limit".to_owned(),
            days => format!("{days} days"),
        };
        out_line!(
            "{:<24} {:<14} {:>10} {:>10}",
            records.tenant,
            records.kind.name(),
            kept,
            records.expired
        )?;
    }
    Ok(())
}

fn print_removed(all: &[RetainedRecords], dry_run: bool, json: bool) -> Result<()> {
    let sums = RecordKind::ALL.map(|kind| {
        let of_kind = all.iter().filter(|records| records.kind == kind);
        (kind.name(), of_kind.map(|records| records.expired).sum::<u64>())
    });
    if json {
        let counts: serde_json::Map<_, _> = sums
            .map(|(name, sum)| (name.to_owned(), sum.into()))
            .into_iter()
            .collect();
        out_line!("{}", json!({ "dry_run": dry_run, "removed": counts }))?;
        return Ok(());
    }
    let verb = if dry_run { "would remove" } else { "removed" };
    for (name, sum) in sums {
        out_line!("{verb} {sum:>10} {name}")?;
    }
    Ok(())
}

//! `weir log`: prints the log messages and the failure reports of a job's components.

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde_json::{Value, json};
use weir_core::component_log::{ComponentFailureReport, NumberedComponentLogRecord};
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;
use weir_core::{JobId, TenantId};
use weir_storage::SqlLedger;

use crate::app_folders::AppFolders;
use crate::command_target::CommandTarget;
use crate::ledger_access::open_ledger_to_read;
use crate::server_client::ServerClient;
use crate::terminal::{is_stdout_reader_gone, out_line};

/// Number of entries in one read.
const ENTRIES_PER_READ: usize = 1000;

/// Arguments of `weir log`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir log JOB                 a job in the data folder, or on the server WEIR_SERVER
  weir log JOB --server URL    a job on this server
  weir log JOB --json          one entry per line, with the complete report of each failed call

On a server, the API key needs the scope read.")]
pub(crate) struct JobLogArgs {
    /// Id of the job
    pub(crate) job: JobId,
    /// Removed option. It is still parsed so that the error message can name the replacement.
    #[arg(long, hide = true)]
    remote: bool,
    /// Tenant of the job; only for jobs in the data folder, not with --server [default: default]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
}

impl JobLogArgs {
    /// Returns an error if an option is not supported on this target.
    pub(crate) fn validate_for_target(&self, target: &CommandTarget) -> Result<()> {
        match (self.remote, target) {
            (true, CommandTarget::Folder) => {
                bail!("--remote was removed: pass --server URL or set WEIR_SERVER")
            }
            (true, CommandTarget::Server { .. }) => {
                bail!("--remote was removed: omit it, because a server is already selected")
            }
            _ => {}
        }
        reject_tenant_on_server(self.tenant.as_ref(), target)
    }

    fn tenant_or_default(&self) -> TenantId {
        self.tenant.clone().unwrap_or_else(TenantId::default_tenant)
    }
}

/// Returns an error if `--tenant` is used with a server, because the API key selects the tenant there.
pub(crate) fn reject_tenant_on_server(tenant: Option<&TenantId>, target: &CommandTarget) -> Result<()> {
    match (tenant, target) {
        (Some(_), CommandTarget::Server { .. }) => {
            bail!(
                "--tenant is for the data folder only: on a server, the API key selects the tenant; remove the option"
            )
        }
        _ => Ok(()),
    }
}

/// Prints the component log of a job.
pub(crate) async fn run(
    log: &JobLogArgs,
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
    target: &CommandTarget,
) -> Result<ExitCode> {
    let source = LogSource::open(log, settings, folders, target).await?;
    let mut after = 0;
    loop {
        let (entries, next) = source.read_entries(log, after).await?;
        for entry in entries {
            match json {
                true => out_line!("{entry}")?,
                false => print_entry(&entry)?,
            }
        }
        match next {
            Some(next) if !is_stdout_reader_gone() => after = next,
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Source of the log entries. Both sources return entries in the format of the HTTP API.
enum LogSource {
    DataFolder(SqlLedger),
    Server(ServerClient),
}

impl LogSource {
    async fn open(
        log: &JobLogArgs,
        settings: &Settings,
        folders: &AppFolders,
        target: &CommandTarget,
    ) -> Result<Self> {
        if let Some(remote) = target.server_client(KeyScope::Read)? {
            return Ok(Self::Server(remote));
        }
        let tenant = log.tenant_or_default();
        let reader = open_ledger_to_read(settings, folders)
            .await?
            .ok_or_else(|| anyhow!("{} has no ledger", folders.data.display()))?;
        if reader.find_job(&tenant, &log.job).await?.is_none() {
            bail!(
                "{} has no job {} of the tenant {}",
                folders.data.display(),
                log.job,
                tenant
            );
        }
        Ok(Self::DataFolder(reader))
    }

    /// Returns the entries after the sequence number `after`. If there may be more entries, also returns the value of `after` for
    /// the next read.
    async fn read_entries(&self, log: &JobLogArgs, after: u64) -> Result<(Vec<Value>, Option<u64>)> {
        match self {
            Self::DataFolder(reader) => {
                let entries = reader
                    .list_component_log(&log.tenant_or_default(), &log.job, after, ENTRIES_PER_READ)
                    .await?;
                let last = entries.last().map(|entry| entry.seq);
                let next = last.filter(|_| entries.len() == ENTRIES_PER_READ);
                Ok((entries.iter().map(entry_to_json).collect(), next))
            }
            Self::Server(remote) => {
                let path = format!("/v1/jobs/{}/log?after={after}&limit={ENTRIES_PER_READ}", log.job);
                let mut response = remote.get(&path).await?;
                let entries = match response.get_mut("entries").map(Value::take) {
                    Some(Value::Array(entries)) => entries,
                    _ => Vec::new(),
                };
                Ok((entries, response.get("next").and_then(Value::as_u64)))
            }
        }
    }
}

/// Returns an entry in the JSON format of the HTTP API, so that programs read the same format from both sources.
fn entry_to_json(entry: &NumberedComponentLogRecord) -> Value {
    let kind = &entry.record.kind;
    json!({
        "seq": entry.seq,
        "at_millis": entry.since_job_created_millis,
        "component": entry.record.component,
        "function": entry.record.function,
        "level": kind.level(),
        "message": kind.message(),
        "failure": kind.failure_report().map(failure_to_json),
    })
}

/// Returns a failure report in the JSON format of the HTTP API. The ledger uses other field names.
fn failure_to_json(report: &ComponentFailureReport) -> Value {
    json!({
        "error": report.error,
        "component_digest": report.component_digest,
        "call_index": report.call_index,
        "request_digest": report.request_digest,
        "limit": report.limit,
        "guest_message": report.guest_message,
        "backtrace": report.backtrace,
    })
}

fn print_entry(entry: &Value) -> std::io::Result<()> {
    let text = |value: &Value, name: &str| {
        let text = value.get(name).and_then(Value::as_str).unwrap_or_default();
        text.to_owned()
    };
    let seconds = entry.get("at_millis").and_then(Value::as_f64).unwrap_or(0.0) / 1000.0;
    out_line!(
        "{seconds:>9.3} s  {:<5}  {}  {}",
        text(entry, "level"),
        text(entry, "function"),
        text(entry, "message")
    )?;
    let Some(failure) = entry.get("failure").filter(|failure| !failure.is_null()) else {
        return Ok(());
    };
    let call_index = failure.get("call_index").and_then(Value::as_u64).unwrap_or(0);
    let component = text(entry, "component");
    out_line!(
        "             call {call_index} of {component} {}",
        text(failure, "component_digest")
    )?;
    for line in text(failure, "guest_message").lines() {
        out_line!("             | {line}")?;
    }
    let frames = failure.get("backtrace").and_then(Value::as_array);
    for frame in frames.into_iter().flatten() {
        let location = match (text(frame, "file"), frame.get("line").and_then(Value::as_u64)) {
            (file, Some(line)) if !file.is_empty() => format!(" at {file}:{line}"),
            _ => String::new(),
        };
        out_line!("             in {}{location}", text(frame, "function"))?;
    }
    Ok(())
}

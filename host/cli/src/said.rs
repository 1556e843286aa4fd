//! `weir log`: what a job's components said, and how they failed.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use weir_core::said::LogEntry;
use weir_core::tenancy::Scope;
use weir_core::{JobId, TenantId};
use weir_storage::LedgerReader;

use crate::places::Places;
use crate::remote::Remote;
use crate::target::Target;
use crate::terminal::{is_closed, out_line};

/// Entries that are read at a time.
const PAGE: usize = 1000;

/// `weir log`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir log JOB                 of a job in the data folder, or on the server of WEIR_SERVER
  weir log JOB --server URL    of a job on this server
  weir log JOB --json          one entry on each line, with the whole report of a failed call

On a server the key needs the scope read.")]
pub(crate) struct Log {
    /// The job
    pub(crate) job: JobId,
    /// Gone; kept so that it is answered with what to do instead.
    #[arg(long, hide = true)]
    remote: bool,
    /// Whose job it is, in the data folder [default: default]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
}

impl Log {
    /// Refuses options that do not exist on this side.
    pub(crate) fn check(&self, target: &Target) -> Result<()> {
        match (self.remote, target) {
            (true, Target::Folder) => bail!("--remote is gone: give --server URL or set WEIR_SERVER"),
            (true, Target::Server { .. }) => bail!("--remote is gone: leave it out, since a server is named"),
            _ => {}
        }
        check_tenant(self.tenant.as_ref(), target)
    }

    fn tenant(&self) -> TenantId {
        self.tenant.clone().unwrap_or_else(TenantId::single)
    }
}

/// Refuses `--tenant` on a server, where the key belongs to one tenant.
pub(crate) fn check_tenant(tenant: Option<&TenantId>, target: &Target) -> Result<()> {
    match (tenant, target) {
        (Some(_), Target::Server { .. }) => {
            bail!(
                "--tenant is for the data folder only: on a server the key belongs to one tenant, so leave it out"
            )
        }
        _ => Ok(()),
    }
}

/// Prints a job's log.
pub(crate) async fn run(log: &Log, json: bool, places: &Places, target: &Target) -> Result<ExitCode> {
    let source = Source::of(log, places, target).await?;
    let mut after = 0;
    loop {
        let (entries, next) = source.page(log, after).await?;
        for entry in entries {
            match json {
                true => out_line!("{entry}")?,
                false => show(&entry)?,
            }
        }
        match next {
            Some(next) if !is_closed() => after = next,
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Where the log is read; its entries come as the server tells them.
enum Source {
    Here(LedgerReader),
    Server(Remote),
}

impl Source {
    async fn of(log: &Log, places: &Places, target: &Target) -> Result<Self> {
        if let Some(remote) = target.server(Scope::Read)? {
            return Ok(Self::Server(remote));
        }
        let tenant = log.tenant();
        let reader = LedgerReader::open(&places.data).with_context(|| places.opening())?;
        if reader.job(&tenant, &log.job).await?.is_none() {
            bail!(
                "{} has no job {} of the tenant {}",
                places.data.display(),
                log.job,
                tenant
            );
        }
        Ok(Self::Here(reader))
    }

    /// The entries after one, and behind which there may be more.
    async fn page(&self, log: &Log, after: u64) -> Result<(Vec<Value>, Option<u64>)> {
        match self {
            Self::Here(reader) => {
                let entries = reader.said(&log.tenant(), &log.job, after, PAGE).await?;
                let last = entries.last().map(|entry| entry.seq);
                let next = last.filter(|_| entries.len() == PAGE);
                Ok((entries.iter().map(told).collect(), next))
            }
            Self::Server(remote) => {
                let path = format!("/v1/jobs/{}/log?after={after}&limit={PAGE}", log.job);
                let mut answer = remote.get(&path).await?;
                let entries = match answer.get_mut("entries").map(Value::take) {
                    Some(Value::Array(entries)) => entries,
                    _ => Vec::new(),
                };
                Ok((entries, answer.get("next").and_then(Value::as_u64)))
            }
        }
    }
}

/// An entry as the server tells it, so that a program reads the same from both.
fn told(entry: &LogEntry) -> Value {
    let what = &entry.remark.what;
    json!({
        "seq": entry.seq,
        "at_millis": entry.at_millis,
        "component": entry.remark.component,
        "function": entry.remark.function,
        "level": what.level(),
        "message": what.message(),
        "failure": what.failure(),
    })
}

fn show(entry: &Value) -> std::io::Result<()> {
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
    let turn = failure.get("turn").and_then(Value::as_u64).unwrap_or(0);
    let component = text(entry, "component");
    out_line!(
        "             call {turn} of {component} {}",
        text(failure, "version")
    )?;
    for line in text(failure, "said").lines() {
        out_line!("             | {line}")?;
    }
    let frames = failure.get("backtrace").and_then(Value::as_array);
    for frame in frames.into_iter().flatten() {
        let place = match (text(frame, "file"), frame.get("line").and_then(Value::as_u64)) {
            (file, Some(line)) if !file.is_empty() => format!(" at {file}:{line}"),
            _ => String::new(),
        };
        out_line!("             in {}{place}", text(frame, "function"))?;
    }
    Ok(())
}

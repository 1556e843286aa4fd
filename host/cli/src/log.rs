//! The log, on standard error, and traces for those who collect them.
//!
//! Both are made of the same spans: a request's, with its tenant and key, and below it the job's. The log says as much as
//! `-v` or `WEIR_LOG` asks for; traces have what this program's own crates do, whatever the log leaves out.

use anyhow::Result;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};
use weir_core::settings::{LogFormat, Settings};
use weir_engine::FAILURES;
use weir_raster::LOST_WORKERS;

use crate::traces::Traces;

/// Crates whose names begin so are this program's.
const OURS: [&str; 7] = [
    "weir_cli",
    "weir_server",
    "weir_engine",
    "weir_policy",
    "weir_raster",
    "weir_inference",
    "weir_storage",
];

/// Begins to log and, if the settings say where to, to trace. Traces are to be closed by the caller. A command that `shows_events`
/// reports failures itself, so the usual log leaves them out.
pub(crate) fn start(
    verbose: u8,
    shows_events: bool,
    settings: &Settings,
    runtime: &Handle,
) -> Result<Option<Traces>> {
    let traces = match settings.otel_endpoint.as_str() {
        "" => None,
        endpoint => Some(Traces::to(endpoint, runtime)?),
    };
    let filter =
        EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(usual(verbose, shows_events)));
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false);
    let lines = match settings.log_format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_filter(filter)
            .boxed(),
    };
    let ours = Targets::new().with_targets(OURS.map(|name| (name, LevelFilter::INFO)));
    tracing_subscriber::registry()
        .with(lines)
        .with(traces.as_ref().map(|traces| traces.layer().with_filter(ours)))
        .init();
    Ok(traces)
}

fn usual(verbose: u8, shows_events: bool) -> String {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    // Libraries below say little that a user could act on; -vvv lets them speak.
    let others = if verbose > 2 { "debug" } else { "error" };
    let ours = OURS.map(|name| format!("{name}={level}"));
    let mut filter = format!("{others},weir={level},guest={level},{}", ours.join(","));
    if shows_events && verbose == 0 {
        filter += &format!(",{FAILURES}=off,{LOST_WORKERS}=off");
    }
    filter
}

//! Sets up the log on standard error and the export of traces.
//!
//! Both use the same spans: one per request, with its tenant and API key id, and below it one per job. `-v` or `WEIR_LOG` set
//! the level of the log. Traces always have the spans of Weir's own crates at level info, independent of the log.

use anyhow::Result;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};
use weir_core::settings::{LogFormat, Settings};
use weir_engine::FAILURE_LOG_TARGET;
use weir_raster::LOST_WORKERS_LOG_TARGET;

use crate::trace_export::TraceExporter;

/// Prefixes of the log targets of Weir's own crates.
const OWN_CRATES: [&str; 8] = [
    "weir_cli",
    "weir_control",
    "weir_server",
    "weir_engine",
    "weir_policy",
    "weir_raster",
    "weir_inference",
    "weir_storage",
];

/// Starts logging and, if `otel.traces_endpoint` is set, the export of traces. The caller must close the returned traces. A command
/// that `shows_events` prints failures itself, so the default log omits them.
pub(crate) fn init_logging_and_traces(
    verbose: u8,
    shows_events: bool,
    settings: &Settings,
    runtime: &Handle,
) -> Result<Option<TraceExporter>> {
    let traces = match settings.otel_traces_endpoint.as_str() {
        "" => None,
        endpoint => Some(TraceExporter::new(endpoint, runtime)?),
    };
    let filter = EnvFilter::try_from_env("WEIR_LOG")
        .unwrap_or_else(|_| EnvFilter::new(default_filter(verbose, shows_events)));
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
    let own_crates_filter = Targets::new().with_targets(OWN_CRATES.map(|name| (name, LevelFilter::INFO)));
    tracing_subscriber::registry()
        .with(lines)
        .with(
            traces
                .as_ref()
                .map(|traces| traces.tracing_layer().with_filter(own_crates_filter)),
        )
        .init();
    Ok(traces)
}

fn default_filter(verbose: u8, shows_events: bool) -> String {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    // Messages of libraries rarely help users, so only -vvv shows them.
    let others = if verbose > 2 { "debug" } else { "error" };
    let own_crate_directives = OWN_CRATES.map(|name| format!("{name}={level}"));
    let mut filter = format!(
        "{others},weir={level},guest={level},{}",
        own_crate_directives.join(",")
    );
    if shows_events && verbose == 0 {
        filter += &format!(",{FAILURE_LOG_TARGET}=off,{LOST_WORKERS_LOG_TARGET}=off");
    }
    filter
}

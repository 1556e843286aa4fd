//! Metrics of the host, in the Prometheus format.
//!
//! All crates record through the `metrics` facade. This module installs the recorder. The catalog lists all metrics, and a
//! test checks that the code records exactly the metrics of the catalog.
//!
//! Histograms have fixed buckets, because only those can be summed over hosts. The number of values of each label is
//! bounded: routes are templates, methods are the known ones, and the first `metrics.max_tenant_series` tenants have their own label
//! value while all others share the value `other`.
//!
//! Reading needs a key with the scope `admin`, unless the setting `server.metrics_access` is `open`. Listening on a loopback
//! address does not change that, because a proxy on the same machine would expose the metrics.

mod catalog;
mod process;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use weir_control::Control;
use weir_core::settings::MetricsAccess;
use weir_core::tenancy::KeyScope;

use crate::auth::Caller;
use crate::problem::Problem;
use catalog::{METRICS, MetricType};

/// Interval at which histogram samples are moved into their buckets, also without scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder. Call this before anything records: a counter that was created earlier counts nothing.
pub fn install_metrics_recorder() {
    get_or_install_recorder();
}

fn get_or_install_recorder() -> &'static PrometheusHandle {
    RECORDER.get_or_init(|| {
        let mut builder = PrometheusBuilder::new();
        for entry in METRICS {
            if let MetricType::Histogram(buckets) = entry.metric_type {
                let name = Matcher::Full(entry.name.to_owned());
                builder = match builder.set_buckets_for_metric(name, buckets) {
                    Ok(builder) => builder,
                    // The builder refuses only a histogram without buckets, and a test checks that there is none.
                    Err(_) => PrometheusBuilder::new(),
                };
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("the process has another metrics recorder: /metrics stays empty");
        }
        METRICS
            .iter()
            .for_each(catalog::MetricDescriptor::register_description);
        handle
    })
}

/// Moves histogram samples into their buckets periodically, so that they do not accumulate without scrapes. Never returns.
pub(crate) async fn run_metrics_upkeep_loop() {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        get_or_install_recorder().run_upkeep();
    }
}

fn render_metrics(control: &Control) -> String {
    process::record_process_metrics();
    let waited = control.admission.longest_wait_for_start();
    gauge!("weir_queue_oldest_job_age_seconds").set(waited.as_secs_f64());
    get_or_install_recorder().render()
}

/// Get the metrics in the Prometheus text format.
///
/// The setting `server.metrics_access` controls the access: `key` (a key with the scope `admin`), `open` (no key) or `off`.
#[utoipa::path(get, path = "/metrics", tag = "host", security((), ("key" = [])), responses(
    (status = 200, description = "All metrics", body = String, content_type = "text/plain"),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The key does not have the scope `admin`", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "Metrics are disabled", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn get_metrics(
    State(control): State<Arc<Control>>,
    caller: Result<Caller, Problem>,
) -> Result<impl IntoResponse, Problem> {
    match control.settings.server_metrics_access {
        MetricsAccess::Off => {
            return Err(Problem::not_found(
                "metrics are disabled: see the setting server.metrics_access",
            ));
        }
        MetricsAccess::Key => caller?.require_scope(KeyScope::Admin)?,
        MetricsAccess::Open => {}
    }
    let content = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content, render_metrics(&control)))
}

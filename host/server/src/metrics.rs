//! What the host measures, for Prometheus.
//!
//! Every crate records through the `metrics` facade and knows nothing of who reads. The recorder behind it is made here, with
//! one table of all there is: a name that is not in [`catalogue`] is not recorded anywhere, and a test holds the code to it.
//! Depths and states are read when someone asks, not written whenever they change: a scrape costs a few locks, work costs
//! nothing.
//!
//! Histograms have fixed buckets, because only those can be added up over hosts. A label never has more values than the
//! host chooses: routes are templates, methods the known ones, and tenants the first of `metrics.tenants` that came, all
//! others together being `other`.
//!
//! Reading needs a key with the scope `admin`, unless the setting `server.metrics` is `open`. Listening on the loopback
//! address does not open it: a proxy on the same machine would hand it to the world.

mod catalogue;
mod process;
mod tenants;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use metrics::counter;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use weir_core::TenantId;
use weir_core::settings::{MetricsAccess, Settings};
use weir_core::tenancy::Scope;

use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use catalogue::{CATALOGUE, Kind};
pub(crate) use tenants::TenantLabels;

/// How often samples of histograms are put into their buckets when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to measure. Whatever records is made after this: a counter that was asked for before counts nothing.
pub fn measure() {
    recorder();
}

fn recorder() -> &'static PrometheusHandle {
    RECORDER.get_or_init(|| {
        let mut builder = PrometheusBuilder::new();
        for entry in CATALOGUE {
            if let Kind::Histogram(buckets) = entry.kind {
                let name = Matcher::Full(entry.name.to_owned());
                builder = match builder.set_buckets_for_metric(name, buckets) {
                    Ok(builder) => builder,
                    // Only a histogram without buckets is refused; a test looks for one.
                    Err(_) => PrometheusBuilder::new(),
                };
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("something else in this process records the metrics: /metrics stays empty");
        }
        CATALOGUE.iter().for_each(catalogue::Entry::describe);
        handle
    })
}

/// The host's metrics.
pub(crate) struct Metrics {
    recorder: &'static PrometheusHandle,
    tenants: Arc<TenantLabels>,
}

impl Metrics {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            recorder: recorder(),
            tenants: Arc::new(TenantLabels::new(settings.metrics_tenants as usize)),
        }
    }

    /// The names of tenants.
    pub(crate) fn labels(&self) -> Arc<TenantLabels> {
        Arc::clone(&self.tenants)
    }

    /// A tenant was refused for a quota.
    pub(crate) fn refused(&self, tenant: &TenantId, quota: &'static str) {
        let tenant = self.tenants.label(tenant);
        counter!("weir_quota_refusals_total", "tenant" => tenant, "quota" => quota).increment(1);
    }

    /// Puts samples into buckets for as long as it is polled, so that a host that nobody scrapes does not collect them.
    pub(crate) async fn upkeep(&self) {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            self.recorder.run_upkeep();
        }
    }

    fn render(&self) -> String {
        process::sample();
        self.recorder.render()
    }
}

/// Measurements in the text format of Prometheus.
///
/// Who may read them is the setting `server.metrics`: `key` (a key with the scope `admin`), `open` (anyone) or `off`.
#[utoipa::path(get, path = "/metrics", tag = "host", security((), ("key" = [])), responses(
    (status = 200, description = "all measurements", body = String, content_type = "text/plain"),
    (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "the key lacks the scope `admin`", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "metrics are off", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    caller: Result<Caller, Problem>,
) -> Result<impl IntoResponse, Problem> {
    match app.settings.server_metrics {
        MetricsAccess::Off => {
            return Err(Problem::not_found(
                "metrics are off: see the setting server.metrics",
            ));
        }
        MetricsAccess::Key => caller?.may(Scope::Admin)?,
        MetricsAccess::Open => {}
    }
    let content = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content, app.metrics.render()))
}

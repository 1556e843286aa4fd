//! The catalog of all metrics.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// A metric: its name, type, unit and help text.
pub(super) struct MetricDescriptor {
    /// Counters end in `_total`. Metrics in seconds or bytes carry the unit in the name.
    pub(super) name: &'static str,
    pub(super) metric_type: MetricType,
    unit: Unit,
    /// Help text, with the labels and their values.
    help: &'static str,
}

#[derive(Clone, Copy)]
pub(super) enum MetricType {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl MetricDescriptor {
    pub(super) fn register_description(&self) {
        match self.metric_type {
            MetricType::Counter => describe_counter!(self.name, self.unit, self.help),
            MetricType::Gauge => describe_gauge!(self.name, self.unit, self.help),
            MetricType::Histogram(_) => describe_histogram!(self.name, self.unit, self.help),
        }
    }
}

/// Seconds of a page in a stage, a batch of a model, or an HTTP request.
const PROCESSING_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Seconds of a component call: microseconds, or up to the call timeout.
const COMPONENT_CALL_SECONDS: &[f64] = &[
    0.000_002, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.05, 0.1,
    1.0,
];
/// Seconds of a durable write.
const COMMIT_SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Seconds of a request to a language model, which may take minutes.
const LLM_REQUEST_SECONDS: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0,
];
/// Number of inputs of a batch.
const BATCH_SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

macro_rules! metric_catalog {
    ($($name:literal $metric_type:ident $(($buckets:ident))? $unit:ident $help:literal;)*) => {
        pub(super) const METRICS: &[MetricDescriptor] = &[
            $(MetricDescriptor { name: $name, metric_type: MetricType::$metric_type $(($buckets))?, unit: Unit::$unit, help: $help },)*
        ];
    };
}

metric_catalog! {
    // HTTP
    "weir_http_connections" Gauge Count "Open connections";
    "weir_http_connections_closed_total" Counter Count "Connections closed by the host, by reason: idle-timeout, evicted-idle (idle connection closed at the connection limit), evicted-unauthenticated (connection in use without a valid key closed at the limit) or refused (new connection closed because all others are in use with a valid key)";
    "weir_tls_certificate_reload_failed" Gauge Count "1 if the TLS certificate files have changed and are invalid, so that the previous certificate stays in use, otherwise 0";
    "weir_tls_certificate_reloads_total" Counter Count "Reloads of changed TLS certificate files, by outcome: loaded or failed";
    "weir_http_requests_total" Counter Count "HTTP responses sent, by method, route and status class";
    "weir_http_request_duration_seconds" Histogram(PROCESSING_SECONDS) Seconds "Time from the headers of a request to the headers of its response, by method and route";
    "weir_http_requests_in_flight" Gauge Count "HTTP requests without a response yet";
    "weir_quota_refusals_total" Counter Count "Requests refused because of a quota, by tenant and quota";

    // Jobs and pages
    "weir_jobs_queued" Gauge Count "Queued jobs";
    "weir_queue_oldest_job_age_seconds" Gauge Seconds "Longest time for which a tenant whose jobs may start has had queued jobs and none of them started";
    "weir_jobs_running" Gauge Count "Running jobs";
    "weir_jobs_ended_total" Counter Count "Jobs that ended, by state: done, failed or cancelled";
    "weir_job_submissions_shed_total" Counter Count "Job submissions refused because of overload, by reason: memory (too little available), queue-wait (queued jobs wait too long for a job slot) or queue-full (the job queue is full)";
    "weir_stage_page_duration_seconds" Histogram(PROCESSING_SECONDS) Seconds "Time that a page occupies a worker slot, by stage; the read stage is split into text-layer, read (OCR) and vision";
    "weir_stage_workers" Gauge Count "Worker slots, by stage";
    "weir_stage_workers_busy" Gauge Count "Worker slots in use, by stage";
    "weir_stage_queue_depth" Gauge Count "Pages in the queue in front of a stage, by stage";
    "weir_stage_queue_capacity" Gauge Count "Capacity in pages of the queue in front of a stage, by stage; 0 without running jobs";
    "weir_pages_ended_total" Counter Count "Pages that ended, by outcome: done or failed";
    "weir_ledger_group_commits_total" Counter Count "Group commits to the ledger";
    "weir_job_claims_total" Counter Count "Jobs that this node has claimed";
    "weir_jobs_reclaimed_total" Counter Count "Claims of nodes that did not renew them in time, ended by this node";
    "weir_lease_renew_seconds" Histogram(COMMIT_SECONDS) Seconds "Time of a renewal of all claims of this node";
    "weir_fenced_writes_total" Counter Count "Results of jobs that were not written because another node had claimed the job";
    "weir_cluster_nodes" Gauge Count "Nodes that renew their leases, by role: api, worker or both";
    "weir_store_request_duration_seconds" Histogram(COMMIT_SECONDS) Seconds "Time of a call of a store, by store: ledger, blobs, vectors or redis";
    "weir_store_request_failures_total" Counter Count "Calls of a store that failed because of the store, by store";
    "weir_store_retries_total" Counter Count "Calls of stores that were repeated because the store was not available";
    "weir_ledger_commit_duration_seconds" Histogram(COMMIT_SECONDS) Seconds "Time of a group commit until it is durable";

    // Searches and streams
    "weir_search_batch_size" Histogram(BATCH_SIZES) Count "Queries in a search batch";
    "weir_search_queries_queued" Gauge Count "Queries in the search buffer";
    "weir_search_queries_refused_buffer_full_total" Counter Count "Queries refused because the search buffer is full";
    "weir_search_queries_unanswered_total" Counter Count "Queries accepted into the search buffer that ended without a result, by reason: timeout or buffer-full (dropped for another tenant's query)";
    "weir_http_streams" Gauge Count "Open streams, by kind: event or query";
    "weir_http_streams_refused_total" Counter Count "Streams refused because too many are open, by kind: event or query";
    "weir_event_streams_too_slow_total" Counter Count "Event streams closed because the client read too slowly";
    "weir_expired_records_removed_total" Counter Count "Records removed after their retention period, by kind: ended-jobs, usage, audit-log or revoked-keys";
    "weir_webhook_requests_total" Counter Count "Webhook requests sent, by outcome: received, unwanted (the receiver responded with 410), failed (will be retried) or given-up (no attempts left)";

    // Models
    "weir_model_batch_size" Histogram(BATCH_SIZES) Count "Inputs in a batch, by model";
    "weir_model_request_failures_total" Counter Count "Failed requests, by model";
    "weir_model_batch_duration_seconds" Histogram(PROCESSING_SECONDS) Seconds "Time of a batch, by model";
    "weir_model_requests_queued" Gauge Count "Queued requests, by model";

    // Language models
    "weir_llm_calls_total" Counter Count "Calls to a language model that ended, by provider and outcome: success, dropped (canceled by the host) or an error kind";
    "weir_llm_call_duration_seconds" Histogram(LLM_REQUEST_SECONDS) Seconds "Time of a call to a language model, by provider";
    "weir_llm_call_admissions_total" Counter Count "Requests to start a call within the limits that all nodes share, by provider and outcome: started, rate-limited, queued, no-lease, store-failed or withdrawn (admitted and not made)";
    "weir_llm_calls_in_flight" Gauge Count "Calls in flight, by provider";
    "weir_llm_concurrency_limit" Gauge Count "Current concurrency limit of calls, by provider";
    "weir_llm_retries_total" Counter Count "Retries of a request with the same provider, by provider";
    "weir_llm_failovers_total" Counter Count "Requests sent to another provider after one has failed";
    "weir_llm_call_timeouts_total" Counter Count "Calls that timed out or stalled, by provider";
    "weir_llm_tokens_total" Counter Count "Tokens, by provider and type: prompt or completion";
    "weir_llm_cost_micros_total" Counter Count "Cost of calls in millionths of the currency of the settings, by provider";
    "weir_tenant_llm_calls_total" Counter Count "Calls to language models, by tenant";
    "weir_tenant_llm_tokens_total" Counter Count "Tokens of calls to language models, by tenant and type: prompt or completion";
    "weir_tenant_llm_cost_micros_total" Counter Count "Cost of calls to language models in millionths of the currency of the settings, by tenant";
    "weir_llm_breaker_state" Gauge Count "State of the circuit breaker, by provider: 0 closed, 1 half-open, 2 open";
    "weir_llm_provider_denied" Gauge Count "1 if the provider denied the latest call (invalid key, unknown model, exhausted quota), otherwise 0, by provider";
    "weir_llm_breaker_transitions_total" Counter Count "State changes of the circuit breaker, by provider and new state (to): open, half-open or closed";
    "weir_llm_queue_depth" Gauge Count "Queued requests to language models, of all tenants";
    "weir_llm_queue_capacity_per_tenant" Gauge Count "Maximum number of queued requests of one tenant";
    "weir_llm_request_duration_seconds" Histogram(LLM_REQUEST_SECONDS) Seconds "Time from a request to its response, including the time in the queue, by kind";
    "weir_llm_request_queue_and_backoff_seconds" Histogram(LLM_REQUEST_SECONDS) Seconds "Time of a request in the queue and in backoff";
    "weir_llm_response_cache_lookups_total" Counter Count "Lookups in the response cache, by outcome: hit, shared (joined an identical request in flight) or miss";

    // Components
    "weir_policy_call_cpu_seconds" Histogram(COMPONENT_CALL_SECONDS) Seconds "Time of a component call without the waits for host calls, by role";
    "weir_policy_call_failures_total" Counter Count "Failed component calls, by role and error kind";

    // Rasterizer
    "weir_page_image_memory_bytes" Gauge Bytes "Memory used by page images";
    "weir_raster_workers_busy" Gauge Count "Raster worker processes with a command in progress";

    // Process
    "process_resident_memory_bytes" Gauge Bytes "Resident memory of the host process, without the raster worker processes";
    "process_open_fds" Gauge Count "Open file descriptors";
    "process_cpu_seconds_total" Counter Seconds "User and system CPU time in seconds";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn metric_names() -> BTreeSet<&'static str> {
        METRICS.iter().map(|metric| metric.name).collect()
    }

    fn collect_rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect_rust_files(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }

    /// Returns the metric names in calls of the `metrics` macros in a source text.
    fn recorded_metric_names(text: &str) -> impl Iterator<Item = &str> {
        ["counter!(", "gauge!(", "histogram!("]
            .into_iter()
            .flat_map(move |call| {
                text.split(call).skip(1).filter_map(|rest| {
                    let name = rest.trim_start().strip_prefix('"')?.split('"').next()?;
                    let is_name = name.starts_with("weir_") || name.starts_with("process_");
                    is_name.then_some(name)
                })
            })
    }

    #[test]
    fn recorded_metrics_match_the_catalog() {
        let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        collect_rust_files(&host, &mut files);
        let mut seen = BTreeSet::new();
        for file in files
            .iter()
            .filter(|file| file.components().any(|c| c.as_os_str() == "src"))
        {
            let text = std::fs::read_to_string(file).unwrap();
            for name in recorded_metric_names(&text) {
                assert!(
                    metric_names().contains(name),
                    "{name} in {} is not in the catalog",
                    file.display()
                );
                seen.insert(name.to_owned());
            }
        }
        let unseen: Vec<_> = metric_names()
            .into_iter()
            .filter(|name| !seen.contains(*name))
            .collect();
        assert!(unseen.is_empty(), "in the catalog and never recorded: {unseen:?}");
    }

    #[test]
    fn metric_names_and_buckets_are_valid() {
        assert_eq!(metric_names().len(), METRICS.len());
        for entry in METRICS {
            match entry.metric_type {
                MetricType::Histogram(buckets) => {
                    assert!(!buckets.is_empty() && buckets.is_sorted(), "{}", entry.name)
                }
                MetricType::Counter => assert!(entry.name.ends_with("_total"), "{}", entry.name),
                MetricType::Gauge => assert!(!entry.name.ends_with("_total"), "{}", entry.name),
            }
        }
    }

    fn read_deploy_file(file: &str) -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../deploy")
            .join(file);
        std::fs::read_to_string(file).unwrap()
    }

    #[test]
    fn every_alert_is_tested_firing_and_not_firing() {
        let rules = read_deploy_file("alerts.yml");
        let alert_tests = read_deploy_file("alerts.test.yml");
        let alerts: Vec<_> = rules
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- alert: "))
            .collect();
        assert!(alerts.len() > 5, "{alerts:?}");
        for alert in alerts {
            assert!(
                alert_tests.contains(&format!("alertname: {alert}, exp_alerts: []")),
                "no test of {alert} not firing"
            );
            assert!(
                alert_tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")),
                "no test of {alert} firing"
            );
        }
    }

    /// Asserts that each metric that a text with queries names exists, and that it names at least `min_metrics`.
    fn assert_uses_only_metrics_of_the_catalog(text: &str, min_metrics: usize) {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let mut used = BTreeSet::new();
        for word in words.filter(|word| word.starts_with("weir_") || word.starts_with("process_")) {
            let name = word
                .trim_end_matches("_bucket")
                .trim_end_matches("_count")
                .trim_end_matches("_sum");
            assert!(
                metric_names().contains(name) || metric_names().contains(word),
                "{word} is not in the catalog"
            );
            used.insert(name);
        }
        assert!(used.len() >= min_metrics, "{used:?}");
    }

    #[test]
    fn alerts_use_only_metrics_of_the_catalog() {
        assert_uses_only_metrics_of_the_catalog(&read_deploy_file("alerts.yml"), 20);
    }

    #[test]
    fn dashboard_and_autoscaler_use_only_metrics_of_the_catalog() {
        assert_uses_only_metrics_of_the_catalog(&read_deploy_file("grafana/weir.json"), 60);
        assert_uses_only_metrics_of_the_catalog(&read_deploy_file("kubernetes/worker.yaml"), 1);
    }
}

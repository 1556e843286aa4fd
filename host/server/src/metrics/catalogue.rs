//! Every measurement there is.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// One measurement.
pub(super) struct Entry {
    /// Its name; `_total` counts, `_seconds` and `_bytes` are those.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    unit: Unit,
    /// What it says, with its labels.
    help: &'static str,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl Entry {
    pub(super) fn describe(&self) {
        match self.kind {
            Kind::Counter => describe_counter!(self.name, self.unit, self.help),
            Kind::Gauge => describe_gauge!(self.name, self.unit, self.help),
            Kind::Histogram(_) => describe_histogram!(self.name, self.unit, self.help),
        }
    }
}

/// A page in a stage, a model's batch, a request: a millisecond to a minute.
const WORK: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// A component's decision: microseconds, or its deadline.
const CALL: &[f64] = &[
    0.000_002, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.05, 0.1,
    1.0,
];
/// A write that waits for the disk.
const WRITE: &[f64] = &[
    0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// A language model's answer: a moment, or minutes.
const ANSWER: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0,
];
/// Texts in a batch.
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

macro_rules! catalogue {
    ($($name:literal $kind:ident $(($buckets:ident))? $unit:ident $help:literal;)*) => {
        pub(super) const CATALOGUE: &[Entry] = &[
            $(Entry { name: $name, kind: Kind::$kind $(($buckets))?, unit: Unit::$unit, help: $help },)*
        ];
    };
}

catalogue! {
    // HTTP
    "weir_connections" Gauge Count "Connections open";
    "weir_connections_closed_total" Counter Count "Connections that the host closed, by reason: idle (no request in time), pressure (idle, to make room for another), unauthenticated (in use without a key, to make room) or refused (all others were in use)";
    "weir_tls_certificate_stale" Gauge Count "1 while the files of the TLS certificate have changed and cannot be used, so that the one read before is; otherwise 0";
    "weir_tls_reloads_total" Counter Count "TLS certificates read again since their files had changed, by outcome: loaded or failed";
    "weir_http_requests_total" Counter Count "Requests answered, by method, route and class of status";
    "weir_http_request_seconds" Histogram(WORK) Seconds "From a request's headers to those of its answer, by method and route";
    "weir_http_requests_in_flight" Gauge Count "Requests whose answer has not begun";
    "weir_quota_refusals_total" Counter Count "Requests refused for a quota, by tenant and quota";

    // A page's way
    "weir_jobs_waiting" Gauge Count "Jobs accepted and not begun";
    "weir_jobs_running" Gauge Count "Jobs in work";
    "weir_jobs_ended_total" Counter Count "Jobs that ended, by state: done, failed or cancelled";
    "weir_shed_total" Counter Count "Jobs that were not taken, by reason, which is what the host lacks: memory, turns or places";
    "weir_stage_seconds" Histogram(WORK) Seconds "Time a page occupies a worker, by stage; a text layer is read in `text-layer`, a page by a vision model in `vision`";
    "weir_workers" Gauge Count "Pages that can be in work at one time, by stage";
    "weir_workers_busy" Gauge Count "Pages in work, by stage";
    "weir_queue_depth" Gauge Count "Pages waiting, by the stage they wait for";
    "weir_queue_capacity" Gauge Count "Pages that may wait before those ahead are held back, by stage; nothing without work";
    "weir_pages_total" Counter Count "Pages that ended, by outcome";
    "weir_ledger_commits_total" Counter Count "Groups written to the ledger, by outcome";
    "weir_ledger_commit_seconds" Histogram(WRITE) Seconds "From a group's first byte until it is durable";

    // Searches and streams
    "weir_query_batch" Histogram(BATCH) Count "Queries of a batch";
    "weir_queries_waiting" Gauge Count "Queries in the stream buffer";
    "weir_queries_refused_total" Counter Count "Queries that found the buffer full";
    "weir_queries_dropped_total" Counter Count "Queries that were let in and not answered, by why: late or full";
    "weir_streams" Gauge Count "Streams open, by kind: event or query";
    "weir_streams_refused_total" Counter Count "Streams that found no place, by kind";
    "weir_event_readers_dropped_total" Counter Count "Followers of events that took them too slowly";
    "weir_webhooks_total" Counter Count "Webhooks that are over with, by outcome";

    // Models
    "weir_model_batch_size" Histogram(BATCH) Count "Inputs of a batch, by model";
    "weir_model_failures_total" Counter Count "Requests that a model failed to answer, by model";
    "weir_model_seconds" Histogram(WORK) Seconds "Time of a batch, by model";
    "weir_model_waiting" Gauge Count "Requests waiting, by model";

    // Language models
    "weir_llm_calls_total" Counter Count "Calls that ended, by provider and outcome, which is how it failed if it did";
    "weir_llm_call_seconds" Histogram(ANSWER) Seconds "Time of a call, by provider";
    "weir_llm_calls_under_way" Gauge Count "Calls under way, by provider";
    "weir_llm_limit" Gauge Count "Calls that may be under way, as far as more would help, by provider";
    "weir_llm_retries_total" Counter Count "Questions put to a provider again, by provider";
    "weir_llm_failovers_total" Counter Count "Questions put to another provider after one has failed at them";
    "weir_llm_timeouts_total" Counter Count "Calls that were late or went silent, by provider";
    "weir_llm_tokens_total" Counter Count "Tokens, by provider and of what: prompt or answer";
    "weir_llm_cost_micros_total" Counter Count "Price of the calls in millionths of the currency of the settings, by provider";
    "weir_tenant_llm_calls_total" Counter Count "Calls to language models, by tenant";
    "weir_tenant_llm_tokens_total" Counter Count "Tokens of those, by tenant and of what: prompt or answer";
    "weir_tenant_llm_cost_micros_total" Counter Count "Price of those in millionths of the currency of the settings, by tenant";
    "weir_llm_breaker_state" Gauge Count "0 while a provider is asked, 1 while it is tried, 2 while it is left alone, by provider";
    "weir_llm_denied" Gauge Count "1 while a provider denies requests (wrong key, no such model, quota exhausted), by provider";
    "weir_llm_breaker_events_total" Counter Count "Changes of that, by provider and event: opened, half-opened or closed";
    "weir_llm_queue_depth" Gauge Count "Questions waiting for a turn";
    "weir_llm_queue_capacity" Gauge Count "Questions of one tenant that may";
    "weir_llm_question_seconds" Histogram(ANSWER) Seconds "From asking to the answer, waiting included, by kind";
    "weir_llm_wait_seconds" Histogram(ANSWER) Seconds "What a question waited of that";
    "weir_llm_answers_total" Counter Count "Questions, by outcome: kept (answered before), shared (being asked just then) or asked";

    // Components
    "weir_guest_call_seconds" Histogram(CALL) Seconds "Time of a component's call, by role";
    "weir_guest_traps_total" Counter Count "Calls that a component did not survive, by role and kind";

    // Drawing
    "weir_page_image_bytes" Gauge Bytes "Page images in memory";
    "weir_raster_workers_busy" Gauge Count "PDF workers at work";

    // The process
    "process_resident_memory_bytes" Gauge Bytes "Memory of the host's own process; PDF workers are others";
    "process_open_fds" Gauge Count "Open descriptors";
    "process_cpu_seconds_total" Counter Seconds "CPU time, user and system";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn names() -> BTreeSet<&'static str> {
        CATALOGUE.iter().map(|entry| entry.name).collect()
    }

    fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rust_files(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }

    /// The names that the macros of `metrics` are given in a source text.
    fn recorded(text: &str) -> impl Iterator<Item = &str> {
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
    fn what_is_recorded_is_described_and_what_is_described_is_recorded() {
        let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        rust_files(&host, &mut files);
        let mut seen = BTreeSet::new();
        for file in files
            .iter()
            .filter(|file| file.components().any(|c| c.as_os_str() == "src"))
        {
            let text = std::fs::read_to_string(file).unwrap();
            for name in recorded(&text) {
                assert!(
                    names().contains(name),
                    "{name} in {} is not described",
                    file.display()
                );
                seen.insert(name.to_owned());
            }
        }
        let unseen: Vec<_> = names().into_iter().filter(|name| !seen.contains(*name)).collect();
        assert!(unseen.is_empty(), "described and never recorded: {unseen:?}");
    }

    #[test]
    fn names_and_buckets_are_sound() {
        assert_eq!(names().len(), CATALOGUE.len());
        for entry in CATALOGUE {
            match entry.kind {
                Kind::Histogram(buckets) => {
                    assert!(!buckets.is_empty() && buckets.is_sorted(), "{}", entry.name)
                }
                Kind::Counter => assert!(entry.name.ends_with("_total"), "{}", entry.name),
                Kind::Gauge => assert!(!entry.name.ends_with("_total"), "{}", entry.name),
            }
        }
    }

    fn deployed(file: &str) -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../deploy")
            .join(file);
        std::fs::read_to_string(file).unwrap()
    }

    #[test]
    fn every_alert_is_shown_firing_and_not_firing() {
        let rules = deployed("alerts.yml");
        let shown = deployed("alerts.test.yml");
        let alerts: Vec<_> = rules
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- alert: "))
            .collect();
        assert!(alerts.len() > 5, "{alerts:?}");
        for alert in alerts {
            assert!(
                shown.contains(&format!("alertname: {alert}, exp_alerts: []")),
                "{alert} not firing"
            );
            assert!(
                shown.contains(&format!("alertname: {alert}\n        exp_alerts:\n")),
                "{alert} firing"
            );
        }
    }

    #[test]
    fn alerts_are_about_what_is_measured() {
        let rules = deployed("alerts.yml");
        let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let mut asked = 0;
        for word in words.filter(|word| word.starts_with("weir_") || word.starts_with("process_")) {
            let name = word
                .trim_end_matches("_bucket")
                .trim_end_matches("_count")
                .trim_end_matches("_sum");
            assert!(names().contains(name) || names().contains(word), "no {word}");
            asked += 1;
        }
        assert!(asked > 5, "{asked}");
    }
}

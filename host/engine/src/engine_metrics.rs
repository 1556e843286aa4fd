//! The metrics of the engine.
//!
//! The instruments are taken from the recorder once, when an engine is created. So a page costs a few atomic additions and no
//! lookup. A recorder that is installed later receives nothing.

use metrics::{Counter, Gauge, Histogram, Unit};
use weir_core::Stage;

/// Metrics of the workers of a stage.
pub(crate) struct WorkerMetrics {
    /// Seconds that a page held a worker slot.
    pub(crate) seconds: Histogram,
    /// Worker slots in use.
    pub(crate) busy: Gauge,
}

impl WorkerMetrics {
    /// Creates the metrics of `workers` worker slots under a stage name.
    pub(crate) fn for_worker_slots(name: &'static str, workers: u32) -> Self {
        metrics::describe_histogram!(
            "weir_stage_page_duration_seconds",
            Unit::Seconds,
            "Time that a page occupies a worker slot, by stage; the read stage is split into text-layer, read (OCR) and vision"
        );
        metrics::describe_gauge!("weir_stage_workers", Unit::Count, "Worker slots, by stage");
        metrics::describe_gauge!(
            "weir_stage_workers_busy",
            Unit::Count,
            "Worker slots in use, by stage"
        );
        metrics::gauge!("weir_stage_workers", "stage" => name).set(workers);
        Self {
            seconds: metrics::histogram!("weir_stage_page_duration_seconds", "stage" => name),
            busy: metrics::gauge!("weir_stage_workers_busy", "stage" => name),
        }
    }
}

/// Metrics of the queues in front of a stage, of all documents together.
pub(crate) struct QueueMetrics {
    /// Pages that are queued.
    pub(crate) depth: Gauge,
    /// Pages that may be queued.
    pub(crate) capacity: Gauge,
}

impl QueueMetrics {
    pub(crate) fn for_stage_queue(stage: Stage) -> Self {
        metrics::describe_gauge!(
            "weir_stage_queue_depth",
            Unit::Count,
            "Pages in the queue in front of a stage, by stage"
        );
        metrics::describe_gauge!(
            "weir_stage_queue_capacity",
            Unit::Count,
            "Capacity in pages of the queue in front of a stage, by stage; 0 without running jobs"
        );
        Self {
            depth: metrics::gauge!("weir_stage_queue_depth", "stage" => stage.name()),
            capacity: metrics::gauge!("weir_stage_queue_capacity", "stage" => stage.name()),
        }
    }
}

/// Metrics of jobs and their pages.
pub(crate) struct JobAndPageMetrics {
    /// Active jobs.
    pub(crate) running_jobs: Gauge,
    /// Pages that are done.
    pub(crate) pages_done: Counter,
    /// Pages that failed for good.
    pub(crate) pages_failed: Counter,
}

impl JobAndPageMetrics {
    pub(crate) fn new() -> Self {
        metrics::describe_gauge!("weir_jobs_running", Unit::Count, "Running jobs");
        metrics::describe_counter!(
            "weir_pages_ended_total",
            Unit::Count,
            "Pages that ended, by outcome: done or failed"
        );
        Self {
            running_jobs: metrics::gauge!("weir_jobs_running"),
            pages_done: metrics::counter!("weir_pages_ended_total", "outcome" => "done"),
            pages_failed: metrics::counter!("weir_pages_ended_total", "outcome" => "failed"),
        }
    }
}

/// Metrics of the group commit.
pub(crate) struct CommitMetrics {
    /// Seconds that a commit took, including the flushes before it.
    pub(crate) seconds: Histogram,
    /// Commits that succeeded.
    pub(crate) commits: Counter,
    /// Submissions of jobs that another node had claimed.
    pub(crate) refused: Counter,
}

impl CommitMetrics {
    pub(crate) fn new() -> Self {
        metrics::describe_histogram!(
            "weir_ledger_commit_duration_seconds",
            Unit::Seconds,
            "Time of a group commit until it is durable"
        );
        metrics::describe_counter!(
            "weir_store_retries_total",
            Unit::Count,
            "Calls of stores that were repeated because the store was not available"
        );
        metrics::describe_counter!(
            "weir_fenced_writes_total",
            Unit::Count,
            "Results of jobs that were not written because another node had claimed the job"
        );
        metrics::describe_counter!(
            "weir_ledger_group_commits_total",
            Unit::Count,
            "Group commits to the ledger"
        );
        Self {
            seconds: metrics::histogram!("weir_ledger_commit_duration_seconds"),
            commits: metrics::counter!("weir_ledger_group_commits_total"),
            refused: metrics::counter!("weir_fenced_writes_total"),
        }
    }
}

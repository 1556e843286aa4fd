//! What the engine tells whoever watches the host.
//!
//! The instruments are taken from the recorder once, when an engine is made, so that a page costs a few atomic additions and
//! no look-up. A recorder that is installed later than that hears nothing.

use metrics::{Counter, Gauge, Histogram, Unit};
use weir_core::Stage;

/// Instruments of a stage's workers.
pub(crate) struct SeatMeasures {
    /// Seconds that a page sat in a seat.
    pub(crate) seconds: Histogram,
    /// Seats that are taken.
    pub(crate) busy: Gauge,
}

impl SeatMeasures {
    /// For as many workers of this name.
    pub(crate) fn of(name: &'static str, workers: u32) -> Self {
        metrics::describe_histogram!(
            "weir_stage_seconds",
            Unit::Seconds,
            "Time that a page was in work in a stage"
        );
        metrics::describe_gauge!("weir_workers", Unit::Count, "Workers of a stage");
        metrics::describe_gauge!("weir_workers_busy", Unit::Count, "Workers of a stage with a page");
        metrics::gauge!("weir_workers", "stage" => name).set(workers);
        Self {
            seconds: metrics::histogram!("weir_stage_seconds", "stage" => name),
            busy: metrics::gauge!("weir_workers_busy", "stage" => name),
        }
    }
}

/// Instruments of the waiting rooms before a stage, of all documents together.
pub(crate) struct RoomMeasures {
    /// Pages that wait.
    pub(crate) depth: Gauge,
    /// Pages that may.
    pub(crate) capacity: Gauge,
}

impl RoomMeasures {
    pub(crate) fn of(stage: Stage) -> Self {
        metrics::describe_gauge!(
            "weir_queue_depth",
            Unit::Count,
            "Pages that wait before a stage, of all documents"
        );
        metrics::describe_gauge!(
            "weir_queue_capacity",
            Unit::Count,
            "Pages that may wait before a stage, of all documents"
        );
        Self {
            depth: metrics::gauge!("weir_queue_depth", "stage" => stage.name()),
            capacity: metrics::gauge!("weir_queue_capacity", "stage" => stage.name()),
        }
    }
}

/// Instruments of the jobs.
pub(crate) struct JobMeasures {
    /// Jobs in work.
    pub(crate) running: Gauge,
    /// Pages that were done.
    pub(crate) pages_done: Counter,
    /// Pages that failed for good.
    pub(crate) pages_failed: Counter,
}

impl JobMeasures {
    pub(crate) fn new() -> Self {
        metrics::describe_gauge!("weir_jobs_running", Unit::Count, "Jobs in work");
        metrics::describe_counter!(
            "weir_pages_total",
            Unit::Count,
            "Pages that ended, by how they did: done or failed"
        );
        Self {
            running: metrics::gauge!("weir_jobs_running"),
            pages_done: metrics::counter!("weir_pages_total", "outcome" => "done"),
            pages_failed: metrics::counter!("weir_pages_total", "outcome" => "failed"),
        }
    }
}

/// Instruments of the journal.
pub(crate) struct CommitMeasures {
    /// Seconds that a commit took, with the flushes before it.
    pub(crate) seconds: Histogram,
    /// Commits that succeeded.
    pub(crate) commits: Counter,
}

impl CommitMeasures {
    pub(crate) fn new() -> Self {
        metrics::describe_histogram!(
            "weir_ledger_commit_seconds",
            Unit::Seconds,
            "Time of a group commit, with the flushes of blobs and vectors before it"
        );
        metrics::describe_counter!("weir_ledger_commits_total", Unit::Count, "Group commits");
        Self {
            seconds: metrics::histogram!("weir_ledger_commit_seconds"),
            commits: metrics::counter!("weir_ledger_commits_total"),
        }
    }
}

//! State, timings and totals of stages.
//!
//! Events of jobs have them too, with the names of the fields here. So unknown fields are ignored, and the contract's name of a
//! field is an alias.

use serde::{Deserialize, Serialize};

use super::default_one;
use crate::page::Stage;

/// State of the queue in front of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// The stage.
    pub stage: Stage,
    /// Pages in the queue.
    pub depth: u32,
    /// Maximum number of pages in the queue.
    pub capacity: u32,
    /// Pages that the stage processes at once. If a stage has several kinds of workers, this counts the kind that the
    /// latest page used.
    #[serde(default = "default_one")]
    pub workers: u32,
}

/// How long a stage takes for a page.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StageTiming {
    /// The stage.
    pub stage: Stage,
    /// Mean time in milliseconds that a page occupies a worker, over the last 16 pages; 0 before the first.
    #[serde(alias = "millis-per-page")]
    pub millis_per_page: f32,
    /// Pages measured.
    pub pages: u32,
}

/// Work that a stage has done for a job, over all its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTotals {
    /// The stage.
    pub stage: Stage,
    /// Pages that it has finished.
    pub pages: u32,
    /// Milliseconds that its workers were busy with pages, failed pages included, summed over the workers.
    pub busy_millis: u64,
    /// Pages that it can process at once.
    pub workers: u32,
}

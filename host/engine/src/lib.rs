//! Runs ingestion jobs from the first to the last event, through ports (traits) alone.
//!
//! ```text
//!  job ─► document ─► plan ─► page ─┬─ rasterize ─┬─ store image
//!                                   │             └─ read ─┬─ store lines
//!                                   │                      └─ passages ─ embed ─ upsert
//!                                   └─► event log ─► group commit ─► ledger
//! ```
//!
//! The engine itself does not rasterize, recognize, embed or store. The [`PortImplementations`] do that work. The engine decides in which
//! order the steps run, how many run at once, what follows a failure, and when a page or document counts as done. The tenant's
//! components decide which pages come next, at which resolution, how they are read and where their text is cut. The engine
//! calls them through a port as well.
//!
//! All waiting uses tokio's clock and all durable state is in the ports. So the same engine runs against fakes in virtual
//! time, and it can be killed at any moment.

mod batch_planner;
mod batch_tracker;
mod bottleneck;
mod component_capabilities;
mod document_deletion;
mod document_hash;
mod document_ingestion;
mod document_locks;
mod document_stage_queues;
mod engine;
mod engine_metrics;
mod engine_state;
mod error;
mod event_log;
mod fair_semaphore;
mod group_commit;
mod job_and_document_context;
mod job_documents;
mod job_handle;
mod job_outcome;
mod job_run;
mod job_spec;
mod latency_boost;
mod model_request_tracker;
mod ocr_image_limiter;
mod page_steps;
mod page_task;
mod page_task_runner;
mod pages_of_earlier_runs;
mod passage_indexing;
mod progress_observer;
mod rasterize_stage;
mod read_stage;
mod resizable_semaphore;
mod running_claim;
mod search;
mod stage_busy_times;
mod stage_queue;
mod stage_workers;
mod stop_signal;
mod store_retry;
mod summarization;
mod trace_spans;
mod upsert_writer;
mod vision_reading;

pub use document_deletion::DeleteError;
pub use engine::Engine;
pub use engine_state::{EngineConfig, PortImplementations, VisionConfig};
pub use error::FAILURE_LOG_TARGET;
pub use job_handle::JobHandle;
pub use job_outcome::{DocumentEndState, DocumentOutcome, JobOutcome};
pub use job_spec::{DocumentSource, DocumentSpec, JobSpec};
pub use search::{SearchError, SearchRequest};

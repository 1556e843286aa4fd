//! Creates, schedules and controls jobs and pipelines, without HTTP.
//!
//! ```text
//!  submission ─► quotas ─► admission ─► dispatcher ─► engine ─► commit notifier ─► event feeds, webhooks
//! ```
//!
//! | module | content |
//! |---|---|
//! | state, background | the state that all operations share, and the background tasks |
//! | submission, staged files | checks a submission, stores its files and commits its job |
//! | admission | selects the next job, limits the number of running jobs and starts them |
//! | job claims, job takeover | which jobs this node runs, if several nodes share a ledger |
//! | node messages, shared limits | announcements to other nodes, and limits of all nodes together |
//! | jobs | progress, diagnosis, cancellation and retry of jobs |
//! | quota limiter, usage | quotas of a tenant and what it has used |
//! | upload reservations | counts bytes in flight against quotas and free disk space |
//! | pipelines | components, revisions, canaries, shadows and replays |
//! | events, commit notifier | the recent events of tenants, and a notification of each commit |
//! | webhook | reports ended jobs to the servers of clients |
//! | document removal, tenant removal | remove all data of a document or a tenant |
//! | API key, tenant metric labels, trace context | keys of tenants, their labels in metrics, and traces that continue after a request |
//!
//! Errors are plain enums. The server turns them into responses. Nothing here knows HTTP, so all of it is tested without a server.

pub mod admission;
pub mod api_key;
mod background;
mod commit_notifier;
pub mod document_removal;
pub mod events;
mod job_claims;
mod job_takeover;
pub mod jobs;
mod node_message_handler;
mod node_messages;
mod node_record;
pub mod pipelines;
mod quota_limiter;
pub mod retention;
mod shared_limits;
pub mod staged_files;
mod state;
pub mod submission;
mod tenant_metric_labels;
pub mod tenant_removal;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trace_context;
mod upload_reservations;
pub mod usage;
pub mod webhook;

pub use background::{recover_state_of_previous_process, run_background_work_until_stopped};
pub use commit_notifier::CommitNotifier;
pub use job_claims::NodeClaims;
pub use node_messages::NodeMessages;
pub use node_record::{RENEWALS_PER_LEASE, remove_node_record};
pub use quota_limiter::{QuotaCheckError, QuotaExceeded, QuotaLimiter};
pub use shared_limits::SharedLimits;
pub use state::{Control, ControlParts, TaskPanicked};
pub use upload_reservations::{UploadReservation, UploadReservationError, UploadReservations};

//! The pipelines of tenants: which revision a job runs, and how revisions are rolled out while jobs run.
//!
//! A tenant's pipeline takes precedence over the host's pipeline of the same name once one of its revisions is active. A revision is
//! assigned to a job when the job starts, not when it is submitted. So queued jobs do not run a revision that was rolled back an hour
//! ago. The assignment is stored before the engine starts the job, so a job that is resumed after a restart runs the same revision.

mod canary_trial;
mod component_push;
mod instance_memory_quota;
mod job_replay;
mod one_per_tenant_limiter;
mod revision_push;
mod shadow_comparison;
mod tenant_pipeline_service;

pub(crate) use canary_trial::{EndedJob, record_job_and_evaluate_canary};
pub use canary_trial::{EvaluatedCanaryTrial, load_and_evaluate_trial};
pub use component_push::{ComponentPush, PushComponentError};
pub(crate) use instance_memory_quota::apply_instance_memory_quota;
pub use job_replay::{ReplayJobError, replay_job_with_revision};
pub use revision_push::{PushRevisionError, push_revision};
pub(crate) use shadow_comparison::{JobToCompare, compare_with_shadow};
pub use tenant_pipeline_service::{PipelineBuilder, PipelineUnavailableError, TenantPipelineService};

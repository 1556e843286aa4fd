//! The usage of tenants, and the parts of their quotas that are reserved for work in progress.

mod quota_reservations;
mod usage_recorder;

pub use usage_recorder::UsageRecorder;
pub(crate) use usage_recorder::{HostQuotas, QuotaSources};

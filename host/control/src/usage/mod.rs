//! The usage of tenants, and the parts of their quotas that are reserved for work in progress.

mod default_quotas;
mod quota_reservations;
mod usage_recorder;

pub(crate) use default_quotas::HostQuotas;
pub(crate) use usage_recorder::QuotaSources;
pub use usage_recorder::UsageRecorder;

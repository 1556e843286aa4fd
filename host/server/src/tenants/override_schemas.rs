//! The numbers that a tenant can have instead of the host's defaults, as the OpenAPI description shows them.

use serde::Deserialize;
use utoipa::ToSchema;

/// Limits by quota name.
#[derive(ToSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // only for the OpenAPI description
pub(crate) struct QuotaLimits {
    /// Maximum number of running jobs.
    concurrent_jobs: Option<u64>,
    /// Maximum number of queued jobs.
    queued_jobs: Option<u64>,
    /// Maximum number of HTTP requests per second, on average. Bursts of twice as many are accepted.
    requests_per_second: Option<u64>,
    /// Maximum bytes of one submission.
    upload_bytes: Option<u64>,
    /// Maximum number of pages per day (UTC).
    pages_per_day: Option<u64>,
    /// Maximum bytes of stored documents, components, page images and text lines.
    stored_bytes: Option<u64>,
    /// Maximum milliseconds of OCR and embedding time per day (UTC).
    inference_millis_per_day: Option<u64>,
    /// Maximum milliseconds of CPU time of components per day (UTC).
    guest_millis_per_day: Option<u64>,
    /// Maximum bytes of memory of one component instance.
    guest_memory_bytes: Option<u64>,
    /// Maximum number of calls to language models per day (UTC).
    llm_calls_per_day: Option<u64>,
    /// Maximum number of tokens of calls to language models, in prompts and responses, per day (UTC).
    llm_tokens_per_day: Option<u64>,
    /// Maximum cost of calls to language models per day (UTC), in millionths of the currency in which the provider prices are
    /// configured.
    llm_cost_micros_per_day: Option<u64>,
}

/// Days by retention period.
#[derive(ToSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // only for the OpenAPI description
pub(crate) struct RetentionDays {
    /// Days after its end for which a job is kept, with its events, request, component log and recording. Its documents stay.
    #[schema(maximum = 36500)]
    ended_jobs_days: Option<u64>,
    /// Days for which the usage of a day is kept.
    #[schema(maximum = 36500)]
    usage_days: Option<u64>,
    /// Days for which entries of the audit logs of pipelines are kept.
    #[schema(maximum = 36500)]
    audit_log_days: Option<u64>,
    /// Days for which an API key that was revoked or has expired is kept.
    #[schema(maximum = 36500)]
    revoked_keys_days: Option<u64>,
}

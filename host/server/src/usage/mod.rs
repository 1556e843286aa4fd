//! The usage of tenants by day, and their usage of each quota.

mod date;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_control::Control;
use weir_core::clock::unix_time_millis;
use weir_core::tenancy::KeyScope;
use weir_core::usage::{Usage, day_from_millis};

use crate::auth::Caller;
use crate::http_input::QueryParams;
use crate::problem::Problem;

use date::UtcDate;

/// The maximum number of days in one response.
const MAX_DAYS: u32 = 366;
/// The default number of days in one response.
const DEFAULT_DAYS: u32 = 30;

/// The query parameters of the usage report.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageQuery {
    /// The first day (UTC), as `2026-11-21`; the default is 29 days before the last day.
    #[param(value_type = Option<String>, format = Date)]
    from: Option<UtcDate>,
    /// The last day; the default is today. The report covers at most the 366 days up to it.
    #[param(value_type = Option<String>, format = Date)]
    to: Option<UtcDate>,
}

/// The usage of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageReport {
    /// The tenant.
    tenant: String,
    /// The days with usage, oldest first.
    days: Vec<DailyUsage>,
    /// The current usage of each quota.
    quotas: Vec<QuotaUsageView>,
}

/// The usage on one day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DailyUsage {
    /// The day (UTC).
    #[schema(value_type = String, format = Date)]
    day: UtcDate,
    /// The number of HTTP requests.
    requests: u64,
    /// The number of accepted jobs.
    jobs: u64,
    /// The number of uploaded bytes.
    upload_bytes: u64,
    /// The number of finished or failed pages.
    pages: u64,
    /// The time of models in milliseconds.
    inference_millis: u64,
    /// The CPU time of components in milliseconds.
    guest_millis: u64,
    /// The number of completed searches.
    searches: u64,
    /// The number of requests refused because of a quota.
    refusals: u64,
    /// The number of requests to language models.
    llm_calls: u64,
    /// The number of prompt tokens sent to language models.
    llm_prompt_tokens: u64,
    /// The number of tokens in the responses of language models.
    llm_answer_tokens: u64,
    /// The price of these tokens, in millionths of the currency of the host's prices.
    llm_cost_micros: u64,
}

/// A quota and its usage.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuotaUsageView {
    /// The name of the quota.
    #[schema(value_type = String)]
    quota: &'static str,
    /// The limit; null if there is none.
    limit: Option<u64>,
    /// The current usage, or the usage of today for a daily quota; null where usage does not add up, as for the request rate.
    used: Option<u64>,
}

impl DailyUsage {
    const fn new(day: UtcDate, used: &Usage) -> Self {
        Self {
            day,
            requests: used.requests,
            jobs: used.jobs,
            upload_bytes: used.upload_bytes,
            pages: used.pages,
            inference_millis: used.inference_micros / 1000,
            guest_millis: used.guest_micros / 1000,
            searches: used.searches,
            refusals: used.refusals,
            llm_calls: used.llm_calls,
            llm_prompt_tokens: used.llm_prompt_tokens,
            llm_answer_tokens: used.llm_answer_tokens,
            llm_cost_micros: used.llm_cost_micros,
        }
    }
}

/// Get the usage of the tenant.
///
/// The report contains the usage by day and the current usage of each quota. It includes this request.
#[utoipa::path(get, path = "/v1/usage", tag = "usage", params(UsageQuery), responses(
    (status = 200, description = "The usage", body = UsageReport),
    (status = 400, description = "A day is malformed", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn get_usage(
    State(control): State<Arc<Control>>,
    caller: Caller,
    QueryParams(query): QueryParams<UsageQuery>,
) -> Result<Json<UsageReport>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let today = day_from_millis(unix_time_millis());
    let to = query.to.map_or(today, |date| date.0);
    let from = query
        .from
        .map_or(to.saturating_sub(DEFAULT_DAYS - 1), |date| date.0);
    let from = from.max(to.saturating_sub(MAX_DAYS - 1));
    let (usage_store, tenant) = (control.usage_store.as_ref(), caller.tenant_id());
    let (used, now, stored) = tokio::try_join!(
        control.usage_recorder.usage_by_day(usage_store, tenant, from, to),
        control.usage_recorder.usage_on_day(usage_store, tenant, today),
        usage_store.count_stored_bytes(tenant),
    )?;
    let (waiting, running) = control.admission.count_queued_and_running_jobs(tenant);
    let limits = control.quota_limiter.effective_limits(&caller.tenant);
    let quota = |quota, limit, used| QuotaUsageView { quota, limit, used };
    Ok(Json(UsageReport {
        tenant: tenant.to_string(),
        days: used
            .iter()
            .map(|(day, used)| DailyUsage::new(UtcDate(*day), used))
            .collect(),
        quotas: vec![
            quota("concurrent_jobs", limits.concurrent_jobs, Some(running as u64)),
            quota("queued_jobs", limits.queued_jobs, Some(waiting as u64)),
            quota("requests_per_second", limits.requests_per_second, None),
            quota("upload_bytes", limits.upload_bytes, None),
            quota("pages_per_day", limits.pages_per_day, Some(now.pages)),
            quota("stored_bytes", limits.stored_bytes, Some(stored)),
            quota(
                "inference_millis_per_day",
                limits.inference_millis_per_day,
                Some(now.inference_micros / 1000),
            ),
            quota(
                "guest_millis_per_day",
                limits.guest_millis_per_day,
                Some(now.guest_micros / 1000),
            ),
            quota("llm_calls_per_day", limits.llm_calls_per_day, Some(now.llm_calls)),
            quota(
                "llm_tokens_per_day",
                limits.llm_tokens_per_day,
                Some(now.total_llm_tokens()),
            ),
            quota(
                "llm_cost_micros_per_day",
                limits.llm_cost_micros_per_day,
                Some(now.llm_cost_micros),
            ),
            quota("guest_memory_bytes", limits.guest_memory_bytes, None),
        ],
    }))
}

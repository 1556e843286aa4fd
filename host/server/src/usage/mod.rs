//! What a tenant has used, by day, and how it stands against its quotas.

mod date;
mod limits;
mod metering;
mod reserve;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_core::tenancy::Scope;
use weir_core::usage::{Usage, day_of};

use crate::app::{App, now_millis};
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::Params;

use date::Date;
pub(crate) use limits::HostQuotas;
pub use metering::Metering;
pub(crate) use reserve::QuotaSources;

/// Most days of one answer.
const DAYS: u32 = 366;
/// Days that are answered where none are asked for.
const USUAL: u32 = 30;

/// Which days.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Days {
    /// First day (UTC), as `2026-11-21`; if it is not given, the thirtieth up to the last.
    #[param(value_type = Option<String>, format = Date)]
    from: Option<Date>,
    /// Last day; today if it is not given. At most the 366 days up to it are answered.
    #[param(value_type = Option<String>, format = Date)]
    to: Option<Date>,
}

/// What a tenant has used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageReport {
    /// The tenant.
    tenant: String,
    /// Days with use, oldest first.
    days: Vec<DayUsed>,
    /// How the tenant stands now against each quota it has.
    quotas: Vec<QuotaStanding>,
}

/// What was used on a day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DayUsed {
    /// The day (UTC).
    #[schema(value_type = String, format = Date)]
    day: Date,
    /// HTTP requests.
    requests: u64,
    /// Jobs accepted.
    jobs: u64,
    /// Bytes taken in.
    upload_bytes: u64,
    /// Pages that ended, done or failed.
    pages: u64,
    /// Milliseconds that models worked.
    inference_millis: u64,
    /// Milliseconds of CPU of components.
    guest_millis: u64,
    /// Searches answered.
    searches: u64,
    /// Requests refused for a quota.
    refusals: u64,
    /// Calls to language models.
    llm_calls: u64,
    /// Tokens of requests to language models.
    llm_prompt_tokens: u64,
    /// Tokens that language models answered with.
    llm_answer_tokens: u64,
    /// Price of those tokens, in millionths of the currency of the host's prices.
    llm_cost_micros: u64,
}

/// A quota and what is used of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuotaStanding {
    /// Its name.
    #[schema(value_type = String)]
    quota: &'static str,
    /// The limit; null if there is none.
    limit: Option<u64>,
    /// What is used now, or was today; null where nothing adds up, as for the rate of requests.
    used: Option<u64>,
}

impl DayUsed {
    const fn new(day: Date, used: &Usage) -> Self {
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

/// What the tenant has used.
///
/// By day, and today against each of its quotas. Counting the request that asks.
#[utoipa::path(get, path = "/v1/usage", tag = "usage", params(Days), responses(
    (status = 200, description = "what was used", body = UsageReport),
    (status = 400, description = "no such days", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn usage(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(days): Params<Days>,
) -> Result<Json<UsageReport>, Problem> {
    caller.may(Scope::Read)?;
    let today = day_of(now_millis());
    let to = days.to.map_or(today, |date| date.0);
    let from = days.from.map_or(to.saturating_sub(USUAL - 1), |date| date.0);
    let from = from.max(to.saturating_sub(DAYS - 1));
    let (book, tenant) = (app.usage.as_ref(), caller.id());
    let (used, now, stored) = tokio::try_join!(
        app.metering.days(book, tenant, from, to),
        app.metering.standing(book, tenant, today),
        book.stored_bytes(tenant),
    )?;
    let (waiting, running) = app.admission.counts(tenant);
    let limits = app.quotas.limits(&caller.tenant);
    let quota = |quota, limit, used| QuotaStanding { quota, limit, used };
    Ok(Json(UsageReport {
        tenant: tenant.to_string(),
        days: used
            .iter()
            .map(|(day, used)| DayUsed::new(Date(*day), used))
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
                Some(now.llm_tokens()),
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

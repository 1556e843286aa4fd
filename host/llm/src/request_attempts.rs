//! The attempts to get a response to one request: the time they took and the errors of each provider.

use tokio::time::{Duration, Instant, timeout};
use weir_core::llm::{LlmRequest, LlmResponse, ProviderError};

use crate::call_permit::CallPermit;
use crate::provider::{ProviderEntry, ProviderResponse};
use crate::response_validation;
use crate::retry_and_health_decision::{is_transient, may_be_caused_by_request};
use crate::usage_accounting::{CallMeter, UsageAccounting};

/// Consecutive failures after which the request is considered the cause, if the provider has answered at least as many other
/// calls meanwhile. A provider that fails every third call at random reaches this count in 1 of 500,000 requests.
const MIN_FAILURES_TO_BLAME_REQUEST: u32 = 12;

/// The attempts of one request.
pub(crate) struct RequestAttempts {
    started_at: Instant,
    /// Total time of the calls.
    pub(crate) call_time: Duration,
    /// One entry for each provider that has failed.
    failures: Vec<ProviderFailures>,
}

/// The failures of one provider at the request.
struct ProviderFailures {
    /// Index of the provider.
    provider_index: usize,
    /// The last error.
    last_error: ProviderError,
    /// Consecutive failures that the request may have caused.
    consecutive: u32,
    /// Calls that the provider had answered before these failures.
    successes_before: u64,
}

impl RequestAttempts {
    pub(crate) fn new() -> Self {
        Self {
            started_at: Instant::now(),
            call_time: Duration::ZERO,
            failures: Vec::new(),
        }
    }

    /// Time in the queue and in backoff.
    pub(crate) fn queue_and_backoff_time(&self) -> Duration {
        self.started_at.elapsed().saturating_sub(self.call_time)
    }

    /// Makes one call and validates the response.
    pub(crate) async fn call_provider_and_validate(
        &mut self,
        entry: &ProviderEntry,
        request: &LlmRequest,
        mut permit: CallPermit,
        accounts: &UsageAccounting,
    ) -> Result<ProviderResponse, ProviderError> {
        let began = Instant::now();
        permit.mark_started();
        let limit = entry.options.call_timeout;
        let meter = CallMeter::new(accounts, entry, request);
        let result = match timeout(limit, entry.provider.call_model(request)).await {
            Ok(Ok(reply)) if reply.text.trim().is_empty() => Err(ProviderError::EmptyResponse),
            Ok(result) => result,
            Err(_elapsed) => Err(ProviderError::TimedOut {
                seconds: limit.as_secs(),
            }),
        };
        self.call_time += began.elapsed();
        meter.record_result(&result);
        match &result {
            Ok(reply) => permit.finish_with_success(reply),
            Err(fault) => permit.finish_with_failure(fault),
        }
        // An invalid response does not count against the provider, and its tokens are used.
        let reply = result?;
        response_validation::validate_response(request, &reply).map_or(Ok(reply), Err)
    }

    /// Records a failure of the provider at index `at`, which has answered `answered` other calls so far.
    pub(crate) fn record_failure(&mut self, at: usize, fault: ProviderError, answered: u64) {
        let is_request_fault = may_be_caused_by_request(&fault);
        let known = self
            .failures
            .iter()
            .position(|failures| failures.provider_index == at);
        let before = known.map(|index| self.failures.remove(index));
        let (count, answered) = before
            .filter(|before| is_request_fault && before.consecutive > 0)
            .map_or((0, answered), |before| {
                (before.consecutive, before.successes_before)
            });
        self.failures.push(ProviderFailures {
            provider_index: at,
            last_error: fault,
            consecutive: count + u32::from(is_request_fault),
            successes_before: answered,
        });
    }

    /// Returns the name and the last error of each provider that has failed.
    pub(crate) fn last_error_by_provider(&self, providers: &[ProviderEntry]) -> Vec<(String, ProviderError)> {
        let named = |failed: &ProviderFailures| {
            Some((
                providers.get(failed.provider_index)?.name.clone(),
                failed.last_error.clone(),
            ))
        };
        self.failures.iter().filter_map(named).collect()
    }

    /// Returns which of the capable providers can be tried again after all have failed. `answered` returns the number of calls
    /// that a provider has answered so far.
    pub(crate) fn retryable_providers(&self, capable: &[bool], answered: impl Fn(usize) -> u64) -> Vec<bool> {
        let failures = |at: usize| {
            self.failures
                .iter()
                .find(|failures| failures.provider_index == at)
        };
        let cannot_succeed = |at: usize| {
            failures(at).is_some_and(|failures| {
                let others = answered(at).saturating_sub(failures.successes_before);
                let request_is_cause = failures.consecutive >= MIN_FAILURES_TO_BLAME_REQUEST
                    && others >= u64::from(failures.consecutive);
                request_is_cause || !is_transient(&failures.last_error)
            })
        };
        let denied =
            |at: usize| failures(at).is_some_and(|failures| failures.last_error.is_denied_by_provider());
        let capable = capable.iter().enumerate();
        let retryable: Vec<bool> = capable
            .clone()
            .map(|(at, is_capable)| *is_capable && !cannot_succeed(at))
            .collect();
        // A denial alone is not waited for. If another provider is waited for, the denial may end meanwhile, too.
        let waits = retryable.contains(&true);
        let may_be_lifted = |at: usize, is_capable: bool| waits && is_capable && denied(at);
        capable
            .zip(retryable)
            .map(|((at, is_capable), can_retry)| can_retry || may_be_lifted(at, *is_capable))
            .collect()
    }

    /// Builds the response to the caller from the provider's response.
    pub(crate) fn build_response(&self, entry: &ProviderEntry, reply: ProviderResponse) -> LlmResponse {
        LlmResponse {
            text: reply.text,
            quotes: reply.quotes,
            prompt_tokens: reply.prompt_tokens,
            completion_tokens: reply.completion_tokens,
            provider: entry.name.clone(),
            model: entry.provider.model_name().to_owned(),
            cached: false,
            waiting_time: self.queue_and_backoff_time(),
            provider_time: self.call_time,
        }
    }
}

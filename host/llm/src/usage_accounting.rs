//! Meters the language model calls of tenants and reserves them against the tenants' quotas.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use weir_core::StorageError;
use weir_core::llm::{LlmError, LlmRequest, ProviderError};
use weir_core::usage::{QuotaReservation, QuotaReserveError, Usage, UsageMeter, UsageQuotaLimiter};

use crate::provider::{ProviderEntry, ProviderOptions, ProviderResponse};

/// Time until a quota is read again from a store that was not available.
const UNAVAILABLE_STORE_DELAY: Duration = Duration::from_secs(1);
/// Estimated bytes per token, for providers that do not report token counts.
const ESTIMATED_BYTES_PER_TOKEN: u64 = 4;
/// Estimated tokens of an image.
const ESTIMATED_TOKENS_PER_IMAGE: u64 = 1500;

/// The meter and the quotas for calls. Without a meter, calls are not metered; without quotas, they are not limited.
#[derive(Clone, Default)]
pub struct UsageAccounting {
    /// Receives the usage of each call.
    pub meter: Option<Arc<dyn UsageMeter>>,
    /// Reserves the expected usage of each call before the call starts.
    pub quotas: Option<Arc<dyn UsageQuotaLimiter>>,
}

impl UsageAccounting {
    /// Reserves a call to one of these providers, at least one of which is metered.
    pub(crate) async fn reserve_call_quota(
        &self,
        request: &LlmRequest,
        provider_options: impl Iterator<Item = ProviderOptions>,
    ) -> Result<Option<QuotaReservation>, LlmError> {
        let Some(quotas) = &self.quotas else {
            return Ok(None);
        };
        let (prompt, completion) = (
            estimate_prompt_tokens(request),
            u64::from(request.max_response_tokens),
        );
        let cost = provider_options
            .filter(|options| options.metered)
            .map(|options| options.compute_cost_micros(prompt, completion));
        let expected = Usage {
            llm_calls: 1,
            llm_prompt_tokens: prompt,
            llm_answer_tokens: completion,
            llm_cost_micros: cost.max().unwrap_or(0),
            ..Usage::default()
        };
        let tenant = &request.scheduling.tenant;
        // The timeout of the call ends the wait.
        while let Err(error) = quotas.reserve_llm_call(tenant, &expected).await {
            if !matches!(
                error,
                QuotaReserveError::Storage(StorageError::Unavailable { .. })
            ) {
                return Err(error.into());
            }
            sleep(UNAVAILABLE_STORE_DELAY).await;
        }
        Ok(Some(QuotaReservation::new(quotas, tenant, expected)))
    }
}

/// Meters one call. A call that is dropped before its end is metered, too, because its provider has begun to work.
pub(crate) struct CallMeter<'a> {
    accounting: &'a UsageAccounting,
    provider: &'a ProviderEntry,
    request: &'a LlmRequest,
    recorded: bool,
}

impl<'a> CallMeter<'a> {
    pub(crate) const fn new(
        accounting: &'a UsageAccounting,
        provider: &'a ProviderEntry,
        request: &'a LlmRequest,
    ) -> Self {
        Self {
            accounting,
            provider,
            request,
            recorded: false,
        }
    }

    /// Meters the call according to its result.
    pub(crate) fn record_result(mut self, result: &Result<ProviderResponse, ProviderError>) {
        self.recorded = true;
        if let Some((prompt, completion)) = billable_tokens(self.request, result) {
            self.record_usage(prompt, completion);
        }
    }

    fn record_usage(&self, prompt: u64, completion: u64) {
        let options = self.provider.options;
        let Some(meter) = self.accounting.meter.as_ref().filter(|_| options.metered) else {
            return;
        };
        let used = Usage {
            llm_calls: 1,
            llm_prompt_tokens: prompt,
            llm_answer_tokens: completion,
            llm_cost_micros: options.compute_cost_micros(prompt, completion),
            ..Usage::default()
        };
        meter.record_usage(&self.request.scheduling.tenant, &used);
    }
}

impl Drop for CallMeter<'_> {
    fn drop(&mut self) {
        if !self.recorded {
            self.record_usage(estimate_prompt_tokens(self.request), 0);
        }
    }
}

/// Estimates the tokens of a request, because the model's own count is not available.
pub(crate) fn estimate_prompt_tokens(request: &LlmRequest) -> u64 {
    let system = request.system_prompt.as_ref().map_or(0, String::len);
    let bytes = (system + request.prompt.len() + request.text.len()) as u64;
    bytes / ESTIMATED_BYTES_PER_TOKEN + request.image.as_ref().map_or(0, |_| ESTIMATED_TOKENS_PER_IMAGE)
}

/// Returns the tokens of the request and the response; `None` if the provider did not work on the request.
fn billable_tokens(
    request: &LlmRequest,
    result: &Result<ProviderResponse, ProviderError>,
) -> Option<(u64, u64)> {
    let prompt = estimate_prompt_tokens(request);
    match result {
        Ok(reply) => {
            let counted = |tokens: Option<u32>, estimate| tokens.map_or(estimate, u64::from);
            let completion = reply.text.len() as u64 / ESTIMATED_BYTES_PER_TOKEN;
            Some((
                counted(reply.prompt_tokens, prompt),
                counted(reply.completion_tokens, completion),
            ))
        }
        // The provider has written the maximum number of tokens.
        Err(ProviderError::TokenLimitReached) => Some((prompt, u64::from(request.max_response_tokens))),
        // The provider has begun to work and charges for the request.
        Err(
            ProviderError::InvalidResponse(_)
            | ProviderError::ResponseInterrupted
            | ProviderError::EmptyResponse
            | ProviderError::ContentFiltered
            | ProviderError::Declined
            | ProviderError::PromptEcho
            | ProviderError::Repetition
            | ProviderError::Stalled { .. }
            | ProviderError::TimedOut { .. },
        ) => Some((prompt, 0)),
        Err(
            ProviderError::Unreachable(_)
            | ProviderError::RateLimited { .. }
            | ProviderError::ServerError { .. }
            | ProviderError::Denied { .. }
            | ProviderError::RequestRejected { .. }
            | ProviderError::ContextTooLong { .. }
            | ProviderError::NothingToQuote
            | ProviderError::NoOutput
            | ProviderError::LocalFailure(_),
        ) => None,
    }
}

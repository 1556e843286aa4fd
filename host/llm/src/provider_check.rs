//! Sends each provider a small request to check that it is reachable, accepts the key and knows its model.
//!
//! The check bypasses the queue and the limits. It makes one call per provider.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use weir_core::llm::{LlmRequest, LlmRequestKind, ProviderError};
use weir_core::ports::SchedulingContext;
use weir_core::{PriorityLane, TenantId};

use crate::provider::ProviderEntry;
use crate::retry_and_health_decision::{HealthSignal, health_signal_of_error};

/// Maximum time of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// The result of the check of one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderCheckResult {
    /// The name of the provider.
    pub name: String,
    /// The name of its model.
    pub model: String,
    /// The provider's note for the operator.
    pub setup_note: Option<String>,
    /// The duration of the call, or its error.
    pub outcome: Result<Duration, ProviderError>,
}

/// Checks the providers one after the other.
pub async fn check_providers(providers: &[ProviderEntry]) -> Vec<ProviderCheckResult> {
    let mut examined = Vec::with_capacity(providers.len());
    for entry in providers {
        let began = Instant::now();
        let limit = CHECK_TIMEOUT.min(entry.options.call_timeout);
        let call_result = timeout(limit, entry.provider.call_model(&build_check_request())).await;
        let outcome = match call_result {
            Ok(Ok(_)) => Ok(began.elapsed()),
            // A truncated or filtered response shows that the provider works.
            Ok(Err(fault))
                if health_signal_of_error(&fault) == HealthSignal::Healthy
                    && !matches!(fault, ProviderError::RequestRejected { .. }) =>
            {
                Ok(began.elapsed())
            }
            Ok(Err(fault)) => Err(fault),
            Err(_elapsed) => Err(ProviderError::TimedOut {
                seconds: limit.as_secs(),
            }),
        };
        examined.push(ProviderCheckResult {
            name: entry.name.clone(),
            model: entry.provider.model_name().to_owned(),
            setup_note: entry.provider.note_for_operator(),
            outcome,
        });
    }
    examined
}

fn build_check_request() -> LlmRequest {
    LlmRequest {
        scheduling: SchedulingContext {
            tenant: TenantId::default_tenant(),
            lane: PriorityLane::Interactive,
            group: 0,
            batch_linger: Duration::ZERO,
            tenant_weight: 1.0,
        },
        kind: LlmRequestKind::Preview,
        system_prompt: None,
        prompt: "Repeat this sentence and say nothing else: {text}".into(),
        text: "A weir is a low gate across a river.".into(),
        image: None,
        max_response_tokens: 32,
        timeout: CHECK_TIMEOUT,
        document: None,
    }
}

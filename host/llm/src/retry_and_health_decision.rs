//! Decides from an error whether to retry the request and how the error affects the provider's health.

use weir_core::llm::ProviderError;

/// The next step for a request after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryDecision {
    /// Retry the same provider after a backoff.
    RetrySameProvider,
    /// This provider cannot answer the request; try another.
    TryNextProvider,
    /// The request itself is the cause; try no other provider.
    FailRequest,
}

/// What the result of one call says about the provider's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthSignal {
    /// The provider works.
    Healthy,
    /// The provider failed.
    Failing,
    /// The call was dropped after a long time, so its result is unknown.
    Slow,
    /// The result says nothing about the provider's health.
    Unknown,
}

/// Decides the next step for the request.
pub(crate) const fn decide_retry(fault: &ProviderError) -> RetryDecision {
    match fault {
        ProviderError::Unreachable(_)
        | ProviderError::RateLimited { .. }
        | ProviderError::ServerError { .. }
        | ProviderError::InvalidResponse(_)
        | ProviderError::ResponseInterrupted
        | ProviderError::EmptyResponse
        | ProviderError::Stalled { .. }
        | ProviderError::TimedOut { .. } => RetryDecision::RetrySameProvider,
        ProviderError::Denied { .. }
        | ProviderError::RequestRejected { .. }
        | ProviderError::ContextTooLong { .. }
        | ProviderError::NoOutput
        | ProviderError::NothingToQuote
        | ProviderError::ContentFiltered
        | ProviderError::Declined
        | ProviderError::PromptEcho
        | ProviderError::Repetition
        | ProviderError::LocalFailure(_) => RetryDecision::TryNextProvider,
        ProviderError::TokenLimitReached => RetryDecision::FailRequest,
    }
}

/// Whether the error may pass with time. Requests do not wait for other errors to pass.
pub(crate) const fn is_transient(fault: &ProviderError) -> bool {
    !matches!(
        fault,
        ProviderError::Denied { .. }
            | ProviderError::RequestRejected { .. }
            | ProviderError::ContextTooLong { .. }
            | ProviderError::NoOutput
            | ProviderError::NothingToQuote
            | ProviderError::ContentFiltered
            | ProviderError::Declined
            | ProviderError::PromptEcho
            | ProviderError::Repetition
            | ProviderError::TokenLimitReached
    )
}

/// Whether the request may be the cause. A model can fail at one page every time and answer all others.
pub(crate) const fn may_be_caused_by_request(fault: &ProviderError) -> bool {
    matches!(
        fault,
        ProviderError::ServerError { after: None, .. }
            | ProviderError::InvalidResponse(_)
            | ProviderError::ResponseInterrupted
            | ProviderError::EmptyResponse
            | ProviderError::Stalled { .. }
            | ProviderError::TimedOut { .. }
    )
}

/// Returns the evidence of an error about the provider's health. A rate limit is caused by the router, and a provider that
/// refuses a request works. A denial does not count for the breaker, because the provider has its own cooldown after one.
pub(crate) const fn health_signal_of_error(fault: &ProviderError) -> HealthSignal {
    match fault {
        ProviderError::RateLimited { .. } | ProviderError::Denied { .. } => HealthSignal::Unknown,
        fault if !is_transient(fault) => HealthSignal::Healthy,
        _ => HealthSignal::Failing,
    }
}

/// Whether fewer concurrent calls might have avoided the error.
pub(crate) const fn indicates_overload(fault: &ProviderError) -> bool {
    matches!(
        fault,
        ProviderError::TimedOut { .. }
            | ProviderError::Stalled { .. }
            | ProviderError::RateLimited { after: None }
            | ProviderError::ServerError { status: 503, .. }
    )
}

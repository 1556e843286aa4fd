//! Errors of language model providers and of requests to them, and how they are reported.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ErrorInfo;
use crate::usage::{QuotaExhaustedError, QuotaReserveError};

/// Why a provider denies all requests until its settings or its account change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// The key is missing, wrong or revoked.
    Authentication,
    /// The key has no access to this model.
    Permission,
    /// The account has no quota or credit left.
    QuotaExhausted,
    /// The provider does not know the model, or the URL does not exist.
    ModelNotFound,
    /// The URL exists but does not accept chat completions: it redirects or refuses the method.
    WrongAddress,
    /// The provider does not support a parameter that is sent with each request.
    UnsupportedParameter {
        /// The provider setting that changes the parameter.
        setting: &'static str,
    },
}

impl DenialReason {
    /// Returns which settings or which account the operator must check, for the provider with this name.
    pub fn describe_remedy(self, provider: &str) -> String {
        let setting = |key: &str| format!("llm.provider.{provider}.{key}");
        match self {
            Self::Authentication => format!("check {} or key_file", setting("key_env")),
            Self::Permission => format!(
                "check the rights of the key that {} or key_file names, and {}",
                setting("key_env"),
                setting("model")
            ),
            Self::QuotaExhausted => {
                format!("check the plan and the balance of the account of llm.provider.{provider}")
            }
            Self::ModelNotFound => format!("check {} and {}", setting("model"), setting("url")),
            Self::WrongAddress => format!("check {}", setting("url")),
            Self::UnsupportedParameter { setting: key } => format!("change {}", setting(key)),
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authentication => "authentication failed",
            Self::Permission => "access denied",
            Self::QuotaExhausted => "quota exhausted",
            Self::ModelNotFound => "model or address not found",
            Self::WrongAddress => "address refused",
            Self::UnsupportedParameter { .. } => "parameter not supported",
        })
    }
}

/// Why a provider did not return a valid response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The connection failed, or it closed before the response started.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The provider limits the rate of requests.
    #[error("limits the rate of requests{}", after.map(|t| format!(", retry in {} s", t.as_secs())).unwrap_or_default())]
    RateLimited {
        /// Time until the next request is allowed, if the provider says so.
        after: Option<Duration>,
    },
    /// The provider reported a server error.
    #[error("failed with status {status}: {reason}")]
    ServerError {
        /// HTTP status, 500 to 599.
        status: u16,
        /// Message of the provider.
        reason: String,
        /// Time until the next request is allowed, if the provider says so.
        after: Option<Duration>,
    },
    /// The provider denies all requests until its settings or its account change.
    #[error("{denial} ({status}): {reason}")]
    Denied {
        /// HTTP status.
        status: u16,
        /// Why it denies them.
        denial: DenialReason,
        /// Message of the provider, without the key.
        reason: String,
    },
    /// The provider rejects this request.
    #[error("rejected the request with status {status}: {reason}")]
    RequestRejected {
        /// HTTP status.
        status: u16,
        /// Message of the provider.
        reason: String,
    },
    /// The prompt and the response exceed the context length of the provider.
    #[error(
        "has a context of {context_tokens} tokens, and the prompt with its response needs {needed} or more: send less text, or raise context_tokens"
    )]
    ContextTooLong {
        /// Tokens that the request needs at least.
        needed: usize,
        /// Context length in tokens.
        context_tokens: usize,
    },
    /// The provider is extractive, and the text has no sentence to quote, such as a table of contents or a list of
    /// addresses.
    #[error("found no sentence to quote")]
    NothingToQuote,
    /// The response cannot be parsed.
    #[error("returned an invalid response: {0}")]
    InvalidResponse(String),
    /// The response ended in the middle.
    #[error("closed the connection in the middle of its response")]
    ResponseInterrupted,
    /// The response is empty.
    #[error("returned an empty response")]
    EmptyResponse,
    /// The model never produces text for this request.
    #[error("produced no output")]
    NoOutput,
    /// The response exceeds the maximum number of tokens.
    #[error("exceeded its token limit")]
    TokenLimitReached,
    /// A content filter of the provider blocked the response.
    #[error("blocked the response with a content filter")]
    ContentFiltered,
    /// The model declined to respond.
    #[error("declined to respond")]
    Declined,
    /// The model repeated the prompt instead of following it.
    #[error(
        "repeated the prompt instead of following it: use a larger model, or add a fallback provider of kind extractive"
    )]
    PromptEcho,
    /// The model repeated the same text.
    #[error("repeated the same text: use a larger model, or add a fallback provider of kind extractive")]
    Repetition,
    /// The provider stopped sending in the middle of a response.
    #[error("sent nothing for {seconds} s")]
    Stalled {
        /// Seconds without output.
        seconds: u64,
    },
    /// The call exceeded its timeout.
    #[error("did not respond within {seconds} s")]
    TimedOut {
        /// The timeout.
        seconds: u64,
    },
    /// The local model failed.
    #[error("failed: {0}")]
    LocalFailure(String),
}

impl ProviderError {
    /// Returns the error with the name of the provider in one line, and the setting to check if there is one.
    pub fn describe_with_provider(&self, provider: &str) -> String {
        match self.describe_remedy(provider) {
            Some(remedy) => format!("{provider}: {self}; {remedy}"),
            None => format!("{provider} {self}"),
        }
    }

    /// Returns what the operator of the provider with this name can do, if known.
    pub fn describe_remedy(&self, provider: &str) -> Option<String> {
        match self {
            Self::Denied { denial, .. } => Some(denial.describe_remedy(provider)),
            _ => None,
        }
    }

    /// Returns whether the provider denies all requests; see [`DenialReason`].
    pub const fn is_denied_by_provider(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// Returns the stable error kind for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::RateLimited { .. } => "rate-limited",
            Self::ServerError { .. } => "server-error",
            Self::Denied { .. } => "denied",
            Self::RequestRejected { .. } => "request-rejected",
            Self::ContextTooLong { .. } => "context-too-long",
            Self::NothingToQuote => "nothing-to-quote",
            Self::InvalidResponse(_) => "invalid-response",
            Self::ResponseInterrupted => "response-interrupted",
            Self::EmptyResponse => "empty-response",
            Self::NoOutput => "no-output",
            Self::TokenLimitReached => "token-limit-reached",
            Self::ContentFiltered => "content-filtered",
            Self::Declined => "declined",
            Self::PromptEcho => "prompt-echo",
            Self::Repetition => "repetition",
            Self::Stalled { .. } => "stalled",
            Self::TimedOut { .. } => "timed-out",
            Self::LocalFailure(_) => "local-failure",
        }
    }
}

/// A request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    /// No configured provider can serve the request.
    #[error("no language model is set up for {what}: {remedy}")]
    Unavailable {
        /// What the provider would have to do.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// A provider failed, and no other provider is tried.
    #[error("{}", .fault.describe_with_provider(.provider))]
    ProviderFailed {
        /// Name of the provider.
        provider: String,
        /// Error of the provider.
        fault: ProviderError,
    },
    /// Every suitable provider has failed, or its circuit breaker is open.
    #[error("no language model responds: {}", join_provider_errors(.0))]
    AllProvidersFailed(Vec<(String, ProviderError)>),
    /// The request exceeded its timeout.
    #[error("no response within {seconds} s: {}", if .faults.is_empty() { "all language models were busy".into() } else { join_provider_errors(.faults) })]
    TimedOut {
        /// The timeout.
        seconds: u64,
        /// The last error of each provider that was tried.
        faults: Vec<(String, ProviderError)>,
    },
    /// A quota of the tenant allows no further call.
    #[error(transparent)]
    QuotaExhausted(#[from] QuotaReserveError),
    /// The queue of the tenant is full.
    #[error("the language model queue of this tenant is full ({waiting} requests)")]
    QueueFull {
        /// Requests in the queue.
        waiting: usize,
    },
}

fn join_provider_errors(faults: &[(String, ProviderError)]) -> String {
    let each: Vec<String> = faults
        .iter()
        .map(|(provider, fault)| fault.describe_with_provider(provider))
        .collect();
    each.join("; ")
}

impl LlmError {
    /// Returns whether the text has nothing to summarize: an extractive provider found no sentence to quote, and no
    /// other provider failed for another reason. This is no fault of the providers.
    pub fn is_nothing_to_quote(&self) -> bool {
        match self {
            Self::AllProvidersFailed(faults) => {
                let quotes = |fault: &ProviderError| *fault == ProviderError::NothingToQuote;
                let nothing = |fault: &ProviderError| {
                    matches!(
                        fault,
                        ProviderError::Declined | ProviderError::PromptEcho | ProviderError::Repetition
                    )
                };
                faults.iter().any(|(_, fault)| quotes(fault))
                    && faults.iter().all(|(_, fault)| quotes(fault) || nothing(fault))
            }
            Self::ProviderFailed { fault, .. } => *fault == ProviderError::NothingToQuote,
            Self::Unavailable { .. }
            | Self::TimedOut { .. }
            | Self::QueueFull { .. }
            | Self::QuotaExhausted(_) => false,
        }
    }

    /// Returns whether every suitable provider denies all requests. A further attempt then fails, too.
    pub fn is_denied_by_all_providers(&self) -> bool {
        matches!(self, Self::AllProvidersFailed(faults) if !faults.is_empty() && faults.iter().all(|(_, fault)| fault.is_denied_by_provider()))
    }

    /// Returns the stable error kind for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "llm-unavailable",
            Self::ProviderFailed { .. } => "llm-failed",
            Self::AllProvidersFailed(_) if self.is_denied_by_all_providers() => "llm-denied",
            Self::AllProvidersFailed(_) => "llm-down",
            Self::TimedOut { .. } => "llm-timeout",
            Self::QueueFull { .. } => "llm-queue-full",
            Self::QuotaExhausted(QuotaReserveError::Exhausted(_)) => QuotaExhaustedError::KIND,
            Self::QuotaExhausted(QuotaReserveError::Storage(error)) => error.kind(),
        }
    }
}

/// A provider that has not responded for some time, as reported by jobs that wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderFailureInfo {
    /// Name of the provider, as in the settings.
    pub provider: String,
    /// Start of the first failed request since the last response, in milliseconds since 1970.
    pub since_millis: u64,
    /// Its last error.
    pub error: ErrorInfo,
}

impl ProviderFailureInfo {
    /// Returns the provider, its error and how long it has been failing, in one line. `now_millis` is since 1970.
    pub fn describe_failure(&self, now_millis: u64) -> String {
        let seconds = now_millis.saturating_sub(self.since_millis) / 1000;
        format!(
            "{} has failed for {seconds} s: {}",
            self.provider, self.error.message
        )
    }
}

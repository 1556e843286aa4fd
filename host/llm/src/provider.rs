//! The interface of a provider, and the options under which the router calls it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use weir_core::llm::{LlmRequest, ProviderError, ResponseQuote};

/// Calls one model once. It neither queues nor retries: the router does both.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name of the model.
    fn model_name(&self) -> &str;

    /// Whether the model accepts images.
    fn supports_images(&self) -> bool;

    /// A note for the operator who sets the provider up, as a sentence without a full stop.
    fn note_for_operator(&self) -> Option<String> {
        None
    }

    /// Calls the model. To end a call that takes too long, the router drops the future.
    async fn call_model(&self, request: &LlmRequest) -> Result<ProviderResponse, ProviderError>;
}

/// The response of a provider to one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderResponse {
    /// The text of the response.
    pub text: String,
    /// The passages of the request's text that the response quotes, if the provider quotes.
    pub quotes: Vec<ResponseQuote>,
    /// Tokens of the request, if the provider reports them.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the response, if the provider reports them.
    pub completion_tokens: Option<u32>,
}

impl ProviderResponse {
    /// Returns the tokens of the request and the response, if the provider reports them.
    pub(crate) fn total_tokens(&self) -> Option<u64> {
        let prompt = u64::from(self.prompt_tokens.unwrap_or(0));
        let total = prompt + u64::from(self.completion_tokens.unwrap_or(0));
        (total > 0).then_some(total)
    }
}

/// The limits, the prices and the role of a provider.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProviderOptions {
    /// Whether the provider is a fallback: the router calls it only while no other provider is healthy, and for requests that
    /// no other provider can answer.
    pub is_fallback: bool,
    /// Whether the limits of calls and tokens hold for all nodes together, if nodes share them.
    pub has_shared_limits: bool,
    /// Maximum number of calls in flight, at least 1.
    pub max_concurrency: u32,
    /// Maximum number of calls in any minute; 0 means no limit.
    pub requests_per_minute: u32,
    /// Maximum number of tokens in any minute; 0 means no limit.
    pub tokens_per_minute: u64,
    /// Maximum duration of one call.
    pub call_timeout: Duration,
    /// Price of a million request tokens.
    pub prompt_price_per_million: f64,
    /// Price of a million response tokens.
    pub completion_price_per_million: f64,
    /// Whether calls are metered as calls to a language model. Calls of a provider that quotes with the host's own embedder are
    /// not.
    pub metered: bool,
}

impl ProviderOptions {
    /// Returns the price of the given numbers of tokens, in millionths of the currency of the prices.
    pub(crate) fn compute_cost_micros(&self, prompt: u64, completion: u64) -> u64 {
        // A price per million tokens equals the price of one token in millionths.
        let cost = prompt as f64 * self.prompt_price_per_million
            + completion as f64 * self.completion_price_per_million;
        cost.round() as u64
    }
}

impl Default for ProviderOptions {
    fn default() -> Self {
        Self {
            is_fallback: false,
            has_shared_limits: true,
            max_concurrency: 4,
            requests_per_minute: 0,
            tokens_per_minute: 0,
            call_timeout: Duration::from_secs(120),
            prompt_price_per_million: 0.0,
            completion_price_per_million: 0.0,
            metered: true,
        }
    }
}

/// A provider with its name and its options.
#[derive(Clone)]
pub struct ProviderEntry {
    /// The name in errors and metrics.
    pub name: String,
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// Its limits, prices and role.
    pub options: ProviderOptions,
}

/// Removes leading reasoning text from a response. Some endpoints do not separate it.
pub(crate) fn strip_reasoning(text: &str) -> &str {
    let Some(reasoning) = text.trim_start().strip_prefix("<think>") else {
        return text;
    };
    reasoning
        .split_once("</think>")
        .map_or("", |(_, response)| response)
}

#[cfg(test)]
mod tests {
    use super::strip_reasoning;

    #[test]
    fn reasoning_text_is_removed() {
        assert_eq!(strip_reasoning("\n<think>hm\n</think>\nSo."), "\nSo.");
        assert_eq!(strip_reasoning("<think>endless"), "");
        assert_eq!(strip_reasoning("I <think> so"), "I <think> so");
    }
}

//! Requests to language models, their responses, and the port that sends them.
//!
//! A request keeps its prompt apart from the text that it concerns. So an extractive provider never quotes the
//! prompt, and the cache can tell two texts with one prompt from two prompts for one text.
//!
//! A response is returned as a whole. The host reads the stream of a provider to detect stalls, but it does not pass
//! on partial output, because a second attempt or another provider could contradict it.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::id::{DocumentId, TenantId};
use crate::page::EncodedImage;
use crate::ports::SchedulingContext;

mod error;

pub use error::{DenialReason, LlmError, ProviderError, ProviderFailureInfo};

/// Purpose of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LlmRequestKind {
    /// Summary of a part of a section, or of a whole section.
    Map,
    /// Summary of several summaries.
    Reduce,
    /// A title.
    Title,
    /// One or two sentences to show below a title.
    Preview,
    /// Transcription of a page image.
    Page,
    /// A request of a component.
    Component,
}

impl LlmRequestKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Map,
        Self::Reduce,
        Self::Title,
        Self::Preview,
        Self::Page,
        Self::Component,
    ];

    /// Returns the name in events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Reduce => "reduce",
            Self::Title => "title",
            Self::Preview => "preview",
            Self::Page => "page",
            Self::Component => "component",
        }
    }
}

impl fmt::Display for LlmRequestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A request to a language model. Its texts belong to the tenant and are not logged.
#[derive(Clone)]
pub struct LlmRequest {
    /// The tenant, lane and weight for fair scheduling. Its batch linger is not used.
    pub scheduling: SchedulingContext,
    /// Purpose of the request.
    pub kind: LlmRequestKind,
    /// System prompt, if there is one.
    pub system_prompt: Option<String>,
    /// The prompt; `{text}` is replaced by [`Self::text`].
    pub prompt: String,
    /// The text that the prompt refers to; empty if the prompt or the image is sufficient.
    pub text: String,
    /// The image that the prompt refers to. Only a provider that supports images can serve such a request.
    pub image: Option<EncodedImage>,
    /// Maximum number of tokens of the response, at least 1.
    pub max_response_tokens: u32,
    /// Maximum time for the request, with all waiting and all attempts.
    pub timeout: Duration,
    /// The document of the request; `None` if it is not known. The response does not depend on it.
    pub document: Option<DocumentId>,
}

impl LlmRequest {
    /// Returns the prompt with the text inserted. A placeholder inside the text is not replaced.
    pub fn render_prompt(&self) -> String {
        self.prompt.replace("{text}", &self.text)
    }
}

impl fmt::Debug for LlmRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlmRequest")
            .field("tenant", &self.scheduling.tenant)
            .field("kind", &self.kind)
            .field("text_bytes", &self.text.len())
            .field("image", &self.image)
            .field("max_tokens", &self.max_response_tokens)
            .finish_non_exhaustive()
    }
}

/// A part of a response that was copied verbatim from the request's text. Only runs of white space are reduced to one
/// space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseQuote {
    /// Byte range in the response.
    #[serde(rename = "answer")]
    pub response_range: Range<u32>,
    /// Byte range in the request's text.
    #[serde(rename = "source")]
    pub source_range: Range<u32>,
}

/// A response of a language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlmResponse {
    /// The text without surrounding white space; never empty.
    pub text: String,
    /// The quoted parts in ascending order, if the provider is extractive; otherwise empty.
    pub quotes: Vec<ResponseQuote>,
    /// Tokens of the prompt, if the provider reports them.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the response, if the provider reports them.
    #[serde(rename = "answer_tokens")]
    pub completion_tokens: Option<u32>,
    /// Name of the provider, as in the settings.
    pub provider: String,
    /// The model that responded.
    pub model: String,
    /// Whether no call was made, because the response was cached or the same request was in flight.
    pub cached: bool,
    /// Time spent in queues and in backoff.
    #[serde(rename = "waited")]
    pub waiting_time: Duration,
    /// Time that providers spent on the request, failed attempts included.
    #[serde(rename = "spent")]
    pub provider_time: Duration,
}

/// Sends requests to language models. Dropping the future of a request cancels it.
#[async_trait]
pub trait LanguageModel: Send + Sync {
    /// Sends a request and returns the response, or the errors of the providers.
    async fn request_completion(&self, request: LlmRequest) -> Result<LlmResponse, LlmError>;

    /// Returns whether a provider supports images.
    fn supports_images(&self) -> bool;

    /// Returns the providers that requests wait for because each suitable provider has failed for some seconds; empty
    /// if one works. With `image`, only providers that support images count.
    fn failing_providers_if_all_fail(&self, image: bool) -> Vec<ProviderFailureInfo>;

    /// Returns how many concurrent requests are useful. The number changes when providers fail, recover or slow down.
    fn useful_concurrency(&self) -> u32;

    /// Removes the cached responses of a tenant.
    async fn clear_tenant_cache(&self, tenant: &TenantId) -> Result<(), StorageError>;

    /// Removes a tenant's cached responses for a document, and those for no known document.
    async fn clear_document_cache(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError>;

    /// Waits until the tenant has fewer queued requests than the backpressure limit. A caller with many requests
    /// calls this before each of them, so that it does not fill the queue and does not get [`LlmError::QueueFull`].
    async fn wait_for_tenant_queue_space(&self, tenant: &TenantId);
}

/// SHA-256 of everything that a response depends on, the tenant included.
pub type ResponseCacheKey = [u8; 32];

/// Caches responses, so that a job that is repeated or resumed sends no request twice.
///
/// A cache has a limit in bytes. If a new response does not fit, the least recently used responses of all tenants are
/// evicted.
#[async_trait]
pub trait ResponseCache: Send + Sync {
    /// Returns a response, and counts as a use of it; `None` if it is not cached or belongs to another tenant.
    async fn get_cached_response(
        &self,
        tenant: &TenantId,
        key: &ResponseCacheKey,
    ) -> Result<Option<LlmResponse>, StorageError>;

    /// Caches a response with the document that it was made from. Replaces the earlier response of the key. A response
    /// that is larger than the limit is not cached, and evicts no others.
    async fn put_cached_response(
        &self,
        tenant: &TenantId,
        key: &ResponseCacheKey,
        document: Option<&DocumentId>,
        response: &LlmResponse,
    ) -> Result<(), StorageError>;

    /// Removes a tenant's responses that were made from a document, and those for no known document. Nothing of them
    /// is left on the disk when this returns.
    async fn remove_cached_document_responses(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError>;

    /// Removes all responses of a tenant.
    async fn remove_cached_tenant_responses(&self, tenant: &TenantId) -> Result<(), StorageError>;
}

#[cfg(test)]
mod tests;

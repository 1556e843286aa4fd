//! Language models behind one port.
//!
//! A request passes through up to three layers. [`CachedLanguageModel`] looks the request up in the response cache and joins
//! equal requests that are in flight at the same time. [`Router`] queues the request fairly between tenants, assigns it to a
//! healthy provider that has a free call and is within its limits per minute, and contains the only retry loop: a provider
//! makes one call and reports the error. A [`Provider`] calls one model: [`OpenAiProvider`] calls an HTTP endpoint,
//! `LocalProvider` runs a model in this process (with the feature `local-llm`), and [`ExtractiveProvider`] uses only the
//! embedder.
//!
//! There is one retry loop because a client library that retries by itself exceeds the provider's limits, hides failures from
//! the circuit breaker and outlives the deadline. Nested retry loops multiply their attempts.
//!
//! All waiting uses tokio's clock, so that tests run hours of outage in milliseconds.

mod admission_worker;
mod api_key;
mod backoff;
mod breaker;
mod cached_model;
mod call_permit;
mod concurrency_limiter;
mod dispatcher;
mod extractive;
mod llm_metrics;
#[cfg(feature = "local-llm")]
mod local;
mod memory_cache;
mod openai;
mod provider;
mod provider_check;
mod provider_setup;
mod provider_state;
mod rate_limiter;
mod request_attempts;
mod response_validation;
mod retry_and_health_decision;
mod router;
mod router_config;
mod shared_admission;
mod usage_accounting;

pub use admission_worker::SharedCallLimits;
pub use api_key::ProviderApiKey;
pub use breaker::{BreakerConfig, BreakerState};
pub use cached_model::CachedLanguageModel;
pub use extractive::ExtractiveProvider;
pub use llm_metrics::{ProviderStats, RouterStats};
#[cfg(feature = "local-llm")]
pub use local::{LOCAL_MODEL_ENVIRONMENT, LocalConfig, LocalProvider};
pub use memory_cache::MemoryResponseCache;
pub use openai::{OpenAiConfig, OpenAiProvider};
pub use provider::{Provider, ProviderEntry, ProviderOptions, ProviderResponse};
pub use provider_check::{ProviderCheckResult, check_providers};
pub use provider_setup::{ProviderSetupError, build_language_model};
pub use router::Router;
pub use router_config::RouterConfig;
pub use usage_accounting::UsageAccounting;

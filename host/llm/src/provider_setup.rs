//! Builds the providers and the router from the settings.

use std::sync::Arc;
use std::time::Duration;

use weir_core::llm::ResponseCache;
use weir_core::ports::Embedder;
use weir_core::settings::{AllProvidersFailedAction, ProviderKind, ProviderSettings, Settings};

use crate::admission_worker::SharedCallLimits;
use crate::api_key::ProviderApiKey;
use crate::breaker::BreakerConfig;
use crate::cached_model::CachedLanguageModel;
use crate::extractive::ExtractiveProvider;
use crate::openai::{OpenAiConfig, OpenAiProvider};
use crate::provider::{Provider, ProviderEntry, ProviderOptions};
use crate::router::Router;
use crate::router_config::RouterConfig;
use crate::usage_accounting::UsageAccounting;

/// Name of the provider that is used if the settings have none.
const DEFAULT_PROVIDER_NAME: &str = "extractive";

/// A provider that cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the language model '{provider}' cannot be set up: {reason}")]
pub struct ProviderSetupError {
    /// The name of the provider.
    pub provider: String,
    /// The reason and the remedy.
    pub reason: String,
}

/// Builds the language model of the settings, with an extractive provider if the settings have none. `environment` looks up the
/// variables that hold keys, `cache` is the response cache, and `accounts` meters calls and reserves quotas. With `shared_limits`, the limits of
/// providers on other machines hold for all nodes together.
pub fn build_language_model(
    settings: &Settings,
    embedder: &Arc<dyn Embedder>,
    cache: Option<Arc<dyn ResponseCache>>,
    accounts: UsageAccounting,
    shared_limits: Option<&SharedCallLimits>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<CachedLanguageModel, ProviderSetupError> {
    let mut providers = Vec::new();
    for provider in &settings.llm_providers {
        let entry =
            build_provider_entry(provider, embedder, &environment).map_err(|reason| ProviderSetupError {
                provider: provider.name.clone(),
                reason,
            })?;
        providers.push(entry);
    }
    if providers.is_empty() {
        providers.push(ProviderEntry {
            name: DEFAULT_PROVIDER_NAME.into(),
            provider: Arc::new(ExtractiveProvider::new(Arc::clone(embedder))),
            options: ProviderOptions {
                max_concurrency: embedder.worker_count().max(1).saturating_mul(2),
                metered: false,
                has_shared_limits: false,
                ..ProviderOptions::default()
            },
        });
    }
    let mut router = Router::new(providers, build_router_config(settings)).with_usage_accounting(accounts);
    if let Some(shared_limits) = shared_limits {
        router = router.with_shared_call_limits(shared_limits);
    }
    Ok(CachedLanguageModel::new(
        router,
        cache.filter(|_| settings.llm_response_cache),
    ))
}

fn build_router_config(settings: &Settings) -> RouterConfig {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let queue = settings.llm_max_queued_requests_per_tenant as usize;
    RouterConfig {
        max_queued_per_tenant: queue,
        backpressure_threshold: (queue * settings.llm_queue_backpressure_percent as usize / 100).max(1),
        max_attempts: settings.llm_max_attempts,
        first_backoff: Duration::from_millis(settings.llm_initial_backoff_millis.into()),
        max_backoff: seconds(settings.llm_max_backoff_seconds),
        fail_when_unavailable: settings.llm_when_all_providers_fail == AllProvidersFailedAction::Fail,
        breaker: settings.llm_breaker_enabled.then(|| BreakerConfig {
            max_error_ratio: f64::from(settings.llm_breaker_error_percent) / 100.0,
            max_p95_latency: seconds(settings.llm_breaker_p95_latency_seconds),
            max_backing_off: settings.llm_breaker_pending_retries_to_open,
            open_duration: seconds(settings.llm_breaker_min_open_seconds),
            required_probes: settings.llm_breaker_probes_to_close,
        }),
        adaptive_concurrency: settings.llm_adaptive_concurrency,
        denial_cooldown: seconds(settings.llm_denied_cooldown_seconds),
        backoff_seed: None,
    }
}

fn build_provider_entry(
    settings: &ProviderSettings,
    embedder: &Arc<dyn Embedder>,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<ProviderEntry, String> {
    let provider: Arc<dyn Provider> = match settings.kind {
        ProviderKind::OpenAi => Arc::new(OpenAiProvider::new(build_openai_config(settings, environment)?)?),
        ProviderKind::Extractive => Arc::new(ExtractiveProvider::new(Arc::clone(embedder))),
        ProviderKind::Local => open_local_provider(settings)?,
    };
    Ok(ProviderEntry {
        name: settings.name.clone(),
        provider,
        options: ProviderOptions {
            is_fallback: settings.fallback,
            // The other kinds run on this machine.
            has_shared_limits: settings.kind == ProviderKind::OpenAi,
            max_concurrency: settings.max_concurrent_requests,
            requests_per_minute: settings.requests_per_minute,
            tokens_per_minute: settings.tokens_per_minute,
            call_timeout: Duration::from_secs(settings.call_timeout_seconds.into()),
            prompt_price_per_million: settings.prompt_price_per_million.into(),
            completion_price_per_million: settings.completion_price_per_million.into(),
            metered: settings.kind != ProviderKind::Extractive,
        },
    })
}

#[cfg(feature = "local-llm")]
fn open_local_provider(settings: &ProviderSettings) -> Result<Arc<dyn Provider>, String> {
    use crate::local::{LocalConfig, LocalProvider};
    Ok(Arc::new(LocalProvider::inspect_file_and_start(LocalConfig {
        model_file: settings.model_file.clone(),
        model_name: settings.model.clone(),
        context_tokens: settings.context_tokens,
        max_concurrency: settings.max_concurrent_requests,
        threads: settings.threads,
        temperature: settings.temperature,
    })?))
}

#[cfg(not(feature = "local-llm"))]
fn open_local_provider(_: &ProviderSettings) -> Result<Arc<dyn Provider>, String> {
    Err(
        "this build has no local models: build weir with the feature local-llm (`make run LLM=local` does), \
         or use an endpoint with kind = \"openai\""
            .into(),
    )
}

fn build_openai_config(
    settings: &ProviderSettings,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<OpenAiConfig, String> {
    if settings.url.is_empty() || settings.model.is_empty() {
        return Err("set its url and its model".into());
    }
    // The error repeats neither the variable's name nor the file's content, because the operator may have put the key itself
    // there.
    let key = if !settings.key_env.is_empty() {
        let key = environment(&settings.key_env).and_then(|key| ProviderApiKey::new(&key));
        Some(key.ok_or("the environment variable in its key_env is not set")?)
    } else if !settings.key_file.as_os_str().is_empty() {
        let read = ProviderApiKey::read_key_file(&settings.key_file);
        Some(read.map_err(|error| format!("cannot read its key_file: {error}"))?)
    } else {
        None
    };
    Ok(OpenAiConfig {
        base_url: settings.url.clone(),
        model_name: settings.model.clone(),
        api_key: key,
        key_file: Some(settings.key_file.clone())
            .filter(|file| settings.key_env.is_empty() && !file.as_os_str().is_empty()),
        supports_images: settings.supports_images,
        stream: settings.stream_responses,
        temperature: Some(settings.temperature).filter(|temperature| *temperature >= 0.0),
        token_limit: settings.token_limit_parameter,
        stall_timeout: Duration::from_secs(settings.stall_timeout_seconds.into()),
    })
}

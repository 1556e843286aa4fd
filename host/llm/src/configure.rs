//! Providers as the settings name them.

use std::sync::Arc;
use std::time::Duration;

use weir_core::language::AnswerCache;
use weir_core::ports::Embedder;
use weir_core::settings::{ProviderKind, ProviderSettings, Settings, WhenDown};

use crate::accounts::Accounts;
use crate::answers::Answers;
use crate::breaker::BreakerConfig;
use crate::extractive::Extractive;
use crate::openai::{OpenAi, OpenAiConfig};
use crate::provider::{Member, Provider, Terms};
use crate::router::{Router, RouterConfig};
use crate::secret::Secret;

/// Name of the provider that is there when none is set up.
const DEFAULT: &str = "extractive";

/// A provider that cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the language model '{provider}' cannot be set up: {reason}")]
pub struct SetUpError {
    /// Its name.
    pub provider: String,
    /// Why, and what to do.
    pub reason: String,
}

/// The language models of the settings; the extractive one if there are none. `environment` is asked for keys, `kept` holds
/// answers, if they are to be kept, and `accounts` tells what tenants use.
pub fn from_settings(
    settings: &Settings,
    embedder: &Arc<dyn Embedder>,
    kept: Option<Arc<dyn AnswerCache>>,
    accounts: Accounts,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Answers, SetUpError> {
    let mut members = Vec::new();
    for provider in &settings.llm_providers {
        let member = member(provider, embedder, &environment).map_err(|reason| SetUpError {
            provider: provider.name.clone(),
            reason,
        })?;
        members.push(member);
    }
    if members.is_empty() {
        members.push(Member {
            name: DEFAULT.into(),
            provider: Arc::new(Extractive::new(Arc::clone(embedder))),
            terms: Terms {
                concurrency: embedder.workers().max(1).saturating_mul(2),
                metered: false,
                ..Terms::default()
            },
        });
    }
    let router = Router::new(members, router_config(settings)).with_accounts(accounts);
    Ok(Answers::new(router, kept.filter(|_| settings.llm_cache)))
}

fn router_config(settings: &Settings) -> RouterConfig {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let queue = settings.llm_queue as usize;
    RouterConfig {
        queue,
        slow_at: (queue * settings.llm_slow_percent as usize / 100).max(1),
        tries: settings.llm_tries,
        pause: Duration::from_millis(settings.llm_pause_millis.into()),
        max_pause: seconds(settings.llm_max_pause_seconds),
        fail_when_down: settings.llm_when_down == WhenDown::Fail,
        breaker: settings.llm_breaker.then(|| BreakerConfig {
            errors: f64::from(settings.llm_breaker_error_percent) / 100.0,
            p95: seconds(settings.llm_breaker_p95_seconds),
            queue: settings.llm_breaker_queue,
            open: seconds(settings.llm_breaker_open_seconds),
            probes: settings.llm_breaker_probes,
        }),
        adaptive: settings.llm_adaptive,
        denied_pause: seconds(settings.llm_denied_seconds),
        seed: None,
    }
}

fn member(
    settings: &ProviderSettings,
    embedder: &Arc<dyn Embedder>,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<Member, String> {
    let provider: Arc<dyn Provider> = match settings.kind {
        ProviderKind::OpenAi => Arc::new(OpenAi::new(openai(settings, environment)?)?),
        ProviderKind::Extractive => Arc::new(Extractive::new(Arc::clone(embedder))),
        ProviderKind::Local => local(settings)?,
    };
    Ok(Member {
        name: settings.name.clone(),
        provider,
        terms: Terms {
            spare: settings.spare,
            concurrency: settings.concurrency,
            requests_per_minute: settings.requests_per_minute,
            tokens_per_minute: settings.tokens_per_minute,
            timeout: Duration::from_secs(settings.timeout_seconds.into()),
            prompt_price: settings.prompt_price.into(),
            answer_price: settings.answer_price.into(),
            metered: settings.kind != ProviderKind::Extractive,
        },
    })
}

#[cfg(feature = "local-llm")]
fn local(settings: &ProviderSettings) -> Result<Arc<dyn Provider>, String> {
    use crate::local::{Local, LocalConfig};
    Ok(Arc::new(Local::open(LocalConfig {
        file: settings.file.clone(),
        model: settings.model.clone(),
        context: settings.context,
        concurrency: settings.concurrency,
        threads: settings.threads,
        temperature: settings.temperature,
    })?))
}

#[cfg(not(feature = "local-llm"))]
fn local(_: &ProviderSettings) -> Result<Arc<dyn Provider>, String> {
    Err(
        "this weir was built without models in its own process: build it with the feature local-llm (`make run LLM=local` does), \
         or name an endpoint, kind = \"openai\""
            .into(),
    )
}

fn openai(
    settings: &ProviderSettings,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<OpenAiConfig, String> {
    if settings.url.is_empty() || settings.model.is_empty() {
        return Err("give its url and its model".into());
    }
    // Neither the variable's name nor the file's content is repeated: someone may have put the key itself in their place.
    let key = if !settings.key_env.is_empty() {
        let key = environment(&settings.key_env).and_then(|key| Secret::new(&key));
        Some(key.ok_or("the environment variable that its key_env names is not set")?)
    } else if !settings.key_file.as_os_str().is_empty() {
        let read = Secret::read(&settings.key_file);
        Some(read.map_err(|error| format!("its key_file cannot be read: {error}"))?)
    } else {
        None
    };
    Ok(OpenAiConfig {
        url: settings.url.clone(),
        model: settings.model.clone(),
        key,
        key_file: Some(settings.key_file.clone())
            .filter(|file| settings.key_env.is_empty() && !file.as_os_str().is_empty()),
        vision: settings.vision,
        stream: settings.stream,
        temperature: Some(settings.temperature).filter(|temperature| *temperature >= 0.0),
        token_limit: settings.token_limit,
        stall: Duration::from_secs(settings.stall_seconds.into()),
    })
}

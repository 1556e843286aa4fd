//! Settings of the language model providers. They are a list, and each entry has its own keys.
//!
//! An entry is a table `[[llm.provider]]` with a `name` in `weir.toml`, `--set llm.provider.NAME.KEY=value` on the
//! command line, or `WEIR_LLM_PROVIDER_NAME_KEY` in the environment, where `_` stands for a `-` of the name. Each of
//! them adds the provider at the end of the list if it does not exist.
//!
//! Settings are listed, logged and compared. So they say where an API key is stored and never contain the key.

use std::path::PathBuf;

use super::renamed_settings::unknown_setting_error;
use super::setting_type::{SettingDeclaration, SettingError, SettingType};

/// Prefix of the names of provider settings.
pub(super) const PROVIDER_PREFIX: &str = "llm.provider.";

setting_choices! {
    /// Kind of a provider.
    ProviderKind {
        /// An endpoint with the OpenAI API.
        OpenAi = "openai",
        /// Quotes the most relevant sentences verbatim. It needs only the embedding model.
        Extractive = "extractive",
        /// A GGUF model in this process, if weir was built with local models.
        Local = "local",
    }
}

setting_choices! {
    /// Name of the request parameter that limits the tokens of a response.
    TokenLimitParameter {
        /// The name that nearly all endpoints use.
        MaxTokens = "max_tokens",
        /// The name that OpenAI uses for its newer models.
        MaxCompletionTokens = "max_completion_tokens",
    }
}

settings! {
    /// Settings of a language model provider.
    struct ProviderSettings;
    /// Declarations of the keys of a provider.
    const PROVIDER_DECLARATIONS;
    lists {}

    /// Name of the provider in errors and metrics.
    "llm.provider.name" => name: String = "provider", "1 to 32 of a-z, 0-9 and '-', beginning with a letter" if |v| is_provider_name(&v);
    /// Kind of the provider.
    "llm.provider.kind" => kind: ProviderKind = "openai", "openai, extractive or local" if |_v| true;
    /// Base URL of the API without `/chat/completions`, such as `http://127.0.0.1:8080/v1`.
    "llm.provider.url" => url: String = "", "an http or https address without a password"
        if |v| v.is_empty() || is_url_without_password(&v);
    /// Name of the model at the provider.
    "llm.provider.model" => model: String = "", "a name" if |_v| true;
    /// Environment variable with the API key. Empty: the key is in `key_file`, or no key is sent.
    "llm.provider.key_env" => key_env: String = "", "a name" if |_v| true;
    /// File with the API key. It is read for each call, so the key can be changed while weir runs.
    "llm.provider.key_file" => key_file: PathBuf = "", "a path" if |_v| true;
    /// GGUF file of a local model.
    "llm.provider.model_file" => model_file: PathBuf = "", "a path" if |_v| true;
    /// Context length of a local model in tokens, prompt and response together. At most the length that the model was
    /// trained with.
    "llm.provider.context_tokens" => context_tokens: u32 = "4096", "tokens, 512 to 1048576" if |v| (512..=1_048_576).contains(&v);
    /// Threads of a local model. 0: one for each core.
    "llm.provider.threads" => threads: u32 = "0", "threads, 0 to 512" if |v| v <= 512;
    /// Whether the model accepts images.
    "llm.provider.supports_images" => supports_images: bool = "false", "true or false" if |_v| true;
    /// Whether the provider is a fallback. It gets a request only if no other provider can serve it, or if the
    /// circuit breakers of the others are open.
    "llm.provider.fallback" => fallback: bool = "false", "true or false" if |_v| true;
    /// Maximum number of concurrent calls. Nodes that share a ledger keep this and the next two limits together for a provider of the kind
    /// `openai`: its name must be the same on all of them.
    "llm.provider.max_concurrent_requests" => max_concurrent_requests: u32 = "4", "calls, 1 to 1024" if |v| (1..=1024).contains(&v);
    /// Maximum calls in any minute. 0: no limit.
    "llm.provider.requests_per_minute" => requests_per_minute: u32 = "0", "calls, 0 to 100000" if |v| v <= 100_000;
    /// Maximum tokens in any minute, prompts and responses together. 0: no limit.
    "llm.provider.tokens_per_minute" => tokens_per_minute: u64 = "0", "tokens" if |_v| true;
    /// Maximum time for one call.
    "llm.provider.call_timeout_seconds" => call_timeout_seconds: u32 = "120", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Maximum time without output in the middle of a response.
    "llm.provider.stall_timeout_seconds" => stall_timeout_seconds: u32 = "30", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Whether responses are streamed. Without streaming, only the timeout of the whole call detects a provider that
    /// stops.
    "llm.provider.stream_responses" => stream_responses: bool = "true", "true or false" if |_v| true;
    /// Sampling temperature. Below 0: not sent.
    "llm.provider.temperature" => temperature: f32 = "0", "-1 to 2" if |v| (-1.0..=2.0).contains(&v);
    /// Name of the request parameter that limits the tokens of a response.
    "llm.provider.token_limit_parameter" => token_limit_parameter: TokenLimitParameter = "max_tokens", "max_tokens or max_completion_tokens"
        if |_v| true;
    /// Price of a million prompt tokens, in any currency.
    "llm.provider.prompt_price_per_million" => prompt_price_per_million: f32 = "0", "0 or more" if |v| v.is_finite() && v >= 0.0;
    /// Price of a million response tokens, in the same currency.
    "llm.provider.completion_price_per_million" => completion_price_per_million: f32 = "0", "0 or more" if |v| v.is_finite() && v >= 0.0;
}

fn is_provider_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The URL is shown in several places, so it must not contain a password.
fn is_url_without_password(address: &str) -> bool {
    let rest = address
        .strip_prefix("http://")
        .or_else(|| address.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty() && !host.contains('@')
    })
}

impl ProviderSettings {
    /// Returns the value of a key as text, by its declared name, such as `llm.provider.url`.
    pub fn get(&self, name: &str) -> Option<String> {
        self.get_declared(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_own_range() {
        let mut provider = ProviderSettings::default();
        for d in PROVIDER_DECLARATIONS {
            provider.set_declared(d.name, d.default).unwrap();
            assert!(
                !d.description.trim().is_empty() && !d.accepted_values.is_empty(),
                "{}",
                d.name
            );
        }
        assert_eq!(provider, ProviderSettings::default());
    }
}

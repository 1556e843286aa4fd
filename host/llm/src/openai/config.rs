//! The configuration of an endpoint.

use std::path::PathBuf;
use std::time::Duration;

use weir_core::settings::TokenLimitParameter;

use crate::api_key::ProviderApiKey;

/// The configuration of one endpoint.
#[derive(Debug, Clone)]
pub struct OpenAiConfig {
    /// Base URL of the API, without `/chat/completions`.
    pub base_url: String,
    /// Name of the model at the endpoint.
    pub model_name: String,
    /// The API key, if the endpoint needs one.
    pub api_key: Option<ProviderApiKey>,
    /// The file that holds the key, if any. It is read again for each call, so that the key can be changed without a restart.
    pub key_file: Option<PathBuf>,
    /// Whether the model accepts images.
    pub supports_images: bool,
    /// Whether responses are streamed.
    pub stream: bool,
    /// Sampling temperature, at least 0; `None` leaves it to the endpoint.
    pub temperature: Option<f32>,
    /// Name of the parameter that limits the tokens of a response.
    pub token_limit: TokenLimitParameter,
    /// Maximum time without data after the response has begun.
    pub stall_timeout: Duration,
}

//! A provider for any endpoint with OpenAI's chat completions API, with text or images.
//!
//! It makes one call without retries, because the router has the only retry loop. Responses are decoded once, here, into
//! [`ProviderResponse`] or [`ProviderError`]; no other module knows the wire format.
//!
//! The response is streamed if the endpoint supports it. A long response takes long, so a limit on the total time detects a
//! hanging endpoint late; a stall timeout between two events detects it early. The number of bytes read is bounded.

mod config;
mod denial_classification;
mod error_body;
mod error_response;
mod request_body;
mod response_body;
mod response_reader;

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::time::{Duration, timeout};
use weir_core::llm::{LlmRequest, ProviderError};

use crate::api_key::ProviderApiKey;
use crate::provider::{Provider, ProviderResponse};
use response_reader::ResponseReader;

pub use config::OpenAiConfig;

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A provider that calls an endpoint with OpenAI's chat completions API.
pub struct OpenAiProvider {
    client: Client,
    completions_url: String,
    config: OpenAiConfig,
    /// The key that was read last.
    last_key: Mutex<Option<KeyWithHeaderValue>>,
}

/// A key with the header that carries it.
#[derive(Clone)]
struct KeyWithHeaderValue {
    key: ProviderApiKey,
    header: HeaderValue,
}

impl KeyWithHeaderValue {
    fn new(secret: ProviderApiKey) -> Result<Self, String> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", secret.expose_key()))
            .map_err(|_| "the key contains characters that a header must not contain".to_owned())?;
        header.set_sensitive(true);
        Ok(Self { key: secret, header })
    }
}

impl OpenAiProvider {
    /// Creates the provider without connecting. Returns the reason if this host cannot make such calls.
    pub fn new(config: OpenAiConfig) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        let key = config.api_key.clone().map(KeyWithHeaderValue::new).transpose()?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls_config(config.base_url.starts_with("https:"))?)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            // A redirect would send the key to another address.
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .default_headers(headers)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            completions_url: format!("{}/chat/completions", config.base_url.trim_end_matches('/')),
            config,
            last_key: Mutex::new(key),
        })
    }

    /// Returns the key of the next call: the content of the key file, or the last key if the file cannot be read.
    async fn read_current_key(&self) -> Option<KeyWithHeaderValue> {
        if let Some(file) = self.config.key_file.clone() {
            let read = tokio::task::spawn_blocking(move || {
                ProviderApiKey::read_key_file(&file).and_then(KeyWithHeaderValue::new)
            })
            .await;
            match read {
                Ok(Ok(key)) => *self.last_key.lock() = Some(key),
                Ok(Err(error)) => {
                    tracing::warn!(error, "cannot read the key file; the previous key stays in use")
                }
                Err(join_error) => {
                    tracing::warn!(%join_error, "cannot read the key file; the previous key stays in use")
                }
            }
        }
        self.last_key.lock().clone()
    }
}

/// Replaces the key in a text, because some endpoints repeat it in error messages.
fn redact_key(key: Option<&KeyWithHeaderValue>, text: String) -> String {
    match key {
        Some(key) => key.key.redact_in_text(&text),
        None => text,
    }
}

#[async_trait]
impl Provider for OpenAiProvider {
    fn model_name(&self) -> &str {
        &self.config.model_name
    }

    fn supports_images(&self) -> bool {
        self.config.supports_images
    }

    async fn call_model(&self, llm_request: &LlmRequest) -> Result<ProviderResponse, ProviderError> {
        let body = request_body::encode_request(&self.config, llm_request)?;
        let key = self.read_current_key().await;
        let redact = |text| redact_key(key.as_ref(), text);
        let mut request = self.client.post(&self.completions_url).body(body);
        if let Some(key) = &key {
            request = request.header(AUTHORIZATION, key.header.clone());
        }
        let sent = request.send().await;
        let response = sent.map_err(|error| {
            ProviderError::Unreachable(redact(error_response::describe_transport_error(&error)))
        })?;
        let stall = self.config.stall_timeout;
        if response.status() != StatusCode::OK {
            // Reading the error body may take as long as a stall, not as long as a whole response.
            let (status, headers) = (response.status(), response.headers().clone());
            let error_body = timeout(stall, response_reader::read_error_body(response))
                .await
                .unwrap_or_default();
            return Err(error_response::error_from_response(
                status,
                &headers,
                &error_body,
                redact,
            ));
        }
        let is_stream = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        let reader = ResponseReader::new(stall, llm_request.max_response_tokens);
        let result = if is_stream {
            reader.read_event_stream(response).await
        } else {
            reader.read_whole_body(response).await
        };
        result.map_err(|fault| match fault {
            ProviderError::ServerError {
                status,
                reason,
                after,
            } => ProviderError::ServerError {
                status,
                reason: redact(reason),
                after,
            },
            ProviderError::Denied {
                status,
                denial,
                reason,
            } => ProviderError::Denied {
                status,
                denial,
                reason: redact(reason),
            },
            ProviderError::InvalidResponse(reason) => ProviderError::InvalidResponse(redact(reason)),
            other => other,
        })
    }
}

/// Builds the TLS configuration. Plain HTTP endpoints do not need the system's certificates.
fn tls_config(verified: bool) -> Result<ClientConfig, String> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if !verified {
        let none = rustls::RootCertStore::empty();
        return Ok(builder.with_root_certificates(none).with_no_client_auth());
    }
    let verified = builder
        .with_platform_verifier()
        .map_err(|error| format!("this host cannot verify certificates: {error}"))?;
    Ok(verified.with_no_client_auth())
}

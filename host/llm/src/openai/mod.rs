//! Any endpoint that speaks OpenAI's chat completions, with text or images.
//!
//! One call, no second try: the router has the only retry loop. What arrives is decoded here, once, into [`Reply`] or
//! [`Fault`]; nothing of the wire is known elsewhere.
//!
//! The endpoint is listened to as it writes, where it can be. An answer takes as long as it is long, so a limit on the whole
//! says little; that nothing came for half a minute says that nothing will. What is read is bounded, whatever is sent.

mod denial;
mod failure;
mod listen;
mod request;
mod wire;

use std::path::PathBuf;

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::time::{Duration, timeout};
use weir_core::language::{Fault, Question};
use weir_core::settings::TokenLimit;

use crate::provider::{Provider, Reply};
use crate::secret::Secret;
use listen::Listener;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// An endpoint.
#[derive(Debug, Clone)]
pub struct OpenAiConfig {
    /// Where the API is, without `/chat/completions`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The key, if it wants one.
    pub key: Option<Secret>,
    /// The file that holds the key, if one does: it is read again for each call, so that a key can be changed without a restart.
    pub key_file: Option<PathBuf>,
    /// Whether the model takes images.
    pub vision: bool,
    /// Whether it is listened to as it writes.
    pub stream: bool,
    /// How freely it chooses its words, from 0; `None`: it is not told.
    pub temperature: Option<f32>,
    /// What it calls the limit of an answer.
    pub token_limit: TokenLimit,
    /// How long it may send nothing once it has begun to answer.
    pub stall: Duration,
}

/// Asks an endpoint.
pub struct OpenAi {
    client: Client,
    endpoint: String,
    config: OpenAiConfig,
    /// The key that was read last.
    key: Mutex<Option<Key>>,
}

/// A key, and the header that carries it.
#[derive(Clone)]
struct Key {
    secret: Secret,
    header: HeaderValue,
}

impl Key {
    fn new(secret: Secret) -> Result<Self, String> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))
            .map_err(|_| "the key has characters that no header may have".to_owned())?;
        header.set_sensitive(true);
        Ok(Self { secret, header })
    }
}

impl OpenAi {
    /// Connects to nothing yet. The error says why this host cannot make such calls at all.
    pub fn new(config: OpenAiConfig) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        let key = config.key.clone().map(Key::new).transpose()?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls(config.url.starts_with("https:"))?)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            // Where it leads, the key would go along.
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT)
            .default_headers(headers)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            endpoint: format!("{}/chat/completions", config.url.trim_end_matches('/')),
            config,
            key: Mutex::new(key),
        })
    }

    /// The key of the next call: what the key file holds now, or else the key that was read last.
    async fn key(&self) -> Option<Key> {
        if let Some(file) = self.config.key_file.clone() {
            let read = tokio::task::spawn_blocking(move || Secret::read(&file).and_then(Key::new)).await;
            match read {
                Ok(Ok(key)) => *self.key.lock() = Some(key),
                Ok(Err(error)) => {
                    tracing::warn!(error, "the key file cannot be read: the key read before is used")
                }
                Err(died) => {
                    tracing::warn!(%died, "the key file cannot be read: the key read before is used")
                }
            }
        }
        self.key.lock().clone()
    }
}

/// Removes the key from a text: some endpoints repeat it.
fn without_key(key: Option<&Key>, text: String) -> String {
    match key {
        Some(key) => key.secret.blacken(&text),
        None => text,
    }
}

#[async_trait]
impl Provider for OpenAi {
    fn model(&self) -> &str {
        &self.config.model
    }

    fn sees(&self) -> bool {
        self.config.vision
    }

    async fn ask(&self, question: &Question) -> Result<Reply, Fault> {
        let body = request::body(&self.config, question)?;
        let key = self.key().await;
        let blacken = |text| without_key(key.as_ref(), text);
        let mut request = self.client.post(&self.endpoint).body(body);
        if let Some(key) = &key {
            request = request.header(AUTHORIZATION, key.header.clone());
        }
        let sent = request.send().await;
        let answer = sent.map_err(|error| Fault::Unreachable(blacken(failure::words_of(&error))))?;
        let stall = self.config.stall;
        if answer.status() != StatusCode::OK {
            // Why it failed is worth a moment, not a stall.
            let (status, headers) = (answer.status(), answer.headers().clone());
            let words = timeout(stall, listen::words(answer)).await.unwrap_or_default();
            return Err(failure::of(status, &headers, &words, blacken));
        }
        let streams = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        let listener = Listener::new(stall, question.max_tokens);
        let heard = if streams {
            listener.stream(answer).await
        } else {
            listener.whole(answer).await
        };
        heard.map_err(|fault| match fault {
            Fault::Server {
                status,
                reason,
                after,
            } => Fault::Server {
                status,
                reason: blacken(reason),
                after,
            },
            Fault::Denied {
                status,
                denial,
                reason,
            } => Fault::Denied {
                status,
                denial,
                reason: blacken(reason),
            },
            Fault::Unintelligible(reason) => Fault::Unintelligible(blacken(reason)),
            other => other,
        })
    }
}

/// How certificates are verified. An endpoint without any does not need those of the system.
fn tls(verified: bool) -> Result<ClientConfig, String> {
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

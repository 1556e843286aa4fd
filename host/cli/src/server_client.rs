//! A client of the HTTP API, for commands that work on a server.
//!
//! The API key comes from the environment or a file. It is no command-line option, because other processes can read command lines.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use weir_core::tenancy::KeyScope;

use crate::terminal::await_with_progress;

/// Timeout of a request. The longest one uploads a component of 64 MiB over a slow connection and waits for its compilation.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// A client of one server.
pub(crate) struct ServerClient {
    client: Client,
    server_url: String,
    api_key: String,
}

impl ServerClient {
    /// Creates a client with the API key in the file, or in the variable `WEIR_KEY`. If there is no key, the error names the
    /// scope that the command needs.
    pub(crate) fn new(server: &str, key_file: Option<&Path>, scope: KeyScope) -> Result<Self> {
        let key = match key_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => std::env::var("WEIR_KEY").ok().with_context(|| {
                let scope = scope.name();
                format!(
                    "no API key for {server}: set WEIR_KEY or --key-file to a key with the scope {scope}; \
                     `weir key create TENANT --scope {scope}` creates one on the server's machine"
                )
            })?,
        };
        // An error means that a provider is already installed. It is the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            client: Client::builder().timeout(REQUEST_TIMEOUT).build()?,
            server_url: server.to_owned(),
            api_key: key.trim().to_owned(),
        })
    }

    /// Sends a GET request and returns the JSON response.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.send_request(self.build_request(Method::GET, path)).await
    }

    /// Sends a POST request with a JSON body and returns the JSON response.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.build_request(Method::POST, path);
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        self.send_request(request).await
    }

    /// Uploads a component under a name and returns the JSON response.
    pub(crate) async fn upload_component(&self, name: &str, component: Vec<u8>) -> Result<Value> {
        let request = self.build_request(Method::POST, &format!("/v1/components?name={name}"));
        let request = request.header("content-type", "application/wasm").body(component);
        self.send_request(request).await
    }

    /// Sends a DELETE request.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.send_request(self.build_request(Method::DELETE, path))
            .await
            .map(drop)
    }

    fn build_request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.server_url));
        request.header("authorization", format!("Bearer {}", self.api_key))
    }

    async fn send_request(&self, request: RequestBuilder) -> Result<Value> {
        let response = await_with_progress(&format!("waiting for {}", self.server_url), request.send())
            .await
            .with_context(|| {
                format!(
                    "no response from {}: is `weir serve` running there?",
                    self.server_url
                )
            })?;
        let status = response.status();
        let body = response.bytes().await?;
        let body: Value = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).with_context(|| {
                format!(
                    "{} returned {status} with a body that is not JSON",
                    self.server_url
                )
            })?,
        };
        if status.is_success() {
            return Ok(body);
        }
        match body.get("detail").and_then(Value::as_str) {
            Some(detail) => bail!("{detail} ({status})"),
            None => bail!("{} returned {status}", self.server_url),
        }
    }
}

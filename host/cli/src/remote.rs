//! A running server, for commands that work there instead of on a data folder.
//!
//! The key is taken from the environment or a file and never from the command line, where every process could read it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use weir_core::tenancy::Scope;

use crate::terminal::announce;

/// A component of 64 MiB over a slow line, and compiling it.
const PATIENCE: Duration = Duration::from_secs(600);

/// A server that is asked.
pub(crate) struct Remote {
    client: Client,
    server: String,
    key: String,
}

impl Remote {
    /// A server and the key for it: that of the file, or of the variable WEIR_KEY. The command needs a key with this scope.
    pub(crate) fn new(server: &str, key_file: Option<&Path>, scope: Scope) -> Result<Self> {
        let key = match key_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => std::env::var("WEIR_KEY").ok().with_context(|| {
                let scope = scope.name();
                format!(
                    "no key for {server}: set WEIR_KEY or give --key-file, with a key that has the scope {scope}; \
                     `weir key create TENANT --scope {scope}` makes one on the server's machine"
                )
            })?,
        };
        // One that is there already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            client: Client::builder().timeout(PATIENCE).build()?,
            server: server.to_owned(),
            key: key.trim().to_owned(),
        })
    }

    /// Asks for what is at a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.answer(self.request(Method::GET, path)).await
    }

    /// Sends JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.request(Method::POST, path);
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        self.answer(request).await
    }

    /// Sends a component.
    pub(crate) async fn push(&self, name: &str, component: Vec<u8>) -> Result<Value> {
        let request = self.request(Method::POST, &format!("/v1/components?name={name}"));
        let request = request.header("content-type", "application/wasm").body(component);
        self.answer(request).await
    }

    /// Removes what is at a path.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.answer(self.request(Method::DELETE, path)).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.server));
        request.header("authorization", format!("Bearer {}", self.key))
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Value> {
        let answer = announce(&format!("waiting for {}", self.server), request.send())
            .await
            .with_context(|| format!("{} does not answer: is `weir serve` running there?", self.server))?;
        let status = answer.status();
        let body = answer.bytes().await?;
        let body: Value = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body)
                .with_context(|| format!("{} answered {status} with what is no JSON", self.server))?,
        };
        if status.is_success() {
            return Ok(body);
        }
        match body.get("detail").and_then(Value::as_str) {
            Some(detail) => bail!("{detail} ({status})"),
            None => bail!("{} answered {status}", self.server),
        }
    }
}

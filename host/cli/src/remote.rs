//! A running server, for commands that go to it instead of to a data folder.
//!
//! Tenants push their logic from where they write it, which is seldom the machine that runs it. Who they are is said by a
//! key, which is taken from the environment or a file and never from the command line, where every process could read it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

/// A component of 64 MiB over a slow line, and compiling it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Which server, and as whom.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The server
    #[arg(
        long,
        value_name = "URL",
        env = "WEIR_SERVER",
        default_value = "http://127.0.0.1:7070"
    )]
    server: String,
    /// File with a key that has the scope `components` [default: the variable WEIR_KEY]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// A server that is asked.
pub(crate) struct Remote {
    client: Client,
    server: String,
    key: String,
}

impl Remote {
    /// The server that the arguments name.
    pub(crate) fn new(args: &ServerArgs) -> Result<Self> {
        let key = match &args.key_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => std::env::var("WEIR_KEY").ok().context(
                "set WEIR_KEY to a key with the scope components: `weir key create TENANT --scope components` makes one",
            )?,
        };
        // One that is there already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            client: Client::builder().timeout(PATIENCE).build()?,
            server: args.server.trim_end_matches('/').to_owned(),
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
        let answer = request
            .send()
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

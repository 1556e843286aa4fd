//! Traces, sent in batches by OTLP over HTTP.
//!
//! Spans are gathered and sent by a thread of the SDK's own, so that a collector that is slow or gone holds nothing up; what
//! it does not take in time is dropped. The requests themselves run on the host's runtime.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

/// How long a batch may take to be sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last batch may take when the program ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Makes traces and sends them.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// To the collector at this address.
    pub(crate) fn to(endpoint: &str, runtime: &Handle) -> Result<Self> {
        // Somebody else in this process may have chosen already; it is the same choice.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .build()
            .context("no client for the traces can be made")?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender {
                client,
                runtime: runtime.clone(),
            })
            .with_endpoint(endpoint)
            .with_timeout(PATIENCE)
            .build()
            .with_context(|| format!("traces cannot be sent to otel.endpoint = '{endpoint}'"))?;
        let resource = Resource::builder()
            .with_service_name("weir")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            provider: SdkTracerProvider::builder()
                .with_resource(resource)
                .with_batch_exporter(exporter)
                .build(),
        })
    }

    /// Makes a trace's spans of the program's.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("weir"))
    }

    /// Sends what is left. Needs the runtime still.
    pub(crate) fn close(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FAREWELL) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Sends on the host's runtime, whoever asks.
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let response = client.execute(request.try_into()?).await?;
            let mut answer = Response::builder().status(response.status());
            if let Some(headers) = answer.headers_mut() {
                headers.clone_from(response.headers());
            }
            // What a collector says beyond its status is a line at most, and nobody reads it.
            Ok::<_, HttpError>(answer.body(Bytes::new())?)
        });
        sent.await?
    }
}

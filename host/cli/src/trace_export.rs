//! Exports traces in batches by OTLP over HTTP.
//!
//! A thread of the OpenTelemetry SDK collects and exports spans, so that a slow or unreachable collector does not delay the
//! host. Spans that the collector does not accept in time are dropped. The HTTP requests run on the host's tokio runtime.

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

/// Timeout of the export of one batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of the last export when the program ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Creates spans of traces and exports them.
pub(crate) struct TraceExporter {
    provider: SdkTracerProvider,
}

impl TraceExporter {
    /// Creates an exporter to the OTLP collector at this URL.
    pub(crate) fn new(endpoint: &str, runtime: &Handle) -> Result<Self> {
        // An error means that a provider is already installed. It is the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(EXPORT_TIMEOUT)
            .build()
            .context("cannot create the HTTP client for traces")?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(RuntimeHttpClient {
                client,
                runtime: runtime.clone(),
            })
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .with_context(|| format!("cannot export traces to otel.traces_endpoint = '{endpoint}'"))?;
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

    /// Returns the layer that turns spans of `tracing` into spans of traces.
    pub(crate) fn tracing_layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("weir"))
    }

    /// Exports the remaining spans. The runtime must still run.
    pub(crate) fn flush_and_close(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT) {
            tracing::warn!(%error, "cannot export the last traces");
        }
    }
}

/// HTTP client that runs its requests on the host's runtime, also if the caller is outside of it.
struct RuntimeHttpClient {
    client: reqwest::Client,
    runtime: Handle,
}

impl fmt::Debug for RuntimeHttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RuntimeHttpClient")
    }
}

#[async_trait]
impl HttpClient for RuntimeHttpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let response = client.execute(request.try_into()?).await?;
            let mut status_response = Response::builder().status(response.status());
            if let Some(headers) = status_response.headers_mut() {
                headers.clone_from(response.headers());
            }
            // The body is dropped, because the exporter uses only the status.
            Ok::<_, HttpError>(status_response.body(Bytes::new())?)
        });
        sent.await?
    }
}

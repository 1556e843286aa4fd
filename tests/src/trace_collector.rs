//! A trace collector that receives spans by OTLP over HTTP and stores them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
pub use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::http_server::{HttpRequest, HttpResponse, start_http_server};

/// An in-memory OTLP collector. It listens until the test process ends.
pub struct TraceCollector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Default for TraceCollector {
    fn default() -> Self {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let stored_spans = Arc::clone(&spans);
        let address = start_http_server(move |request| store_request_spans(&request, &stored_spans));
        Self { address, spans }
    }
}

impl TraceCollector {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the URL for the setting `otel.traces_endpoint`.
    pub fn endpoint_url(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// Returns the spans of a trace that have been received so far.
    pub fn spans_of_trace(&self, id: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans
            .iter()
            .filter(|span| HEXLOWER.encode(&span.trace_id) == id)
            .cloned()
            .collect()
    }
}

fn store_request_spans(request: &HttpRequest, stored_spans: &Mutex<Vec<Span>>) -> HttpResponse {
    assert_eq!((&*request.method, &*request.target), ("POST", "/v1/traces"));
    assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
    let sent = ExportTraceServiceRequest::decode(&*request.body).expect("a valid OTLP message");
    let spans = sent
        .resource_spans
        .into_iter()
        .flat_map(|of| of.scope_spans)
        .flat_map(|of| of.spans);
    stored_spans.lock().unwrap().extend(spans);
    // An empty message reports full success.
    HttpResponse::new(200, "").with_header("content-type", "application/x-protobuf")
}

/// Returns a span's text or integer attribute as text. Panics on other types.
pub fn attribute_as_text(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

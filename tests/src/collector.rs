//! A collector of traces: takes them by OTLP over HTTP, as the standard has it, and keeps them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
pub use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::listening::{Request, Response, listen};

/// One that listens until the test ends.
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Default for Collector {
    fn default() -> Self {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let kept = Arc::clone(&spans);
        let address = listen(move |request| take(&request, &kept));
        Self { address, spans }
    }
}

impl Collector {
    pub fn new() -> Self {
        Self::default()
    }

    /// For the setting `otel.endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// All spans of a trace that have come so far.
    pub fn trace(&self, id: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans
            .iter()
            .filter(|span| hex(&span.trace_id) == id)
            .cloned()
            .collect()
    }
}

/// Keeps the spans of a request.
fn take(request: &Request, kept: &Mutex<Vec<Span>>) -> Response {
    assert_eq!((&*request.method, &*request.target), ("POST", "/v1/traces"));
    assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
    let sent = ExportTraceServiceRequest::decode(&*request.body).expect("a message of OTLP");
    let spans = sent
        .resource_spans
        .into_iter()
        .flat_map(|of| of.scope_spans)
        .flat_map(|of| of.spans);
    kept.lock().unwrap().extend(spans);
    // An empty message: everything was taken.
    Response::new(200, "").with("content-type", "application/x-protobuf")
}

pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text or number of a span's attribute, as text.
pub fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

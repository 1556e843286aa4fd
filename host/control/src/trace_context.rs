//! The header `traceparent` of W3C Trace Context: `00-<trace, 32 digits>-<span, 16 digits>-<flags, 2 digits>`.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Returns the `traceparent` of the current span, for [`continue_trace`]; `None` if tracing is off.
pub fn current_traceparent() -> Option<String> {
    Some(TraceParent::from_span(&Span::current())?.to_string())
}

/// Makes `span` part of the trace of an earlier request, whose response may have been sent long ago.
pub(crate) fn continue_trace(span: &Span, trace: Option<&str>) {
    if let Some(parent) = trace.and_then(TraceParent::parse) {
        // It only fails if no traces are exported.
        let _ = span.set_parent(parent.to_context());
    }
}

/// The parent of a span: a span of another process, or one that has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: TraceId,
    span_id: SpanId,
    flags: TraceFlags,
}

impl TraceParent {
    /// Returns the identity of a span of this process; `None` if tracing is off.
    pub fn from_span(span: &Span) -> Option<Self> {
        let context = span.context();
        let context = context.span().span_context().clone();
        context.is_valid().then(|| Self {
            trace_id: context.trace_id(),
            span_id: context.span_id(),
            flags: context.trace_flags(),
        })
    }

    /// Parses the header; `None` if it is malformed. A malformed header never makes a request fail.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let part = parts.next()?;
            let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            (part.len() == digits && part.bytes().all(lower_hex)).then_some(part)
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // Later versions may add parts; version ff is forbidden.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let parent = Self {
            trace_id: TraceId::from_hex(trace).ok()?,
            span_id: SpanId::from_hex(span).ok()?,
            flags: TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
        };
        (parent.trace_id != TraceId::INVALID && parent.span_id != SpanId::INVALID).then_some(parent)
    }

    /// Returns the id of the trace.
    pub const fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// Returns a context that can be set as the parent of a span.
    pub fn to_context(&self) -> Context {
        let remote = SpanContext::new(
            self.trace_id,
            self.span_id,
            self.flags,
            true,
            TraceState::default(),
        );
        Context::new().with_remote_span_context(remote)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn valid_traceparent_is_parsed() {
        let parent = TraceParent::parse(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!(
            (parent.trace_id().to_string(), parent.span_id.to_string()),
            (TRACE.into(), SPAN.into())
        );
        assert!(parent.flags.is_sampled() && parent.to_context().span().span_context().is_remote());
        assert!(
            !TraceParent::parse(&format!("00-{TRACE}-{SPAN}-00"))
                .unwrap()
                .flags
                .is_sampled()
        );
        assert!(TraceParent::parse(&format!("01-{TRACE}-{SPAN}-01-later")).is_some());
        let written = parent.to_string();
        assert_eq!(written, format!("00-{TRACE}-{SPAN}-01"));
        assert_eq!(TraceParent::parse(&written), Some(parent));
    }

    #[test]
    fn malformed_traceparent_is_ignored() {
        for text in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}é-{SPAN}-01"),
        ] {
            assert_eq!(TraceParent::parse(&text), None, "{text}");
        }
    }
}

//! Fake providers, and requests for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::{Duration, Instant, sleep};
use weir_core::PriorityLane;
use weir_core::llm::{DenialReason, LlmRequest, LlmRequestKind, ProviderError};
use weir_core::ports::SchedulingContext;
use weir_llm::{Provider, ProviderEntry, ProviderOptions, ProviderResponse, RouterConfig};

/// The duration and the result of one call.
pub(crate) type PlannedCall = (Duration, Result<(), ProviderError>);
type CallPlan = Box<dyn FnMut(&LlmRequest, u32) -> PlannedCall + Send>;

/// A provider that responds with the request's text, as planned.
pub(crate) struct FakeProvider {
    model_name: &'static str,
    supports_images: bool,
    plan: Mutex<CallPlan>,
    in_flight: AtomicU32,
    peak_in_flight: AtomicU32,
    calls: Mutex<Vec<(Instant, String)>>,
}

/// Counts a call in flight.
struct InFlightGuard<'a>(&'a AtomicU32);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FakeProvider {
    /// Creates a fake whose plan gets the request and the number of calls in flight, including this one.
    pub(crate) fn new(
        model: &'static str,
        plan: impl FnMut(&LlmRequest, u32) -> PlannedCall + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            model_name: model,
            supports_images: false,
            plan: Mutex::new(Box::new(plan)),
            in_flight: AtomicU32::new(0),
            peak_in_flight: AtomicU32::new(0),
            calls: Mutex::default(),
        })
    }

    /// Responds after the given time.
    pub(crate) fn succeeding(model: &'static str, seconds: f64) -> Arc<Self> {
        Self::new(model, move |_, _| (Duration::from_secs_f64(seconds), Ok(())))
    }

    /// Fails with these errors first and then succeeds; each call takes one second.
    pub(crate) fn failing_first(
        model: &'static str,
        faults: impl IntoIterator<Item = ProviderError>,
    ) -> Arc<Self> {
        let mut faults: VecDeque<ProviderError> = faults.into_iter().collect();
        Self::new(model, move |_, _| {
            (Duration::from_secs(1), faults.pop_front().map_or(Ok(()), Err))
        })
    }

    /// Fails every call after one second.
    pub(crate) fn always_failing(model: &'static str, fault: ProviderError) -> Arc<Self> {
        Self::new(model, move |_, _| (Duration::from_secs(1), Err(fault.clone())))
    }

    /// Never responds.
    pub(crate) fn hanging(model: &'static str) -> Arc<Self> {
        Self::succeeding(model, 1e9)
    }

    /// The start times and the texts of the calls.
    pub(crate) fn recorded_calls(&self) -> Vec<(Instant, String)> {
        self.calls.lock().clone()
    }

    pub(crate) fn call_count(&self) -> usize {
        self.calls.lock().len()
    }

    /// Maximum number of calls in flight.
    pub(crate) fn peak_in_flight(&self) -> u32 {
        self.peak_in_flight.load(Ordering::Relaxed)
    }

    /// Calls in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A provider entry of a router, named after the model.
    pub(crate) fn provider_entry(self: &Arc<Self>, terms: ProviderOptions) -> ProviderEntry {
        ProviderEntry {
            name: self.model_name.into(),
            provider: Arc::<Self>::clone(self),
            options: terms,
        }
    }
}

#[async_trait]
impl Provider for FakeProvider {
    fn model_name(&self) -> &str {
        self.model_name
    }

    fn supports_images(&self) -> bool {
        self.supports_images
    }

    async fn call_model(&self, question: &LlmRequest) -> Result<ProviderResponse, ProviderError> {
        let busy = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        let _busy = InFlightGuard(&self.in_flight);
        self.peak_in_flight.fetch_max(busy, Ordering::Relaxed);
        self.calls.lock().push((Instant::now(), question.text.clone()));
        let (takes, outcome) = (self.plan.lock())(question, busy);
        sleep(takes).await;
        outcome.map(|()| ProviderResponse {
            text: question.text.clone(),
            quotes: Vec::new(),
            prompt_tokens: Some(1000),
            completion_tokens: Some(100),
        })
    }
}

pub(crate) fn account_of(tenant: &str, weight: f64) -> SchedulingContext {
    SchedulingContext {
        tenant: tenant.parse().unwrap(),
        lane: PriorityLane::Bulk,
        group: 0,
        batch_linger: Duration::ZERO,
        tenant_weight: weight,
    }
}

/// A request whose text a fake returns, with a timeout of one day.
pub(crate) fn build_request(text: impl Into<String>) -> LlmRequest {
    LlmRequest {
        scheduling: account_of("one", 1.0),
        kind: LlmRequestKind::Map,
        system_prompt: None,
        prompt: "Of this: {text}".into(),
        text: text.into(),
        image: None,
        max_response_tokens: 100,
        timeout: Duration::from_secs(86_400),
        document: None,
    }
}

pub(crate) fn options_with_concurrency(concurrency: u32) -> ProviderOptions {
    ProviderOptions {
        max_concurrency: concurrency,
        ..ProviderOptions::default()
    }
}

pub(crate) fn server_error() -> ProviderError {
    ProviderError::ServerError {
        status: 500,
        reason: "down".into(),
        after: None,
    }
}

pub(crate) fn denied_error() -> ProviderError {
    ProviderError::Denied {
        status: 401,
        denial: DenialReason::Authentication,
        reason: "wrong key".into(),
    }
}

/// A configuration with a fixed seed. Requests wait while all providers are down.
pub(crate) fn waiting_router_config() -> RouterConfig {
    RouterConfig {
        backoff_seed: Some(1),
        ..RouterConfig::default()
    }
}

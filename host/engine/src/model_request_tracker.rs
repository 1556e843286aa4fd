//! Tracks a job's language model requests in flight, and reports when they wait for failing providers.
//!
//! A request may wait for hours while a provider fails. The job then writes an event with the providers that it waits for, since
//! when, and their last errors, and another event when the wait is over.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use weir_core::event::EventKind;
use weir_core::llm::{LanguageModel, LlmError, LlmRequest, LlmResponse, ProviderFailureInfo};

use crate::event_log::EventLog;
use weir_core::clock::unix_time_millis;

/// The interval of checks for failing providers while requests are in flight.
const PROVIDER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Counts the requests of one job that are in flight.
#[derive(Default)]
pub(crate) struct ModelRequestTracker {
    text_requests: AtomicU32,
    image_requests: AtomicU32,
    request_started: Notify,
}

/// Counts a request as in flight until it is dropped.
struct InFlightGuard<'a>(&'a AtomicU32);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ModelRequestTracker {
    /// Sends a request, which counts as in flight until it ends or is dropped.
    pub(crate) async fn send_tracked_request(
        &self,
        model: &dyn LanguageModel,
        request: LlmRequest,
    ) -> Result<LlmResponse, LlmError> {
        let count = match request.image {
            Some(_) => &self.image_requests,
            None => &self.text_requests,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let _in_flight = InFlightGuard(count);
        self.request_started.notify_one();
        model.request_completion(request).await
    }

    /// Writes an event when requests start to wait for failing providers, and another when they no longer wait.
    pub(crate) async fn report_waits_for_failing_providers(
        &self,
        model: &dyn LanguageModel,
        log: &EventLog,
    ) -> Infallible {
        let mut reported: Vec<ProviderFailureInfo> = Vec::new();
        loop {
            if reported.is_empty() && !self.has_requests_in_flight() {
                self.request_started.notified().await;
            }
            sleep(PROVIDER_CHECK_INTERVAL).await;
            let failing = self.awaited_failing_providers(model);
            if have_same_failures(&reported, &failing) {
                continue;
            }
            let event = if failing.is_empty() {
                tracing::info!("the job no longer waits for language models");
                EventKind::ModelWaitEnded {}
            } else {
                let now = unix_time_millis();
                let each: Vec<_> = failing
                    .iter()
                    .map(|provider| provider.describe_failure(now))
                    .collect();
                tracing::warn!(providers = each.join("; "), "the job waits for language models");
                EventKind::ModelWaitStarted {
                    providers: failing.clone(),
                }
            };
            log.write_event(None, event).await;
            reported = failing;
        }
    }

    fn has_requests_in_flight(&self) -> bool {
        [&self.text_requests, &self.image_requests]
            .iter()
            .any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Returns the failing providers that requests in flight wait for.
    fn awaited_failing_providers(&self, model: &dyn LanguageModel) -> Vec<ProviderFailureInfo> {
        let of = |count: &AtomicU32, image| match count.load(Ordering::Relaxed) {
            0 => Vec::new(),
            _ => model.failing_providers_if_all_fail(image),
        };
        let images = of(&self.image_requests, true);
        if images.is_empty() {
            of(&self.text_requests, false)
        } else {
            images
        }
    }
}

/// Whether the same providers fail with the same error kinds. Messages are ignored, since they may differ with each attempt.
fn have_same_failures(one: &[ProviderFailureInfo], other: &[ProviderFailureInfo]) -> bool {
    let outline = |provider: &ProviderFailureInfo| (provider.provider.clone(), provider.error.kind.clone());
    one.iter().map(outline).eq(other.iter().map(outline))
}

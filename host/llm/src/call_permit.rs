//! The permit to call a provider.

use std::sync::Arc;

use weir_core::llm::ProviderError;

use crate::provider::ProviderResponse;
use crate::provider_state::{CallEnd, InFlightCall};

/// Receives the end of each call.
pub(crate) trait CallEndObserver: Send + Sync {
    /// Records the end of a call to the provider at `provider_index`.
    fn record_call_end(&self, provider_index: usize, call: InFlightCall, end: &CallEnd<'_>);
}

/// The permit to call a provider once. Dropping it counts as a dropped call.
pub(crate) struct CallPermit {
    observer: Arc<dyn CallEndObserver>,
    /// Index of the provider.
    pub(crate) provider_index: usize,
    call: Option<InFlightCall>,
}

impl CallPermit {
    pub(crate) fn new(observer: Arc<dyn CallEndObserver>, provider_index: usize, call: InFlightCall) -> Self {
        Self {
            observer,
            provider_index,
            call: Some(call),
        }
    }

    /// Ends the call with a success.
    pub(crate) fn finish_with_success(mut self, reply: &ProviderResponse) {
        self.report_call_end(&CallEnd::Succeeded(reply));
    }

    /// Ends the call with an error.
    pub(crate) fn finish_with_failure(mut self, fault: &ProviderError) {
        self.report_call_end(&CallEnd::Failed(fault));
    }

    fn report_call_end(&mut self, end: &CallEnd<'_>) {
        if let Some(call) = self.call.take() {
            self.observer.record_call_end(self.provider_index, call, end);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.report_call_end(&CallEnd::Dropped);
    }
}

//! The permit to call a provider.

use std::sync::Arc;

use weir_core::llm::ProviderError;

use crate::provider::ProviderResponse;
use crate::provider_state::{CallEnd, InFlightCall};

/// Learns how calls end.
pub(crate) trait CallObserver: Send + Sync {
    /// Records the end of a call to the provider at `provider_index`.
    fn finish_call(&self, provider_index: usize, call: InFlightCall, end: &CallEnd<'_>);
}

/// The permit to call a provider once. Dropping it counts as a dropped call.
pub(crate) struct CallPermit {
    observer: Arc<dyn CallObserver>,
    /// Index of the provider.
    pub(crate) provider_index: usize,
    call: Option<InFlightCall>,
}

impl CallPermit {
    pub(crate) fn new(observer: Arc<dyn CallObserver>, member: usize, ticket: InFlightCall) -> Self {
        Self {
            observer,
            provider_index: member,
            call: Some(ticket),
        }
    }

    /// Ends the call with a success.
    pub(crate) fn finish_with_success(mut self, reply: &ProviderResponse) {
        self.finish(&CallEnd::Succeeded(reply));
    }

    /// Ends the call with an error.
    pub(crate) fn finish_with_failure(mut self, fault: &ProviderError) {
        self.finish(&CallEnd::Failed(fault));
    }

    fn finish(&mut self, end: &CallEnd<'_>) {
        if let Some(ticket) = self.call.take() {
            self.observer.finish_call(self.provider_index, ticket, end);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.finish(&CallEnd::Dropped);
    }
}

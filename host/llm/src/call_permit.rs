//! The permit to call a provider.

use std::sync::Arc;

use tokio::time::Instant;
use weir_core::llm::ProviderError;

use crate::provider::ProviderResponse;
use crate::provider_state::{CallEnd, InFlightCall};
use crate::shared_admission::CallTicket;

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
    /// The admission by the limits that all nodes share, if the provider has such.
    ticket: Option<CallTicket>,
}

impl CallPermit {
    pub(crate) fn new(
        observer: Arc<dyn CallEndObserver>,
        provider_index: usize,
        call: InFlightCall,
        ticket: Option<CallTicket>,
    ) -> Self {
        Self {
            observer,
            provider_index,
            call: Some(call),
            ticket,
        }
    }

    /// Whether it is too late to start the call, because this node may have been frozen.
    pub(crate) fn has_expired(&self) -> bool {
        let ticket = self.ticket.as_ref();
        ticket.is_some_and(|ticket| ticket.has_expired(Instant::now()))
    }

    /// Records that the call is made.
    pub(crate) fn mark_started(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            ticket.mark_started();
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
        // First, because the dispatcher asks for the next call when it sees the end of this one.
        if let Some(ticket) = self.ticket.take() {
            ticket.end(match end {
                CallEnd::Succeeded(reply) => reply.total_tokens(),
                CallEnd::Failed(_) | CallEnd::Dropped => None,
            });
        }
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

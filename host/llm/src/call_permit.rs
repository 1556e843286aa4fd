//! Guards that release a call, a queue entry or a backoff count when they are dropped.

use std::sync::Arc;

use weir_core::llm::ProviderError;
use weir_core::ports::SchedulingContext;

use crate::dispatcher::Dispatcher;
use crate::fair_queue::RequestId;
use crate::provider::ProviderResponse;
use crate::provider_state::{CallEnd, InFlightCall};

/// The permit to call a provider once.
pub(crate) struct CallPermit {
    dispatcher: Arc<Dispatcher>,
    /// Index of the provider.
    pub(crate) provider_index: usize,
    call: Option<InFlightCall>,
}

impl CallPermit {
    pub(crate) const fn new(shared: Arc<Dispatcher>, member: usize, ticket: InFlightCall) -> Self {
        Self {
            dispatcher: shared,
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
            self.dispatcher.finish_call(self.provider_index, ticket, end);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.finish(&CallEnd::Dropped);
    }
}

/// Removes the request from the queue on drop.
pub(crate) struct QueueEntryGuard<'a> {
    pub(crate) dispatcher: &'a Dispatcher,
    pub(crate) account: &'a SchedulingContext,
    pub(crate) request_id: RequestId,
}

impl Drop for QueueEntryGuard<'_> {
    fn drop(&mut self) {
        self.dispatcher.remove_queued(self.account, self.request_id);
    }
}

/// Counts a request as being in backoff until it is dropped.
pub(crate) struct BackoffGuard<'a> {
    dispatcher: &'a Dispatcher,
    provider_index: usize,
}

impl<'a> BackoffGuard<'a> {
    pub(crate) fn start(shared: &'a Dispatcher, member: usize) -> Self {
        shared.start_backoff(member);
        Self {
            dispatcher: shared,
            provider_index: member,
        }
    }
}

impl Drop for BackoffGuard<'_> {
    fn drop(&mut self) {
        self.dispatcher.end_backoff(self.provider_index);
    }
}

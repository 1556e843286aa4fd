//! Assigns queued requests to providers. One lock guards the queue and the provider states, and one task makes all assignments.
//!
//! Two kinds of events wake the task: changes (a call has ended, a request has arrived) and the time at which a rate limit, a
//! `Retry-After` or an open breaker ends. All decisions are made in one place and in queue order, and a thousand queued
//! requests need only one timer.
//!
//! Providers are filled in the order of the settings, each up to its limit. Fallback providers are used only while no other
//! provider is healthy, and for requests that no other provider can answer. A half-open provider comes first, because it would
//! otherwise never get a call while others have capacity. A request that is to be retried waits for the same provider, unless
//! that provider becomes unavailable.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant, sleep_until};
use weir_core::TenantId;
use weir_core::clock::unix_time_millis;
use weir_core::event::ErrorInfo;
use weir_core::fair_queue::{FairQueue, Flow};
use weir_core::llm::{LlmRequestKind, ProviderError, ProviderFailureInfo};
use weir_core::ports::SchedulingContext;

use crate::backoff::RandomBackoffDelays;
use crate::call_permit::{CallEndObserver, CallPermit};
use crate::llm_metrics::{QueueAndRequestTimeMetrics, RouterStats};
use crate::provider_state::{CallAvailability, CallEnd, InFlightCall, ProviderState};
use crate::shared_admission::{
    AdmissionObserver, AdmissionResult, CallTicket, SharedAdmission, TicketStatus,
};

/// Identifies a request; ids increase.
pub(crate) type RequestId = u64;

/// The result of waiting in the queue.
pub(crate) enum DispatchOutcome {
    /// The request may make one call.
    Granted(CallPermit),
    /// Each eligible provider is unavailable or denies requests.
    NoProviderAvailable,
}

/// The constraints of the dispatcher for one request.
#[derive(Debug, Clone)]
pub(crate) struct DispatchConstraints {
    /// Whether each provider may answer the request, in the order of the settings.
    pub(crate) eligible: Vec<bool>,
    /// The provider that the request is to be retried at.
    pub(crate) retry_provider: Option<usize>,
    /// Estimated tokens of the request and its response.
    pub(crate) estimated_tokens: u64,
}

/// Minimum failure time of a provider that is reported. A shorter failure is an ordinary retry.
const MIN_REPORTED_FAILURE: Duration = Duration::from_secs(5);

fn provider_failure_info(name: &str, time: Duration, fault: &ProviderError) -> ProviderFailureInfo {
    let failing_millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    ProviderFailureInfo {
        provider: name.to_owned(),
        since_millis: unix_time_millis().saturating_sub(failing_millis),
        error: ErrorInfo {
            kind: fault.kind().to_owned(),
            message: fault.to_string(),
        },
    }
}

struct QueuedRequest {
    id: RequestId,
    constraints: DispatchConstraints,
    outcome_sender: oneshot::Sender<DispatchOutcome>,
}

struct DispatcherState {
    queue: FairQueue<QueuedRequest>,
    providers: Vec<ProviderState>,
    last_request_number: RequestId,
}

/// The queue and the states of the providers.
pub(crate) struct Dispatcher {
    state: Mutex<DispatcherState>,
    /// Wakes the dispatcher task.
    wake_up: Notify,
    /// Signals that a request has left the queue.
    request_dequeued: Notify,
    /// Whether requests fail while all eligible providers are unavailable.
    fail_when_unavailable: bool,
    pub(crate) backoff: RandomBackoffDelays,
    pub(crate) metrics: QueueAndRequestTimeMetrics,
}

impl Dispatcher {
    pub(crate) fn new(
        providers: Vec<ProviderState>,
        fail_when_down: bool,
        backoff: RandomBackoffDelays,
        queue: usize,
    ) -> Self {
        Self {
            state: Mutex::new(DispatcherState {
                queue: FairQueue::new(),
                providers,
                last_request_number: 0,
            }),
            wake_up: Notify::new(),
            request_dequeued: Notify::new(),
            fail_when_unavailable: fail_when_down,
            backoff,
            metrics: QueueAndRequestTimeMetrics::new(queue),
        }
    }

    /// Number of calls that the provider has answered.
    pub(crate) fn provider_success_count(&self, at: usize) -> u64 {
        let state = self.state.lock();
        state
            .providers
            .get(at)
            .map_or(0, |provider| provider.stats.successes)
    }

    /// Runs the dispatcher task.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let next = self.dispatch_and_notify_callers();
            match next {
                Some(next) => tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.wake_up.notified() => {}
                },
                None => self.wake_up.notified().await,
            }
        }
    }

    /// Assigns queued requests. Returns the time of the next attempt, if time alone makes a provider available.
    fn dispatch_and_notify_callers(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let mut outcomes = Vec::new();
        let mut state = self.state.lock();
        let next = state.assign_queued_requests(now, |waiting, provider_index, call, ticket| {
            let observer = Arc::clone(self) as Arc<dyn CallEndObserver>;
            let permit = CallPermit::new(observer, provider_index, call, ticket);
            outcomes.push((waiting.outcome_sender, DispatchOutcome::Granted(permit)));
        });
        let down = state.take_unservable_requests(now, self.fail_when_unavailable);
        outcomes.extend(
            down.into_iter()
                .map(|waiting| (waiting.outcome_sender, DispatchOutcome::NoProviderAvailable)),
        );
        self.publish_queue_depth(&state);
        drop(state);
        if !outcomes.is_empty() {
            self.request_dequeued.notify_waiters();
        }
        for (sender, outcome) in outcomes {
            // If the caller has dropped the request, dropping the permit releases the call.
            let _ = sender.send(outcome);
        }
        next
    }

    fn publish_queue_depth(&self, state: &DispatcherState) {
        self.metrics.queue_depth.set(state.queue.len() as f64);
    }

    /// Returns a new request id. Requests about a page go before all others of their tenant, because a worker holds the page's
    /// image until the response arrives. There are never more of them than workers, while the other requests can be those of a
    /// whole book.
    pub(crate) fn new_request_id_by_priority(&self, kind: LlmRequestKind) -> RequestId {
        const NON_PAGE_REQUEST_BIT: RequestId = 1 << 63;
        let mut state = self.state.lock();
        state.last_request_number += 1;
        match kind {
            LlmRequestKind::Page => state.last_request_number,
            _ => NON_PAGE_REQUEST_BIT | state.last_request_number,
        }
    }

    /// Number of queued requests of a tenant.
    pub(crate) fn queued_count_of_tenant(&self, tenant: &TenantId) -> usize {
        self.state.lock().queue.len_of_tenant(tenant)
    }

    /// Adds a request to the queue.
    pub(crate) fn enqueue(
        &self,
        account: &SchedulingContext,
        id: RequestId,
        constraints: DispatchConstraints,
    ) -> oneshot::Receiver<DispatchOutcome> {
        let (outcome_sender, outcome_receiver) = oneshot::channel();
        let mut state = self.state.lock();
        let cost = constraints.estimated_tokens as f64;
        let request = QueuedRequest {
            id,
            constraints,
            outcome_sender,
        };
        state.queue.push(&tenant_flow(account), id, cost, request);
        self.publish_queue_depth(&state);
        drop(state);
        self.wake_up.notify_one();
        outcome_receiver
    }

    /// Removes a request that its caller has dropped.
    pub(crate) fn remove_queued(&self, account: &SchedulingContext, id: RequestId) {
        let mut state = self.state.lock();
        if state
            .queue
            .withdraw_uncharged(&tenant_flow(account), id)
            .is_some()
        {
            self.publish_queue_depth(&state);
            drop(state);
            self.request_dequeued.notify_waiters();
        }
    }

    /// Waits until the tenant has fewer than `limit` queued requests.
    pub(crate) async fn wait_until_fewer_queued(&self, tenant: &TenantId, limit: usize) {
        loop {
            let left = self.request_dequeued.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.queued_count_of_tenant(tenant) < limit {
                return;
            }
            left.await;
        }
    }

    pub(crate) fn record_backoff_start(&self, provider_index: usize) {
        let mut state = self.state.lock();
        let has_alternative = state.has_other_healthy_provider(provider_index);
        if let Some(provider) = state.providers.get_mut(provider_index) {
            provider.record_backoff_start(Instant::now(), has_alternative);
        }
        drop(state);
        self.wake_up.notify_one();
    }

    pub(crate) fn record_backoff_end(&self, provider_index: usize) {
        if let Some(provider) = self.state.lock().providers.get_mut(provider_index) {
            provider.backing_off = provider.backing_off.saturating_sub(1);
        }
    }

    /// Returns the name and the last error of each eligible provider that has ever failed.
    pub(crate) fn last_errors_of_eligible_providers(
        &self,
        eligible: &[bool],
    ) -> Vec<(String, ProviderError)> {
        let state = self.state.lock();
        let eligible_providers = state
            .providers
            .iter()
            .zip(eligible)
            .filter(|(_, is_eligible)| **is_eligible);
        eligible_providers
            .filter_map(|(provider, _)| Some((provider.stats.name.clone(), provider.last_error.clone()?)))
            .collect()
    }

    /// Indexes and errors of the eligible providers that deny requests now.
    pub(crate) fn denying_providers(&self, eligible: &[bool]) -> Vec<(usize, ProviderError)> {
        let now = Instant::now();
        let state = self.state.lock();
        let providers = state.providers.iter().zip(eligible).enumerate();
        providers
            .filter(|(_, (provider, is_eligible))| **is_eligible && provider.is_in_denial_cooldown(now))
            .filter_map(|(at, (provider, _))| Some((at, provider.last_error.clone()?)))
            .collect()
    }

    /// Returns the providers among `capable` that requests wait for. The result is empty if one of them has not failed for
    /// [`MIN_REPORTED_FAILURE`].
    pub(crate) fn failing_providers_if_all_fail(&self, capable: &[bool]) -> Vec<ProviderFailureInfo> {
        let now = Instant::now();
        let state = self.state.lock();
        let mut failing = Vec::new();
        for (provider, _) in state
            .providers
            .iter()
            .zip(capable)
            .filter(|(_, is_capable)| **is_capable)
        {
            if provider.denied_last_call() {
                continue;
            }
            match provider.current_failure(now) {
                Some((time, fault)) if time >= MIN_REPORTED_FAILURE => {
                    failing.push(provider_failure_info(&provider.stats.name, time, fault));
                }
                _ => return Vec::new(),
            }
        }
        failing
    }

    /// Total number of calls in flight that the providers in use allow.
    pub(crate) fn total_concurrency_limit(&self) -> u32 {
        let state = self.state.lock();
        let fallback_needed = state.needs_fallback();
        let providers_in_use = state
            .providers
            .iter()
            .filter(|provider| provider.is_healthy() && (fallback_needed || !provider.is_fallback()));
        providers_in_use
            .map(ProviderState::concurrency_limit)
            .sum::<u32>()
            .max(1)
    }

    /// Admits calls to the provider by limits that all nodes share.
    pub(crate) fn set_shared_admission(&self, provider_index: usize, admission: SharedAdmission) {
        if let Some(provider) = self.state.lock().providers.get_mut(provider_index) {
            provider.shared_admission = Some(admission);
        }
    }

    /// Requests no further admissions.
    pub(crate) fn close_shared_admissions(&self) {
        let mut state = self.state.lock();
        let admissions = state
            .providers
            .iter_mut()
            .filter_map(|provider| provider.shared_admission.as_mut());
        admissions.for_each(SharedAdmission::close);
    }

    fn change_admission(&self, provider_index: usize, change: impl FnOnce(&mut SharedAdmission)) {
        let mut state = self.state.lock();
        let provider = state.providers.get_mut(provider_index);
        if let Some(admission) = provider.and_then(|provider| provider.shared_admission.as_mut()) {
            change(admission);
        }
    }

    pub(crate) fn stats(&self) -> RouterStats {
        let state = self.state.lock();
        RouterStats {
            queued_requests: state.queue.len(),
            providers: state.providers.iter().map(ProviderState::stats).collect(),
        }
    }
}

impl CallEndObserver for Dispatcher {
    fn record_call_end(&self, provider_index: usize, call: InFlightCall, end: &CallEnd<'_>) {
        let mut state = self.state.lock();
        let has_alternative = state.has_other_healthy_provider(provider_index);
        if let Some(provider) = state.providers.get_mut(provider_index) {
            provider.record_call_end(Instant::now(), call, end, has_alternative, &self.backoff);
        }
        drop(state);
        self.wake_up.notify_one();
    }
}

impl AdmissionObserver for Dispatcher {
    fn record_admission(&self, provider_index: usize, result: AdmissionResult) {
        self.change_admission(provider_index, |admission| {
            admission.record_result(Instant::now(), result);
        });
        self.wake_up.notify_one();
    }
}

/// Returns the flow of a request. All requests of a tenant are one group, because those about pages go before the others.
fn tenant_flow(account: &SchedulingContext) -> Flow {
    Flow {
        group: 0,
        ..account.to_fair_queue_flow()
    }
}

impl DispatcherState {
    /// Whether a provider other than this one is healthy.
    fn has_other_healthy_provider(&self, provider_index: usize) -> bool {
        let mut others = self
            .providers
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != provider_index);
        others.any(|(_, provider)| provider.is_healthy())
    }

    /// Whether fallback providers are used because no other provider is healthy.
    fn needs_fallback(&self) -> bool {
        !self
            .providers
            .iter()
            .any(|provider| !provider.is_fallback() && provider.is_healthy())
    }

    /// Whether the request may be assigned to the provider.
    fn constraints_allow_provider(
        constraints: &DispatchConstraints,
        provider_index: usize,
        unavailable: &[bool],
    ) -> bool {
        let is_eligible = |i: usize| constraints.eligible.get(i).copied().unwrap_or(false);
        let is_unavailable = |i: usize| unavailable.get(i).copied().unwrap_or(true);
        is_eligible(provider_index)
            && constraints
                .retry_provider
                .is_none_or(|again| again == provider_index || !is_eligible(again) || is_unavailable(again))
    }

    fn assign_queued_requests(
        &mut self,
        now: Instant,
        mut assign: impl FnMut(QueuedRequest, usize, InFlightCall, Option<CallTicket>),
    ) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut later = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        let availabilities: Vec<CallAvailability> = self
            .providers
            .iter_mut()
            .map(|provider| provider.call_availability(now))
            .collect();
        let unavailable: Vec<bool> = self
            .providers
            .iter()
            .map(|provider| provider.is_unavailable(now))
            .collect();
        let regular_providers: Vec<bool> = self
            .providers
            .iter()
            .map(|provider| !provider.is_fallback())
            .collect();
        let fallback_needed = self.needs_fallback();
        let mut order: Vec<(usize, CallAvailability)> = availabilities.into_iter().enumerate().collect();
        order.sort_by_key(|(provider_index, _)| {
            self.providers
                .get(*provider_index)
                .map(ProviderState::dispatch_rank)
        });
        // Requests for which a provider's ticket was asked for. Providers after it in the order do not take them.
        let mut requests_with_pending_ticket: Vec<RequestId> = Vec::new();
        for (provider_index, mut availability) in order {
            while let Some(provider) = self.providers.get_mut(provider_index) {
                match availability {
                    CallAvailability::AfterNextCallEnds => break,
                    CallAvailability::NotBefore(at) => {
                        later(at);
                        break;
                    }
                    CallAvailability::Now => {}
                }
                // A half-open fallback gets calls even if others are healthy; its breaker would otherwise never close.
                let is_reserved_fallback =
                    provider.is_fallback() && provider.is_healthy() && !fallback_needed;
                let ticket_tokens = provider
                    .shared_admission
                    .as_ref()
                    .and_then(SharedAdmission::max_tokens_of_ticket);
                let first = self.queue.find_next_accepted_request(|waiting| {
                    let tokens = waiting.constraints.estimated_tokens;
                    let mut eligibility = waiting.constraints.eligible.iter().zip(&regular_providers);
                    !(is_reserved_fallback
                        && eligibility.any(|(is_eligible, is_regular)| *is_eligible && *is_regular))
                        && Self::constraints_allow_provider(
                            &waiting.constraints,
                            provider_index,
                            &unavailable,
                        )
                        && ticket_tokens.is_none_or(|max| provider.predict_tokens(tokens) <= max)
                        && !requests_with_pending_ticket.contains(&waiting.id)
                });
                let Some((position, waiting)) = first else {
                    if let Some(admission) = &mut provider.shared_admission {
                        // There can be a request that is too large for this ticket.
                        if admission.withdraw_ticket() {
                            continue;
                        }
                        admission.give_up_turn();
                    }
                    break;
                };
                let id = waiting.id;
                let tokens = waiting.constraints.estimated_tokens;
                if let Some(at) = provider.earliest_start(now, tokens) {
                    later(at);
                    break;
                }
                let predicted_tokens = provider.predict_tokens(tokens);
                let admission = provider.shared_admission.as_mut();
                let ticket = match admission
                    .map(|admission| admission.take_or_request_ticket(now, predicted_tokens))
                {
                    None => None,
                    Some(TicketStatus::Granted(ticket)) => Some(ticket),
                    Some(TicketStatus::Requested) => {
                        requests_with_pending_ticket.push(id);
                        break;
                    }
                    Some(TicketStatus::NotBefore(at)) => {
                        later(at);
                        break;
                    }
                };
                let Some(waiting) = self.queue.take_request_and_charge(&position) else {
                    break;
                };
                let call = provider.record_call_start(now, tokens);
                assign(waiting, provider_index, call, ticket);
                availability = provider.call_availability(now);
            }
            // A ticket that cannot be used now counts for the other nodes until it is withdrawn.
            let admission = self
                .providers
                .get_mut(provider_index)
                .and_then(|provider| provider.shared_admission.as_mut());
            if let Some(admission) = admission {
                admission.withdraw_ticket();
            }
        }
        next
    }

    /// Removes the requests whose eligible providers all deny requests or, if `include_unavailable` is set,
    /// are all unavailable or deny requests.
    fn take_unservable_requests(&mut self, now: Instant, include_unavailable: bool) -> Vec<QueuedRequest> {
        let is_unservable = |provider: &ProviderState| {
            provider.is_in_denial_cooldown(now) || (include_unavailable && provider.is_unavailable(now))
        };
        let unservable: Vec<bool> = self.providers.iter().map(is_unservable).collect();
        if !unservable.contains(&true) {
            return Vec::new();
        }
        self.queue.withdraw_matching_uncharged(|waiting| {
            let mut eligibility = waiting.constraints.eligible.iter().zip(&unservable);
            !eligibility.any(|(is_eligible, is_unservable)| *is_eligible && !*is_unservable)
        })
    }
}

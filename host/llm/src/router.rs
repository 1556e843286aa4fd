//! Routes requests to providers, and contains the only retry loop.
//!
//! A request waits in the queue and is sent to a provider. If the call fails, the request waits for a backoff and is sent to
//! the same provider again; after the maximum number of attempts, it is sent to another. When all providers have failed, the
//! request waits for one to recover or fails, depending on the settings. The whole loop is one future with one timeout. When
//! the timeout expires or the caller drops the future, the guards inside it release the queue entry or the call in flight.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use weir_core::llm::{LanguageModel, LlmError, LlmRequest, LlmResponse, ProviderError, ProviderFailureInfo};
use weir_core::ports::SchedulingContext;
use weir_core::usage::QuotaReservation;
use weir_core::{DocumentId, StorageError, TenantId};

use crate::admission_worker::{AdmissionWorkers, SharedCallLimits};
use crate::backoff::RandomBackoffDelays;
use crate::call_permit::CallPermit;
use crate::dispatcher::{DispatchConstraints, DispatchOutcome, Dispatcher, RequestId};
use crate::llm_metrics::RouterStats;
use crate::provider::ProviderEntry;
use crate::provider_state::ProviderState;
use crate::request_attempts::RequestAttempts;
use crate::retry_and_health_decision::{RetryDecision, decide_retry};
use crate::router_config::RouterConfig;
use crate::shared_admission::AdmissionObserver;
use crate::usage_accounting::{UsageAccounting, estimate_prompt_tokens};

/// Routes requests to providers.
pub struct Router {
    config: RouterConfig,
    providers: Vec<ProviderEntry>,
    dispatcher: Arc<Dispatcher>,
    accounting: UsageAccounting,
    dispatcher_task: OnceLock<JoinHandle<()>>,
    admission_workers: AdmissionWorkers,
}

impl Router {
    /// Creates a router with providers in order of preference. The first request starts the dispatcher task.
    pub fn new(providers: Vec<ProviderEntry>, config: RouterConfig) -> Self {
        let now = Instant::now();
        let states = providers
            .iter()
            .map(|entry| ProviderState::new(entry, &config, now))
            .collect();
        let backoff = RandomBackoffDelays::new(config.first_backoff, config.max_backoff, config.backoff_seed);
        Self {
            dispatcher: Arc::new(Dispatcher::new(
                states,
                config.fail_when_unavailable,
                backoff,
                config.max_queued_per_tenant,
            )),
            config,
            providers,
            accounting: UsageAccounting::default(),
            dispatcher_task: OnceLock::new(),
            admission_workers: AdmissionWorkers::default(),
        }
    }

    /// Meters calls and reserves them against the tenants' quotas.
    #[must_use]
    pub fn with_usage_accounting(mut self, accounts: UsageAccounting) -> Self {
        self.accounting = accounts;
        self
    }

    /// Keeps the limits of providers for all nodes together, unless a provider has limits of its own on each node.
    #[must_use]
    pub fn with_shared_call_limits(mut self, shared: &SharedCallLimits) -> Self {
        let (workers, admissions) = AdmissionWorkers::for_providers(&self.providers, shared);
        self.admission_workers = workers;
        for (provider_index, admission) in admissions {
            self.dispatcher.set_shared_admission(provider_index, admission);
        }
        self
    }

    /// Starts the task of the dispatcher and of each admission worker.
    fn start_tasks(&self) -> JoinHandle<()> {
        let dispatcher = Arc::clone(&self.dispatcher) as Arc<dyn AdmissionObserver>;
        self.admission_workers.start(&dispatcher);
        tokio::spawn(Arc::clone(&self.dispatcher).run())
    }

    /// Stops the router, and returns when the ends of its calls are recorded in the store of shared limits, or after a few seconds. Call it
    /// after the last request has ended.
    pub async fn close(&self) {
        if let Some(dispatcher) = self.dispatcher_task.get() {
            dispatcher.abort();
        }
        self.dispatcher.close_shared_admissions();
        self.admission_workers.await_end().await;
    }

    /// Reserves a call to one of the eligible providers. If the tenant's quota is exhausted, only providers that are not
    /// metered stay eligible.
    async fn reserve_quota_or_use_unmetered(
        &self,
        request: &LlmRequest,
        eligible: &mut [bool],
    ) -> Result<Option<QuotaReservation>, LlmError> {
        let all_options = || self.providers.iter().map(|entry| entry.options);
        let eligible_options = all_options()
            .zip(eligible.iter())
            .filter(|(_, is_eligible)| **is_eligible)
            .map(|(options, _)| options);
        if !eligible_options.clone().any(|options| options.metered) {
            return Ok(None);
        }
        let reserved = self
            .accounting
            .reserve_call_quota(request, eligible_options)
            .await;
        if reserved.is_err() {
            for (is_eligible, options) in eligible.iter_mut().zip(all_options()) {
                *is_eligible &= !options.metered;
            }
            if eligible.contains(&true) {
                return Ok(None);
            }
        }
        reserved
    }

    /// The state of the router and of its providers.
    pub fn stats(&self) -> RouterStats {
        self.dispatcher.stats()
    }

    /// The providers.
    pub fn providers(&self) -> &[ProviderEntry] {
        &self.providers
    }

    /// Returns which providers can answer the request, in order of preference.
    fn capable_providers(&self, request: &LlmRequest) -> Result<Vec<bool>, LlmError> {
        let needs_images = request.image.is_some();
        let capable: Vec<bool> = self
            .providers
            .iter()
            .map(|m| !needs_images || m.provider.supports_images())
            .collect();
        if capable.contains(&true) {
            return Ok(capable);
        }
        let (what, remedy) = if self.providers.is_empty() {
            ("requests", "add an [[llm.provider]] to weir.toml")
        } else {
            (
                "images",
                "set supports_images = true for a provider whose model accepts images",
            )
        };
        Err(LlmError::Unavailable {
            what: what.into(),
            remedy: remedy.into(),
        })
    }

    /// Waits in the queue until the dispatcher grants a permit; `None` if no eligible provider is available.
    async fn acquire_call_permit(
        &self,
        request: &LlmRequest,
        id: RequestId,
        constraints: DispatchConstraints,
    ) -> Option<CallPermit> {
        loop {
            let outcome = self
                .dispatcher
                .enqueue(&request.scheduling, id, constraints.clone());
            let _queue_entry = QueueEntryGuard {
                dispatcher: &self.dispatcher,
                account: &request.scheduling,
                request_id: id,
            };
            match outcome.await {
                // This process was frozen since the call was admitted.
                Ok(DispatchOutcome::Granted(permit)) if permit.has_expired() => {}
                Ok(DispatchOutcome::Granted(permit)) => return Some(permit),
                // The dispatcher outlives every request, so the sender is not dropped without a result.
                Ok(DispatchOutcome::NoProviderAvailable) | Err(_) => return None,
            }
        }
    }

    async fn run_retry_loop(
        &self,
        request: &LlmRequest,
        capable: &[bool],
        attempts: &mut RequestAttempts,
    ) -> Result<LlmResponse, LlmError> {
        let id = self.dispatcher.new_request_id_by_priority(request.kind);
        let tokens = estimate_total_tokens(request);
        let mut constraints = DispatchConstraints {
            eligible: capable.to_vec(),
            retry_provider: None,
            estimated_tokens: tokens,
        };
        let mut attempts_by_provider = vec![0; self.providers.len()];
        let mut rounds = 0;
        loop {
            let reservation = self
                .reserve_quota_or_use_unmetered(request, &mut constraints.eligible)
                .await?;
            if let Some(permit) = self.acquire_call_permit(request, id, constraints.clone()).await {
                let at = permit.provider_index;
                let Some(entry) = self.providers.get(at) else {
                    continue;
                };
                let called = attempts
                    .call_provider_and_validate(entry, request, permit, &self.accounting)
                    .await;
                // The call is metered by now.
                drop(reservation);
                let fault = match called {
                    Ok(reply) => return Ok(attempts.build_response(entry, reply)),
                    Err(fault) => fault,
                };
                attempts.record_failure(at, fault.clone(), self.dispatcher.provider_success_count(at));
                let attempt_count = attempts_by_provider.get_mut(at).map_or(u32::MAX, |tries| {
                    *tries += 1;
                    *tries
                });
                match decide_retry(&fault) {
                    RetryDecision::FailRequest => {
                        let provider = entry.name.clone();
                        return Err(LlmError::ProviderFailed { provider, fault });
                    }
                    RetryDecision::RetrySameProvider if attempt_count < self.config.max_attempts => {
                        // A provider with a `Retry-After` is waited for in the queue, where another provider may be assigned
                        // instead.
                        let has_retry_after = matches!(
                            fault,
                            ProviderError::RateLimited { .. }
                                | ProviderError::ServerError { after: Some(_), .. }
                        );
                        constraints.retry_provider = (!has_retry_after).then_some(at);
                        let _backoff = BackoffGuard::start_backoff(&self.dispatcher, at);
                        if !has_retry_after {
                            sleep(self.dispatcher.backoff.random_delay_after_failures(attempt_count)).await;
                        }
                        continue;
                    }
                    RetryDecision::RetrySameProvider | RetryDecision::TryNextProvider => {}
                }
                constraints.retry_provider = None;
                if let Some(is_eligible) = constraints.eligible.get_mut(at) {
                    *is_eligible = false;
                }
            } else if self.config.fail_when_unavailable {
                return Err(LlmError::AllProvidersFailed(
                    self.dispatcher.last_errors_of_eligible_providers(capable),
                ));
            } else {
                // The eligible providers deny requests. Providers that failed at the request before may recover.
                for (at, fault) in self.dispatcher.denying_providers(&constraints.eligible) {
                    attempts.record_failure(at, fault, self.dispatcher.provider_success_count(at));
                }
                constraints.eligible.fill(false);
            }
            if constraints.eligible.contains(&true) {
                self.dispatcher.metrics.failovers.increment(1);
                continue;
            }
            let retryable =
                attempts.retryable_providers(capable, |at| self.dispatcher.provider_success_count(at));
            if self.config.fail_when_unavailable || !retryable.contains(&true) {
                return Err(LlmError::AllProvidersFailed(
                    attempts.last_error_by_provider(&self.providers),
                ));
            }
            constraints.eligible = retryable;
            attempts_by_provider.fill(0);
            rounds += 1;
            sleep(self.dispatcher.backoff.random_delay_after_failures(rounds)).await;
        }
    }
}

#[async_trait]
impl LanguageModel for Router {
    async fn request_completion(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let capable = self.capable_providers(&request)?;
        let waiting = self.dispatcher.queued_count_of_tenant(&request.scheduling.tenant);
        if waiting >= self.config.max_queued_per_tenant {
            return Err(LlmError::QueueFull { waiting });
        }
        self.dispatcher_task.get_or_init(|| self.start_tasks());
        let mut attempts = RequestAttempts::new();
        let outcome = timeout(
            request.timeout,
            self.run_retry_loop(&request, &capable, &mut attempts),
        )
        .await;
        let result = outcome.unwrap_or_else(|_elapsed| {
            Err(LlmError::TimedOut {
                seconds: request.timeout.as_secs(),
                faults: attempts.last_error_by_provider(&self.providers),
            })
        });
        let waited = attempts.queue_and_backoff_time();
        self.dispatcher
            .metrics
            .record_request_times(request.kind, waited, attempts.call_time);
        result
    }

    /// The router has no cache.
    async fn clear_tenant_cache(&self, _tenant: &TenantId) -> Result<(), StorageError> {
        Ok(())
    }

    fn supports_images(&self) -> bool {
        self.providers
            .iter()
            .any(|entry| entry.provider.supports_images())
    }

    fn failing_providers_if_all_fail(&self, image: bool) -> Vec<ProviderFailureInfo> {
        let capable: Vec<bool> = self
            .providers
            .iter()
            .map(|entry| !image || entry.provider.supports_images())
            .collect();
        self.dispatcher.failing_providers_if_all_fail(&capable)
    }

    fn useful_concurrency(&self) -> u32 {
        self.dispatcher.total_concurrency_limit()
    }

    async fn clear_document_cache(&self, _: &TenantId, _: &DocumentId) -> Result<(), StorageError> {
        Ok(())
    }

    async fn wait_for_tenant_queue_space(&self, tenant: &TenantId) {
        self.dispatcher
            .wait_until_fewer_queued(tenant, self.config.backpressure_threshold.max(1))
            .await;
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Some(dispatcher) = self.dispatcher_task.get() {
            dispatcher.abort();
        }
    }
}

/// Estimates the tokens of a request and its response, because the model's own count is not available.
fn estimate_total_tokens(request: &LlmRequest) -> u64 {
    estimate_prompt_tokens(request) + u64::from(request.max_response_tokens)
}

/// Removes the request from the queue on drop.
struct QueueEntryGuard<'a> {
    dispatcher: &'a Dispatcher,
    account: &'a SchedulingContext,
    request_id: RequestId,
}

impl Drop for QueueEntryGuard<'_> {
    fn drop(&mut self) {
        self.dispatcher.remove_queued(self.account, self.request_id);
    }
}

/// Counts a request as being in backoff until it is dropped.
struct BackoffGuard<'a> {
    dispatcher: &'a Dispatcher,
    provider_index: usize,
}

impl<'a> BackoffGuard<'a> {
    fn start_backoff(dispatcher: &'a Dispatcher, provider_index: usize) -> Self {
        dispatcher.record_backoff_start(provider_index);
        Self {
            dispatcher,
            provider_index,
        }
    }
}

impl Drop for BackoffGuard<'_> {
    fn drop(&mut self) {
        self.dispatcher.record_backoff_end(self.provider_index);
    }
}

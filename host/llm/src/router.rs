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

use crate::attempts::RequestAttempts;
use crate::backoff::Backoff;
use crate::call_permit::CallPermit;
use crate::dispatcher::{DispatchConstraints, DispatchOutcome, Dispatcher, RequestId};
use crate::provider::ProviderEntry;
use crate::provider_state::ProviderState;
use crate::retry_decision::{RetryDecision, decide_retry};
use crate::router_config::RouterConfig;
use crate::stats::RouterStats;
use crate::usage_accounting::{UsageAccounting, estimate_prompt_tokens};

/// Routes requests to providers.
pub struct Router {
    config: RouterConfig,
    providers: Vec<ProviderEntry>,
    dispatcher: Arc<Dispatcher>,
    accounting: UsageAccounting,
    dispatcher_task: OnceLock<JoinHandle<()>>,
}

impl Router {
    /// Creates a router with providers in order of preference. The first request starts the dispatcher task.
    pub fn new(members: Vec<ProviderEntry>, config: RouterConfig) -> Self {
        let now = Instant::now();
        let desks = members
            .iter()
            .map(|member| ProviderState::new(member, &config, now))
            .collect();
        let backoff = Backoff::new(config.first_backoff, config.max_backoff, config.backoff_seed);
        Self {
            dispatcher: Arc::new(Dispatcher::new(
                desks,
                config.fail_when_unavailable,
                backoff,
                config.max_queued_per_tenant,
            )),
            config,
            providers: members,
            accounting: UsageAccounting::default(),
            dispatcher_task: OnceLock::new(),
        }
    }

    /// Meters calls and reserves them against the tenants' quotas.
    #[must_use]
    pub fn with_usage_accounting(mut self, accounts: UsageAccounting) -> Self {
        self.accounting = accounts;
        self
    }

    /// Reserves a call to one of the eligible providers. If the tenant's quota is exhausted, only providers that are not
    /// metered stay eligible.
    async fn reserve_usage(
        &self,
        question: &LlmRequest,
        may: &mut [bool],
    ) -> Result<Option<QuotaReservation>, LlmError> {
        let terms = || self.providers.iter().map(|member| member.options);
        let suited = terms()
            .zip(may.iter())
            .filter(|(_, may)| **may)
            .map(|(terms, _)| terms);
        if !suited.clone().any(|terms| terms.metered) {
            return Ok(None);
        }
        let reserved = self.accounting.reserve_call(question, suited).await;
        if reserved.is_err() {
            for (may, terms) in may.iter_mut().zip(terms()) {
                *may &= !terms.metered;
            }
            if may.contains(&true) {
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
    fn capable_providers(&self, question: &LlmRequest) -> Result<Vec<bool>, LlmError> {
        let sees = question.image.is_some();
        let suited: Vec<bool> = self
            .providers
            .iter()
            .map(|m| !sees || m.provider.supports_images())
            .collect();
        if suited.contains(&true) {
            return Ok(suited);
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
    async fn acquire_permit(
        &self,
        question: &LlmRequest,
        id: RequestId,
        wish: DispatchConstraints,
    ) -> Option<CallPermit> {
        let told = self.dispatcher.enqueue(&question.scheduling, id, wish);
        let _place = QueueEntryGuard {
            dispatcher: &self.dispatcher,
            account: &question.scheduling,
            request_id: id,
        };
        match told.await {
            Ok(DispatchOutcome::Granted(permit)) => Some(permit),
            // The dispatcher outlives every request, so the sender is not dropped without a result.
            Ok(DispatchOutcome::NoProviderAvailable) | Err(_) => None,
        }
    }

    async fn run_attempts(
        &self,
        question: &LlmRequest,
        suited: &[bool],
        attempts: &mut RequestAttempts,
    ) -> Result<LlmResponse, LlmError> {
        let id = self.dispatcher.new_request_id(question.kind);
        let tokens = estimate_total_tokens(question);
        let mut wish = DispatchConstraints {
            eligible: suited.to_vec(),
            retry_provider: None,
            estimated_tokens: tokens,
        };
        let mut tries = vec![0; self.providers.len()];
        let mut rounds = 0;
        loop {
            let reservation = self.reserve_usage(question, &mut wish.eligible).await?;
            if let Some(permit) = self.acquire_permit(question, id, wish.clone()).await {
                let at = permit.provider_index;
                let Some(member) = self.providers.get(at) else {
                    continue;
                };
                let called = attempts
                    .call_provider(member, question, permit, &self.accounting)
                    .await;
                // The call is metered by now.
                drop(reservation);
                let fault = match called {
                    Ok(reply) => return Ok(attempts.build_response(member, reply)),
                    Err(fault) => fault,
                };
                attempts.record_failure(at, fault.clone(), self.dispatcher.success_count(at));
                let spent = tries.get_mut(at).map_or(u32::MAX, |tries| {
                    *tries += 1;
                    *tries
                });
                match decide_retry(&fault) {
                    RetryDecision::FailRequest => {
                        let provider = member.name.clone();
                        return Err(LlmError::ProviderFailed { provider, fault });
                    }
                    RetryDecision::RetrySameProvider if spent < self.config.max_attempts => {
                        // A provider with a `Retry-After` is waited for in the queue, where another provider may be assigned
                        // instead.
                        let rests = matches!(
                            fault,
                            ProviderError::RateLimited { .. }
                                | ProviderError::ServerError { after: Some(_), .. }
                        );
                        wish.retry_provider = (!rests).then_some(at);
                        let _pausing = BackoffGuard::start(&self.dispatcher, at);
                        if !rests {
                            sleep(self.dispatcher.backoff.delay_after(spent)).await;
                        }
                        continue;
                    }
                    RetryDecision::RetrySameProvider | RetryDecision::TryNextProvider => {}
                }
                wish.retry_provider = None;
                if let Some(may) = wish.eligible.get_mut(at) {
                    *may = false;
                }
            } else if self.config.fail_when_unavailable {
                return Err(LlmError::AllProvidersFailed(
                    self.dispatcher.unavailable_providers(suited),
                ));
            } else {
                // The eligible providers deny requests. Providers that failed at the request before may recover.
                for (at, fault) in self.dispatcher.denying_providers(&wish.eligible) {
                    attempts.record_failure(at, fault, self.dispatcher.success_count(at));
                }
                wish.eligible.fill(false);
            }
            if wish.eligible.contains(&true) {
                self.dispatcher.metrics.failovers.increment(1);
                continue;
            }
            let may_again = attempts.retryable_providers(suited, |at| self.dispatcher.success_count(at));
            if self.config.fail_when_unavailable || !may_again.contains(&true) {
                return Err(LlmError::AllProvidersFailed(
                    attempts.last_errors(&self.providers),
                ));
            }
            wish.eligible = may_again;
            tries.fill(0);
            rounds += 1;
            sleep(self.dispatcher.backoff.delay_after(rounds)).await;
        }
    }
}

#[async_trait]
impl LanguageModel for Router {
    async fn complete(&self, question: LlmRequest) -> Result<LlmResponse, LlmError> {
        let suited = self.capable_providers(&question)?;
        let waiting = self.dispatcher.queued_count(&question.scheduling.tenant);
        if waiting >= self.config.max_queued_per_tenant {
            return Err(LlmError::QueueFull { waiting });
        }
        self.dispatcher_task
            .get_or_init(|| tokio::spawn(Arc::clone(&self.dispatcher).run()));
        let mut attempts = RequestAttempts::start();
        let outcome = timeout(
            question.timeout,
            self.run_attempts(&question, &suited, &mut attempts),
        )
        .await;
        let result = outcome.unwrap_or_else(|_elapsed| {
            Err(LlmError::TimedOut {
                seconds: question.timeout.as_secs(),
                faults: attempts.last_errors(&self.providers),
            })
        });
        let waited = attempts.wait_time();
        self.dispatcher
            .metrics
            .record_request(question.kind, waited, attempts.call_time);
        result
    }

    /// The router has no cache.
    async fn clear_cache(&self, _tenant: &TenantId) -> Result<(), StorageError> {
        Ok(())
    }

    fn supports_images(&self) -> bool {
        self.providers
            .iter()
            .any(|member| member.provider.supports_images())
    }

    fn failing_providers(&self, image: bool) -> Vec<ProviderFailureInfo> {
        let suited: Vec<bool> = self
            .providers
            .iter()
            .map(|member| !image || member.provider.supports_images())
            .collect();
        self.dispatcher.failing_providers(&suited)
    }

    fn useful_concurrency(&self) -> u32 {
        self.dispatcher.useful_concurrency()
    }

    async fn clear_document_cache(&self, _: &TenantId, _: &DocumentId) -> Result<(), StorageError> {
        Ok(())
    }

    async fn wait_for_queue_space(&self, tenant: &TenantId) {
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
fn estimate_total_tokens(question: &LlmRequest) -> u64 {
    estimate_prompt_tokens(question) + u64::from(question.max_response_tokens)
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
    fn start(shared: &'a Dispatcher, member: usize) -> Self {
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

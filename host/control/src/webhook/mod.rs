//! Webhooks: HTTP requests that report the end of a job to a server of the client.
//!
//! A delivery is pending from the commit that ended the job until the receiver accepted it or the host gave it up. Pending
//! deliveries are stored with the job request, so they survive a restart. Failed attempts are retried with exponential backoff.
//! Concurrency is limited for the host, for each tenant, and to two deliveries for each receiver, so a receiver that hangs delays
//! only its own deliveries.
//!
//! The body is signed with the secret of the job request: `Weir-Signature: t=<seconds since 1970>,v1=<hex of HMAC-SHA256 over
//! "<t>.<body>">`. The signature covers the time, so that a receiver can refuse replayed requests. A delivery can arrive twice if its
//! response was lost; both requests then have the same `Weir-Delivery`.

mod delivery_queue;
#[cfg(test)]
mod tests;
mod webhook_request;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics::counter;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use weir_core::job_request::JobRequestStore;
use weir_core::settings::Settings;
use weir_core::{JobId, TenantId};

use crate::commit_notifier::CommitNotifier;
use crate::job_claims::NodeClaims;
use delivery_queue::{DeliveryKey, DeliveryQueue, PendingDelivery};
use webhook_request::WebhookBuildOutcome;
pub use webhook_request::WebhookRequest;

/// The interval at which pending deliveries are looked up without a notification.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(60);
/// The interval if jobs also end on other nodes. It is shorter than a lease, because a lookup renews it.
const SHARED_LOOKUP_INTERVAL: Duration = Duration::from_secs(2);
/// The factor by which the backoff grows with each attempt.
const BACKOFF_FACTOR: u32 = 4;
/// The longest backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(24 * 3600);

/// Sends webhook requests.
#[async_trait]
pub trait WebhookSender: Send + Sync {
    /// Sends a request and returns the status of the response, or why there was no response.
    async fn send_webhook(&self, request: &WebhookRequest) -> Result<u16, String>;
}

/// The result of a delivery attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptOutcome {
    Received,
    /// The receiver responded with 410 Gone, or the job has no webhook any more.
    Unwanted,
    /// The job is running again. The webhook is delivered after its next end.
    JobRunningAgain,
    Failed,
}

/// The duty of the node that sends the webhooks of all nodes.
const WEBHOOK_DUTY: &str = "webhooks";

/// Delivers webhooks until it is dropped.
pub(crate) struct WebhookDelivery {
    ledger: Arc<CommitNotifier>,
    job_requests: Arc<dyn JobRequestStore>,
    sender: Arc<dyn WebhookSender>,
    claims: Arc<NodeClaims>,
    lookup_interval: Duration,
    max_attempts: u32,
    initial_backoff: Duration,
    response_timeout: Duration,
}

impl WebhookDelivery {
    pub(crate) fn new(
        ledger: Arc<CommitNotifier>,
        job_requests: Arc<dyn JobRequestStore>,
        sender: Arc<dyn WebhookSender>,
        claims: Arc<NodeClaims>,
        settings: &Settings,
    ) -> Self {
        Self {
            ledger,
            job_requests,
            sender,
            claims,
            lookup_interval: match settings.shares_ledger() {
                true => SHARED_LOOKUP_INTERVAL,
                false => LOOKUP_INTERVAL,
            },
            max_attempts: settings.webhook_max_attempts,
            initial_backoff: Duration::from_secs(settings.webhook_initial_backoff_seconds.into()),
            response_timeout: Duration::from_secs(settings.webhook_response_timeout_seconds.into()),
        }
    }

    /// Runs the delivery loop. If it is dropped, deliveries in progress are aborted, and they do not count as attempts.
    pub(crate) async fn run_delivery_loop(self) {
        let this = Arc::new(self);
        let mut queue = DeliveryQueue::default();
        let mut attempt_tasks: JoinSet<AttemptOutcome> = JoinSet::new();
        let mut keys_by_task: HashMap<tokio::task::Id, DeliveryKey> = HashMap::new();
        let mut next_lookup = Instant::now();
        loop {
            if next_lookup <= Instant::now() {
                next_lookup = Instant::now() + this.lookup_interval;
                this.load_pending_deliveries(&mut queue).await;
            }
            while let Some(key) = queue.start_next_due_delivery(Instant::now()) {
                let (this, (tenant, job)) = (Arc::clone(&this), key.clone());
                let task = attempt_tasks.spawn(async move { this.attempt_delivery(&tenant, &job).await });
                keys_by_task.insert(task.id(), key);
            }
            let next = queue
                .next_due_at()
                .map_or(next_lookup, |due| due.min(next_lookup));
            tokio::select! {
                () = this.ledger.wait_for_any_job_end() => next_lookup = Instant::now(),
                () = sleep_until(next) => {}
                Some(done) = attempt_tasks.join_next_with_id() => {
                    let (id, attempt_outcome) = match done {
                        Ok(done) => done,
                        Err(join_error) => (join_error.id(), AttemptOutcome::Failed),
                    };
                    if let Some(key) = keys_by_task.remove(&id) {
                        this.record_attempt(&mut queue, key, attempt_outcome).await;
                    }
                }
            }
        }
    }

    /// Loads the pending deliveries from the store.
    async fn load_pending_deliveries(&self, queue: &mut DeliveryQueue) {
        match self.claims.claim_duty(WEBHOOK_DUTY, self.claims.lease()).await {
            Ok(true) => {}
            // Another node sends the webhooks.
            Ok(false) => return queue.remove_no_longer_pending(&[]),
            Err(error) => return tracing::warn!(%error, "cannot look up the pending webhooks"),
        }
        let pending_webhooks = match self.job_requests.list_undelivered_webhooks().await {
            Ok(pending_webhooks) => pending_webhooks,
            Err(error) => return tracing::warn!(%error, "cannot look up the pending webhooks"),
        };
        queue.remove_no_longer_pending(&pending_webhooks);
        for (tenant, job, tries) in pending_webhooks {
            let key = (tenant, job);
            if queue.contains(&key) {
                continue;
            }
            let receiver = match webhook_request::find_receiver_host_and_port(
                self.ledger.as_ref(),
                self.job_requests.as_ref(),
                &key.0,
                &key.1,
            )
            .await
            {
                Ok(Some(host)) => host,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(job = %key.1, %error, "cannot read the receiver of a webhook");
                    continue;
                }
            };
            // After a restart it is unknown how much of the backoff has passed, so the shortest one is used.
            let due = Instant::now()
                + if tries == 0 {
                    Duration::ZERO
                } else {
                    self.backoff_after(&key, 1)
                };
            queue.insert(
                key,
                PendingDelivery {
                    attempts: tries,
                    due_at: due,
                    receiver,
                },
            );
        }
    }

    async fn attempt_delivery(&self, tenant: &TenantId, job: &JobId) -> AttemptOutcome {
        let request = match WebhookRequest::build_request(
            self.ledger.as_ref(),
            self.job_requests.as_ref(),
            tenant,
            job,
        )
        .await
        {
            Ok(WebhookBuildOutcome::Ready(request)) => request,
            Ok(WebhookBuildOutcome::JobNotEnded) => return AttemptOutcome::JobRunningAgain,
            Ok(WebhookBuildOutcome::NoWebhook) => return AttemptOutcome::Unwanted,
            Err(error) => {
                tracing::warn!(%tenant, %job, %error, "cannot build a webhook request");
                return AttemptOutcome::Failed;
            }
        };
        let response_status =
            tokio::time::timeout(self.response_timeout, self.sender.send_webhook(&request)).await;
        match response_status.unwrap_or_else(|_| Err("no response before the timeout".into())) {
            Ok(200..=299) => AttemptOutcome::Received,
            Ok(410) => AttemptOutcome::Unwanted,
            Ok(status) => {
                tracing::info!(%tenant, %job, status, "the receiver of a webhook responded with an error");
                AttemptOutcome::Failed
            }
            Err(reason) => {
                tracing::info!(%tenant, %job, reason, "a webhook could not be sent");
                AttemptOutcome::Failed
            }
        }
    }

    /// Records the result of an attempt, and schedules the next attempt if there is one.
    async fn record_attempt(
        &self,
        queue: &mut DeliveryQueue,
        key: DeliveryKey,
        attempt_outcome: AttemptOutcome,
    ) {
        let tries = queue.end_attempt_and_count_earlier(&key) + 1;
        if attempt_outcome == AttemptOutcome::JobRunningAgain {
            return queue.remove(&key);
        }
        let outcome = match attempt_outcome {
            AttemptOutcome::Received => "received",
            AttemptOutcome::Unwanted => "unwanted",
            AttemptOutcome::Failed if tries >= self.max_attempts => "given-up",
            AttemptOutcome::Failed | AttemptOutcome::JobRunningAgain => "failed",
        };
        counter!("weir_webhook_requests_total", "outcome" => outcome).increment(1);
        let will_retry = outcome == "failed";
        if outcome == "given-up" {
            tracing::warn!(tenant = %key.0, job = %key.1, tries, "a webhook is given up");
        }
        let (tenant, job) = &key;
        let recorded = self
            .job_requests
            .record_webhook_attempts_or_end(tenant, job, will_retry.then_some(tries))
            .await;
        if let Err(error) = recorded {
            tracing::warn!(%tenant, %job, %error, "cannot record the result of a webhook attempt");
        }
        if will_retry {
            queue.schedule_next_attempt(&key, tries, Instant::now() + self.backoff_after(&key, tries));
        } else {
            queue.remove(&key);
        }
    }

    /// Returns the backoff after `tries` attempts (at least 1). It grows by a factor of 4 with each attempt. A jitter of plus or minus
    /// a quarter spreads the retries of deliveries that failed together.
    fn backoff_after(&self, (_, job): &DeliveryKey, tries: u32) -> Duration {
        let backoff = self
            .initial_backoff
            .saturating_mul(BACKOFF_FACTOR.saturating_pow(tries.saturating_sub(1)))
            .min(MAX_BACKOFF);
        let digest = Sha256::digest(format!("{job} {tries}"));
        let share = digest.first().map_or(0.5, |byte| f64::from(*byte) / 255.0);
        backoff.mul_f64(0.75 + share / 2.0)
    }
}

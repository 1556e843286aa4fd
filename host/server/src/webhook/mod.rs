//! Telling a client's server that a job has ended.
//!
//! A delivery is owed from the commit that ended the job until it was received or given up, and that is kept beside the
//! order: a restart forgets nothing. Receivers fail in their own ways, so each is tried again after growing pauses, and
//! what hangs holds up only itself: there are places for so many at once, fewer for one tenant, two for one host.
//!
//! The body is signed with the order's secret: `Weir-Signature: t=<seconds since 1970>,v1=<hex of HMAC-SHA256 over
//! "<t>.<body>">`. The time is inside, so that a receiver can refuse what somebody recorded and sends again. A delivery may
//! arrive twice, if its answer was lost; `Weir-Delivery` is the same then.

mod letter;
mod round;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics::counter;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use weir_core::order::Orders;
use weir_core::settings::Settings;
use weir_core::{JobId, TenantId};

use crate::hub::Announced;
use letter::{Letter, Written};
use round::{Owed, Round};

/// How often what is owed is looked up without being told to.
const LOOK: Duration = Duration::from_secs(60);
/// Each pause is so many times the one before.
const GROWTH: u32 = 4;
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// A delivery.
type Key = (TenantId, JobId);

/// Sends letters.
#[async_trait]
pub(crate) trait Post: Send + Sync {
    /// The status that was answered, or why there was none.
    async fn post(&self, letter: &Letter) -> Result<u16, String>;
}

/// How a try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    Received,
    /// The receiver wants no more of it, or there is nothing to send any more.
    Unwanted,
    /// The job is in work again; its next end is told.
    Early,
    Failed,
}

/// Delivers until it is dropped.
pub(crate) struct Webhooks {
    ledger: Arc<Announced>,
    orders: Arc<dyn Orders>,
    post: Arc<dyn Post>,
    tries: u32,
    pause: Duration,
    patience: Duration,
}

impl Webhooks {
    pub(crate) fn new(
        ledger: Arc<Announced>,
        orders: Arc<dyn Orders>,
        post: Arc<dyn Post>,
        settings: &Settings,
    ) -> Self {
        Self {
            ledger,
            orders,
            post,
            tries: settings.webhook_tries,
            pause: Duration::from_secs(settings.webhook_pause_seconds.into()),
            patience: Duration::from_secs(settings.webhook_seconds.into()),
        }
    }

    /// Delivers what is owed and what comes to be owed. Deliveries under way end with it, and count as not tried.
    pub(crate) async fn run(self) {
        let this = Arc::new(self);
        let mut round = Round::default();
        let mut under_way: JoinSet<Tried> = JoinSet::new();
        let mut running: HashMap<tokio::task::Id, Key> = HashMap::new();
        let mut look = Instant::now();
        loop {
            if look <= Instant::now() {
                look = Instant::now() + LOOK;
                this.look(&mut round).await;
            }
            while let Some(key) = round.start(Instant::now()) {
                let (this, (tenant, job)) = (Arc::clone(&this), key.clone());
                let task = under_way.spawn(async move { this.try_once(&tenant, &job).await });
                running.insert(task.id(), key);
            }
            let next = round.next_due().map_or(look, |due| due.min(look));
            tokio::select! {
                () = this.ledger.job_ended() => look = Instant::now(),
                () = sleep_until(next) => {}
                Some(done) = under_way.join_next_with_id() => {
                    let (id, tried) = match done {
                        Ok(done) => done,
                        Err(died) => (died.id(), Tried::Failed),
                    };
                    if let Some(key) = running.remove(&id) {
                        this.note(&mut round, key, tried).await;
                    }
                }
            }
        }
    }

    /// Takes up what is owed.
    async fn look(&self, round: &mut Round) {
        let owed = match self.orders.owed_webhooks().await {
            Ok(owed) => owed,
            Err(error) => return tracing::warn!(%error, "it cannot be looked up which webhooks are owed"),
        };
        round.keep_only(&owed);
        for (tenant, job, tries) in owed {
            let key = (tenant, job);
            if round.knows(&key) {
                continue;
            }
            let host =
                match letter::receiver(self.ledger.as_ref(), self.orders.as_ref(), &key.0, &key.1).await {
                    Ok(Some(host)) => host,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::warn!(job = %key.1, %error, "it cannot be read where a webhook goes");
                        continue;
                    }
                };
            // After a restart it is not known how much of a pause is over.
            let due = Instant::now()
                + if tries == 0 {
                    Duration::ZERO
                } else {
                    self.pause_after(&key, 1)
                };
            round.add(key, Owed { tries, due, host });
        }
    }

    async fn try_once(&self, tenant: &TenantId, job: &JobId) -> Tried {
        let letter = match Letter::write(self.ledger.as_ref(), self.orders.as_ref(), tenant, job).await {
            Ok(Written::Letter(letter)) => letter,
            Ok(Written::NotYet) => return Tried::Early,
            Ok(Written::Nobody) => return Tried::Unwanted,
            Err(error) => {
                tracing::warn!(%tenant, %job, %error, "a webhook cannot be written");
                return Tried::Failed;
            }
        };
        let answered = tokio::time::timeout(self.patience, self.post.post(&letter)).await;
        match answered.unwrap_or_else(|_| Err("no answer in time".into())) {
            Ok(200..=299) => Tried::Received,
            Ok(410) => Tried::Unwanted,
            Ok(status) => {
                tracing::info!(%tenant, %job, status, "a webhook was not received");
                Tried::Failed
            }
            Err(reason) => {
                tracing::info!(%tenant, %job, reason, "a webhook was not received");
                Tried::Failed
            }
        }
    }

    /// Writes down how a try went, and when the next is due.
    async fn note(&self, round: &mut Round, key: Key, tried: Tried) {
        let tries = round.ended(&key) + 1;
        if tried == Tried::Early {
            return round.forget(&key);
        }
        let outcome = match tried {
            Tried::Received => "received",
            Tried::Unwanted => "unwanted",
            Tried::Failed if tries >= self.tries => "given-up",
            Tried::Failed | Tried::Early => "failed",
        };
        counter!("weir_webhooks_total", "outcome" => outcome).increment(1);
        let again = outcome == "failed";
        if outcome == "given-up" {
            tracing::warn!(tenant = %key.0, job = %key.1, tries, "a webhook is given up");
        }
        let (tenant, job) = &key;
        let noted = self
            .orders
            .webhook_tried(tenant, job, again.then_some(tries))
            .await;
        if let Err(error) = noted {
            tracing::warn!(%tenant, %job, %error, "it cannot be written down how a webhook went");
        }
        if again {
            round.again(&key, tries, Instant::now() + self.pause_after(&key, tries));
        } else {
            round.forget(&key);
        }
    }

    /// The pause after so many tries, at least 1: four times the one before, a quarter more or less so that deliveries that
    /// failed together do not come back together.
    fn pause_after(&self, (_, job): &Key, tries: u32) -> Duration {
        let grown = self
            .pause
            .saturating_mul(GROWTH.saturating_pow(tries.saturating_sub(1)))
            .min(LONGEST);
        let digest = Sha256::digest(format!("{job} {tries}"));
        let share = digest.first().map_or(0.5, |byte| f64::from(*byte) / 255.0);
        grown.mul_f64(0.75 + share / 2.0)
    }
}

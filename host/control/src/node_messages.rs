//! Announces changes of the ledger to the other nodes.
//!
//! Without it, other nodes find the changes when they next look into the ledger. So nothing waits for an announcement: changes are
//! collected and sent a moment later, or when the server of the messages is back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weir_core::node_message::{NodeMessage, NodeMessenger};
use weir_core::{JobId, TenantId};

/// Time for which changes are collected into one message.
const COLLECT_TIME: Duration = Duration::from_millis(10);
/// Time between two attempts to send.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Maximum number of jobs in a message. Other nodes find further jobs in the ledger.
const MAX_JOBS_PER_MESSAGE: usize = 1000;

/// The changes that are not announced yet.
#[derive(Default)]
struct PendingChanges {
    tenants_with_events: BTreeSet<TenantId>,
    claimable_jobs: Vec<(TenantId, JobId)>,
    claims_changed: bool,
}

/// Announces changes. Without a messenger it does nothing.
pub struct NodeMessages {
    messenger: Option<Arc<dyn NodeMessenger>>,
    pending: Mutex<PendingChanges>,
    wake_up: Notify,
    receives: AtomicBool,
}

impl NodeMessages {
    /// Announces changes through `messenger`.
    pub fn new(messenger: Option<Arc<dyn NodeMessenger>>) -> Arc<Self> {
        Arc::new(Self {
            messenger,
            pending: Mutex::default(),
            wake_up: Notify::new(),
            receives: AtomicBool::new(false),
        })
    }

    /// Returns what sends and receives the messages, if there are other nodes.
    pub(crate) fn messenger(&self) -> Option<&Arc<dyn NodeMessenger>> {
        self.messenger.as_ref()
    }

    /// Whether this node receives the messages of others now.
    pub(crate) fn receives_messages(&self) -> bool {
        self.receives.load(Ordering::Relaxed)
    }

    pub(crate) fn set_receives_messages(&self, receives: bool) {
        self.receives.store(receives, Ordering::Relaxed);
    }

    /// Announces that events of these tenants were committed.
    pub(crate) fn announce_events<'a>(&self, tenants: impl IntoIterator<Item = &'a TenantId>) {
        self.add(|pending| pending.tenants_with_events.extend(tenants.into_iter().cloned()));
    }

    /// Announces a job that any node can claim.
    pub(crate) fn announce_claimable_job(&self, tenant: &TenantId, job: JobId) {
        self.add(|pending| {
            if pending.claimable_jobs.len() < MAX_JOBS_PER_MESSAGE {
                pending.claimable_jobs.push((tenant.clone(), job));
            }
        });
    }

    /// Announces that a job of another node is to be canceled.
    pub(crate) fn announce_changed_claims(&self) {
        self.add(|pending| pending.claims_changed = true);
    }

    fn add(&self, change: impl FnOnce(&mut PendingChanges)) {
        if self.messenger.is_some() {
            change(&mut self.pending.lock());
            self.wake_up.notify_one();
        }
    }

    /// Sends the announcements until `stop` is canceled, and then the last ones. What could not be sent is sent again, except events: they
    /// are looked for soon anyway.
    pub(crate) async fn send_until_stopped(&self, stop: CancellationToken) {
        let Some(messenger) = &self.messenger else {
            return;
        };
        loop {
            let is_stopping = stop.run_until_cancelled(self.wake_up.notified()).await.is_none();
            if !is_stopping {
                stop.run_until_cancelled(sleep(COLLECT_TIME)).await;
            }
            let message = self.take_pending_message();
            let sent = match message == NodeMessage::default() {
                true => Ok(()),
                false => messenger.send_message(&message).await,
            };
            if is_stopping {
                return;
            }
            if let Err(error) = sent {
                tracing::debug!(%error, "changes could not be announced to other nodes yet");
                self.add(|pending| {
                    let free = MAX_JOBS_PER_MESSAGE.saturating_sub(pending.claimable_jobs.len());
                    let unsent = message.claimable_jobs.into_iter().take(free);
                    pending.claimable_jobs.extend(unsent);
                    pending.claims_changed |= message.claims_changed;
                });
                stop.run_until_cancelled(sleep(RETRY_INTERVAL)).await;
            }
        }
    }

    fn take_pending_message(&self) -> NodeMessage {
        let pending = std::mem::take(&mut *self.pending.lock());
        NodeMessage {
            tenants_with_events: pending.tenants_with_events.into_iter().collect(),
            claimable_jobs: pending.claimable_jobs,
            claims_changed: pending.claims_changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use weir_core::StorageError;
    use weir_core::node_message::NodeMessageReceiver;

    use super::*;

    /// Fails the first two times.
    #[derive(Default)]
    struct FailingMessenger {
        attempts: Mutex<u32>,
        sent: Mutex<Vec<NodeMessage>>,
    }

    #[async_trait]
    impl NodeMessenger for FailingMessenger {
        async fn send_message(&self, message: &NodeMessage) -> Result<(), StorageError> {
            let mut attempts = self.attempts.lock();
            *attempts += 1;
            if *attempts <= 2 {
                return Err(unavailable());
            }
            self.sent.lock().push(message.clone());
            Ok(())
        }

        async fn subscribe(&self) -> Result<Box<dyn NodeMessageReceiver>, StorageError> {
            Err(unavailable())
        }
    }

    fn unavailable() -> StorageError {
        StorageError::Unavailable {
            what: "the server".into(),
            reason: "test".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_are_announced_again_after_a_failure() {
        let messenger = Arc::new(FailingMessenger::default());
        let messages = NodeMessages::new(Some(messenger.clone()));
        let tenant: TenantId = "acme".parse().unwrap();
        let jobs = [JobId::new(), JobId::new()];
        messages.announce_claimable_job(&tenant, jobs[0]);
        messages.announce_events([&tenant]);
        let stop = CancellationToken::new();
        let announce_more_and_stop = async {
            sleep(COLLECT_TIME * 2).await;
            messages.announce_claimable_job(&tenant, jobs[1]);
            messages.announce_changed_claims();
            sleep(RETRY_INTERVAL * 4).await;
            stop.cancel();
        };
        tokio::join!(messages.send_until_stopped(stop.clone()), announce_more_and_stop);
        let sent = messenger.sent.lock();
        let [message] = sent.as_slice() else {
            panic!("{sent:?}");
        };
        let mut announced: Vec<JobId> = message.claimable_jobs.iter().map(|(_, job)| *job).collect();
        announced.sort_unstable();
        assert_eq!(
            (announced.as_slice(), message.claims_changed),
            (jobs.as_slice(), true)
        );
    }
}

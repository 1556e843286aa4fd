//! The pending deliveries: when each is due, and which may start now.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;
use weir_core::{JobId, TenantId};

/// The maximum number of concurrent deliveries.
const MAX_CONCURRENT_DELIVERIES: usize = 32;
/// The maximum number of concurrent deliveries of one tenant.
const MAX_CONCURRENT_PER_TENANT: usize = 8;
/// The maximum number of concurrent deliveries to one receiver.
const MAX_CONCURRENT_PER_RECEIVER: usize = 2;

/// Identifies a delivery.
pub(crate) type DeliveryKey = (TenantId, JobId);

/// A pending delivery.
pub(crate) struct PendingDelivery {
    /// The number of attempts so far.
    pub(crate) attempts: u32,
    /// When the next attempt is due.
    pub(crate) due_at: Instant,
    /// The host and port of the receiver.
    pub(crate) receiver: String,
}

/// All pending deliveries.
#[derive(Default)]
pub(crate) struct DeliveryQueue {
    pending: HashMap<DeliveryKey, PendingDelivery>,
    in_progress: HashSet<DeliveryKey>,
}

impl DeliveryQueue {
    pub(crate) fn contains(&self, key: &DeliveryKey) -> bool {
        self.pending.contains_key(key)
    }

    pub(crate) fn insert(&mut self, key: DeliveryKey, delivery: PendingDelivery) {
        self.pending.insert(key, delivery);
    }

    /// Removes the deliveries that are not in `still_pending`, except those in progress.
    pub(crate) fn remove_no_longer_pending(&mut self, still_pending: &[(TenantId, JobId, u32)]) {
        let pending_keys: HashSet<_> = still_pending
            .iter()
            .map(|(tenant, job, _)| (tenant, job))
            .collect();
        let in_progress = &self.in_progress;
        self.pending
            .retain(|key, _| in_progress.contains(key) || pending_keys.contains(&(&key.0, &key.1)));
    }

    /// Starts the delivery that has been due longest, among those that the limits allow.
    pub(crate) fn start_next_due_delivery(&mut self, now: Instant) -> Option<DeliveryKey> {
        if self.in_progress.len() >= MAX_CONCURRENT_DELIVERIES {
            return None;
        }
        let (mut per_receiver, mut per_tenant) = (HashMap::new(), HashMap::new());
        for key in &self.in_progress {
            *per_tenant.entry(&key.0).or_insert(0) += 1;
            if let Some(delivery) = self.pending.get(key) {
                *per_receiver.entry(delivery.receiver.as_str()).or_insert(0) += 1;
            }
        }
        let may_start = |key: &DeliveryKey, delivery: &PendingDelivery| {
            delivery.due_at <= now
                && !self.in_progress.contains(key)
                && per_tenant
                    .get(&key.0)
                    .is_none_or(|n| *n < MAX_CONCURRENT_PER_TENANT)
                && per_receiver
                    .get(delivery.receiver.as_str())
                    .is_none_or(|n| *n < MAX_CONCURRENT_PER_RECEIVER)
        };
        let (key, _) = self
            .pending
            .iter()
            .filter(|(key, delivery)| may_start(key, delivery))
            .min_by_key(|(_, delivery)| delivery.due_at)?;
        let key = key.clone();
        self.in_progress.insert(key.clone());
        Some(key)
    }

    /// Returns when the next delivery becomes due. A delivery that is already due waits for another one to end.
    pub(crate) fn next_due_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let waiting = self
            .pending
            .iter()
            .filter(|(key, delivery)| !self.in_progress.contains(*key) && delivery.due_at > now);
        waiting.map(|(_, delivery)| delivery.due_at).min()
    }

    /// Marks a delivery as not in progress, and returns the number of its earlier attempts.
    pub(crate) fn end_attempt_and_count_earlier(&mut self, key: &DeliveryKey) -> u32 {
        self.in_progress.remove(key);
        self.pending.get(key).map_or(0, |delivery| delivery.attempts)
    }

    /// Schedules the next attempt of a delivery.
    pub(crate) fn schedule_next_attempt(&mut self, key: &DeliveryKey, attempts: u32, due_at: Instant) {
        if let Some(delivery) = self.pending.get_mut(key) {
            (delivery.attempts, delivery.due_at) = (attempts, due_at);
        }
    }

    pub(crate) fn remove(&mut self, key: &DeliveryKey) {
        self.pending.remove(key);
    }
}

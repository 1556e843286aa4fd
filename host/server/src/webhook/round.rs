//! Which deliveries are owed, when each is due, and which may begin now.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;
use weir_core::{JobId, TenantId};

use super::Key;

/// Deliveries under way at one time.
const AT_ONCE: usize = 32;
/// For one tenant.
const TENANT: usize = 8;
/// For one host.
const HOST: usize = 2;

/// A delivery that is owed.
pub(super) struct Owed {
    /// How often it has been tried.
    pub(super) tries: u32,
    /// When it is tried next.
    pub(super) due: Instant,
    /// Where it goes.
    pub(super) host: String,
}

/// All deliveries that are owed.
#[derive(Default)]
pub(super) struct Round {
    owed: HashMap<Key, Owed>,
    under_way: HashSet<Key>,
}

impl Round {
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.owed.contains_key(key)
    }

    pub(super) fn add(&mut self, key: Key, owed: Owed) {
        self.owed.insert(key, owed);
    }

    /// Forgets what is not owed any more.
    pub(super) fn keep_only(&mut self, owed: &[(TenantId, JobId, u32)]) {
        let owed: HashSet<_> = owed.iter().map(|(tenant, job, _)| (tenant, job)).collect();
        let under_way = &self.under_way;
        self.owed
            .retain(|key, _| under_way.contains(key) || owed.contains(&(&key.0, &key.1)));
    }

    /// Begins the delivery that has been due longest among those that may begin.
    pub(super) fn start(&mut self, now: Instant) -> Option<Key> {
        if self.under_way.len() >= AT_ONCE {
            return None;
        }
        let (mut hosts, mut tenants) = (HashMap::new(), HashMap::new());
        for key in &self.under_way {
            *tenants.entry(&key.0).or_insert(0) += 1;
            if let Some(owed) = self.owed.get(key) {
                *hosts.entry(owed.host.as_str()).or_insert(0) += 1;
            }
        }
        let free = |key: &Key, owed: &Owed| {
            owed.due <= now
                && !self.under_way.contains(key)
                && tenants.get(&key.0).is_none_or(|n| *n < TENANT)
                && hosts.get(owed.host.as_str()).is_none_or(|n| *n < HOST)
        };
        let (key, _) = self
            .owed
            .iter()
            .filter(|(key, owed)| free(key, owed))
            .min_by_key(|(_, owed)| owed.due)?;
        let key = key.clone();
        self.under_way.insert(key.clone());
        Some(key)
    }

    /// When the next that is not due yet is due. What is due and may not begin waits for one to end.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let waiting = self
            .owed
            .iter()
            .filter(|(key, owed)| !self.under_way.contains(*key) && owed.due > now);
        waiting.map(|(_, owed)| owed.due).min()
    }

    /// A delivery is not under way any more; how often it was tried before.
    pub(super) fn ended(&mut self, key: &Key) -> u32 {
        self.under_way.remove(key);
        self.owed.get(key).map_or(0, |owed| owed.tries)
    }

    /// It is tried again.
    pub(super) fn again(&mut self, key: &Key, tries: u32, due: Instant) {
        if let Some(owed) = self.owed.get_mut(key) {
            (owed.tries, owed.due) = (tries, due);
        }
    }

    pub(super) fn forget(&mut self, key: &Key) {
        self.owed.remove(key);
    }
}

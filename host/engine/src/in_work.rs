//! A document is worked on once at a time.
//!
//! Two jobs with the same file, or one job with the same file twice, would do the same work side by side. The second waits
//! for the first instead, and then finds it done.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::{DocumentId, TenantId};

use crate::gate::{Gate, Pass};

type Key = (TenantId, DocumentId);

/// The documents in work on this host.
#[derive(Default)]
pub(crate) struct InWork(Mutex<HashMap<Key, Entry>>);

struct Entry {
    gate: Gate,
    /// Those inside and those waiting.
    interested: usize,
}

/// The right to work on a document, until it is dropped.
pub(crate) struct Claim {
    _pass: Pass,
    _interest: Interest,
}

struct Interest {
    all: Arc<InWork>,
    key: Key,
}

impl InWork {
    /// Waits until nobody else works on the document.
    pub(crate) async fn claim(self: &Arc<Self>, tenant: &TenantId, document: DocumentId) -> Claim {
        let key = (tenant.clone(), document);
        let gate = {
            let mut all = self.0.lock();
            let entry = all.entry(key.clone()).or_insert_with(|| Entry {
                gate: Gate::new(1),
                interested: 0,
            });
            entry.interested += 1;
            entry.gate.clone()
        };
        let interest = Interest {
            all: Arc::clone(self),
            key,
        };
        Claim {
            _pass: gate.enter(0).await,
            _interest: interest,
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(entry) = all.get_mut(&self.key) {
            entry.interested -= 1;
            if entry.interested == 0 {
                all.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_kept() {
        let all = Arc::new(InWork::default());
        let (tenant, document) = (TenantId::single(), DocumentId::of(b"d"));
        let first = all.claim(&tenant, document).await;
        let mut second = Box::pin(all.claim(&tenant, document));
        assert!((&mut second).now_or_never().is_none());
        assert!(
            all.claim(&"other".parse().unwrap(), document)
                .now_or_never()
                .is_some()
        );
        drop(first);
        drop(second.await);
        assert!(all.0.lock().is_empty());
    }
}

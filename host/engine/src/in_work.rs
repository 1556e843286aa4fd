//! A document is worked on once at a time.
//!
//! Two jobs with the same file, or one job with the same file twice, would do the same work side by side. The second waits
//! for the first instead, and then finds it done. Who wants to delete it does not wait: the jobs may take hours, and what
//! they make after the deletion was asked for would be deleted with the rest.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use weir_core::{DocumentId, TenantId};

type Key = (TenantId, DocumentId);

/// The documents in work on this host.
#[derive(Default)]
pub(crate) struct InWork(Mutex<HashMap<Key, Entry>>);

#[derive(Default)]
struct Entry {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Those inside and those waiting.
    interested: usize,
}

/// The right to work on a document, until it is dropped.
pub(crate) struct Claim {
    _turn: OwnedMutexGuard<()>,
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
        let turn = {
            let mut all = self.0.lock();
            let entry = all.entry(key.clone()).or_default();
            entry.interested += 1;
            Arc::clone(&entry.turn)
        };
        let interest = Interest {
            all: Arc::clone(self),
            key,
        };
        Claim {
            _turn: turn.lock_owned().await,
            _interest: interest,
        }
    }

    /// The right to work on a document, unless somebody works on it or waits to.
    pub(crate) fn claim_idle(self: &Arc<Self>, tenant: &TenantId, document: DocumentId) -> Option<Claim> {
        let key = (tenant.clone(), document);
        let mut all = self.0.lock();
        if all.contains_key(&key) {
            return None;
        }
        let entry = Entry {
            interested: 1,
            ..Entry::default()
        };
        let turn = Arc::clone(&entry.turn).try_lock_owned().ok()?;
        all.insert(key.clone(), entry);
        Some(Claim {
            _turn: turn,
            _interest: Interest {
                all: Arc::clone(self),
                key,
            },
        })
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
        assert!(all.claim_idle(&tenant, document).is_none());
        drop(first);
        drop(second.await);
        assert!(all.0.lock().is_empty());

        let idle = all.claim_idle(&tenant, document).unwrap();
        let mut waits = Box::pin(all.claim(&tenant, document));
        assert!((&mut waits).now_or_never().is_none());
        drop(idle);
        drop(waits.await);
        assert!(all.0.lock().is_empty());
    }
}

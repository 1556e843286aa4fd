//! Locks the documents that are processed, so that each is processed by one job at a time.
//!
//! Two jobs with the same file, or one job with the same file twice, would do the same work twice. Instead the second waits for
//! the first and then finds the document done. A deletion does not wait for the lock: jobs may take hours, and a late deletion
//! would also delete their new results.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use weir_core::{DocumentId, TenantId};

type DocumentKey = (TenantId, DocumentId);

/// The locks of the documents that are processed on this host.
#[derive(Default)]
pub(crate) struct DocumentLockMap(Mutex<HashMap<DocumentKey, LockEntry>>);

#[derive(Default)]
struct LockEntry {
    mutex: Arc<tokio::sync::Mutex<()>>,
    /// The number of holders and waiters.
    users: usize,
}

/// An exclusive lock on a document, until it is dropped.
pub(crate) struct DocumentLock {
    _guard: OwnedMutexGuard<()>,
    _user: LockUserGuard,
}

struct LockUserGuard {
    locks: Arc<DocumentLockMap>,
    key: DocumentKey,
}

impl DocumentLockMap {
    /// Waits for the exclusive lock on the document.
    pub(crate) async fn lock_document(
        self: &Arc<Self>,
        tenant: &TenantId,
        document: DocumentId,
    ) -> DocumentLock {
        let key = (tenant.clone(), document);
        let mutex = {
            let mut locks = self.0.lock();
            let entry = locks.entry(key.clone()).or_default();
            entry.users += 1;
            Arc::clone(&entry.mutex)
        };
        let user = LockUserGuard {
            locks: Arc::clone(self),
            key,
        };
        DocumentLock {
            _guard: mutex.lock_owned().await,
            _user: user,
        }
    }

    /// Locks the document; `None` if it is locked or another user waits for the lock.
    pub(crate) fn try_lock_document(
        self: &Arc<Self>,
        tenant: &TenantId,
        document: DocumentId,
    ) -> Option<DocumentLock> {
        let key = (tenant.clone(), document);
        let mut locks = self.0.lock();
        if locks.contains_key(&key) {
            return None;
        }
        let entry = LockEntry {
            users: 1,
            ..LockEntry::default()
        };
        let guard = Arc::clone(&entry.mutex).try_lock_owned().ok()?;
        locks.insert(key.clone(), entry);
        Some(DocumentLock {
            _guard: guard,
            _user: LockUserGuard {
                locks: Arc::clone(self),
                key,
            },
        })
    }
}

impl Drop for LockUserGuard {
    fn drop(&mut self) {
        let mut locks = self.locks.0.lock();
        if let Some(entry) = locks.get_mut(&self.key) {
            entry.users -= 1;
            if entry.users == 0 {
                locks.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn document_lock_is_exclusive_and_leaves_no_entries() {
        let locks = Arc::new(DocumentLockMap::default());
        let (tenant, document) = (TenantId::default_tenant(), DocumentId::from_content(b"d"));
        let first = locks.lock_document(&tenant, document).await;
        let mut second = Box::pin(locks.lock_document(&tenant, document));
        assert!((&mut second).now_or_never().is_none());
        assert!(
            locks
                .lock_document(&"other".parse().unwrap(), document)
                .now_or_never()
                .is_some()
        );
        assert!(locks.try_lock_document(&tenant, document).is_none());
        drop(first);
        drop(second.await);
        assert!(locks.0.lock().is_empty());

        let idle = locks.try_lock_document(&tenant, document).unwrap();
        let mut waits = Box::pin(locks.lock_document(&tenant, document));
        assert!((&mut waits).now_or_never().is_none());
        drop(idle);
        drop(waits.await);
        assert!(locks.0.lock().is_empty());
    }
}

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
pub(crate) struct ActiveDocuments(Mutex<HashMap<DocumentKey, LockEntry>>);

#[derive(Default)]
struct LockEntry {
    mutex: Arc<tokio::sync::Mutex<()>>,
    /// The number of holders and waiters.
    users: usize,
}

/// An exclusive lock on a document, until it is dropped.
pub(crate) struct DocumentLock {
    _guard: OwnedMutexGuard<()>,
    _user: LockUser,
}

struct LockUser {
    all: Arc<ActiveDocuments>,
    key: DocumentKey,
}

impl ActiveDocuments {
    /// Waits for the exclusive lock on the document.
    pub(crate) async fn lock_document(
        self: &Arc<Self>,
        tenant: &TenantId,
        document: DocumentId,
    ) -> DocumentLock {
        let key = (tenant.clone(), document);
        let turn = {
            let mut all = self.0.lock();
            let entry = all.entry(key.clone()).or_default();
            entry.users += 1;
            Arc::clone(&entry.mutex)
        };
        let interest = LockUser {
            all: Arc::clone(self),
            key,
        };
        DocumentLock {
            _guard: turn.lock_owned().await,
            _user: interest,
        }
    }

    /// Locks the document; `None` if it is locked or another user waits for the lock.
    pub(crate) fn try_lock_document(
        self: &Arc<Self>,
        tenant: &TenantId,
        document: DocumentId,
    ) -> Option<DocumentLock> {
        let key = (tenant.clone(), document);
        let mut all = self.0.lock();
        if all.contains_key(&key) {
            return None;
        }
        let entry = LockEntry {
            users: 1,
            ..LockEntry::default()
        };
        let turn = Arc::clone(&entry.mutex).try_lock_owned().ok()?;
        all.insert(key.clone(), entry);
        Some(DocumentLock {
            _guard: turn,
            _user: LockUser {
                all: Arc::clone(self),
                key,
            },
        })
    }
}

impl Drop for LockUser {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(entry) = all.get_mut(&self.key) {
            entry.users -= 1;
            if entry.users == 0 {
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
    async fn document_lock_is_exclusive_and_leaves_no_entries() {
        let all = Arc::new(ActiveDocuments::default());
        let (tenant, document) = (TenantId::default_tenant(), DocumentId::from_content(b"d"));
        let first = all.lock_document(&tenant, document).await;
        let mut second = Box::pin(all.lock_document(&tenant, document));
        assert!((&mut second).now_or_never().is_none());
        assert!(
            all.lock_document(&"other".parse().unwrap(), document)
                .now_or_never()
                .is_some()
        );
        assert!(all.try_lock_document(&tenant, document).is_none());
        drop(first);
        drop(second.await);
        assert!(all.0.lock().is_empty());

        let idle = all.try_lock_document(&tenant, document).unwrap();
        let mut waits = Box::pin(all.lock_document(&tenant, document));
        assert!((&mut waits).now_or_never().is_none());
        drop(idle);
        drop(waits.await);
        assert!(all.0.lock().is_empty());
    }
}

//! Limits the page images that each document may have in memory for OCR: in the rasterizer, rasterized ahead, or being read.
//!
//! A tenant may have `reading + max(reading, drawing)` images, where `reading` is the number of pages that OCR reads at once and
//! `drawing` the number that the rasterizer processes at once. So OCR never waits for a page, and no page is rasterized long
//! before OCR can read it. The documents of the tenant share this limit, and each may have at least one image.
//!
//! The queue of the OCR workers decides whose page is read next, and the rasterizer limits the memory of each tenant. Here, pages
//! of different documents do not wait for each other.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::TenantId;
use weir_core::ports::SchedulingContext;

use crate::resizable_semaphore::{CapacityPermit, ResizableSemaphore};

/// Limits the OCR page images of all documents of the host.
pub(crate) struct PerTenantOcrImageLimiter {
    /// The limit of one tenant.
    max_per_tenant: u32,
    /// The documents by their scheduling group.
    documents: Mutex<HashMap<u64, DocumentShare>>,
}

/// A document with pages for OCR, and its share of its tenant's limit.
struct DocumentShare {
    tenant: TenantId,
    permits: ResizableSemaphore,
}

/// Limits the OCR page images of one document. Dropping it returns the document's share.
pub(crate) struct DocumentOcrImageLimiter {
    limiter: Arc<PerTenantOcrImageLimiter>,
    group: u64,
    permits: ResizableSemaphore,
}

impl PerTenantOcrImageLimiter {
    /// Creates a limiter. `reading` is the number of pages that OCR reads at once, `drawing` the number of pages that the
    /// rasterizer processes at once.
    pub(crate) fn new(reading: u32, drawing: u32) -> Arc<Self> {
        Arc::new(Self {
            max_per_tenant: reading.saturating_add(reading.max(drawing)),
            documents: Mutex::default(),
        })
    }

    /// Registers a document. The shares of the tenant's other documents shrink; images that exceed a share stay.
    pub(crate) fn register_document(
        self: &Arc<Self>,
        account: &SchedulingContext,
    ) -> DocumentOcrImageLimiter {
        let permits = ResizableSemaphore::new(1);
        let document = DocumentShare {
            tenant: account.tenant.clone(),
            permits: permits.clone(),
        };
        let mut documents = self.documents.lock();
        documents.insert(account.group, document);
        self.rebalance_shares(&documents);
        DocumentOcrImageLimiter {
            limiter: Arc::clone(self),
            group: account.group,
            permits,
        }
    }

    fn rebalance_shares(&self, documents: &HashMap<u64, DocumentShare>) {
        let mut counts: HashMap<&TenantId, u32> = HashMap::new();
        for document in documents.values() {
            *counts.entry(&document.tenant).or_default() += 1;
        }
        for DocumentShare { tenant, permits } in documents.values() {
            let count = counts.get(tenant).copied().unwrap_or(1);
            permits.set_capacity(self.max_per_tenant.div_ceil(count.max(1)) as usize);
        }
    }
}

impl DocumentOcrImageLimiter {
    /// Waits until the document may have another page image in memory.
    pub(crate) async fn acquire(&self) -> CapacityPermit {
        self.permits.acquire().await
    }
}

impl Drop for DocumentOcrImageLimiter {
    fn drop(&mut self) {
        let mut documents = self.limiter.documents.lock();
        documents.remove(&self.group);
        self.limiter.rebalance_shares(&documents);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_core::PriorityLane;

    use super::*;

    fn register_test_document(
        images: &Arc<PerTenantOcrImageLimiter>,
        tenant: &str,
        group: u64,
    ) -> DocumentOcrImageLimiter {
        images.register_document(&SchedulingContext {
            tenant: tenant.parse().unwrap(),
            lane: PriorityLane::Bulk,
            group,
            batch_linger: Duration::ZERO,
            tenant_weight: 1.0,
        })
    }

    #[test]
    fn documents_share_the_image_limit_of_their_tenant() {
        let images = PerTenantOcrImageLimiter::new(8, 4);
        let (one, other) = (
            register_test_document(&images, "a", 0),
            register_test_document(&images, "b", 1),
        );
        let capacity = |of: &DocumentOcrImageLimiter| of.permits.capacity();
        assert_eq!((capacity(&one), capacity(&other)), (16, 16));
        let many: Vec<_> = (2..52)
            .map(|group| register_test_document(&images, "a", group))
            .collect();
        assert_eq!((capacity(&one), capacity(&other)), (1, 16));
        drop(many);
        assert_eq!(capacity(&one), 16);
        drop((one, other));
        assert!(images.documents.lock().is_empty());
    }
}

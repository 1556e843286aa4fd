//! How many page images each document may have in memory for OCR: in the rasterizer, drawn ahead, or being read.
//!
//! A tenant has as many as OCR reads at once and as many again, or as many as the rasterizer draws at once if that is more, so
//! that OCR never waits for a page and no page is drawn long before its turn. Its documents share them, and each may have one
//! in any case. Whose page is read next is decided at OCR's own queue, and how much memory each tenant has by the
//! rasterizer; here pages of different documents do not wait for each other.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::TenantId;

use crate::gate::{Gate, Pass};
use crate::line::Party;

/// The page images for OCR of the whole host.
pub(crate) struct OcrImages {
    /// Of one tenant.
    most: u32,
    documents: Mutex<HashMap<u64, Document>>,
}

/// A document with pages that OCR reads.
struct Document {
    tenant: TenantId,
    permits: Gate,
}

/// The page images for OCR of one document, until it is dropped.
pub(crate) struct DocumentImages {
    all: Arc<OcrImages>,
    party: Arc<Party>,
    permits: Gate,
}

impl OcrImages {
    /// For so many pages that OCR reads and the rasterizer draws at once.
    pub(crate) fn new(reading: u32, drawing: u32) -> Arc<Self> {
        Arc::new(Self {
            most: reading.saturating_add(reading.max(drawing)),
            documents: Mutex::default(),
        })
    }

    /// Takes a document in; the shares of its tenant's others shrink, and images that exceed them stay.
    pub(crate) fn document(self: &Arc<Self>, party: &Arc<Party>) -> DocumentImages {
        let permits = Gate::new(1);
        let document = Document {
            tenant: party.account.tenant.clone(),
            permits: permits.clone(),
        };
        let mut documents = self.documents.lock();
        documents.insert(party.room, document);
        self.share(&documents);
        DocumentImages {
            all: Arc::clone(self),
            party: Arc::clone(party),
            permits,
        }
    }

    fn share(&self, documents: &HashMap<u64, Document>) {
        let mut counts: HashMap<&TenantId, u32> = HashMap::new();
        for document in documents.values() {
            *counts.entry(&document.tenant).or_default() += 1;
        }
        for Document { tenant, permits } in documents.values() {
            let count = counts.get(tenant).copied().unwrap_or(1);
            permits.set_capacity(self.most.div_ceil(count.max(1)) as usize);
        }
    }
}

impl DocumentImages {
    /// Waits until another page image of the document may be in memory.
    pub(crate) async fn permit(&self) -> Pass {
        self.permits.enter(Arc::clone(&self.party)).await
    }
}

impl Drop for DocumentImages {
    fn drop(&mut self) {
        let mut documents = self.all.documents.lock();
        let gone = documents.remove(&self.party.room);
        self.all.share(&documents);
        drop(documents);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_core::Lane;
    use weir_core::ports::Account;

    use super::*;

    fn document(images: &Arc<OcrImages>, tenant: &str, room: u64) -> DocumentImages {
        let account = Account {
            tenant: tenant.parse().unwrap(),
            lane: Lane::Bulk,
            linger: Duration::ZERO,
            weight: 1.0,
        };
        images.document(&Arc::new(Party { account, room }))
    }

    #[test]
    fn documents_share_what_their_tenant_may_draw_ahead() {
        let images = OcrImages::new(8, 4);
        let (one, other) = (document(&images, "a", 0), document(&images, "b", 1));
        let capacity = |of: &DocumentImages| of.permits.capacity();
        assert_eq!((capacity(&one), capacity(&other)), (16, 16));
        let many: Vec<_> = (2..52).map(|room| document(&images, "a", room)).collect();
        assert_eq!((capacity(&one), capacity(&other)), (1, 16));
        drop(many);
        assert_eq!(capacity(&one), 16);
        drop((one, other));
        assert!(images.documents.lock().is_empty());
    }
}

//! Reserves the bytes of uploads (documents and components) until they are on the disk.
//!
//! Reserved bytes count against the tenant's quota of stored bytes and against the free space of the disk. The reservation lasts
//! from when the bytes are announced or arrive until they are stored or removed. So concurrent uploads together stay within the
//! limits that each of them has to meet alone.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::settings::Settings;
use weir_core::tenancy::Tenant;
use weir_core::uploads::UploadStore;
use weir_core::{StorageError, TenantId};

use crate::quota_limiter::{QuotaCheckError, QuotaLimiter};

/// Why the bytes of an upload cannot be reserved.
#[derive(Debug, thiserror::Error)]
pub enum UploadReservationError {
    /// The tenant's quota of stored bytes is exceeded.
    #[error(transparent)]
    Quota(#[from] QuotaCheckError),
    /// The disk has too little free space.
    #[error(
        "no space left for {upload} bytes of an upload: {free} bytes are free, of which {reserved} are reserved for other uploads and \
         {must_stay_free} must stay free"
    )]
    DiskFull {
        /// The additional bytes of this upload.
        upload: u64,
        /// The free bytes of the disk.
        free: u64,
        /// The bytes that are reserved for other uploads and not written yet.
        reserved: u64,
        /// The bytes that must stay free.
        must_stay_free: u64,
    },
    /// The upload cannot be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The reserved bytes of the uploads of all tenants.
pub struct UploadReservations {
    /// Bytes of the disk that must stay free.
    min_free_disk_bytes: u64,
    /// Held while a reservation is checked, so that the check sees all reservations that were made before.
    check_lock: tokio::sync::Mutex<()>,
    reserved_bytes: Mutex<ReservedBytes>,
    upload_store: Arc<dyn UploadStore>,
    quota_limiter: Arc<QuotaLimiter>,
}

#[derive(Default)]
struct ReservedBytes {
    bytes_by_tenant: HashMap<TenantId, u64>,
    /// Bytes that are reserved and not written yet.
    unwritten_bytes: u64,
}

impl UploadReservations {
    /// Creates an instance without reservations.
    pub(crate) fn new(
        settings: &Settings,
        upload_store: Arc<dyn UploadStore>,
        quota_limiter: Arc<QuotaLimiter>,
    ) -> Arc<Self> {
        Arc::new(Self {
            min_free_disk_bytes: settings.server_min_free_disk_bytes,
            check_lock: tokio::sync::Mutex::default(),
            reserved_bytes: Mutex::default(),
            upload_store,
            quota_limiter,
        })
    }

    /// Creates a reservation of 0 bytes for an upload of a tenant.
    pub fn create_empty_reservation(self: &Arc<Self>, tenant: Tenant) -> UploadReservation {
        UploadReservation {
            reservations: Arc::clone(self),
            tenant,
            reserved_bytes: 0,
            written_bytes: 0,
        }
    }

    /// Returns the reserved bytes of a tenant.
    #[cfg(any(test, feature = "testing"))]
    pub fn reserved_bytes_of_tenant(&self, tenant: &TenantId) -> u64 {
        self.reserved_bytes
            .lock()
            .bytes_by_tenant
            .get(tenant)
            .copied()
            .unwrap_or(0)
    }
}

/// The reserved bytes of one upload. Dropping it releases them.
pub struct UploadReservation {
    reservations: Arc<UploadReservations>,
    tenant: Tenant,
    reserved_bytes: u64,
    written_bytes: u64,
}

impl UploadReservation {
    /// Returns the number of reserved bytes.
    pub const fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Grows the reservation to `bytes` in total. Fails if they exceed the tenant's quota or the free space of the disk.
    pub async fn grow_reservation(&mut self, bytes: u64) -> Result<(), UploadReservationError> {
        let additional_bytes = bytes.saturating_sub(self.reserved_bytes);
        let uploads = &self.reservations;
        let _check_guard = uploads.check_lock.lock().await;
        let (tenant_bytes, unwritten) = {
            let state = uploads.reserved_bytes.lock();
            let own = state.bytes_by_tenant.get(&self.tenant.id).copied().unwrap_or(0);
            (own, state.unwritten_bytes)
        };
        let other_uploads_bytes = tenant_bytes.saturating_sub(self.reserved_bytes);
        let total = bytes.max(self.reserved_bytes);
        uploads
            .quota_limiter
            .check_stored_bytes(&self.tenant, total, other_uploads_bytes)
            .await?;
        if additional_bytes > 0
            && let Some(free) = uploads.upload_store.available_disk_bytes()
            && free
                < unwritten
                    .saturating_add(additional_bytes)
                    .saturating_add(uploads.min_free_disk_bytes)
        {
            return Err(UploadReservationError::DiskFull {
                upload: additional_bytes,
                free,
                reserved: unwritten,
                must_stay_free: uploads.min_free_disk_bytes,
            });
        }
        let mut state = uploads.reserved_bytes.lock();
        *state.bytes_by_tenant.entry(self.tenant.id.clone()).or_default() += additional_bytes;
        state.unwritten_bytes += additional_bytes;
        self.reserved_bytes += additional_bytes;
        Ok(())
    }

    /// Records that `bytes` of the reserved bytes are written. From then on the free space of the disk reflects them.
    pub fn mark_bytes_written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.reserved_bytes - self.written_bytes);
        self.written_bytes += bytes;
        self.reservations.reserved_bytes.lock().unwritten_bytes -= bytes;
    }
}

impl Drop for UploadReservation {
    fn drop(&mut self) {
        let mut state = self.reservations.reserved_bytes.lock();
        state.unwritten_bytes -= self.reserved_bytes - self.written_bytes;
        if let Some(tenant_bytes) = state.bytes_by_tenant.get_mut(&self.tenant.id) {
            *tenant_bytes -= self.reserved_bytes;
            if *tenant_bytes == 0 {
                state.bytes_by_tenant.remove(&self.tenant.id);
            }
        }
    }
}

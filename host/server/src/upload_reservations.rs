//! Reserves the bytes of uploads (documents and components) until they are on the disk.
//!
//! Reserved bytes count against the tenant's quota of stored bytes and against the free space of the disk. The reservation lasts
//! from when the bytes are announced or arrive until they are stored or removed. So concurrent uploads together stay within the
//! limits that each of them has to meet alone.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::TenantId;
use weir_core::settings::Settings;
use weir_core::tenancy::Tenant;

use crate::app::AppState;
use crate::problem::Problem;

/// The reserved bytes of the uploads of all tenants.
pub(crate) struct UploadReservations {
    /// Bytes of the disk that must stay free.
    min_free_disk_bytes: u64,
    /// Held while a reservation is checked, so that the check sees all reservations that were made before.
    check_lock: tokio::sync::Mutex<()>,
    reserved_bytes: Mutex<ReservedBytes>,
}

#[derive(Default)]
struct ReservedBytes {
    bytes_by_tenant: HashMap<TenantId, u64>,
    /// Bytes that are reserved and not written yet.
    unwritten_bytes: u64,
}

impl UploadReservations {
    /// Creates an instance without reservations.
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            min_free_disk_bytes: settings.server_min_free_disk_bytes,
            check_lock: tokio::sync::Mutex::default(),
            reserved_bytes: Mutex::default(),
        })
    }

    /// Returns the reserved bytes of a tenant.
    #[cfg(test)]
    pub(crate) fn tenant_bytes(&self, tenant: &TenantId) -> u64 {
        self.reserved_bytes
            .lock()
            .bytes_by_tenant
            .get(tenant)
            .copied()
            .unwrap_or(0)
    }
}

/// The reserved bytes of one upload. Dropping it releases them.
pub(crate) struct UploadReservation {
    app: Arc<AppState>,
    tenant: Tenant,
    reserved_bytes: u64,
    written_bytes: u64,
}

impl UploadReservation {
    /// Creates a reservation of 0 bytes.
    pub(crate) const fn new(app: Arc<AppState>, tenant: Tenant) -> Self {
        Self {
            app,
            tenant,
            reserved_bytes: 0,
            written_bytes: 0,
        }
    }

    /// Returns the number of reserved bytes.
    pub(crate) const fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Grows the reservation to `bytes` in total. Returns a problem if they exceed the tenant's quota or the free space of the disk.
    pub(crate) async fn grow_to(&mut self, bytes: u64) -> Result<(), Problem> {
        let more = bytes.saturating_sub(self.reserved_bytes);
        let uploads = &self.app.upload_reservations;
        let _alone = uploads.check_lock.lock().await;
        let (others, unwritten) = {
            let state = uploads.reserved_bytes.lock();
            let own = state.bytes_by_tenant.get(&self.tenant.id).copied().unwrap_or(0);
            (own, state.unwritten_bytes)
        };
        let others = others.saturating_sub(self.reserved_bytes);
        let total = bytes.max(self.reserved_bytes);
        self.app
            .quota_limiter
            .check_stored_bytes(&self.app, &self.tenant, total, others)
            .await?;
        if more > 0
            && let Some(free) = self.app.upload_store.free_disk_bytes()
            && free
                < unwritten
                    .saturating_add(more)
                    .saturating_add(uploads.min_free_disk_bytes)
        {
            return Err(Problem::storage_full(format!(
                "no space left for {more} bytes of an upload: {free} bytes are free, of which {unwritten} are reserved for other \
                 uploads and {} must stay free",
                uploads.min_free_disk_bytes
            )));
        }
        let mut state = uploads.reserved_bytes.lock();
        *state.bytes_by_tenant.entry(self.tenant.id.clone()).or_default() += more;
        state.unwritten_bytes += more;
        self.reserved_bytes += more;
        Ok(())
    }

    /// Records that `bytes` of the reserved bytes are written. From then on the free space of the disk reflects them.
    pub(crate) fn mark_written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.reserved_bytes - self.written_bytes);
        self.written_bytes += bytes;
        self.app.upload_reservations.reserved_bytes.lock().unwritten_bytes -= bytes;
    }
}

impl Drop for UploadReservation {
    fn drop(&mut self) {
        let mut state = self.app.upload_reservations.reserved_bytes.lock();
        state.unwritten_bytes -= self.reserved_bytes - self.written_bytes;
        if let Some(own) = state.bytes_by_tenant.get_mut(&self.tenant.id) {
            *own -= self.reserved_bytes;
            if *own == 0 {
                state.bytes_by_tenant.remove(&self.tenant.id);
            }
        }
    }
}

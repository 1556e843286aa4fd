//! Bytes of uploads, of documents and of components, that are on their way to the disk.
//!
//! They count against the tenant's quota of stored bytes and against the free space of the disk from when they are announced, or come,
//! until they are stored or removed. So uploads at one time together keep to the limits that each of them keeps to.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::TenantId;
use weir_core::settings::Settings;
use weir_core::tenancy::Tenant;

use crate::app::App;
use crate::problem::Problem;

/// The uploads of all tenants.
pub(crate) struct UploadsInFlight {
    /// Bytes of the disk that no upload may take.
    min_free: u64,
    /// Held while an upload is checked, so that it sees those that were admitted before.
    check: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tenants: HashMap<TenantId, u64>,
    /// Bytes that are reserved and not yet written.
    unwritten: u64,
}

impl UploadsInFlight {
    /// Without any.
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            min_free: settings.server_min_free_disk_bytes,
            check: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        })
    }

    /// Bytes of a tenant's uploads.
    #[cfg(test)]
    pub(crate) fn of(&self, tenant: &TenantId) -> u64 {
        self.state.lock().tenants.get(tenant).copied().unwrap_or(0)
    }
}

/// The bytes of one upload. They count until this is dropped.
pub(crate) struct Reservation {
    app: Arc<App>,
    tenant: Tenant,
    reserved: u64,
    written: u64,
}

impl Reservation {
    /// Of no bytes.
    pub(crate) const fn new(app: Arc<App>, tenant: Tenant) -> Self {
        Self {
            app,
            tenant,
            reserved: 0,
            written: 0,
        }
    }

    /// Bytes that are reserved.
    pub(crate) const fn bytes(&self) -> u64 {
        self.reserved
    }

    /// Reserves bytes until there are `bytes` in all, and refuses that if the tenant or the disk has no room for them.
    pub(crate) async fn grow_to(&mut self, bytes: u64) -> Result<(), Problem> {
        let more = bytes.saturating_sub(self.reserved);
        let uploads = &self.app.uploads;
        let _alone = uploads.check.lock().await;
        let (others, unwritten) = {
            let state = uploads.state.lock();
            let own = state.tenants.get(&self.tenant.id).copied().unwrap_or(0);
            (own, state.unwritten)
        };
        let others = others.saturating_sub(self.reserved);
        let total = bytes.max(self.reserved);
        self.app
            .quotas
            .storage(&self.app, &self.tenant, total, others)
            .await?;
        if more > 0
            && let Some(free) = self.app.originals.free_bytes()
            && free < unwritten.saturating_add(more).saturating_add(uploads.min_free)
        {
            return Err(Problem::full(format!(
                "no space left for {more} bytes of an upload: {free} bytes are free, of which {unwritten} are for other uploads and \
                 {} must stay free",
                uploads.min_free
            )));
        }
        let mut state = uploads.state.lock();
        *state.tenants.entry(self.tenant.id.clone()).or_default() += more;
        state.unwritten += more;
        self.reserved += more;
        Ok(())
    }

    /// So many of the reserved bytes were written: the disk counts them from now on.
    pub(crate) fn count_written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.reserved - self.written);
        self.written += bytes;
        self.app.uploads.state.lock().unwritten -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.app.uploads.state.lock();
        state.unwritten -= self.reserved - self.written;
        if let Some(own) = state.tenants.get_mut(&self.tenant.id) {
            *own -= self.reserved;
            if *own == 0 {
                state.tenants.remove(&self.tenant.id);
            }
        }
    }
}

//! Functions with which tests inject faults into the fake store, set its contents and count its reads.

use weir_core::tenancy::Tenant;
use weir_core::{JobId, TenantId};

use super::FakeStore;

impl FakeStore {
    /// Returns how often events were read.
    pub fn event_reads(&self) -> usize {
        self.0.lock().event_reads
    }

    /// Returns how many events of jobs all reads together returned.
    pub fn read_events(&self) -> usize {
        self.0.lock().read_events
    }

    /// Changes a tenant's record.
    pub fn set_tenant(&self, id: &TenantId, change: impl FnOnce(&mut Tenant)) {
        change(self.0.lock().tenants.get_mut(id).unwrap());
    }

    /// Sets when a job ended, in milliseconds since 1970.
    pub fn set_job_end(&self, job: JobId, millis: u64) {
        self.0.lock().job_ends.insert(job, millis);
    }

    /// Sets whether reads of events and writes of usage fail.
    pub fn set_failing(&self, failing: bool) {
        self.0.lock().fail_reads = failing;
    }

    /// Ends all claims and duties, as the start of a process does that has the ledger for itself.
    pub(crate) fn release_all_claims(&self) {
        self.0.lock().release_all_claims();
    }

    /// Sets whether commits fail because storage is full.
    pub fn set_storage_full(&self, full: bool) {
        self.0.lock().storage_full = full;
    }

    /// Sets the stored bytes of a tenant.
    pub fn set_stored_bytes(&self, tenant: &TenantId, bytes: u64) {
        self.0.lock().stored_bytes.insert(tenant.clone(), bytes);
    }

    /// Changes the stored bytes of a tenant by the difference between `before` and `after`.
    pub(crate) fn change_stored_bytes(&self, tenant: &TenantId, before: u64, after: u64) {
        let mut tables = self.0.lock();
        let stored = tables.stored_bytes.entry(tenant.clone()).or_default();
        *stored = (*stored + after).saturating_sub(before);
    }
}

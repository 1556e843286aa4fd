//! Data of one job that all its component instances share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use weir_core::component_log::{ComponentFailureReport, ComponentLogRecord, ComponentLogRecordKind};
use weir_core::manifest::Manifest;
use weir_core::ports::{ComponentStateStore, HostCapabilities};
use weir_core::{JobId, TenantId};

/// Failed calls of a job that are reported. A component that fails on every page would only repeat itself. All failed calls
/// are counted.
const MAX_REPORTED_FAILURES: u32 = 100;

/// Data of one job that all its component instances share.
pub(crate) struct JobContext {
    pub(crate) tenant: TenantId,
    pub(crate) job: JobId,
    pub(crate) manifest: Manifest,
    pub(crate) capabilities: Arc<dyn HostCapabilities>,
    pub(crate) state: Arc<dyn ComponentStateStore>,
    /// Lines that the job has written to the component log.
    pub(crate) log_lines: AtomicU32,
    failed_calls: AtomicU32,
}

impl JobContext {
    pub(crate) fn new(
        tenant: TenantId,
        job: JobId,
        manifest: Manifest,
        capabilities: Arc<dyn HostCapabilities>,
        state: Arc<dyn ComponentStateStore>,
    ) -> Self {
        Self {
            tenant,
            job,
            manifest,
            capabilities,
            state,
            log_lines: AtomicU32::new(0),
            failed_calls: AtomicU32::new(0),
        }
    }

    /// Reports a failed call, unless the job has reported too many.
    pub(crate) fn report_failed_call(
        &self,
        component: &str,
        function: &'static str,
        report: impl FnOnce() -> ComponentFailureReport,
    ) {
        if self.failed_calls.fetch_add(1, Ordering::Relaxed) < MAX_REPORTED_FAILURES {
            self.capabilities.append_component_log(ComponentLogRecord {
                component: component.to_owned(),
                function: function.to_owned(),
                kind: ComponentLogRecordKind::Failure(Box::new(report())),
            });
        }
    }
}

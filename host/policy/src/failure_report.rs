//! Writes reports of failed policy calls to the tenant's component log.

use std::sync::atomic::Ordering;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use weir_core::component_log::{ComponentFailureReport, ComponentLogRecord, ComponentLogRecordKind};
use weir_core::event::ErrorInfo;

use crate::instance_data::JobContext;
use crate::recording::FunctionCall;
use crate::roles::GuestFunction;

/// Failed calls of a job that are reported. A component that fails on every page would only repeat itself. All failed calls
/// are counted.
const MAX_REPORTED_FAILURES: u32 = 100;

impl JobContext {
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

/// Returns the SHA-256 of a call's input in hexadecimal. The hash covers the recorded form, with a fixed error as the result, so
/// equal inputs have equal hashes.
pub(crate) fn hash_call_input<F: GuestFunction>(input: &F) -> Option<String> {
    let unanswered = ErrorInfo {
        kind: String::new(),
        message: String::new(),
    };
    let call = F::RECORD(FunctionCall {
        request: input.clone(),
        response: Err(unanswered),
    });
    let bytes = postcard::to_stdvec(&call).ok()?;
    Some(HEXLOWER.encode(&Sha256::digest(bytes)))
}

//! What a tenant is told of a call that failed, beside the lines its components wrote.

use std::sync::atomic::Ordering;

use sha2::{Digest as _, Sha256};
use weir_core::event::ErrorNote;
use weir_core::said::{FailureReport, Remark, RemarkKind};

use crate::guest::JobContext;
use crate::roles::Decision;

/// Failed calls of a job that are reported. A component that fails on every page says no more on the hundred and first, and
/// all of them are counted.
const REPORTS: u32 = 100;

impl JobContext {
    /// Reports a failed call, if not too many have been.
    pub(crate) fn report(
        &self,
        component: &str,
        function: &'static str,
        report: impl FnOnce() -> FailureReport,
    ) {
        if self.failures.fetch_add(1, Ordering::Relaxed) < REPORTS {
            self.capabilities.said(Remark {
                component: component.to_owned(),
                function: function.to_owned(),
                what: RemarkKind::Failure(Box::new(report())),
            });
        }
    }
}

/// A question as a number: that of its encoding in recordings, where no answer tells it from its like.
pub(crate) fn asked<D: Decision>(question: &D) -> Option<String> {
    let unanswered = ErrorNote {
        kind: String::new(),
        message: String::new(),
    };
    let exchange = question.clone().exchange(Err(unanswered));
    let bytes = postcard::to_stdvec(&exchange).ok()?;
    Some(hex(&Sha256::digest(bytes)))
}

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

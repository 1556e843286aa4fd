//! Tests of job submissions.

mod bytes_in_flight;
mod documents;
mod form;
mod idempotency;
mod limits;
mod overload;
mod removal;

use weir_core::TenantId;
use weir_core::job_request::{JobFilter, JobRequestStore as _};

use crate::fakes::TestHost;

/// The number of jobs of a tenant in the ledger.
async fn count_jobs(host: &TestHost, tenant: &TenantId) -> usize {
    let all = JobFilter {
        limit: usize::MAX,
        ..JobFilter::default()
    };
    host.store.list_jobs(tenant, &all).await.unwrap().len()
}

/// Asserts that a submission has left no file, no job and no queue reservation.
async fn assert_no_traces_left(host: &TestHost, tenant: &TenantId, what: &str) {
    assert_eq!(host.uploads.file_names(), Vec::<String>::new(), "{what}");
    assert_eq!(count_jobs(host, tenant).await, 0, "{what}");
    assert_eq!(
        host.control.admission.count_queued_and_running_jobs(tenant),
        (0, 0),
        "{what}"
    );
    assert!(
        host.control
            .admission
            .reserve_queue_place(tenant, Some(1))
            .is_ok(),
        "a queue reservation is left after {what}"
    );
}

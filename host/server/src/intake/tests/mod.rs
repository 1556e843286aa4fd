//! Submissions as clients send them.

mod documents;
mod form;
mod in_flight;
mod limits;
mod removal;
mod twice;

use weir_core::TenantId;
use weir_core::order::{JobFilter, Orders as _};

use crate::fakes::Host;

/// How many jobs of a tenant are written down.
async fn jobs(host: &Host, tenant: &TenantId) -> usize {
    let all = JobFilter {
        limit: usize::MAX,
        ..JobFilter::default()
    };
    host.memory.jobs(tenant, &all).await.unwrap().len()
}

/// That a submission has left nothing behind: no file, no job, no place in the queue.
async fn assert_nothing_of(host: &Host, tenant: &TenantId, what: &str) {
    assert_eq!(host.files.names(), Vec::<String>::new(), "{what}");
    assert_eq!(jobs(host, tenant).await, 0, "{what}");
    assert_eq!(host.app.admission.counts(tenant), (0, 0), "{what}");
    assert!(
        host.app.admission.reserve(tenant, Some(1)).is_ok(),
        "a place is still kept after {what}"
    );
}

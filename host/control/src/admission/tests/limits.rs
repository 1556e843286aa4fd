//! Tests of the limits on queued and running jobs.

use weir_core::PriorityLane;
use weir_core::settings::Settings;

use super::{AdmissionHarness, job_request_of_size, tenant_id};
use crate::admission::{AdmissionRefusal, CancelOutcome, UnfinishedJobStatus};
use crate::testing::wait_until;

#[test]
fn running_jobs_of_a_tenant_are_limited() {
    let mut bench = AdmissionHarness::with_job_slots(100);
    bench.terms_by_tenant.insert(tenant_id("a"), (1.0, Some(2)));
    bench.enqueue_many("a", 5);
    bench.enqueue_many("b", 3);
    let mut slots = bench.start_all_allowed();
    assert_eq!(
        bench.admission.count_queued_and_running_jobs(&tenant_id("a")),
        (3, 2)
    );
    assert_eq!(
        bench.admission.count_queued_and_running_jobs(&tenant_id("b")),
        (0, 3),
        "this tenant has no limit"
    );
    slots.retain(|slot| slot.job.tenant == tenant_id("a"));
    assert!(bench.start_next().is_none());
    slots.pop();
    let next = bench.start_next().unwrap();
    assert_eq!(next.job.tenant, tenant_id("a"));
    assert!(bench.start_next().is_none());
}

#[test]
fn last_quarter_of_slots_is_for_tenants_without_running_jobs() {
    let bench = AdmissionHarness::with_job_slots(8);
    bench.enqueue_many("flood", 20);
    let mut flood = bench.start_all_allowed();
    assert_eq!(flood.len(), 6);
    bench.enqueue_many("x", 2);
    let x = bench.start_all_allowed();
    assert_eq!(
        x.len(),
        1,
        "the second job of x has to wait like those of the flood"
    );
    bench.enqueue_many("y", 1);
    let y = bench.start_all_allowed();
    assert_eq!(y.len(), 1);
    bench.enqueue_many("z", 1);
    assert!(bench.start_next().is_none(), "all eight slots are taken");
    flood.pop();
    let z = bench.start_next().unwrap();
    assert_eq!(z.job.tenant, tenant_id("z"));
    assert!(bench.start_next().is_none());
    drop((x, y, z));
    let next = bench.start_all_allowed();
    assert_eq!(next.len(), 2, "the second job of x, and one more of the flood");
}

#[test]
fn submissions_in_progress_count_as_queued_jobs() {
    let bench = AdmissionHarness::with_settings(&Settings {
        server_max_queued_jobs: 4,
        ..Settings::default()
    });
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let reserve = |tenant, limit| bench.admission.reserve_queue_place(tenant, limit);
    let first = reserve(&a, Some(2)).unwrap();
    let second = reserve(&a, Some(2)).unwrap();
    assert_eq!(
        reserve(&a, Some(2)).err(),
        Some(AdmissionRefusal::TenantQueueFull)
    );
    // The first submission becomes a queued job, which still counts. The second is aborted, which frees its reservation.
    first.enqueue_reserved_job(&job_request_of_size("a", 1, None));
    assert_eq!(bench.admission.count_queued_and_running_jobs(&a), (1, 0));
    drop(second);
    let third = reserve(&a, Some(2)).unwrap();
    assert_eq!(
        reserve(&a, Some(2)).err(),
        Some(AdmissionRefusal::TenantQueueFull)
    );
    let others = [reserve(&b, None).unwrap(), reserve(&b, None).unwrap()];
    assert_eq!(reserve(&b, None).err(), Some(AdmissionRefusal::HostQueueFull));
    // A running job does not count as queued.
    let begun = bench.start_next().unwrap();
    assert!(reserve(&b, None).is_ok());
    drop((third, others, begun));
    assert_eq!(bench.admission.count_queued_and_running_jobs(&a), (0, 0));
}

#[test]
fn position_counts_only_jobs_of_the_same_tenant() {
    let bench = AdmissionHarness::with_job_slots(1);
    bench.enqueue_many("b", 10);
    let first = bench.enqueue("a", 1, PriorityLane::Bulk);
    let second = bench.enqueue("a", 1, PriorityLane::Bulk);
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let waits = |position| Some(UnfinishedJobStatus::Queued { position, held: None });
    assert_eq!(bench.admission.unfinished_job_status(&a, first), waits(1));
    assert_eq!(bench.admission.unfinished_job_status(&a, second), waits(2));
    assert_eq!(
        bench.admission.unfinished_job_status(&b, second),
        None,
        "it belongs to another tenant"
    );
    let slot = bench.start_next().unwrap();
    assert_eq!(
        slot.job.job_id, first,
        "of equal tenants, the first by name is next"
    );
    let running = |cancelling| match bench.admission.unfinished_job_status(&a, first) {
        Some(UnfinishedJobStatus::Running {
            cancelling: is_it, ..
        }) => is_it == cancelling,
        _ => false,
    };
    assert!(running(false));
    assert_eq!(bench.admission.unfinished_job_status(&b, first), None);
    assert_eq!(bench.admission.cancel_job(&b, first), CancelOutcome::NotFound);
    assert!(running(false));
    assert_eq!(
        bench.admission.cancel_job(&a, first),
        CancelOutcome::StopRequested
    );
    assert!(running(true) && slot.cancel.is_cancelled());
    drop(slot);
    assert_eq!(bench.admission.unfinished_job_status(&a, first), None);
    assert_eq!(bench.admission.unfinished_job_status(&a, second), waits(1));
}

#[tokio::test]
async fn removed_tenant_is_drained_and_gets_no_new_jobs() {
    let bench = AdmissionHarness::with_job_slots(2);
    let a = tenant_id("a");
    bench.enqueue_many("a", 3);
    bench.enqueue_many("b", 1);
    let slots = bench.start_all_allowed();
    let upload = bench.admission.reserve_queue_place(&a, None).unwrap();
    let admission = std::sync::Arc::clone(&bench.admission);
    let draining = tokio::spawn({
        let a = a.clone();
        async move { admission.drain_tenant(&a).await }
    });
    let cancelled = async || slots.iter().any(|slot| slot.cancel.is_cancelled());
    wait_until(bench.admission.subscribe_to_changes(), cancelled).await;
    assert_eq!(bench.admission.count_queued_and_running_jobs(&a), (0, 1));
    assert_eq!(
        bench.admission.reserve_queue_place(&a, None).err(),
        Some(AdmissionRefusal::TenantBeingRemoved)
    );
    let others: Vec<_> = slots.iter().filter(|slot| slot.job.tenant != a).collect();
    assert!(others.len() == 1 && !others[0].cancel.is_cancelled());

    drop(slots);
    tokio::task::yield_now().await;
    assert!(
        !draining.is_finished(),
        "a submission of the tenant is still in progress"
    );
    // The submission ends, and its job is not queued.
    upload.enqueue_reserved_job(&job_request_of_size("a", 1, None));
    let left = draining.await.unwrap();
    assert_eq!(bench.admission.count_queued_and_running_jobs(&a), (0, 0));
    drop(left);
    assert!(bench.admission.reserve_queue_place(&a, None).is_ok());
}

//! Tests of the order in which jobs start.

use std::time::Duration;

use weir_core::PriorityLane;
use weir_core::job_request::JobRequest;
use weir_core::settings::Settings;

use super::{AdmissionHarness, job_request_of_size, tenant_id};
use crate::testing::TestControl;

#[test]
fn triple_weight_gets_three_times_as_many_starts() {
    let mut bench = AdmissionHarness::with_job_slots(1);
    bench.terms_by_tenant.insert(tenant_id("heavy"), (3.0, None));
    bench.enqueue_many("heavy", 60);
    bench.enqueue_many("light", 60);
    let heavy = (0..40)
        .filter(|_| bench.start_next().unwrap().job.tenant == tenant_id("heavy"))
        .count();
    assert!((29..=31).contains(&heavy), "{heavy}");
}

#[test]
fn job_that_another_node_runs_costs_its_tenant_nothing() {
    let bench = AdmissionHarness::with_job_slots(1);
    bench.enqueue_many("a", 20);
    bench.enqueue_many("b", 20);
    let mut starts_of_a = 0;
    for _ in 0..20 {
        let mut slot = bench.start_next().unwrap();
        if slot.job.tenant == tenant_id("a") {
            starts_of_a += 1;
            slot.set_processed_pages(0.0);
        }
    }
    assert!(starts_of_a >= 18, "{starts_of_a}");
}

#[test]
fn flooding_tenant_gets_only_its_share() {
    let bench = AdmissionHarness::with_job_slots(1);
    bench.enqueue_many("flood", 500);
    drop(bench.start_next());
    bench.enqueue_many("late", 1);
    let next: Vec<_> = (0..2)
        .map(|_| bench.start_next().unwrap().job.tenant.clone())
        .collect();
    assert!(next.contains(&tenant_id("late")), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn interactive_jobs_start_first_and_bulk_jobs_do_not_starve() {
    let bench = AdmissionHarness::with_job_slots(1);
    // Ten pages, so a service time of eleven seconds.
    let bulk = bench.enqueue("a", 900_000, PriorityLane::Bulk);
    let mut before = 0;
    loop {
        bench.enqueue("a", 900_000, PriorityLane::Interactive);
        if bench.start_next().unwrap().job.job_id == bulk {
            break;
        }
        before += 1;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(
        (76..=79).contains(&before),
        "{before}: seven times its service time of eleven seconds"
    );
}

#[tokio::test(start_paused = true)]
async fn small_jobs_overtake_a_large_one_for_a_while() {
    let bench = AdmissionHarness::with_job_slots(1);
    let large = bench.enqueue("a", 10_000_000, PriorityLane::Bulk);
    let mut before = 0;
    loop {
        let small = bench.enqueue("a", 100_000, PriorityLane::Bulk);
        tokio::time::advance(Duration::from_secs(5)).await;
        let next = bench.start_next().unwrap().job.job_id;
        if next == large {
            break;
        }
        assert_eq!(next, small);
        before += 1;
    }
    assert!((30..=40).contains(&before), "{before}");
}

#[tokio::test]
async fn file_size_determines_lane_and_cost() {
    let host = TestControl::with_settings(Settings {
        server_max_interactive_upload_bytes: 1_000_000,
        ..Settings::default()
    });
    let waiting = |bytes, lane| {
        let waiting = host
            .control
            .admission
            .build_queued_job(&job_request_of_size("a", bytes, lane), Duration::ZERO);
        (waiting.lane, waiting.estimated_pages.round())
    };
    assert_eq!(waiting(1_000_000, None), (PriorityLane::Interactive, 11.0));
    assert_eq!(waiting(1_000_001, None), (PriorityLane::Bulk, 11.0));
    assert_eq!(waiting(1, Some(PriorityLane::Bulk)).0, PriorityLane::Bulk);
    // Only the requested pages of a long document count.
    let mut job_request = job_request_of_size("a", 50_000_000, None);
    job_request.options.pages = Some((100, 102));
    let cost = |job_request: &JobRequest| {
        host.control
            .admission
            .build_queued_job(job_request, Duration::ZERO)
            .estimated_pages
    };
    assert_eq!(cost(&job_request), 3.0);
    job_request.files.push(job_request.files[0].clone());
    assert_eq!(cost(&job_request), 6.0);
    job_request.files.clear();
    assert_eq!(cost(&job_request), 1.0);
}

//! Tests of the dispatcher with an engine: jobs start and end.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use weir_core::PriorityLane::{self, Bulk, Interactive};
use weir_core::job_request::JobRequestStore as _;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::usage::{Usage, UsageMeter as _};

use crate::admission::dispatcher::assign_revision_and_build_spec;
use crate::admission::{DispatcherAction, UnfinishedJobStatus, run_dispatcher};
use crate::jobs::{DocumentState, cancel_job, find_job_and_request};
use crate::testing::{TestControl, job_record, metric_value, wait_until};

fn single_job_settings() -> Settings {
    Settings {
        server_max_running_jobs: 1,
        ..Settings::default()
    }
}

#[tokio::test]
async fn job_shares_follow_the_tenants_weights() {
    let host = TestControl::with_settings(single_job_settings());
    let (heavy, _) = host.create_tenant("heavy", &[]).await;
    let (light, _) = host.create_tenant("light", &[]).await;
    host.change_tenant(&heavy, |tenant| tenant.weight = 3.0).await;
    let mut last = Vec::new();
    for n in 0..16 {
        for tenant in [&heavy, &light] {
            let job = host.enqueue_job(tenant, &format!("1 pages {n}")).await;
            if n == 15 {
                last.push((tenant, job));
            }
        }
    }
    let _dispatching = host.spawn_dispatcher();
    for (tenant, job) in last {
        host.wait_for_job_state(tenant, job, JobState::Done).await;
    }
    let opened = host.processing.opened_jobs();
    assert_eq!(opened.len(), 32);
    let first = opened.iter().take(20).filter(|job| job.tenant == heavy).count();
    assert!((14..=16).contains(&first), "{first} of the first 20");
}

/// Queues a job of `bytes` bytes and returns the lane and the permission of a boost that the engine gets for it.
async fn lane_and_boost_of_started_job(
    bytes: u64,
    requested: Option<PriorityLane>,
) -> (Option<PriorityLane>, bool) {
    let host = TestControl::new();
    let (tenant, _) = host.create_tenant("a", &[]).await;
    let mut job_request = host.commit_queued_job(&tenant, "1 pages", 1).await;
    job_request.files[0].bytes = bytes;
    job_request.lane = requested;
    let admission = &host.control.admission;
    let reservation = admission.reserve_queue_place(&tenant, None).unwrap();
    reservation.enqueue_reserved_job(&job_request);
    admission.set_tenant_terms(tenant.clone(), 1.0, None, None);
    let DispatcherAction::StartJob(slot) = admission.next_action() else {
        panic!("the job does not start");
    };
    let record = job_record(&tenant, job_request.job, JobState::Queued);
    let built = assign_revision_and_build_spec(&host.control, &slot, &record, &job_request).await;
    let (spec, _) = built.ok().unwrap();
    (spec.lane, spec.allow_latency_boost)
}

#[tokio::test]
async fn only_a_requested_lane_overrides_the_routing_component() {
    for (bytes, requested, expected) in [
        (1, None, (None, true)),
        (1 << 40, None, (None, false)),
        (1 << 40, Some(Interactive), (Some(Interactive), true)),
        (1, Some(Bulk), (Some(Bulk), false)),
    ] {
        let lane_and_boost = lane_and_boost_of_started_job(bytes, requested).await;
        assert_eq!(lane_and_boost, expected, "{bytes} bytes, {requested:?}");
    }
}

#[tokio::test]
async fn concurrent_jobs_quota_limits_running_jobs() {
    let host = TestControl::new();
    let (a, _) = host.create_tenant("a", &[]).await;
    host.set_quota(&a, "concurrent_jobs", 2).await;
    host.processing.hold_pages();
    let mut jobs = Vec::new();
    for n in 0..4 {
        jobs.push(host.enqueue_job(&a, &format!("1 pages {n}")).await);
    }
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, jobs[0], JobState::Running).await;
    host.wait_for_job_state(&a, jobs[1], JobState::Running).await;
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&a), (2, 2));
    host.processing.release_pages(1);
    host.wait_for_job_counts(&a, 1, 2).await;
    host.processing.release_pages(3);
    for job in jobs {
        host.wait_for_job_state(&a, job, JobState::Done).await;
    }
    host.wait_for_job_counts(&a, 0, 0).await;
}

#[tokio::test]
async fn component_memory_is_limited_by_the_tenants_quota() {
    let host = TestControl::with_settings(Settings {
        policy_default_instance_memory_bytes: 256 << 20,
        ..Settings::default()
    });
    for (name, quota, expected) in [
        ("small", Some(64 << 20), Some(64 << 20)),
        ("large", Some(512 << 20), None),
        ("usual", None, None),
    ] {
        let (tenant, _) = host.create_tenant(name, &[]).await;
        if let Some(quota) = quota {
            host.set_quota(&tenant, "guest_memory_bytes", quota).await;
        }
        let job = host.enqueue_job(&tenant, "1 pages").await;
        let _dispatching = host.spawn_dispatcher();
        host.wait_for_job_state(&tenant, job, JobState::Done).await;
        let opened = host.processing.opened_jobs();
        let opened = opened.last().unwrap();
        assert_eq!(
            (opened.job, opened.memory_bytes),
            (job, expected),
            "tenant {name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_are_held_while_a_daily_quota_is_exhausted() {
    let host = TestControl::with_settings(single_job_settings());
    let (a, _) = host.create_tenant("a", &[]).await;
    let (b, _) = host.create_tenant("b", &[]).await;
    host.set_quota(&a, "pages_per_day", 10).await;
    let used = Usage {
        pages: 10,
        ..Usage::default()
    };
    host.control.usage_recorder.record_usage(&a, &used);
    let held = host.enqueue_job(&a, "1 pages a").await;
    let other = host.enqueue_job(&b, "1 pages b").await;
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&b, other, JobState::Done).await;
    assert_eq!(
        host.control.admission.unfinished_job_status(&a, held),
        Some(UnfinishedJobStatus::Queued {
            position: 1,
            held: Some("pages_per_day")
        })
    );
    // No notification tells that the quota has grown: the terms are read again.
    host.set_quota(&a, "pages_per_day", 20).await;
    host.wait_for_job_state(&a, held, JobState::Done).await;
}

#[tokio::test(start_paused = true)]
async fn job_is_queued_again_while_the_ledger_fails() {
    let host = TestControl::new();
    let (a, _) = host.create_tenant("a", &[]).await;
    host.store.set_failing(true);
    let job = host.enqueue_job(&a, "1 pages").await;
    let _dispatching = host.spawn_dispatcher();
    let held = Some(UnfinishedJobStatus::Queued {
        position: 1,
        held: Some("storage"),
    });
    let is_held = async || host.control.admission.unfinished_job_status(&a, job) == held;
    wait_until(host.control.admission.subscribe_to_changes(), is_held).await;
    assert!(host.processing.opened_jobs().is_empty() && host.store.event_reads() > 0);
    host.store.set_failing(false);
    host.wait_for_job_state(&a, job, JobState::Done).await;
}

#[tokio::test]
async fn job_without_pipeline_fails_with_a_reason() {
    let host = TestControl::new();
    let (a, _) = host.create_tenant("a", &[]).await;
    let job_request = host.commit_queued_job(&a, "1 pages", 1).await;
    let mut record = job_record(&a, job_request.job, JobState::Queued);
    record.pipeline = "gone".into();
    host.store
        .commit_entries(vec![LedgerEntry::Job(record)])
        .await
        .unwrap();
    host.control
        .admission
        .reserve_queue_place(&a, None)
        .unwrap()
        .enqueue_reserved_job(&job_request);
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, job_request.job, JobState::Failed)
        .await;
    let progress =
        host.control
            .progress_cache
            .load_progress(host.control.ledger.as_ref(), &a, &job_request.job);
    let document = &progress.await.unwrap().documents[0];
    assert_eq!(
        (document.state, document.error.as_ref().unwrap().kind.as_str()),
        (DocumentState::Failed, "no-pipeline")
    );
    host.wait_for_job_counts(&a, 0, 0).await;
}

#[tokio::test]
async fn passwords_are_deleted_when_the_job_ends() {
    let host = TestControl::new();
    let (a, _) = host.create_tenant("a", &[]).await;
    let mut job_request = host.commit_queued_job(&a, "1 pages a", 1).await;
    job_request.job = weir_core::JobId::new();
    job_request.files[0].password = Some("open sesame".into());
    let record = job_record(&a, job_request.job, JobState::Queued);
    host.store
        .create_job_with_request(&record, &job_request, None)
        .await
        .unwrap();
    host.control
        .admission
        .reserve_queue_place(&a, None)
        .unwrap()
        .enqueue_reserved_job(&job_request);
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, job_request.job, JobState::Done).await;
    host.wait_for_job_counts(&a, 0, 0).await;
    let stored_request = host
        .store
        .find_job_request(&a, &job_request.job)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored_request.files[0].password, None);
}

#[tokio::test]
async fn dispatching_ends_when_the_host_stops_and_starts_nothing_more() {
    let host = TestControl::with_settings(single_job_settings());
    let (a, _) = host.create_tenant("a", &[]).await;
    let first = host.enqueue_job(&a, "1 pages a").await;
    let second = host.enqueue_job(&a, "1 pages b").await;
    host.processing.hold_pages();
    let stop = host.control.stop_signal.clone();
    let dispatching = tokio::spawn(run_dispatcher(host.control.clone(), stop.clone()));
    host.wait_for_job_state(&a, first, JobState::Running).await;
    stop.cancel();
    host.processing.release_pages(1);
    dispatching.await.unwrap();
    let state = async |job| host.store.find_job(&a, &job).await.unwrap().unwrap().state;
    assert_eq!(
        (state(first).await, state(second).await),
        (JobState::Done, JobState::Queued)
    );
}

#[tokio::test]
async fn job_ends_are_counted_by_state() {
    let host = TestControl::new();
    let (a, _) = host.create_tenant("a", &[]).await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let cancelled = host.enqueue_job(&a, "1 pages").await;
    let (record, job_request) = find_job_and_request(&host.control, &a, &cancelled)
        .await
        .unwrap()
        .unwrap();
    cancel_job(&host.control, record, job_request).await.unwrap();
    for content in ["2 pages", "3 pages", "none"] {
        host.enqueue_job(&a, content).await;
    }
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_counts(&a, 0, 0).await;
    let counts = ["done", "failed", "cancelled"].map(|state| {
        let series = format!(r#"weir_jobs_ended_total{{state="{state}"}}"#);
        metric_value(&recorder, &series)
    });
    assert_eq!(counts, [2.0, 1.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn full_storage_fails_one_job_and_holds_the_others() {
    let host = TestControl::with_settings(single_job_settings());
    let (a, _) = host.create_tenant("a", &[]).await;
    let (b, _) = host.create_tenant("b", &[]).await;
    host.processing.hold_pages();
    let first = host.enqueue_job(&a, "2 pages").await;
    let others = [
        (&a, host.enqueue_job(&a, "1 pages a").await),
        (&b, host.enqueue_job(&b, "1 pages b").await),
    ];
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, first, JobState::Running).await;
    host.store.set_storage_full(true);
    host.processing.release_pages(10);
    host.wait_for_job_counts(&a, 1, 0).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    for (tenant, job) in others {
        assert_eq!(
            host.control.admission.count_queued_and_running_jobs(tenant),
            (1, 0),
            "no job may start"
        );
        let status = host.control.admission.unfinished_job_status(tenant, job);
        let held = Some("storage");
        assert_eq!(status, Some(UnfinishedJobStatus::Queued { position: 1, held }));
    }
    assert_eq!(host.processing.opened_jobs().len(), 1);

    host.store.set_storage_full(false);
    for (tenant, job) in others {
        host.wait_for_job_state(tenant, job, JobState::Done).await;
    }
    host.wait_for_job_state(&a, first, JobState::Failed).await;
}

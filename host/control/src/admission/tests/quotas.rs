//! Tests of daily quotas that are exhausted while jobs run.

use weir_core::clock::unix_time_millis;
use weir_core::ledger::JobState;
use weir_core::usage::day_from_millis;

use crate::admission::UnfinishedJobStatus;
use crate::testing::{TestControl, wait_until};

async fn pages_used_today(host: &TestControl, tenant: &weir_core::TenantId) -> u64 {
    let (usage_store, day) = (
        host.control.usage_store.as_ref(),
        day_from_millis(unix_time_millis()),
    );
    let used = host
        .control
        .usage_recorder
        .usage_on_day(usage_store, tenant, day)
        .await;
    used.unwrap().pages
}

const HELD_BY_PAGES_PER_DAY: Option<UnfinishedJobStatus> = Some(UnfinishedJobStatus::Queued {
    position: 1,
    held: Some("pages_per_day"),
});

#[tokio::test(start_paused = true)]
async fn running_job_is_held_when_the_daily_pages_are_exhausted() {
    let host = TestControl::new();
    let (a, _) = host.create_tenant("a", &[]).await;
    let (b, _) = host.create_tenant("b", &[]).await;
    host.set_quota(&a, "pages_per_day", 1).await;
    let job = host.enqueue_job(&a, "112 pages a").await;
    let other = host.enqueue_job(&b, "20 pages b").await;
    let _dispatching = host.spawn_dispatcher();
    let is_held = async || host.control.admission.unfinished_job_status(&a, job) == HELD_BY_PAGES_PER_DAY;
    wait_until(host.control.admission.subscribe_to_changes(), is_held).await;
    assert_eq!(pages_used_today(&host, &a).await, 1);
    host.wait_for_job_state(&b, other, JobState::Done).await;
    // It is held until the quota allows more, and then processes the missing pages.
    host.set_quota(&a, "pages_per_day", 112).await;
    host.wait_for_job_state(&a, job, JobState::Done).await;
    assert_eq!(pages_used_today(&host, &a).await, 112);
}

#[tokio::test(start_paused = true)]
async fn concurrent_jobs_together_stay_within_the_quota() {
    let host = TestControl::new();
    let (a, _) = host.create_tenant("a", &[]).await;
    host.set_quota(&a, "pages_per_day", 50).await;
    let mut jobs = Vec::new();
    for n in 0..4 {
        jobs.push(host.enqueue_job(&a, &format!("30 pages {n}")).await);
    }
    let _dispatching = host.spawn_dispatcher();
    let none_in_work = async || {
        host.control.admission.count_queued_and_running_jobs(&a).1 == 0
            && pages_used_today(&host, &a).await == 50
    };
    wait_until(host.control.admission.subscribe_to_changes(), none_in_work).await;
    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        assert_eq!(pages_used_today(&host, &a).await, 50);
    }
    host.set_quota(&a, "pages_per_day", 120).await;
    for job in jobs {
        host.wait_for_job_state(&a, job, JobState::Done).await;
    }
    assert_eq!(pages_used_today(&host, &a).await, 120);
}

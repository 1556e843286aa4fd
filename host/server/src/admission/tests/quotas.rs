//! Quotas of the day that are used up while jobs are in work.

use weir_core::ledger::JobState;
use weir_core::usage::day_of;

use super::waits;
use crate::admission::Standing;
use crate::app::now_millis;
use crate::fakes::{Host, eventually};

async fn pages_used(host: &Host, tenant: &weir_core::TenantId) -> u64 {
    let (book, day) = (host.app.usage.as_ref(), day_of(now_millis()));
    let used = host.app.metering.standing(book, tenant, day).await;
    used.unwrap().pages
}

const HELD: Option<Standing> = Some(Standing::Waiting {
    position: 1,
    held: Some("pages_per_day"),
});

#[tokio::test(start_paused = true)]
async fn job_in_work_is_held_when_the_pages_of_the_day_are_used_up() {
    let host = Host::new();
    let (a, _) = host.tenant("a", &[]).await;
    let (b, _) = host.tenant("b", &[]).await;
    host.quota(&a, "pages_per_day", 1).await;
    let job = waits(&host, &a, "112 pages a").await;
    let other = waits(&host, &b, "20 pages b").await;
    let _dispatching = host.dispatching();
    let is_held = async || host.app.admission.standing(&a, job) == HELD;
    eventually(host.app.admission.moves(), is_held).await;
    assert_eq!(pages_used(&host, &a).await, 1);
    host.until(&b, other, JobState::Done).await;
    // It is held until the quota allows more, and then does what is missing.
    host.quota(&a, "pages_per_day", 112).await;
    host.until(&a, job, JobState::Done).await;
    assert_eq!(pages_used(&host, &a).await, 112);
}

#[tokio::test(start_paused = true)]
async fn jobs_at_one_time_stay_within_the_quota_together() {
    let host = Host::new();
    let (a, _) = host.tenant("a", &[]).await;
    host.quota(&a, "pages_per_day", 50).await;
    let mut jobs = Vec::new();
    for n in 0..4 {
        jobs.push(waits(&host, &a, &format!("30 pages {n}")).await);
    }
    let _dispatching = host.dispatching();
    let none_in_work = async || host.app.admission.counts(&a).1 == 0 && pages_used(&host, &a).await == 50;
    eventually(host.app.admission.moves(), none_in_work).await;
    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        assert_eq!(pages_used(&host, &a).await, 50);
    }
    host.quota(&a, "pages_per_day", 120).await;
    for job in jobs {
        host.until(&a, job, JobState::Done).await;
    }
    assert_eq!(pages_used(&host, &a).await, 120);
}

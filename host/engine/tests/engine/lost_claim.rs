//! Jobs whose claim is lost while they run.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weir_core::Stage;
use weir_core::job_claim::JobClaim;
use weir_core::ledger::JobState;
use weir_engine::JobSpec;

use crate::fakes::{FakeHost, single_tenant_job};

fn claimed_job(fakes: &FakeHost, name: &str, pages: u32) -> JobSpec {
    let spec = single_tenant_job([fakes.document_spec(name, pages)]);
    JobSpec {
        claim: Some(JobClaim {
            tenant: spec.tenant.clone(),
            job: spec.id,
            epoch: 1,
        }),
        ..spec
    }
}

#[tokio::test(start_paused = true)]
async fn job_without_claim_stops_and_writes_nothing_more() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 100);
    let engine = fakes.build_engine();
    let (lost, kept) = (
        claimed_job(&fakes, "a.pdf", 300),
        claimed_job(&fakes, "b.pdf", 60),
    );
    let (lost_id, kept_id) = (lost.id, kept.id);
    let handles = [engine.start_or_resume_job(lost), engine.start_or_resume_job(kept)];
    sleep(Duration::from_secs(3)).await;
    let before = fakes.ledger.job_events(lost_id);
    assert!(!before.is_empty());
    fakes.ledger.jobs_with_lost_claim.lock().insert(lost_id);
    let began = Instant::now();
    let outcome = handles[0].await_outcome().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(outcome.state, JobState::Running);
    assert_eq!(outcome.error.unwrap().kind, "claim-lost");

    // The other job of the same group commits is not affected.
    assert_eq!(handles[1].await_outcome().await.state, JobState::Done);
    assert_eq!(fakes.stages.live_images.in_flight(), 0);
    let last = fakes.ledger.job_events(kept_id).pop().unwrap();
    assert_eq!(last.kind.name(), "job-ended");
    assert_eq!(fakes.ledger.job_events(lost_id), before);
}

#[tokio::test(start_paused = true)]
async fn claim_that_is_lost_at_the_end_is_not_reported_as_done() {
    let fakes = FakeHost::new();
    let engine = fakes.build_engine();
    let spec = claimed_job(&fakes, "a.pdf", 2);
    let job = spec.id;
    fakes.ledger.jobs_with_lost_claim.lock().insert(job);
    let outcome = engine.start_or_resume_job(spec).await_outcome().await;
    assert_eq!(outcome.state, JobState::Running);
    assert_eq!(fakes.ledger.job_events(job), []);
}

#[tokio::test(start_paused = true)]
async fn job_stops_when_its_host_gives_up_the_claim() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 100);
    let engine = fakes.build_engine();
    let spec = claimed_job(&fakes, "a.pdf", 300);
    let handle = engine.start_or_resume_job(spec.clone());
    sleep(Duration::from_secs(3)).await;
    // The ledger does not respond, so the host cannot know whether the lease has ended.
    fakes.ledger.is_unavailable.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(3)).await;
    handle.stop_without_claim();
    fakes.ledger.is_unavailable.store(false, Ordering::SeqCst);
    assert_eq!(handle.await_outcome().await.state, JobState::Running);

    // The next claim goes on with the unfinished pages.
    let next = JobSpec {
        claim: Some(JobClaim {
            epoch: 2,
            ..spec.claim.clone().unwrap()
        }),
        ..spec
    };
    let outcome = engine.start_or_resume_job(next).await_outcome().await;
    assert_eq!(outcome.state, JobState::Done);
}

//! Tests of the recovery of jobs from the previous process.

use std::time::Duration;

use weir_core::event::EventKind;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;

use crate::admission::requeue_unfinished_jobs;
use crate::testing::{TestControl, job_record, wait_until};

#[tokio::test]
async fn unfinished_jobs_resume_oldest_first_with_their_ids() {
    let host = TestControl::with_settings(Settings {
        server_max_running_jobs: 1,
        ..Settings::default()
    });
    let (a, _) = host.create_tenant("a", &[]).await;
    let mut job_requests = Vec::new();
    for age in [3, 1, 2] {
        job_requests.push(host.commit_queued_job(&a, &format!("1 pages {age}"), age).await);
    }
    // One job has already ended.
    let ended = job_record(&a, weir_core::JobId::new(), JobState::Cancelled);
    host.store
        .commit_entries(vec![LedgerEntry::Job(ended)])
        .await
        .unwrap();
    requeue_unfinished_jobs(&host.control).await.unwrap();
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&a), (3, 0));
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, job_requests[0].job, JobState::Done)
        .await;
    let opened: Vec<_> = host
        .processing
        .opened_jobs()
        .iter()
        .map(|opened| opened.job)
        .collect();
    assert_eq!(
        opened,
        [job_requests[1].job, job_requests[2].job, job_requests[0].job]
    );
}

#[tokio::test]
async fn running_job_resumes_after_its_finished_pages() {
    let host = TestControl::new();
    let (a, _) = host.create_tenant("a", &[]).await;
    host.processing.hold_pages();
    let job = host.enqueue_job(&a, "3 pages").await;
    let mut dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, job, JobState::Running).await;
    host.processing.release_pages(1);
    let document = weir_core::DocumentId::from_content(b"3 pages");
    let pages = async || host.store.list_pages(&a, &document, None).await.unwrap().len();
    wait_until(host.control.ledger.subscribe_to_tenant_commits(&a), async || {
        pages().await == 1
    })
    .await;
    host.control.stop_signal.cancel();
    host.control
        .engine
        .suspend_jobs_and_shutdown(Duration::ZERO)
        .await
        .unwrap();
    dispatching.join_next().await.unwrap().unwrap();
    let record = host.store.find_job(&a, &job).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Running);

    let next = host.restart();
    requeue_unfinished_jobs(&next.control).await.unwrap();
    let _dispatching = next.spawn_dispatcher();
    next.wait_for_job_state(&a, job, JobState::Done).await;
    let now = next.store.find_job(&a, &job).await.unwrap().unwrap();
    assert_eq!(now.created_millis, record.created_millis);
    assert_eq!(pages().await, 3);
    let events = next.store.list_job_events(&a, &job, 0, 1000).await.unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let begun: Vec<_> = events
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::DocumentStarted { already_done, .. } => Some(already_done),
            _ => None,
        })
        .collect();
    assert_eq!(begun, [0, 1]);
    let done = |what: &EventKind| matches!(what, EventKind::PageDone { .. });
    assert_eq!(events.iter().filter(|event| done(&event.kind)).count(), 3);
}

#[tokio::test]
async fn unfinished_job_without_job_request_fails() {
    let host = TestControl::new();
    let (a, _) = host.create_tenant("a", &[]).await;
    let job = host.create_running_job(&a).await;
    host.commit_events(&a, job, 1, 3, false).await;
    requeue_unfinished_jobs(&host.control).await.unwrap();
    let record = host.store.find_job(&a, &job).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Failed);
    let events = host.store.list_job_events(&a, &job, 0, 10).await.unwrap();
    assert_eq!((events.len(), events[3].seq), (4, 4));
    assert!(events[3].since_job_created_millis >= events[2].since_job_created_millis);
    assert_eq!(
        events[3].kind,
        EventKind::JobEnded {
            state: JobState::Failed,
            stages: Vec::new(),
        }
    );
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&a), (0, 0));
}

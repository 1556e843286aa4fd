//! Tests of the cancellation of jobs.

use serde_json::{Value, json};
use weir_core::DocumentId;
use weir_core::event::EventKind;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;

use super::fetch_job_json;
use crate::fakes::{TestHost, parse_json as body, parse_problem, wait_until};

#[tokio::test]
async fn queued_job_has_ended_with_the_response() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let job = host.submit_accepted_file(&key, "1 pages 1").await;
    let other = host.submit_accepted_file(&key, "1 pages 2").await;
    let path = format!("/v1/jobs/{job}");
    let response = host.send_delete(&path, &key).await;
    assert_eq!(response.status(), 200);
    let ended = body(response).await;
    assert_eq!(
        (&ended["state"], &ended["position"]),
        (&json!("cancelled"), &Value::Null)
    );
    assert_eq!(ended["documents"][0]["state"], "cancelled");
    assert!(ended["ended_millis"].as_u64() >= ended["created_millis"].as_u64());
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&a), (1, 0));

    let events = host.store.list_job_events(&a, &job, 0, 10).await.unwrap();
    let name = "a.pdf".to_owned();
    let state = JobState::Cancelled;
    assert_eq!(
        events.iter().map(|event| event.kind.clone()).collect::<Vec<_>>(),
        [
            EventKind::DocumentCancelled { name, done: 0 },
            EventKind::JobEnded {
                state,
                stages: Vec::new()
            }
        ]
    );
    // A second cancellation changes nothing.
    let again = host.send_delete(&path, &key).await;
    assert_eq!(again.status(), 200);
    assert_eq!(body(again).await, ended);
    assert_eq!(host.store.list_job_events(&a, &job, 0, 10).await.unwrap(), events);

    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, other, JobState::Done).await;
    let opened: Vec<_> = host
        .processing
        .opened_jobs()
        .iter()
        .map(|opened| opened.job)
        .collect();
    assert_eq!(opened, [other]);
}

#[tokio::test]
async fn running_job_stops_and_keeps_finished_pages() {
    let host = TestHost::with_settings(Settings {
        engine_cancel_timeout_millis: 0,
        ..Settings::default()
    });
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let job = host.submit_accepted_file(&key, "5 pages").await;
    host.processing.hold_pages();
    host.processing.release_pages(2);
    let _dispatching = host.spawn_dispatcher();
    let done = async || fetch_job_json(&host, &key, job).await["documents"][0]["done"] == 2;
    wait_until(host.control.ledger.subscribe_to_tenant_commits(&a), done).await;
    let path = format!("/v1/jobs/{job}");
    let response = host.send_delete(&path, &key).await;
    assert_eq!(response.status(), 202);
    let job_view = body(response).await;
    assert_eq!(
        (&job_view["state"], &job_view["cancelling"]),
        (&json!("running"), &json!(true))
    );
    host.wait_for_job_state(&a, job, JobState::Cancelled).await;
    let ended = fetch_job_json(&host, &key, job).await;
    assert_eq!(
        (&ended["cancelling"], &ended["documents"][0]["done"]),
        (&json!(false), &json!(2))
    );
    assert_eq!(
        host.store
            .list_pages(&a, &DocumentId::from_content(b"5 pages"), None)
            .await
            .unwrap()
            .len(),
        2
    );
    host.wait_for_job_counts(&a, 0, 0).await;
    assert_eq!(host.send_delete(&path, &key).await.status(), 200);
}

#[tokio::test]
async fn ended_job_keeps_its_state() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let job = host.submit_accepted_file(&key, "1 pages").await;
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, job, JobState::Done).await;
    let response = host.send_delete(&format!("/v1/jobs/{job}"), &key).await;
    assert_eq!(response.status(), 200);
    assert_eq!(body(response).await["state"], "done");
}

#[tokio::test]
async fn job_stays_queued_if_its_end_cannot_be_committed() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let job = host.submit_accepted_file(&key, "1 pages").await;
    host.store.set_failing(true);
    let refused = parse_problem(host.send_delete(&format!("/v1/jobs/{job}"), &key).await).await;
    assert_eq!((refused.status, refused.kind.as_str()), (500, "internal"));
    host.store.set_failing(false);
    let waiting = fetch_job_json(&host, &key, job).await;
    assert_eq!(
        (&waiting["state"], &waiting["position"]),
        (&json!("queued"), &json!(1))
    );
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&a), (1, 0));
}

#[tokio::test]
async fn job_of_another_process_cannot_be_canceled_here() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let job = host.create_running_job(&a).await;
    let refused = parse_problem(host.send_delete(&format!("/v1/jobs/{job}"), &key).await).await;
    assert_eq!((refused.status, refused.kind.as_str()), (503, "stopping"));
    let record = host.store.find_job(&a, &job).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Running);
}

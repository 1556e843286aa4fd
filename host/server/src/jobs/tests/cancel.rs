//! Cancelling.

use serde_json::{Value, json};
use weir_core::DocumentId;
use weir_core::event::EventKind;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::tenancy::Scope;

use super::view;
use crate::fakes::{Host, eventually, json as body, refusal};

#[tokio::test]
async fn a_job_that_waits_has_ended_with_the_answer() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest, Scope::Read]).await;
    let job = host.submitted(&key, "1 pages 1").await;
    let other = host.submitted(&key, "1 pages 2").await;
    let path = format!("/v1/jobs/{job}");
    let answer = host.delete(&path, &key).await;
    assert_eq!(answer.status(), 200);
    let ended = body(answer).await;
    assert_eq!(
        (&ended["state"], &ended["position"]),
        (&json!("cancelled"), &Value::Null)
    );
    assert_eq!(ended["documents"][0]["state"], "cancelled");
    assert!(ended["ended_millis"].as_u64() >= ended["created_millis"].as_u64());
    assert_eq!(host.app.admission.counts(&a), (1, 0));

    let events = host.memory.events(&a, &job, 0, 10).await.unwrap();
    let name = "a.pdf".to_owned();
    let state = JobState::Cancelled;
    assert_eq!(
        events.iter().map(|event| event.what.clone()).collect::<Vec<_>>(),
        [
            EventKind::DocumentCancelled { name, done: 0 },
            EventKind::JobEnded {
                state,
                stages: Vec::new()
            }
        ]
    );
    // Once more changes nothing.
    let again = host.delete(&path, &key).await;
    assert_eq!(again.status(), 200);
    assert_eq!(body(again).await, ended);
    assert_eq!(host.memory.events(&a, &job, 0, 10).await.unwrap(), events);

    let _dispatching = host.dispatching();
    host.until(&a, other, JobState::Done).await;
    let opened: Vec<_> = host.works.opened().iter().map(|opened| opened.job).collect();
    assert_eq!(opened, [other]);
}

#[tokio::test]
async fn a_job_in_work_stops_and_what_is_done_stays() {
    let host = Host::with(Settings {
        engine_cancel_millis: 0,
        ..Settings::default()
    });
    let (a, key) = host.tenant("a", &[Scope::Ingest, Scope::Read]).await;
    let job = host.submitted(&key, "5 pages").await;
    host.works.hold();
    host.works.let_pages(2);
    let _dispatching = host.dispatching();
    let done = async || view(&host, &key, job).await["documents"][0]["done"] == 2;
    eventually(host.app.ledger.bell(&a), done).await;
    let path = format!("/v1/jobs/{job}");
    let answer = host.delete(&path, &key).await;
    assert_eq!(answer.status(), 202);
    let told = body(answer).await;
    assert_eq!(
        (&told["state"], &told["cancelling"]),
        (&json!("running"), &json!(true))
    );
    host.until(&a, job, JobState::Cancelled).await;
    let ended = view(&host, &key, job).await;
    assert_eq!(
        (&ended["cancelling"], &ended["documents"][0]["done"]),
        (&json!(false), &json!(2))
    );
    assert_eq!(
        host.memory
            .pages(&a, &DocumentId::of(b"5 pages"), None)
            .await
            .unwrap()
            .len(),
        2
    );
    host.until_counts(&a, 0, 0).await;
    assert_eq!(host.delete(&path, &key).await.status(), 200);
}

#[tokio::test]
async fn what_has_ended_stays_as_it_ended() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let job = host.submitted(&key, "1 pages").await;
    let _dispatching = host.dispatching();
    host.until(&a, job, JobState::Done).await;
    let answer = host.delete(&format!("/v1/jobs/{job}"), &key).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(body(answer).await["state"], "done");
}

#[tokio::test]
async fn what_could_not_be_written_down_has_not_happened() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest, Scope::Read]).await;
    let job = host.submitted(&key, "1 pages").await;
    host.memory.fail(true);
    let refused = refusal(host.delete(&format!("/v1/jobs/{job}"), &key).await).await;
    assert_eq!((refused.status, refused.kind.as_str()), (500, "internal"));
    host.memory.fail(false);
    let waiting = view(&host, &key, job).await;
    assert_eq!(
        (&waiting["state"], &waiting["position"]),
        (&json!("queued"), &json!(1))
    );
    assert_eq!(host.app.admission.counts(&a), (1, 0));
}

#[tokio::test]
async fn a_job_of_another_process_is_not_this_ones_to_end() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let job = host.job(&a).await;
    let refused = refusal(host.delete(&format!("/v1/jobs/{job}"), &key).await).await;
    assert_eq!((refused.status, refused.kind.as_str()), (503, "stopping"));
    let record = host.memory.job(&a, &job).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Running);
}

//! Trying again.

use axum::body::Body;
use axum::http::{Response, header};
use weir_core::DocumentId;
use weir_core::JobId;
use weir_core::ledger::{Entry, JobState};
use weir_core::order::Orders as _;
use weir_core::original::Originals as _;
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Scope;

use super::view;
use crate::fakes::{Host, form, job_of, job_record, refusal};

async fn retry(host: &Host, key: &str, job: JobId, word: Option<&str>) -> Response<Body> {
    let path = format!("/v1/jobs/{job}/retry");
    let mut request = Host::request("POST", &path, key, Body::empty());
    if let Some(word) = word {
        request
            .headers_mut()
            .insert("idempotency-key", word.parse().unwrap());
    }
    host.send(request).await
}

#[tokio::test]
async fn a_cancelled_job_is_put_in_again_as_it_was() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest, Scope::Read]).await;
    let options = r#"{"dpi":72,"lane":"bulk","pages":{"last":2},"passwords":{"b.pdf":"p"}}"#;
    let body = form(&[
        ("file", Some("b.pdf"), "3 pages"),
        ("file", Some("a.pdf"), "1 pages"),
        ("options", None, options),
    ]);
    let job = job_of(host.send(Host::submission(&key, body)).await).await;
    host.delete(&format!("/v1/jobs/{job}"), &key).await;
    let answer = retry(&host, &key, job, None).await;
    let location = answer.headers()[header::LOCATION].to_str().unwrap().to_owned();
    let again = job_of(answer).await;
    assert_ne!(again, job);
    assert_eq!(location, format!("/v1/jobs/{again}"));
    let past = host.memory.order(&a, &job).await.unwrap().unwrap();
    let order = host.memory.order(&a, &again).await.unwrap().unwrap();
    assert!(order.files == past.files && order.options == past.options && order.lane == past.lane);
    assert!(
        order.files.iter().all(|file| file.password.is_none()),
        "forgotten at the end"
    );
    let _dispatching = host.dispatching();
    host.until(&a, again, JobState::Done).await;
    assert_eq!(view(&host, &key, again).await["documents"][0]["done"], 2);
    assert_eq!(view(&host, &key, job).await["state"], "cancelled");
}

#[tokio::test]
async fn only_what_failed_or_was_cancelled_is_tried_again() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let job = host.submitted(&key, "1 pages").await;
    for (state, status) in [
        (JobState::Queued, 409),
        (JobState::Running, 409),
        (JobState::Done, 409),
        (JobState::Failed, 202),
        (JobState::Cancelled, 202),
    ] {
        let record = job_record(&a, job, state);
        host.memory.commit(vec![Entry::Job(record)]).await.unwrap();
        let answer = retry(&host, &key, job, None).await;
        assert_eq!(answer.status(), status, "{state:?}");
    }
    // One of `weir run` has no order.
    let run = host.job(&a).await;
    let record = job_record(&a, run, JobState::Failed);
    host.memory.commit(vec![Entry::Job(record)]).await.unwrap();
    let refused = refusal(retry(&host, &key, run, None).await).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    // And without its file there is nothing to be done.
    host.files.remove(&a, &DocumentId::of(b"1 pages")).await.unwrap();
    let refused = refusal(retry(&host, &key, job, None).await).await;
    assert_eq!(refused.status, 409);
    assert!(refused.detail.contains("send the file"), "{refused:?}");
}

#[tokio::test]
async fn a_retry_that_is_sent_again_is_the_same_job() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let mut jobs = Vec::new();
    for content in ["1 pages a", "1 pages b"] {
        let job = host.submitted(&key, content).await;
        host.delete(&format!("/v1/jobs/{job}"), &key).await;
        jobs.push(job);
    }
    let first = job_of(retry(&host, &key, jobs[0], Some("w")).await).await;
    let again = retry(&host, &key, jobs[0], Some("w")).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(job_of(again).await, first);
    assert_eq!(host.app.admission.counts(&a), (1, 0));
    // The queue is full of it, and its file may have gone meanwhile.
    host.quota(&a, "queued_jobs", 1).await;
    host.files
        .remove(&a, &DocumentId::of(b"1 pages a"))
        .await
        .unwrap();
    assert_eq!(job_of(retry(&host, &key, jobs[0], Some("w")).await).await, first);
    let refused = refusal(retry(&host, &key, jobs[1], Some("w")).await).await;
    assert_eq!(
        (refused.status, refused.kind.as_str()),
        (422, "idempotency-key-reused")
    );
    assert_eq!(
        refusal(retry(&host, &key, jobs[1], Some("a b")).await)
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn it_is_refused_where_a_submission_would_be() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let job = host.submitted(&key, "1 pages").await;
    host.delete(&format!("/v1/jobs/{job}"), &key).await;
    host.quota(&a, "queued_jobs", 1).await;
    host.submitted(&key, "2 pages").await;
    let refused = refusal(retry(&host, &key, job, None).await).await;
    assert_eq!(
        (refused.status, refused.quota.as_deref()),
        (429, Some("queued_jobs"))
    );
    host.app.stopping.cancel();
    let refused = refusal(retry(&host, &key, job, None).await).await;
    assert_eq!((refused.status, refused.kind.as_str()), (503, "stopping"));
}

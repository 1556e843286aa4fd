//! Tests of the retry of jobs.

use axum::body::Body;
use axum::http::{Response, header};
use weir_core::DocumentId;
use weir_core::JobId;
use weir_core::job_request::JobRequestStore as _;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;
use weir_core::uploads::UploadStore as _;

use super::fetch_job_json;
use crate::fakes::{TestHost, accepted_job_id, job_record, multipart_form, parse_problem};

async fn send_retry(host: &TestHost, key: &str, job: JobId, idempotency_key: Option<&str>) -> Response<Body> {
    let path = format!("/v1/jobs/{job}/retry");
    let mut request = TestHost::build_request("POST", &path, key, Body::empty());
    if let Some(idempotency_key) = idempotency_key {
        request
            .headers_mut()
            .insert("idempotency-key", idempotency_key.parse().unwrap());
    }
    host.send(request).await
}

#[tokio::test]
async fn retry_of_a_canceled_job_keeps_files_and_options() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let options = r#"{"dpi":72,"lane":"bulk","pages":{"last":2},"passwords":{"b.pdf":"p"}}"#;
    let body = multipart_form(&[
        ("file", Some("b.pdf"), "3 pages"),
        ("file", Some("a.pdf"), "1 pages"),
        ("options", None, options),
    ]);
    let job = accepted_job_id(host.send(TestHost::build_submission(&key, body)).await).await;
    host.send_delete(&format!("/v1/jobs/{job}"), &key).await;
    let response = send_retry(&host, &key, job, None).await;
    let location = response.headers()[header::LOCATION].to_str().unwrap().to_owned();
    let again = accepted_job_id(response).await;
    assert_ne!(again, job);
    assert_eq!(location, format!("/v1/jobs/{again}"));
    let original_request = host.store.find_job_request(&a, &job).await.unwrap().unwrap();
    let new_request = host.store.find_job_request(&a, &again).await.unwrap().unwrap();
    assert!(
        new_request.files == original_request.files
            && new_request.options == original_request.options
            && new_request.lane == original_request.lane
    );
    assert!(
        new_request.files.iter().all(|file| file.password.is_none()),
        "deleted at the end of the job"
    );
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, again, JobState::Done).await;
    assert_eq!(
        fetch_job_json(&host, &key, again).await["documents"][0]["done"],
        2
    );
    assert_eq!(fetch_job_json(&host, &key, job).await["state"], "cancelled");
}

#[tokio::test]
async fn only_failed_and_canceled_jobs_can_be_retried() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let job = host.submit_accepted_file(&key, "1 pages").await;
    for (state, status) in [
        (JobState::Queued, 409),
        (JobState::Running, 409),
        (JobState::Done, 409),
        (JobState::Failed, 202),
        (JobState::Cancelled, 202),
    ] {
        let record = job_record(&a, job, state);
        host.store
            .commit_entries(vec![LedgerEntry::Job(record)])
            .await
            .unwrap();
        let response = send_retry(&host, &key, job, None).await;
        assert_eq!(response.status(), status, "{state:?}");
    }
    // A job of `weir run` has no job request.
    let run = host.create_running_job(&a).await;
    let record = job_record(&a, run, JobState::Failed);
    host.store
        .commit_entries(vec![LedgerEntry::Job(record)])
        .await
        .unwrap();
    let refused = parse_problem(send_retry(&host, &key, run, None).await).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    // Without its file, the job cannot be retried.
    host.uploads
        .remove_upload(&a, &DocumentId::from_content(b"1 pages"))
        .await
        .unwrap();
    let refused = parse_problem(send_retry(&host, &key, job, None).await).await;
    assert_eq!(refused.status, 409);
    assert!(refused.detail.contains("send the file"), "{refused:?}");
}

#[tokio::test]
async fn retry_with_the_same_idempotency_key_is_one_job() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let mut jobs = Vec::new();
    for content in ["1 pages a", "1 pages b"] {
        let job = host.submit_accepted_file(&key, content).await;
        host.send_delete(&format!("/v1/jobs/{job}"), &key).await;
        jobs.push(job);
    }
    let first = accepted_job_id(send_retry(&host, &key, jobs[0], Some("w")).await).await;
    let again = send_retry(&host, &key, jobs[0], Some("w")).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(accepted_job_id(again).await, first);
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&a), (1, 0));
    // The queue is full, and the file of the job is removed.
    host.set_quota(&a, "queued_jobs", 1).await;
    host.uploads
        .remove_upload(&a, &DocumentId::from_content(b"1 pages a"))
        .await
        .unwrap();
    assert_eq!(
        accepted_job_id(send_retry(&host, &key, jobs[0], Some("w")).await).await,
        first
    );
    let refused = parse_problem(send_retry(&host, &key, jobs[1], Some("w")).await).await;
    assert_eq!(
        (refused.status, refused.kind.as_str()),
        (422, "idempotency-key-reused")
    );
    assert_eq!(
        parse_problem(send_retry(&host, &key, jobs[1], Some("a b")).await)
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn retry_is_refused_where_a_submission_would_be() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let job = host.submit_accepted_file(&key, "1 pages").await;
    host.send_delete(&format!("/v1/jobs/{job}"), &key).await;
    host.set_quota(&a, "queued_jobs", 1).await;
    host.submit_accepted_file(&key, "2 pages").await;
    let refused = parse_problem(send_retry(&host, &key, job, None).await).await;
    assert_eq!(
        (refused.status, refused.quota.as_deref()),
        (429, Some("queued_jobs"))
    );
    host.control.stop_signal.cancel();
    let refused = parse_problem(send_retry(&host, &key, job, None).await).await;
    assert_eq!((refused.status, refused.kind.as_str()), (503, "stopping"));
}

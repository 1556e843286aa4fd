//! Tests of access to jobs: tenants and scopes.

use axum::body::Body;
use weir_core::DocumentId;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;

use crate::fakes::{TestHost, parse_json, parse_problem};

/// The routes of a job, and the scope that each needs.
const ROUTES: [(&str, &str, KeyScope); 6] = [
    ("GET", "", KeyScope::Read),
    ("GET", "/pages/1", KeyScope::Read),
    ("GET", "/diagnosis", KeyScope::Read),
    ("GET", "/log", KeyScope::Read),
    ("DELETE", "", KeyScope::Ingest),
    ("POST", "/retry", KeyScope::Ingest),
];

#[tokio::test]
async fn job_of_another_tenant_is_not_found() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let (_, foreign) = host.create_tenant("b", &[KeyScope::Ingest, KeyScope::Read]).await;
    let job = host.submit_accepted_file(&key, "1 pages").await.to_string();
    let absent = weir_core::JobId::new().to_string();
    for (method, path, _) in ROUTES {
        let mut details = Vec::new();
        for id in [&job, &absent] {
            let path = format!("/v1/jobs/{id}{path}");
            let refused = parse_problem(
                host.send(TestHost::build_request(method, &path, &foreign, Body::empty()))
                    .await,
            )
            .await;
            assert_eq!(refused.status, 404, "{method} {path}");
            details.push(refused.detail);
        }
        assert_eq!(details[0], details[1]);
        for id in ["x", "..%2f..", &DocumentId::from_content(b"d").to_string(), "%00"] {
            let path = format!("/v1/jobs/{id}{path}");
            let response = host
                .send(TestHost::build_request(method, &path, &key, Body::empty()))
                .await;
            assert_eq!(response.status(), 404, "{method} {path}");
        }
    }
    let list = parse_json(host.send_get("/v1/jobs", &foreign).await).await;
    assert_eq!(list["jobs"], serde_json::json!([]));
    let record = host
        .store
        .find_job(&a, &job.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (
            record.state,
            host.control.admission.count_queued_and_running_jobs(&a)
        ),
        (JobState::Queued, (1, 0))
    );
}

#[tokio::test]
async fn key_allows_only_the_operations_of_its_scopes() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let job = host.submit_accepted_file(&key, "1 pages").await;
    let all = [
        KeyScope::Ingest,
        KeyScope::Read,
        KeyScope::Components,
        KeyScope::Admin,
    ];
    let lists = [
        ("GET", String::new(), KeyScope::Read),
        ("POST", String::new(), KeyScope::Ingest),
    ];
    let routes = ROUTES.map(|(method, path, scope)| (method, format!("/{job}{path}"), scope));
    for (method, path, scope) in routes.into_iter().chain(lists) {
        let path = format!("/v1/jobs{path}");
        let others: Vec<_> = all.into_iter().filter(|other| *other != scope).collect();
        let (_, without) = host.create_tenant("a", &others).await;
        let refused = parse_problem(
            host.send(TestHost::build_request(method, &path, &without, Body::empty()))
                .await,
        )
        .await;
        assert_eq!(
            (refused.status, refused.kind.as_str()),
            (403, "forbidden"),
            "{method} {path}"
        );
        assert!(refused.detail.contains(scope.name()), "{refused:?}");
        let refused = parse_problem(
            host.send(TestHost::build_request(method, &path, "weir_0_0", Body::empty()))
                .await,
        )
        .await;
        assert_eq!(refused.status, 401, "{method} {path}");
    }
    let record = host.store.find_job(&a, &job).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Queued);
}

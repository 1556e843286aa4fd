//! Who may see and change jobs.

use axum::body::Body;
use weir_core::DocumentId;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Scope;

use crate::fakes::{Host, json, refusal};

/// What can be done with a job, and the scope that it needs.
const ROUTES: [(&str, &str, Scope); 6] = [
    ("GET", "", Scope::Read),
    ("GET", "/pages/1", Scope::Read),
    ("GET", "/diagnosis", Scope::Read),
    ("GET", "/log", Scope::Read),
    ("DELETE", "", Scope::Ingest),
    ("POST", "/retry", Scope::Ingest),
];

#[tokio::test]
async fn a_foreign_job_does_not_exist() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest, Scope::Read]).await;
    let (_, foreign) = host.tenant("b", &[Scope::Ingest, Scope::Read]).await;
    let job = host.submitted(&key, "1 pages").await.to_string();
    let absent = weir_core::JobId::new().to_string();
    for (method, path, _) in ROUTES {
        let mut said = Vec::new();
        for id in [&job, &absent] {
            let path = format!("/v1/jobs/{id}{path}");
            let refused = refusal(
                host.send(Host::request(method, &path, &foreign, Body::empty()))
                    .await,
            )
            .await;
            assert_eq!(refused.status, 404, "{method} {path}");
            said.push(refused.detail);
        }
        assert_eq!(said[0], said[1]);
        for id in ["x", "..%2f..", &DocumentId::of(b"d").to_string(), "%00"] {
            let path = format!("/v1/jobs/{id}{path}");
            let answer = host.send(Host::request(method, &path, &key, Body::empty())).await;
            assert_eq!(answer.status(), 404, "{method} {path}");
        }
    }
    let list = json(host.get("/v1/jobs", &foreign).await).await;
    assert_eq!(list["jobs"], serde_json::json!([]));
    let record = host.memory.job(&a, &job.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(
        (record.state, host.app.admission.counts(&a)),
        (JobState::Queued, (1, 0))
    );
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let job = host.submitted(&key, "1 pages").await;
    let all = [Scope::Ingest, Scope::Read, Scope::Components, Scope::Admin];
    let lists = [
        ("GET", String::new(), Scope::Read),
        ("POST", String::new(), Scope::Ingest),
    ];
    let routes = ROUTES.map(|(method, path, scope)| (method, format!("/{job}{path}"), scope));
    for (method, path, scope) in routes.into_iter().chain(lists) {
        let path = format!("/v1/jobs{path}");
        let others: Vec<_> = all.into_iter().filter(|other| *other != scope).collect();
        let (_, without) = host.tenant("a", &others).await;
        let refused = refusal(
            host.send(Host::request(method, &path, &without, Body::empty()))
                .await,
        )
        .await;
        assert_eq!(
            (refused.status, refused.kind.as_str()),
            (403, "forbidden"),
            "{method} {path}"
        );
        assert!(refused.detail.contains(scope.name()), "{refused:?}");
        let refused = refusal(
            host.send(Host::request(method, &path, "weir_0_0", Body::empty()))
                .await,
        )
        .await;
        assert_eq!(refused.status, 401, "{method} {path}");
    }
    let record = host.memory.job(&a, &job).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Queued);
}

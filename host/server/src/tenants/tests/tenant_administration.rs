//! Tests of creating, listing, changing and suspending tenants.

use axum::body::Body;
use axum::http::header;
use serde_json::{Value, json};
use weir_control::admission::UnfinishedJobStatus;
use weir_core::ledger::JobState;
use weir_core::settings::Settings;
use weir_core::tenancy::{KeyScope, OverridableNumbers as _, Quotas, TenantStore as _};

use super::{expect_status, host_with_admin_key};
use crate::fakes::{TestHost, parse_problem};

#[tokio::test]
async fn tenant_is_created_once() {
    let (host, key) = host_with_admin_key().await;
    let new = json!({"id": "acme-1", "weight": 2.5, "quotas": {"queued_jobs": 7, "pages_per_day": 0}});
    let response = host.send_post("/v1/tenants", &key, &new).await;
    assert_eq!(response.headers()[header::LOCATION], "/v1/tenants/acme-1");
    let created = expect_status(201, response).await;
    assert_eq!(
        (&created["id"], &created["state"], &created["weight"]),
        (&json!("acme-1"), &json!("active"), &json!(2.5))
    );
    assert_eq!(created["quotas"], json!({"queued_jobs": 7, "pages_per_day": 0}));
    assert!(created["created_millis"].as_u64().unwrap() > 1_600_000_000_000);
    assert_eq!(
        expect_status(200, host.send_get("/v1/tenants/acme-1", &key).await).await,
        created
    );

    let refused = parse_problem(
        host.send_post("/v1/tenants", &key, &json!({"id": "acme-1"}))
            .await,
    )
    .await;
    assert_eq!((refused.status, refused.kind.as_str()), (409, "conflict"));
    assert_eq!(
        expect_status(200, host.send_get("/v1/tenants/acme-1", &key).await).await,
        created
    );

    let other = expect_status(
        201,
        host.send_post("/v1/tenants", &key, &json!({"id": "z"})).await,
    )
    .await;
    assert_eq!((&other["weight"], &other["quotas"]), (&json!(1.0), &json!({})));
    let list = expect_status(200, host.send_get("/v1/tenants", &key).await).await;
    let names: Vec<_> = list["tenants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| &t["id"])
        .collect();
    assert_eq!(names, ["acme-1", "admin", "z"]);
    assert_eq!(
        parse_problem(host.send_get("/v1/tenants/nobody", &key).await)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn concurrent_requests_create_one_tenant() {
    let (host, key) = host_with_admin_key().await;
    let new = json!({"id": "acme"});
    let sent = (0..8).map(|_| host.send_post("/v1/tenants", &key, &new));
    let responses = futures::future::join_all(sent).await;
    let mut statuses: Vec<_> = responses
        .iter()
        .map(|response| response.status().as_u16())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn invalid_changes_are_refused_and_change_nothing() {
    let (host, key) = host_with_admin_key().await;
    let (a, _) = host.create_tenant("a", &[]).await;
    let before = host.store.list_tenants().await.unwrap();
    for wrong in [
        json!({"weight": 0}),
        json!({"weight": -1}),
        json!({"weight": 1000.5}),
        json!({"weight": "much"}),
        json!({"quotas": {"coffee": 1}}),
        json!({"quotas": {"queued_jobs": -1}}),
        json!({"quotas": {"queued_jobs": 1.5}}),
        json!({"quotas": {"queued_jobs": "many"}}),
        json!({"quotas": {"weight": 1}}),
        json!({"quotas": {"queued_jobs": 5, "coffee": 1}}),
        json!({"colour": "red"}),
    ] {
        let mut new = wrong.clone();
        new["id"] = json!("new");
        for response in [
            host.send_post("/v1/tenants", &key, &new).await,
            host.send_patch("/v1/tenants/a", &key, &wrong).await,
        ] {
            assert_eq!(parse_problem(response).await.status, 422, "{wrong}");
        }
    }
    for name in ["", "A", "a b", "a/b", "..", "é", &"x".repeat(65)] {
        let response = host.send_post("/v1/tenants", &key, &json!({ "id": name })).await;
        assert_eq!(parse_problem(response).await.status, 422, "{name}");
    }
    let response = host
        .send_patch("/v1/tenants/a", &key, &json!({"state": "gone"}))
        .await;
    assert_eq!(parse_problem(response).await.status, 422);
    let response = host.send_patch("/v1/tenants/nobody", &key, &json!({})).await;
    assert_eq!(parse_problem(response).await.status, 404);
    assert_eq!(host.store.list_tenants().await.unwrap(), before);
    assert!(before.iter().any(|tenant| tenant.id == a));
}

#[tokio::test]
async fn change_affects_only_the_given_fields() {
    let (host, key) = host_with_admin_key().await;
    host.create_tenant("a", &[]).await;
    let change =
        async |change: Value| expect_status(200, host.send_patch("/v1/tenants/a", &key, &change).await).await;
    let first = change(json!({"weight": 3, "quotas": {"queued_jobs": 1, "upload_bytes": 2}})).await;
    assert_eq!(
        (&first["weight"], &first["state"]),
        (&json!(3.0), &json!("active"))
    );
    assert_eq!(first["quotas"], json!({"queued_jobs": 1, "upload_bytes": 2}));
    // An omitted quota stays, null restores the limit of the host, and 0 means no limit.
    let then = change(json!({"quotas": {"queued_jobs": null, "stored_bytes": 0}})).await;
    assert_eq!(then["weight"], 3.0);
    assert_eq!(then["quotas"], json!({"upload_bytes": 2, "stored_bytes": 0}));
    assert_eq!(change(json!({})).await, then);
    let all: serde_json::Map<_, _> = (Quotas::NAMES.iter().zip(1..))
        .map(|(name, limit)| ((*name).to_owned(), json!(limit)))
        .collect();
    assert_eq!(change(json!({ "quotas": all })).await["quotas"], json!(all));
}

#[tokio::test]
async fn changed_quota_applies_to_the_next_request() {
    let (host, key) = host_with_admin_key().await;
    let (_, own) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    host.submit_accepted_file(&own, "1 pages").await;
    expect_status(
        200,
        host.send_patch("/v1/tenants/a", &key, &json!({"quotas": {"queued_jobs": 1}}))
            .await,
    )
    .await;
    let refused = parse_problem(host.submit_file(&own, "2 pages").await).await;
    assert_eq!(
        (refused.status, refused.quota.as_deref()),
        (429, Some("queued_jobs"))
    );
    expect_status(
        200,
        host.send_patch("/v1/tenants/a", &key, &json!({"quotas": {"queued_jobs": 2}}))
            .await,
    )
    .await;
    host.submit_accepted_file(&own, "2 pages").await;
}

#[tokio::test]
async fn suspended_tenant_is_refused_until_it_is_active_again() {
    let (host, key) = host_with_admin_key().await;
    let (_, own) = host.create_tenant("a", &[KeyScope::Read, KeyScope::Ingest]).await;
    let (_, other) = host.create_tenant("b", &[KeyScope::Read]).await;
    let set = async |state| {
        expect_status(
            200,
            host.send_patch("/v1/tenants/a", &key, &json!({ "state": state }))
                .await,
        )
        .await
    };
    assert_eq!(set("suspended").await["state"], "suspended");
    for path in ["/v1/jobs", "/v1/documents", "/v1/usage"] {
        let refused = parse_problem(host.send_get(path, &own).await).await;
        assert_eq!(
            (refused.status, refused.kind.as_str()),
            (403, "tenant-suspended"),
            "{path}"
        );
    }
    assert_eq!(
        parse_problem(host.submit_file(&own, "1 pages").await).await.kind,
        "tenant-suspended"
    );
    assert_eq!(host.send_get("/v1/jobs", &other).await.status(), 200);
    assert_eq!(set("active").await["state"], "active");
    assert_eq!(host.send_get("/v1/jobs", &own).await.status(), 200);
    // An admin key cannot suspend its own tenant.
    let response = host
        .send_patch("/v1/tenants/admin", &key, &json!({"state": "suspended"}))
        .await;
    assert_eq!(parse_problem(response).await.status, 409);
    assert_eq!(host.send_get("/v1/tenants", &key).await.status(), 200);
}

#[tokio::test]
async fn admin_scope_is_required_and_gives_no_tenant_data() {
    let (host, key) = host_with_admin_key().await;
    let (_, other) = host
        .create_tenant("a", &[KeyScope::Read, KeyScope::Ingest, KeyScope::Components])
        .await;
    for (method, path, body) in [
        ("POST", "/v1/tenants", json!({"id": "new"})),
        ("GET", "/v1/tenants", Value::Null),
        ("GET", "/v1/tenants/a", Value::Null),
        ("PATCH", "/v1/tenants/a", json!({"weight": 9})),
        ("DELETE", "/v1/tenants/admin", Value::Null),
        ("POST", "/v1/tenants/a/keys", json!({"scopes": ["admin"]})),
        ("GET", "/v1/tenants/a/keys", Value::Null),
    ] {
        let send = async |key: &str| {
            let request = TestHost::build_request(method, path, key, Body::from(body.to_string()));
            parse_problem(host.send(request).await).await
        };
        assert_eq!(send(&other).await.kind, "forbidden", "{method} {path}");
        assert_eq!(send("weir_0_0").await.status, 401, "{method} {path}");
    }
    let tenants = host.store.list_tenants().await.unwrap();
    assert_eq!(
        tenants.iter().map(|tenant| tenant.weight).collect::<Vec<_>>(),
        [1.0, 1.0]
    );
    for path in ["/v1/jobs", "/v1/documents", "/v1/usage"] {
        assert_eq!(
            parse_problem(host.send_get(path, &key).await).await.kind,
            "forbidden",
            "{path}"
        );
    }
    assert_eq!(
        parse_problem(host.submit_file(&key, "1 pages").await).await.kind,
        "forbidden"
    );
}

#[tokio::test]
async fn a_suspended_tenants_jobs_wait_and_go_on_afterwards() {
    let host = TestHost::with_settings(Settings {
        server_max_running_jobs: 1,
        ..Settings::default()
    });
    let (_, admin) = host.create_tenant("admin", &[KeyScope::Admin]).await;
    let (a, _) = host.create_tenant("a", &[]).await;
    let (b, _) = host.create_tenant("b", &[]).await;
    let set = async |state: &str| {
        let body = json!({ "state": state });
        let response = host.send_patch("/v1/tenants/a", &admin, &body).await;
        assert_eq!(response.status(), 200);
    };
    set("suspended").await;
    let held = host.enqueue_job(&a, "1 pages a").await;
    let other = host.enqueue_job(&b, "1 pages b").await;
    let _dispatching = host.spawn_dispatcher();
    // Without the suspension, the job of the first tenant would be next.
    host.wait_for_job_state(&b, other, JobState::Done).await;
    assert_eq!(
        host.control.admission.unfinished_job_status(&a, held),
        Some(UnfinishedJobStatus::Queued {
            position: 1,
            held: Some("suspended")
        })
    );
    set("active").await;
    host.wait_for_job_state(&a, held, JobState::Done).await;
    let opened: Vec<_> = host
        .processing
        .opened_jobs()
        .iter()
        .map(|opened| opened.job)
        .collect();
    assert_eq!(opened, [other, held]);
}

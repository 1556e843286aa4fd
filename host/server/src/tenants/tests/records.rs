//! Tenants: made, listed, changed, suspended.

use axum::body::Body;
use axum::http::header;
use serde_json::{Value, json};
use weir_core::tenancy::{Quotas, Registry as _, Scope};

use super::{admin, expect};
use crate::fakes::{Host, refusal};

#[tokio::test]
async fn a_tenant_is_made_once() {
    let (host, key) = admin().await;
    let new = json!({"id": "acme-1", "weight": 2.5, "quotas": {"queued_jobs": 7, "pages_per_day": 0}});
    let answer = host.post("/v1/tenants", &key, &new).await;
    assert_eq!(answer.headers()[header::LOCATION], "/v1/tenants/acme-1");
    let made = expect(201, answer).await;
    assert_eq!(
        (&made["id"], &made["state"], &made["weight"]),
        (&json!("acme-1"), &json!("active"), &json!(2.5))
    );
    assert_eq!(made["quotas"], json!({"queued_jobs": 7, "pages_per_day": 0}));
    assert!(made["created_millis"].as_u64().unwrap() > 1_600_000_000_000);
    assert_eq!(
        expect(200, host.get("/v1/tenants/acme-1", &key).await).await,
        made
    );

    let refused = refusal(host.post("/v1/tenants", &key, &json!({"id": "acme-1"})).await).await;
    assert_eq!((refused.status, refused.kind.as_str()), (409, "conflict"));
    assert_eq!(
        expect(200, host.get("/v1/tenants/acme-1", &key).await).await,
        made
    );

    let other = expect(201, host.post("/v1/tenants", &key, &json!({"id": "z"})).await).await;
    assert_eq!((&other["weight"], &other["quotas"]), (&json!(1.0), &json!({})));
    let list = expect(200, host.get("/v1/tenants", &key).await).await;
    let names: Vec<_> = list["tenants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| &t["id"])
        .collect();
    assert_eq!(names, ["acme-1", "admin", "z"]);
    assert_eq!(
        refusal(host.get("/v1/tenants/nobody", &key).await).await.status,
        404
    );
}

#[tokio::test]
async fn of_requests_at_once_one_makes_the_tenant() {
    let (host, key) = admin().await;
    let new = json!({"id": "acme"});
    let sent = (0..8).map(|_| host.post("/v1/tenants", &key, &new));
    let answers = futures::future::join_all(sent).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn what_is_out_of_bounds_is_refused_and_changes_nothing() {
    let (host, key) = admin().await;
    let (a, _) = host.tenant("a", &[]).await;
    let before = host.memory.tenants().await.unwrap();
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
        for answer in [
            host.post("/v1/tenants", &key, &new).await,
            host.patch("/v1/tenants/a", &key, &wrong).await,
        ] {
            assert_eq!(refusal(answer).await.status, 422, "{wrong}");
        }
    }
    for name in ["", "A", "a b", "a/b", "..", "é", &"x".repeat(65)] {
        let answer = host.post("/v1/tenants", &key, &json!({ "id": name })).await;
        assert_eq!(refusal(answer).await.status, 422, "{name}");
    }
    let answer = host.patch("/v1/tenants/a", &key, &json!({"state": "gone"})).await;
    assert_eq!(refusal(answer).await.status, 422);
    let answer = host.patch("/v1/tenants/nobody", &key, &json!({})).await;
    assert_eq!(refusal(answer).await.status, 404);
    assert_eq!(host.memory.tenants().await.unwrap(), before);
    assert!(before.iter().any(|tenant| tenant.id == a));
}

#[tokio::test]
async fn a_change_is_of_what_it_names() {
    let (host, key) = admin().await;
    host.tenant("a", &[]).await;
    let change = async |change: Value| expect(200, host.patch("/v1/tenants/a", &key, &change).await).await;
    let first = change(json!({"weight": 3, "quotas": {"queued_jobs": 1, "upload_bytes": 2}})).await;
    assert_eq!(
        (&first["weight"], &first["state"]),
        (&json!(3.0), &json!("active"))
    );
    assert_eq!(first["quotas"], json!({"queued_jobs": 1, "upload_bytes": 2}));
    // Left out stays, null is the host's again, 0 is none at all.
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
async fn a_quota_counts_from_the_next_request_on() {
    let (host, key) = admin().await;
    let (_, own) = host.tenant("a", &[Scope::Ingest]).await;
    host.submitted(&own, "1 pages").await;
    expect(
        200,
        host.patch("/v1/tenants/a", &key, &json!({"quotas": {"queued_jobs": 1}}))
            .await,
    )
    .await;
    let refused = refusal(host.submit(&own, "2 pages").await).await;
    assert_eq!(
        (refused.status, refused.quota.as_deref()),
        (429, Some("queued_jobs"))
    );
    expect(
        200,
        host.patch("/v1/tenants/a", &key, &json!({"quotas": {"queued_jobs": 2}}))
            .await,
    )
    .await;
    host.submitted(&own, "2 pages").await;
}

#[tokio::test]
async fn a_suspended_tenant_is_let_in_nowhere_until_it_is_resumed() {
    let (host, key) = admin().await;
    let (_, own) = host.tenant("a", &[Scope::Read, Scope::Ingest]).await;
    let (_, other) = host.tenant("b", &[Scope::Read]).await;
    let set = async |state| {
        expect(
            200,
            host.patch("/v1/tenants/a", &key, &json!({ "state": state }))
                .await,
        )
        .await
    };
    assert_eq!(set("suspended").await["state"], "suspended");
    for path in ["/v1/jobs", "/v1/documents", "/v1/usage"] {
        let refused = refusal(host.get(path, &own).await).await;
        assert_eq!(
            (refused.status, refused.kind.as_str()),
            (403, "tenant-suspended"),
            "{path}"
        );
    }
    assert_eq!(
        refusal(host.submit(&own, "1 pages").await).await.kind,
        "tenant-suspended"
    );
    assert_eq!(host.get("/v1/jobs", &other).await.status(), 200);
    assert_eq!(set("active").await["state"], "active");
    assert_eq!(host.get("/v1/jobs", &own).await.status(), 200);
    // Whoever runs the host does not lock itself out.
    let answer = host
        .patch("/v1/tenants/admin", &key, &json!({"state": "suspended"}))
        .await;
    assert_eq!(refusal(answer).await.status, 409);
    assert_eq!(host.get("/v1/tenants", &key).await.status(), 200);
}

#[tokio::test]
async fn only_an_admin_key_gets_here_and_it_gets_to_nothing_of_a_tenant() {
    let (host, key) = admin().await;
    let (_, other) = host
        .tenant("a", &[Scope::Read, Scope::Ingest, Scope::Components])
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
            let request = Host::request(method, path, key, Body::from(body.to_string()));
            refusal(host.send(request).await).await
        };
        assert_eq!(send(&other).await.kind, "forbidden", "{method} {path}");
        assert_eq!(send("weir_0_0").await.status, 401, "{method} {path}");
    }
    let tenants = host.memory.tenants().await.unwrap();
    assert_eq!(
        tenants.iter().map(|tenant| tenant.weight).collect::<Vec<_>>(),
        [1.0, 1.0]
    );
    for path in ["/v1/jobs", "/v1/documents", "/v1/usage"] {
        assert_eq!(
            refusal(host.get(path, &key).await).await.kind,
            "forbidden",
            "{path}"
        );
    }
    assert_eq!(
        refusal(host.submit(&key, "1 pages").await).await.kind,
        "forbidden"
    );
}

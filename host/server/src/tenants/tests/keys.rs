//! Tests of creating, showing, revoking and rotating keys.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use weir_core::clock::unix_time_millis;
use weir_core::tenancy::{ApiKeyRecord, TenantStore as _};

use super::{expect_status, host_with_admin_key};
use crate::fakes::{TestHost, parse_problem};

/// Creates a key and returns its id and the complete key.
async fn create_key(host: &TestHost, admin: &str, tenant: &str, body: &Value) -> (String, String) {
    let minted = expect_status(
        201,
        host.send_post(&format!("/v1/tenants/{tenant}/keys"), admin, body)
            .await,
    )
    .await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&minted["key"]["id"]), text(&minted["secret"]))
}

async fn rotate_key(host: &TestHost, with: &str, key: &str) -> axum::http::Response<Body> {
    host.send(TestHost::build_request(
        "POST",
        &format!("/v1/keys/{key}/rotate"),
        with,
        Body::empty(),
    ))
    .await
}

async fn status_with_key(host: &TestHost, key: &str) -> u16 {
    host.send_get("/v1/jobs", key).await.status().as_u16()
}

#[tokio::test]
async fn key_is_shown_once_and_has_its_scopes() {
    let (host, admin) = host_with_admin_key().await;
    host.create_tenant("a", &[]).await;
    let before = unix_time_millis();
    let new = json!({"scopes": ["read", "ingest", "read"], "label": "the scanner", "days": 30});
    let minted = expect_status(201, host.send_post("/v1/tenants/a/keys", &admin, &new).await).await;
    let (key, text) = (&minted["key"], minted["secret"].as_str().unwrap());
    assert_eq!(key["scopes"], json!(["ingest", "read"]));
    assert_eq!(
        (&key["tenant"], &key["label"]),
        (&json!("a"), &json!("the scanner"))
    );
    let created_millis = key["created_millis"].as_u64().unwrap();
    assert!(created_millis >= before);
    assert_eq!(key["expires_millis"], created_millis + 30 * 86_400_000);
    assert_eq!(key["revoked_millis"], Value::Null);
    assert!(
        text.starts_with(&format!("weir_{}_", key["id"].as_str().unwrap())),
        "the key contains its id"
    );
    assert_eq!(status_with_key(&host, text).await, 200);
    assert_eq!(host.submit_file(text, "1 pages").await.status(), 202);
    assert_eq!(
        parse_problem(host.send_get("/v1/tenants", text).await).await.kind,
        "forbidden"
    );

    let list = expect_status(200, host.send_get("/v1/tenants/a/keys", &admin).await).await;
    let listed = list["keys"].as_array().unwrap();
    assert!(
        listed.len() == 2 && listed.contains(key),
        "the list also contains the initial key: {list}"
    );
    let secret = secret_part(text);
    assert!(!list.to_string().contains(secret));
    let (_, another) = create_key(&host, &admin, "a", &json!({"scopes": ["read"]})).await;
    assert_ne!(another, text);
}

#[tokio::test]
async fn invalid_new_keys_are_refused() {
    let (host, admin) = host_with_admin_key().await;
    let (a, _) = host.create_tenant("a", &[]).await;
    for wrong in [
        json!({}),
        json!({"scopes": []}),
        json!({"scopes": ["root"]}),
        json!({"scopes": ["read", "read", "read", "read", "read"]}),
        json!({"scopes": ["read"], "days": 0}),
        json!({"scopes": ["read"], "days": 3651}),
        json!({"scopes": ["read"], "days": -1}),
        json!({"scopes": ["read"], "label": "x".repeat(201)}),
        json!({"scopes": ["read"], "secret": "mine"}),
    ] {
        let refused = parse_problem(host.send_post("/v1/tenants/a/keys", &admin, &wrong).await).await;
        assert_eq!(refused.status, 422, "{wrong}: {refused:?}");
    }
    let right = json!({"scopes": ["read"]});
    let refused = parse_problem(host.send_post("/v1/tenants/nobody/keys", &admin, &right).await).await;
    assert_eq!(refused.status, 404);
    assert_eq!(
        parse_problem(host.send_get("/v1/tenants/nobody/keys", &admin).await)
            .await
            .status,
        404
    );
    assert_eq!(
        host.store.list_api_keys(&a).await.unwrap().len(),
        1,
        "only the initial key exists"
    );
}

#[tokio::test]
async fn number_of_active_keys_is_limited() {
    let (host, admin) = host_with_admin_key().await;
    let (a, _) = host.create_tenant("a", &[]).await;
    let created_key = host.store.list_api_keys(&a).await.unwrap().remove(0);
    let other = |n: u32| ApiKeyRecord {
        id: format!("{n:012x}"),
        ..created_key.clone()
    };
    for n in 0..999 {
        host.store.put_api_key(&other(n)).await.unwrap();
    }
    let new = json!({"scopes": ["read"]});
    assert_eq!(
        parse_problem(host.send_post("/v1/tenants/a/keys", &admin, &new).await)
            .await
            .kind,
        "conflict"
    );
    let mut expired = other(7);
    expired.expires_millis = Some(1);
    host.store.put_api_key(&expired).await.unwrap();
    create_key(&host, &admin, "a", &new).await;
    assert_eq!(
        parse_problem(host.send_post("/v1/tenants/a/keys", &admin, &new).await)
            .await
            .kind,
        "conflict"
    );
    assert_eq!(
        host.send_delete("/v1/keys/000000000008", &admin).await.status(),
        204
    );
    create_key(&host, &admin, "a", &new).await;
}

#[tokio::test]
async fn expired_and_revoked_keys_are_refused_alike() {
    let (host, admin) = host_with_admin_key().await;
    let (a, _) = host.create_tenant("a", &[]).await;
    let new = json!({"scopes": ["read"], "days": 1});
    let (id, key) = create_key(&host, &admin, "a", &new).await;
    assert_eq!(status_with_key(&host, &key).await, 200);
    let mut record = host.store.find_api_key_by_id(&id).await.unwrap().unwrap();
    record.expires_millis = Some(unix_time_millis());
    host.store.put_api_key(&record).await.unwrap();
    let expired = parse_problem(host.send_get("/v1/jobs", &key).await).await;

    let (id, key) = create_key(&host, &admin, "a", &new).await;
    assert_eq!(
        host.send_delete(&format!("/v1/keys/{id}"), &admin).await.status(),
        204
    );
    let revoked = parse_problem(host.send_get("/v1/jobs", &key).await).await;
    let since = host
        .store
        .find_api_key_by_id(&id)
        .await
        .unwrap()
        .unwrap()
        .revoked_millis;
    assert!(since.is_some());
    // A second revocation changes nothing.
    assert_eq!(
        host.send_delete(&format!("/v1/keys/{id}"), &admin).await.status(),
        204
    );
    assert_eq!(
        host.store
            .find_api_key_by_id(&id)
            .await
            .unwrap()
            .unwrap()
            .revoked_millis,
        since
    );
    let list = expect_status(200, host.send_get("/v1/tenants/a/keys", &admin).await).await;
    let listed = list["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["id"] == json!(id));
    assert_eq!(listed.unwrap()["revoked_millis"], json!(since));

    // The responses for an expired, a revoked and an unknown key are equal.
    let unknown = parse_problem(host.send_get("/v1/jobs", "weir_0123456789ab_x").await).await;
    for refused in [&expired, &revoked, &unknown] {
        assert_eq!((refused.status, &refused.detail), (401, &unknown.detail));
    }
    assert_eq!(host.store.list_api_keys(&a).await.unwrap().len(), 3);
}

#[tokio::test]
async fn rotated_key_has_the_same_scopes_and_expiry() {
    let (host, admin) = host_with_admin_key().await;
    host.create_tenant("a", &[]).await;
    let new = json!({"scopes": ["ingest", "read"], "label": "the scanner", "days": 7});
    let (id, key) = create_key(&host, &admin, "a", &new).await;
    for with_admin in [false, true] {
        let (id, key) = if with_admin {
            create_key(&host, &admin, "a", &new).await
        } else {
            (id.clone(), key.clone())
        };
        let with = if with_admin { &admin } else { &key };
        let fresh = expect_status(201, rotate_key(&host, with, &id).await).await;
        let old = host.store.find_api_key_by_id(&id).await.unwrap().unwrap();
        let view = &fresh["key"];
        assert_ne!(view["id"], json!(id));
        assert_eq!(
            (&view["tenant"], &view["label"]),
            (&json!("a"), &json!("the scanner"))
        );
        assert_eq!(view["scopes"], json!(["ingest", "read"]));
        assert_eq!(
            view["expires_millis"],
            json!(old.expires_millis),
            "rotation does not extend the expiry time"
        );
        assert_eq!(
            status_with_key(&host, fresh["secret"].as_str().unwrap()).await,
            200
        );
        assert_eq!(status_with_key(&host, &key).await, 401);
        assert_eq!(
            parse_problem(rotate_key(&host, &admin, &id).await).await.kind,
            "conflict"
        );
    }
    assert_eq!(
        parse_problem(rotate_key(&host, &admin, "0123456789ab").await)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn only_an_admin_revokes_keys_of_others() {
    let (host, admin) = host_with_admin_key().await;
    host.create_tenant("a", &[]).await;
    host.create_tenant("b", &[]).await;
    let new = json!({"scopes": ["ingest", "read", "components"]});
    let (id, key) = create_key(&host, &admin, "a", &new).await;
    for tenant in ["a", "b"] {
        let (_, other) = create_key(&host, &admin, tenant, &new).await;
        for path in [
            format!("/v1/keys/{id}"),
            "/v1/keys/0123456789ab".into(),
            "/v1/keys/x".into(),
        ] {
            assert_eq!(
                parse_problem(host.send_delete(&path, &other).await).await.status,
                404,
                "{path}"
            );
            let rotate = TestHost::build_request("POST", &format!("{path}/rotate"), &other, Body::empty());
            assert_eq!(parse_problem(host.send(rotate).await).await.status, 404, "{path}");
        }
    }
    assert_eq!(status_with_key(&host, &key).await, 200);
    assert_eq!(
        host.send_delete(&format!("/v1/keys/{id}"), &key).await.status(),
        204
    );
    assert_eq!(status_with_key(&host, &key).await, 401);
    assert_eq!(
        parse_problem(host.send_delete(&format!("/v1/keys/{id}"), &key).await)
            .await
            .status,
        401
    );
}

/// Returns the secret part of a key. It may contain underscores.
fn secret_part(key: &str) -> &str {
    key.splitn(3, '_').nth(2).unwrap()
}

/// Captures the log as text.
#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl io::Write for CapturedLog {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secrets_are_not_logged() {
    let log = CapturedLog::default();
    let written = log.clone();
    let logging = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false);
    let logging = logging.with_writer(move || written.clone()).finish();
    // A global subscriber, because tracing caches per callsite whether it is enabled, possibly on the thread of another test.
    tracing::subscriber::set_global_default(logging).unwrap();
    let (host, admin) = host_with_admin_key().await;
    host.create_tenant("a", &[]).await;
    let new = json!({"scopes": ["ingest", "read"]});
    let (id, key) = create_key(&host, &admin, "a", &new).await;
    let fresh = expect_status(201, rotate_key(&host, &key, &id).await).await;
    let fresh = fresh["secret"].as_str().unwrap();
    for key in [&key, fresh, &format!("{fresh}x")] {
        host.send_get("/v1/jobs", key).await;
        host.submit_file(key, "1 pages").await;
        host.send_delete("/v1/tenants/a", key).await;
    }
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(log.contains("tenant=\"a\""), "{log}");
    assert!(log.contains(&id), "the log contains the id of the key: {log}");
    for key in [&admin, &key, fresh] {
        assert!(!log.contains(secret_part(key)));
    }
}

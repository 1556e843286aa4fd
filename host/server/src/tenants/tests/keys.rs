//! Keys: made, shown once, ended, replaced.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use weir_core::tenancy::{KeyRecord, Registry as _};

use super::{admin, expect};
use crate::app::now_millis;
use crate::fakes::{Host, refusal};

/// A key as it is made: its id and its text.
async fn mint(host: &Host, admin: &str, tenant: &str, body: &Value) -> (String, String) {
    let minted = expect(
        201,
        host.post(&format!("/v1/tenants/{tenant}/keys"), admin, body)
            .await,
    )
    .await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&minted["key"]["id"]), text(&minted["secret"]))
}

async fn rotate(host: &Host, with: &str, key: &str) -> axum::http::Response<Body> {
    host.send(Host::request(
        "POST",
        &format!("/v1/keys/{key}/rotate"),
        with,
        Body::empty(),
    ))
    .await
}

async fn status(host: &Host, key: &str) -> u16 {
    host.get("/v1/jobs", key).await.status().as_u16()
}

#[tokio::test]
async fn a_key_is_shown_once_and_opens_what_it_was_made_for() {
    let (host, admin) = admin().await;
    host.tenant("a", &[]).await;
    let before = now_millis();
    let new = json!({"scopes": ["read", "ingest", "read"], "label": "the scanner", "days": 30});
    let minted = expect(201, host.post("/v1/tenants/a/keys", &admin, &new).await).await;
    let (key, text) = (&minted["key"], minted["secret"].as_str().unwrap());
    assert_eq!(key["scopes"], json!(["ingest", "read"]));
    assert_eq!(
        (&key["tenant"], &key["label"]),
        (&json!("a"), &json!("the scanner"))
    );
    let made = key["created_millis"].as_u64().unwrap();
    assert!(made >= before);
    assert_eq!(key["expires_millis"], made + 30 * 86_400_000);
    assert_eq!(key["revoked_millis"], Value::Null);
    assert!(
        text.starts_with(&format!("weir_{}_", key["id"].as_str().unwrap())),
        "its id is its public part"
    );
    assert_eq!(status(&host, text).await, 200);
    assert_eq!(host.submit(text, "1 pages").await.status(), 202);
    assert_eq!(
        refusal(host.get("/v1/tenants", text).await).await.kind,
        "forbidden"
    );

    let list = expect(200, host.get("/v1/tenants/a/keys", &admin).await).await;
    let listed = list["keys"].as_array().unwrap();
    assert!(
        listed.len() == 2 && listed.contains(key),
        "with the one it had: {list}"
    );
    let secret = secret_of(text);
    assert!(!list.to_string().contains(secret));
    let (_, another) = mint(&host, &admin, "a", &json!({"scopes": ["read"]})).await;
    assert_ne!(another, text);
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let (host, admin) = admin().await;
    let (a, _) = host.tenant("a", &[]).await;
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
        let refused = refusal(host.post("/v1/tenants/a/keys", &admin, &wrong).await).await;
        assert_eq!(refused.status, 422, "{wrong}: {refused:?}");
    }
    let right = json!({"scopes": ["read"]});
    let refused = refusal(host.post("/v1/tenants/nobody/keys", &admin, &right).await).await;
    assert_eq!(refused.status, 404);
    assert_eq!(
        refusal(host.get("/v1/tenants/nobody/keys", &admin).await)
            .await
            .status,
        404
    );
    assert_eq!(host.memory.keys(&a).await.unwrap().len(), 1, "that which it had");
}

#[tokio::test]
async fn a_tenant_has_so_many_keys_that_count() {
    let (host, admin) = admin().await;
    let (a, _) = host.tenant("a", &[]).await;
    let made = host.memory.keys(&a).await.unwrap().remove(0);
    let other = |n: u32| KeyRecord {
        id: format!("{n:012x}"),
        ..made.clone()
    };
    for n in 0..999 {
        host.memory.put_key(&other(n)).await.unwrap();
    }
    let new = json!({"scopes": ["read"]});
    assert_eq!(
        refusal(host.post("/v1/tenants/a/keys", &admin, &new).await)
            .await
            .kind,
        "conflict"
    );
    let mut expired = other(7);
    expired.expires_millis = Some(1);
    host.memory.put_key(&expired).await.unwrap();
    mint(&host, &admin, "a", &new).await;
    assert_eq!(
        refusal(host.post("/v1/tenants/a/keys", &admin, &new).await)
            .await
            .kind,
        "conflict"
    );
    assert_eq!(host.delete("/v1/keys/000000000008", &admin).await.status(), 204);
    mint(&host, &admin, "a", &new).await;
}

#[tokio::test]
async fn a_key_ends_when_it_expires_or_is_revoked() {
    let (host, admin) = admin().await;
    let (a, _) = host.tenant("a", &[]).await;
    let new = json!({"scopes": ["read"], "days": 1});
    let (id, key) = mint(&host, &admin, "a", &new).await;
    assert_eq!(status(&host, &key).await, 200);
    let mut record = host.memory.key(&id).await.unwrap().unwrap();
    record.expires_millis = Some(now_millis());
    host.memory.put_key(&record).await.unwrap();
    let expired = refusal(host.get("/v1/jobs", &key).await).await;

    let (id, key) = mint(&host, &admin, "a", &new).await;
    assert_eq!(host.delete(&format!("/v1/keys/{id}"), &admin).await.status(), 204);
    let revoked = refusal(host.get("/v1/jobs", &key).await).await;
    let since = host.memory.key(&id).await.unwrap().unwrap().revoked_millis;
    assert!(since.is_some());
    // Once more changes nothing.
    assert_eq!(host.delete(&format!("/v1/keys/{id}"), &admin).await.status(), 204);
    assert_eq!(host.memory.key(&id).await.unwrap().unwrap().revoked_millis, since);
    let list = expect(200, host.get("/v1/tenants/a/keys", &admin).await).await;
    let listed = list["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["id"] == json!(id));
    assert_eq!(listed.unwrap()["revoked_millis"], json!(since));

    // Nobody learns which it was, or whether there ever was such a key.
    let unknown = refusal(host.get("/v1/jobs", "weir_0123456789ab_x").await).await;
    for refused in [&expired, &revoked, &unknown] {
        assert_eq!((refused.status, &refused.detail), (401, &unknown.detail));
    }
    assert_eq!(host.memory.keys(&a).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_key_is_replaced_by_one_that_can_do_the_same() {
    let (host, admin) = admin().await;
    host.tenant("a", &[]).await;
    let new = json!({"scopes": ["ingest", "read"], "label": "the scanner", "days": 7});
    let (id, key) = mint(&host, &admin, "a", &new).await;
    for with_admin in [false, true] {
        let (id, key) = if with_admin {
            mint(&host, &admin, "a", &new).await
        } else {
            (id.clone(), key.clone())
        };
        let with = if with_admin { &admin } else { &key };
        let fresh = expect(201, rotate(&host, with, &id).await).await;
        let old = host.memory.key(&id).await.unwrap().unwrap();
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
            "nobody prolongs its own life"
        );
        assert_eq!(status(&host, fresh["secret"].as_str().unwrap()).await, 200);
        assert_eq!(status(&host, &key).await, 401);
        assert_eq!(refusal(rotate(&host, &admin, &id).await).await.kind, "conflict");
    }
    assert_eq!(
        refusal(rotate(&host, &admin, "0123456789ab").await).await.status,
        404
    );
}

#[tokio::test]
async fn nobody_but_an_admin_ends_anothers_key() {
    let (host, admin) = admin().await;
    host.tenant("a", &[]).await;
    host.tenant("b", &[]).await;
    let new = json!({"scopes": ["ingest", "read", "components"]});
    let (id, key) = mint(&host, &admin, "a", &new).await;
    for tenant in ["a", "b"] {
        let (_, other) = mint(&host, &admin, tenant, &new).await;
        for path in [
            format!("/v1/keys/{id}"),
            "/v1/keys/0123456789ab".into(),
            "/v1/keys/x".into(),
        ] {
            assert_eq!(
                refusal(host.delete(&path, &other).await).await.status,
                404,
                "{path}"
            );
            let rotate = Host::request("POST", &format!("{path}/rotate"), &other, Body::empty());
            assert_eq!(refusal(host.send(rotate).await).await.status, 404, "{path}");
        }
    }
    assert_eq!(status(&host, &key).await, 200);
    assert_eq!(host.delete(&format!("/v1/keys/{id}"), &key).await.status(), 204);
    assert_eq!(status(&host, &key).await, 401);
    assert_eq!(
        refusal(host.delete(&format!("/v1/keys/{id}"), &key).await)
            .await
            .status,
        401
    );
}

/// The part of a key that nobody else may know; it may have an underscore of its own.
fn secret_of(key: &str) -> &str {
    key.splitn(3, '_').nth(2).unwrap()
}

/// Everything that is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_secret_is_in_no_log() {
    let log = Log::default();
    let written = log.clone();
    let logging = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false);
    let logging = logging.with_writer(move || written.clone()).finish();
    // For all threads: whether a place in the code logs is decided once, perhaps by another test's thread.
    tracing::subscriber::set_global_default(logging).unwrap();
    let (host, admin) = admin().await;
    host.tenant("a", &[]).await;
    let new = json!({"scopes": ["ingest", "read"]});
    let (id, key) = mint(&host, &admin, "a", &new).await;
    let fresh = expect(201, rotate(&host, &key, &id).await).await;
    let fresh = fresh["secret"].as_str().unwrap();
    for key in [&key, fresh, &format!("{fresh}x")] {
        host.get("/v1/jobs", key).await;
        host.submit(key, "1 pages").await;
        host.delete("/v1/tenants/a", key).await;
    }
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(log.contains("tenant=\"a\""), "{log}");
    assert!(
        log.contains(&id),
        "whose key it was is told by its public part: {log}"
    );
    for key in [&admin, &key, fresh] {
        assert!(!log.contains(secret_of(key)));
    }
}

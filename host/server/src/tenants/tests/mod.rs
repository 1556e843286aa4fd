//! Tests of the tenant and key administration.

mod keys;
mod removal;
mod tenant_administration;

use axum::body::Body;
use axum::http::Response;
use serde_json::Value;
use weir_core::tenancy::KeyScope;

use crate::fakes::{TestHost, parse_json};

/// Returns a host and a key with the scope `admin`.
async fn host_with_admin_key() -> (TestHost, String) {
    let host = TestHost::new();
    let (_, key) = host.create_tenant("admin", &[KeyScope::Admin]).await;
    (host, key)
}

/// Asserts the status of a response and returns its JSON body.
async fn expect_status(status: u16, response: Response<Body>) -> Value {
    let actual_status = response.status();
    let body = parse_json(response).await;
    assert_eq!(actual_status, status, "{body}");
    body
}

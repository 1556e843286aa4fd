//! Tenants and keys as whoever runs the host sees them.

mod keys;
mod records;
mod removal;

use axum::body::Body;
use axum::http::Response;
use serde_json::Value;
use weir_core::tenancy::Scope;

use crate::fakes::{Host, json};

/// A host, and a key of whoever runs it.
async fn admin() -> (Host, String) {
    let host = Host::new();
    let (_, key) = host.tenant("admin", &[Scope::Admin]).await;
    (host, key)
}

/// The body of an answer with this status.
async fn expect(status: u16, answer: Response<Body>) -> Value {
    let was = answer.status();
    let body = json(answer).await;
    assert_eq!(was, status, "{body}");
    body
}

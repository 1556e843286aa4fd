//! Jobs as their clients see them.

mod access;
mod cancel;
mod list;
mod log;
mod retry;
mod view;

use serde_json::Value;
use weir_core::JobId;

use crate::fakes::{Host, json};

/// A job, as whoever asks for it sees it.
async fn view(host: &Host, key: &str, job: JobId) -> Value {
    json(host.get(&format!("/v1/jobs/{job}"), key).await).await
}

//! Tests of the API for jobs.

mod access;
mod cancel;
mod list;
mod log;
mod remove;
mod retry;
mod view;

use serde_json::Value;
use weir_core::JobId;

use crate::fakes::{TestHost, parse_json};

/// Requests a job and returns its JSON.
async fn fetch_job_json(host: &TestHost, key: &str, job: JobId) -> Value {
    parse_json(host.send_get(&format!("/v1/jobs/{job}"), key).await).await
}

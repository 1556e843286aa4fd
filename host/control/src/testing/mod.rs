//! Fake ports in memory and a host over them, for the tests of this crate and of the server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this module is for tests"
)]

mod claims;
mod components;
mod fake_claim;
mod fake_node;
mod fake_store;
mod pipeline_tables;
mod pipelines;
mod processing;
mod records;
mod stores;
mod test_control;
mod uploads;

#[cfg(test)]
pub(crate) use claims::TEST_LEASE;
pub(crate) use claims::new_test_claims;
pub use components::FakeComponentStore;
pub use fake_store::FakeStore;
pub use processing::FakeProcessing;
pub use records::{TestRng, commit_events, job_record, metric_value, sample_job_request};
pub use stores::{CountingEmbedder, FakeBlobStore, FakeVectorStore};
pub use test_control::{TestControl, wait_until};
pub use uploads::FakeUploadStore;

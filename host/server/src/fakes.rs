//! Fake ports in memory, for tests.

mod fake_store;
mod pipelines;
mod processing;
mod records;
mod requests;
mod shadows;
mod stores;
mod test_host;

pub(crate) use fake_store::FakeStore;
pub(crate) use pipelines::FakeComponentStore;
pub(crate) use processing::{FakeProcessing, FakeUploadStore};
pub(crate) use records::{commit_events, job_record, order};
pub(crate) use requests::{
    ProblemResponse, accepted_job_id, metric_value, multipart_form, parse_json, parse_problem,
};
pub(crate) use stores::{CountingEmbedder, FakeBlobStore, FakeVectorStore};
pub(crate) use test_host::{TestHost, test_app, wait_until};

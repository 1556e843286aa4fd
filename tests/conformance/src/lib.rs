//! Conformance suites for the ports. The stores and the fakes of each crate's tests run the same suite, so that a fake behaves as
//! the store does. The crate also has a store of recordings in memory, which several crates need in their
//! tests, and a search for files that contain a text, for tests of erasure.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this crate is tests")]

mod blob_store;
mod component_state;
mod component_store;
mod document_removal_store;
mod files;
mod job_claim_store;
mod job_request_store;
mod ledger;
mod node_registry;
mod pipeline_store;
mod provider_call_store;
mod recording_store;
pub mod records;
mod response_cache;
mod retention_store;
mod shadow_store;
mod tenant_store;
mod upload_store;
mod usage_store;
mod vector_store;

pub use blob_store::check_blob_store;
pub use component_state::check_component_state;
pub use component_store::check_component_store;
pub use document_removal_store::check_document_removal_store;
pub use files::list_files_containing;
pub use job_claim_store::check_job_claim_store;
pub use job_request_store::check_job_request_store;
pub use ledger::check_ledger;
pub use node_registry::check_node_registry;
pub use pipeline_store::check_pipeline_store;
pub use provider_call_store::check_provider_call_store;
pub use recording_store::{MemoryRecordingStore, RecordingStoreCall, check_recording_store};
pub use response_cache::check_response_cache;
pub use retention_store::check_retention_store;
pub use shadow_store::check_shadow_store;
pub use tenant_store::check_tenant_store;
pub use upload_store::{check_upload_store, store_upload};
pub use usage_store::check_usage_store;
pub use vector_store::check_vector_store;

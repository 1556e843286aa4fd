//! Data types that all other crates share, and the ports (traits) that the engine depends on.
//!
//! This crate does no I/O and depends on no library that does. The engine is written against the traits in [`ports`].
//! The adapter crates implement them, and the `weir` command connects the two. Text layout, decisions and events are
//! plain data. So the same engine runs against PDFium and ONNX Runtime, or against fakes in virtual time.

pub mod blob_key;
pub mod canary_analysis;
pub mod clock;
pub mod collection_and_labels;
pub mod component;
pub mod component_log;
pub mod component_state_limits;
pub mod decision;
pub mod document_removal;
pub mod error;
pub mod event;
pub mod fair_queue;
pub mod grounding;
pub mod id;
pub mod job_claim;
pub mod job_claim_store;
pub mod job_request;
pub mod layout;
pub mod ledger;
pub mod llm;
pub mod local_file;
pub mod manifest;
pub mod markdown;
pub mod memory_component_state;
pub mod node;
pub mod node_message;
pub mod overridable_numbers;
pub mod page;
pub mod page_text;
pub mod ports;
pub mod provider_call_limits;
pub mod recording;
pub mod replay;
pub mod retention;
pub mod revision;
pub mod rollout;
pub mod search;
pub mod sections;
pub mod settings;
pub mod shadow;
pub mod shared_limits;
pub mod store_status;
pub mod summary;
pub mod system_memory;
pub mod tenancy;
pub mod uploads;
pub mod usage;

pub use error::{InferenceError, PolicyError, RasterError, StorageError};
pub use id::{DocumentId, JobId, PageNumber, RevisionId, TenantId};
pub use llm::LlmError;
pub use page::{PageFacts, PriorityLane, RawPageImage, Rect, Stage};

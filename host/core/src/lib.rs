//! The words every other crate speaks, and the ports the engine stands on.
//!
//! Nothing here does I/O or knows a library that does. The engine is written against the traits in [`ports`]; the
//! adapter crates implement them; the `weir` command joins the two. Text layout, decisions and events are plain data,
//! so that the same engine runs against PDFium and ONNX Runtime or against fakes in virtual time.

pub mod component;
pub mod decision;
pub mod error;
pub mod event;
pub mod filing;
pub mod grounding;
pub mod id;
mod job;
pub mod judge;
pub mod language;
pub mod layout;
pub mod ledger;
pub mod manifest;
pub mod markdown;
pub mod memory;
pub mod order;
pub mod original;
pub mod page;
pub mod ports;
pub mod removal;
pub mod replay;
pub mod revision;
pub mod rollout;
pub mod said;
pub mod search;
pub mod sections;
pub mod settings;
pub mod shadow;
pub mod state;
pub mod summary;
pub mod tenancy;
pub mod text;
pub mod usage;

pub use error::{InferenceError, PolicyError, RasterError, StorageError};
pub use id::{DocumentId, JobId, PageNumber, RevisionId, TenantId};
pub use language::LanguageError;
pub use page::{Lane, PageFacts, PageImage, Rect, Stage};

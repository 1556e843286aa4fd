//! Ports in memory, for the tests of handlers.

mod host;
mod memory;
mod pipelines;
mod records;
mod requests;
mod shadows;
mod stores;
mod work;

pub(crate) use host::{Host, app, eventually};
pub(crate) use memory::Memory;
pub(crate) use pipelines::Components;
pub(crate) use records::{commit_events, job_record, order};
pub(crate) use requests::{Refusal, form, job_of, json, measured, refusal};
pub(crate) use stores::{Blobs, Counting, Vectors};
pub(crate) use work::{Files, Works};

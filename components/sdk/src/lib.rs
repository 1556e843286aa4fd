//! Write a Weir component in Rust: implement a role's trait, name it in [`export!`], and the rest is here.
//!
//! ```
//! use weir_sdk::batching::{Batch, Batching, Situation};
//!
//! #[derive(Default)]
//! struct ByTheDozen;
//!
//! impl Batching for ByTheDozen {
//!     fn plan(&mut self, _situation: Situation) -> Batch {
//!         Batch { pages: 12, dpi: weir_sdk::settings::get_or("dpi", 150), linger_millis: 500, queue_capacity: 8 }
//!     }
//! }
//!
//! weir_sdk::export!(ByTheDozen: Batching);
//! ```
//!
//! A job has one instance of a component and the host calls it for that job alone, so the value behind `&mut self` is the
//! job's memory: it is made with [`Default`] at the first call and lives until the job ends. Natively nothing is exported,
//! no setting is set and log lines go to standard error, so a policy is tested like any other Rust code.

mod bindings;
mod export;

pub mod batching;
pub mod chunking;
pub mod log;
pub mod progress;
pub mod routing;
pub mod settings;

pub use bindings::weir::pipeline::types::{
    DocumentId, Label, PageFacts, PageNumber, QueueState, Range, Stage, StageTime,
};

/// A closer look at a page; the manifest must grant `rasterizer` to a component that calls it.
pub mod rasterizer {
    pub use crate::bindings::weir::pipeline::rasterizer::{Brightness, Picture, preview, statistics, text};
    pub use crate::bindings::weir::pipeline::refusals::Refusal;
}

/// Models; the manifest must grant `inference` to a component that calls it.
pub mod inference {
    pub use crate::bindings::weir::pipeline::inference::{
        Region, count_tokens, generate, recognize, similarities,
    };
    pub use crate::bindings::weir::pipeline::refusals::Refusal;
}

/// Values kept from job to job; the manifest must grant `state` to a component that calls it.
pub mod state {
    pub use crate::bindings::weir::pipeline::refusals::Refusal;
    pub use crate::bindings::weir::pipeline::state::{delete, get, set};
}

/// What [`export!`] expands to; not for other use.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::{batcher, chunker, reporter, router};
    pub use crate::export::call;

    pub mod roles {
        pub use crate::batching::Batching;
        pub use crate::chunking::Chunking;
        pub use crate::progress::Progress;
        pub use crate::routing::Routing;
    }
}

impl Stage {
    /// Every stage, in the order of the pipeline.
    pub const ALL: [Self; 5] = [
        Self::Rasterize,
        Self::Store,
        Self::Read,
        Self::Embed,
        Self::Upsert,
    ];
}

//! The SDK for Weir components in Rust: implement the trait of a role and export it with [`export!`].
//!
//! ```
//! use weir_sdk::batching::{Batch, Batching, Situation};
//!
//! #[derive(Default)]
//! struct FixedBatch;
//!
//! impl Batching for FixedBatch {
//!     fn plan(&mut self, _situation: Situation) -> Batch {
//!         Batch { pages: 12, dpi: weir_sdk::settings::get_or("dpi", 150), linger_millis: 500, queue_capacity: 8 }
//!     }
//! }
//!
//! weir_sdk::export!(FixedBatch: Batching);
//! ```
//!
//! Each job has its own instance of a component, so the value behind `&mut self` is the job's memory. It is created with [`Default`]
//! at the first call and lives until the job ends. In a native build nothing is exported, no setting is set, and log lines go to
//! standard error, so a policy can be tested like any other Rust code.

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

/// Image statistics, a preview and the text of a page. The manifest must grant `rasterizer`.
pub mod rasterizer {
    pub use crate::bindings::weir::pipeline::rasterizer::{Brightness, Picture, preview, statistics, text};
    pub use crate::bindings::weir::pipeline::refusals::Refusal;
}

/// Token counts, similarities, OCR and language models. The manifest must grant `inference`.
pub mod inference {
    pub use crate::bindings::weir::pipeline::inference::{
        Region, count_tokens, generate, recognize, similarities,
    };
    pub use crate::bindings::weir::pipeline::refusals::Refusal;
}

/// Values that are kept between jobs. The manifest must grant `state`.
pub mod state {
    pub use crate::bindings::weir::pipeline::refusals::Refusal;
    pub use crate::bindings::weir::pipeline::state::{delete, get, set};
}

/// Items that [`export!`] expands to. Not a public interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::{batcher, chunker, reporter, router};
    pub use crate::export::call_policy;

    pub mod roles {
        pub use crate::batching::Batching;
        pub use crate::chunking::Chunking;
        pub use crate::progress::Progress;
        pub use crate::routing::Routing;
    }
}

impl Stage {
    /// All stages, in the order of the pipeline.
    pub const ALL: [Self; 5] = [
        Self::Rasterize,
        Self::Store,
        Self::Read,
        Self::Embed,
        Self::Upsert,
    ];
}

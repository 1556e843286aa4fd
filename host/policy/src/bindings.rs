//! Bindings that wasmtime generates from `wit/`.
//!
//! The generated world has all four roles. Each role is looked up in a component separately (`GuestIndices` of its interface),
//! so a component may export any subset of them.

#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "policy",
    imports: {
        "weir:pipeline/state.get": async | trappable,
        "weir:pipeline/state.set": async | trappable,
        "weir:pipeline/state.delete": async | trappable,
        "weir:pipeline/rasterizer.statistics": async | trappable,
        "weir:pipeline/rasterizer.preview": async | trappable,
        "weir:pipeline/rasterizer.text": async | trappable,
        "weir:pipeline/inference.count-tokens": async | trappable,
        "weir:pipeline/inference.similarities": async | trappable,
        "weir:pipeline/inference.recognize": async | trappable,
        "weir:pipeline/inference.generate": async | trappable,
    },
    exports: { default: async },
});

pub(crate) use exports::weir::pipeline::{batching, chunking, progress, routing};
pub(crate) use weir::pipeline::{inference, log, rasterizer, refusals, settings, state, types};

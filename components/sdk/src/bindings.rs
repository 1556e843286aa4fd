//! What wit-bindgen makes of `wit/`.
//!
//! Each role is generated from a world of its own, so that a component is of exactly the roles it exports; the words they
//! share are generated once, with the capabilities, and every role refers to those. A capability that a component does
//! not call leaves no import in it: the linker drops what is not reached, and the component is encoded from what is left.

#![allow(missing_docs)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "capabilities",
    generate_unused_types: true,
    additional_derives: [PartialEq],
});

macro_rules! role {
    ($module:ident, $world:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                world: $world,
                pub_export_macro: true,
                additional_derives: [PartialEq],
                with: {
                    "weir:pipeline/types@0.1.0": crate::bindings::weir::pipeline::types,
                    "weir:pipeline/settings@0.1.0": crate::bindings::weir::pipeline::settings,
                    "weir:pipeline/log@0.1.0": crate::bindings::weir::pipeline::log,
                    "weir:pipeline/refusals@0.1.0": crate::bindings::weir::pipeline::refusals,
                    "weir:pipeline/state@0.1.0": crate::bindings::weir::pipeline::state,
                    "weir:pipeline/rasterizer@0.1.0": crate::bindings::weir::pipeline::rasterizer,
                    "weir:pipeline/inference@0.1.0": crate::bindings::weir::pipeline::inference,
                },
            });
        }
    };
}

role!(batcher, "batcher");
role!(router, "router");
role!(chunker, "chunker");
role!(reporter, "reporter");

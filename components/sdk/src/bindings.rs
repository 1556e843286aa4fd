//! Bindings that wit-bindgen generates from `wit/`.
//!
//! Each role is generated from its own world, so that a component has exactly the roles it exports. The shared types are generated
//! once, with the capabilities, and every role refers to them. A capability that a component does not call is not among its imports,
//! because the linker removes unreachable code before the component is encoded.

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

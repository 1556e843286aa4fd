//! The world of one component: it exports the roles its manifest names and can import what its manifest grants.
//!
//! The toolchains of JavaScript and Python make a component import everything its world has, used or not, so a world of just
//! what is granted is what keeps them within their rights.

use std::fmt::Write as _;

use weir_core::manifest::Capability;

use super::Source;

/// The world's name.
pub(super) const NAME: &str = "component";

/// The world as a file of the contract's package.
pub(super) fn of(source: &Source) -> String {
    let mut text = format!(
        "/// What the manifest of `{}` says it is.\nworld {NAME} {{\n",
        source.manifest.name
    );
    let granted = source
        .manifest
        .capabilities
        .grant
        .iter()
        .map(|capability| match capability {
            Capability::State => "state",
            Capability::Rasterizer => "rasterizer",
            Capability::Inference => "inference",
        });
    for import in ["settings", "log"].into_iter().chain(granted) {
        let _ = writeln!(text, "    import {import};");
    }
    for role in source.roles() {
        let _ = writeln!(text, "    export {};", role.name());
    }
    text + "}\n"
}

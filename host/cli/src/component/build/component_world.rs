//! Generates the WIT world of a component. The world exports the roles and imports the granted capabilities of the manifest.
//!
//! The toolchains of JavaScript and Python import everything in the world, used or not. A component with imports that are not
//! granted is rejected, so the world has only the granted ones.

use std::fmt::Write as _;

use weir_core::manifest::Capability;

use super::ComponentSource;

/// Name of the world.
pub(super) const WORLD_NAME: &str = "component";

/// Returns the world as the text of a WIT file in the package of the contract.
pub(super) fn generate_wit_world(source: &ComponentSource) -> String {
    let mut text = format!(
        "/// The roles and capabilities of the component `{}`.\nworld {WORLD_NAME} {{\n",
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

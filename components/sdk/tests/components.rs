//! Checks the imports and exports of the built components. A capability that a component does not use must not be among its imports,
//! because the manifest has to grant every import.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use wasmparser::{Parser, Payload};

/// Returns the imported and exported interfaces of a component, such as `state`, without the package name.
fn read_interfaces(name: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let folder = std::env::var_os("OUT").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/components")),
        PathBuf::from,
    );
    let path = folder.join(name).with_extension("wasm");
    let bytes = std::fs::read(&path)
        .unwrap_or_else(|e| panic!("cannot read {}: {e}: run components/build first", path.display()));
    let (mut imports, mut exports) = (BTreeSet::new(), BTreeSet::new());
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(
                    section
                        .into_iter()
                        .map(|import| interface_name(import.unwrap().name.name)),
                );
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(
                    section
                        .into_iter()
                        .map(|export| interface_name(export.unwrap().name.name)),
                );
            }
            _ => {}
        }
    }
    (imports, exports)
}

fn interface_name(name: &str) -> String {
    let interface = name
        .strip_prefix("weir:pipeline/")
        .and_then(|rest| rest.strip_suffix("@0.1.0"));
    interface
        .unwrap_or_else(|| panic!("{name} is not part of this contract"))
        .to_owned()
}

fn to_set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn default_components_import_no_granted_capability() {
    for role in ["batching", "routing", "chunking", "progress"] {
        let (imports, exports) = read_interfaces(role);
        assert_eq!(exports, to_set(&[role]));
        assert!(
            imports.is_subset(&to_set(&["types", "log", "settings"])),
            "{role}: {imports:?}"
        );
        // The log is needed for panic messages.
        assert!(imports.contains("log"), "{role}: {imports:?}");
    }
}

#[test]
fn component_imports_only_the_capability_it_uses() {
    for capability in ["state", "inference", "rasterizer"] {
        let (imports, exports) = read_interfaces(&format!("hostile-{capability}"));
        let granted = imports
            .intersection(&to_set(&["state", "inference", "rasterizer"]))
            .cloned()
            .collect::<BTreeSet<_>>();
        assert_eq!(granted, to_set(&[capability]));
        assert_eq!(exports, to_set(&["batching", "chunking", "progress", "routing"]));
    }
}

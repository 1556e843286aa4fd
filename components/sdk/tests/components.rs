//! What the built components import and export. A right that a component does not use must not be among its imports, for
//! a manifest has to grant what is.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use wasmparser::{Parser, Payload};

/// The interfaces a component imports and exports, such as `state`, without the package's name.
fn interfaces(name: &str) -> (BTreeSet<String>, BTreeSet<String>) {
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
                        .map(|import| interface(import.unwrap().name.name)),
                );
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(
                    section
                        .into_iter()
                        .map(|export| interface(export.unwrap().name.name)),
                );
            }
            _ => {}
        }
    }
    (imports, exports)
}

fn interface(name: &str) -> String {
    let interface = name
        .strip_prefix("weir:pipeline/")
        .and_then(|rest| rest.strip_suffix("@0.1.0"));
    interface
        .unwrap_or_else(|| panic!("{name} is not of this contract"))
        .to_owned()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_default_components_use_nothing_that_must_be_granted() {
    for role in ["batching", "routing", "chunking", "progress"] {
        let (imports, exports) = interfaces(role);
        assert_eq!(exports, set(&[role]));
        assert!(
            imports.is_subset(&set(&["types", "log", "settings"])),
            "{role}: {imports:?}"
        );
        // A panic's message needs the log.
        assert!(imports.contains("log"), "{role}: {imports:?}");
    }
}

#[test]
fn a_right_that_is_used_is_imported_and_no_other() {
    for right in ["state", "inference", "rasterizer"] {
        let (imports, exports) = interfaces(&format!("hostile-{right}"));
        let granted = imports
            .intersection(&set(&["state", "inference", "rasterizer"]))
            .cloned()
            .collect::<BTreeSet<_>>();
        assert_eq!(granted, set(&[right]));
        assert_eq!(exports, set(&["batching", "chunking", "progress", "routing"]));
    }
}

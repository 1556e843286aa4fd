//! Rules about the shape of the source: layers between crates, no import cycles between files, and the length of files.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod module_graph;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use module_graph::CrateModules;

/// The crates that each crate of the host may depend on, outside its tests.
const LAYERS: [(&str, &[&str]); 10] = [
    ("core", &[]),
    ("engine", &["core"]),
    ("policy", &["core"]),
    ("raster", &["core"]),
    ("inference", &["core"]),
    ("llm", &["core"]),
    ("storage", &["core"]),
    ("control", &["core", "engine"]),
    ("server", &["core", "engine", "control"]),
    (
        "cli",
        &[
            "core",
            "engine",
            "policy",
            "raster",
            "inference",
            "llm",
            "storage",
            "control",
            "server",
        ],
    ),
];

/// Lines of a source file, without the tests at its end, above which it needs an entry in [`LONG_FILES`].
const MAX_LINES: usize = 400;

/// Files that are longer than [`MAX_LINES`], with the reason.
const LONG_FILES: [(&str, &str); 9] = [
    (
        "host/core/src/fair_queue.rs",
        "the levels of the queue share the invariants that its documentation states",
    ),
    (
        "host/core/src/layout/reading_order.rs",
        "one recursive division of a page, whose steps are read together",
    ),
    (
        "host/engine/src/document_ingestion.rs",
        "the ingestion of a document from its plan to its end, in order",
    ),
    (
        "host/engine/src/summarization/mod.rs",
        "the summarization of a document from its sections to its end, in order",
    ),
    (
        "host/llm/src/dispatcher.rs",
        "one task and the state that only it changes",
    ),
    (
        "host/llm/src/provider_state.rs",
        "the limits and the health of a provider, which change together",
    ),
    (
        "host/raster/src/worker_process.rs",
        "the exchange with one worker process, with its timeouts and its end",
    ),
    (
        "host/server/src/intake/submission_in_progress.rs",
        "the reception of one submission, whose limits are checked at each step",
    ),
    (
        "host/cli/src/registry/client.rs",
        "the requests to a registry, with redirects and authentication",
    ),
];

fn repository_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests have a parent folder")
        .to_path_buf()
}

fn crate_folder(name: &str) -> PathBuf {
    repository_folder().join("host").join(name)
}

/// Returns all Rust files below a folder.
fn list_rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Counts the lines before the inline test module.
fn count_source_lines(text: &str) -> usize {
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

#[test]
fn crates_depend_on_lower_layers_only() {
    for (name, allowed) in LAYERS {
        let manifest =
            std::fs::read_to_string(crate_folder(name).join("Cargo.toml")).expect("the crate has a manifest");
        let manifest: toml::Table = manifest.parse().expect("the manifest is TOML");
        let dependencies = manifest["dependencies"].as_table().expect("a table");
        let found: Vec<_> = dependencies
            .keys()
            .filter_map(|key| key.strip_prefix("weir-"))
            .filter(|dependency| !allowed.contains(dependency))
            .collect();
        assert!(found.is_empty(), "{name} must not depend on {found:?}");
    }
}

#[test]
fn files_of_a_crate_have_no_import_cycles() {
    let mut cycles = BTreeMap::new();
    for (name, _) in LAYERS {
        let source = crate_folder(name).join("src");
        let root = ["lib.rs", "main.rs"]
            .map(|file| source.join(file))
            .into_iter()
            .find(|file| file.exists())
            .expect("a crate root");
        let found = CrateModules::read(&root).import_cycles();
        if !found.is_empty() {
            cycles.insert(name, found);
        }
    }
    assert!(cycles.is_empty(), "import cycles between files: {cycles:#?}");
}

#[test]
fn long_files_have_a_reason() {
    let mut long = Vec::new();
    for (name, _) in LAYERS {
        for file in list_rust_files(&crate_folder(name).join("src")) {
            let text = std::fs::read_to_string(&file).expect("the file is text");
            let lines = count_source_lines(&text);
            let path = file
                .strip_prefix(repository_folder())
                .expect("inside the repository");
            let path = path.to_string_lossy().into_owned();
            let is_test = path.ends_with("tests.rs") || path.contains("/tests/");
            if lines > MAX_LINES && !is_test && LONG_FILES.iter().all(|(long, _)| *long != path) {
                long.push(format!("{path}: {lines} lines"));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
    for (path, reason) in LONG_FILES {
        let text = std::fs::read_to_string(repository_folder().join(path)).expect("a listed file exists");
        assert!(
            count_source_lines(&text) > MAX_LINES && !reason.is_empty(),
            "{path} is not long"
        );
    }
}

//! The WIT contract and the SDKs, embedded in this binary so that components are built with the contract of this host.

use std::io;
use std::path::Path;

/// Pairs of path and content. The paths are relative to the folder that is passed to `files!`.
type EmbeddedFiles = &'static [(&'static str, &'static str)];

macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../", $folder, "/", $name)))),+]
    };
}

/// The WIT contract.
pub(crate) const WIT_FILES: EmbeddedFiles = files!("wit":
    "batching.wit", "capabilities.wit", "chunking.wit", "progress.wit", "routing.wit", "types.wit", "worlds.wit",
);

/// The Rust SDK without its `Cargo.toml`, which depends on this repository's workspace.
pub(crate) const RUST_SDK_FILES: EmbeddedFiles = files!("components/sdk":
    "src/batching.rs", "src/bindings.rs", "src/chunking.rs", "src/export.rs", "src/lib.rs", "src/log.rs",
    "src/progress.rs", "src/routing.rs", "src/settings.rs",
);

/// A `Cargo.toml` for the embedded Rust SDK that works outside the workspace.
pub(crate) const RUST_SDK_CARGO_TOML: &str = include_str!("templates/rust/sdk.toml");

/// The JavaScript SDK in the layout of a package in `node_modules`.
pub(crate) const JS_SDK_FILES: EmbeddedFiles = files!("components/sdk/js":
    "package.json", "README.md", "index.js", "index.d.ts", "inference.js", "inference.d.ts", "log.js", "policy.js",
    "rasterizer.js", "rasterizer.d.ts", "refusal.js", "refusal.d.ts", "settings.js", "state.js", "state.d.ts", "text.js",
);

/// The Python SDK: the package without project files.
pub(crate) const PYTHON_SDK_FILES: EmbeddedFiles = files!("components/sdk/python":
    "weir_sdk/__init__.py", "weir_sdk/batching.py", "weir_sdk/chunking.py", "weir_sdk/inference.py", "weir_sdk/log.py",
    "weir_sdk/policy.py", "weir_sdk/progress.py", "weir_sdk/py.typed", "weir_sdk/rasterizer.py", "weir_sdk/refusal.py",
    "weir_sdk/routing.py", "weir_sdk/settings.py", "weir_sdk/state.py", "weir_sdk/text.py",
);

/// Writes files to a folder.
pub(crate) fn write_files(folder: &Path, files: EmbeddedFiles) -> io::Result<()> {
    files
        .iter()
        .try_for_each(|(name, text)| write_if_changed(&folder.join(name), text))
}

/// Writes a file unless it already has this text. Unchanged files keep their modification time, which compilers use to decide
/// whether to rebuild.
pub(crate) fn write_if_changed(path: &Path, text: &str) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|existing| existing == text.as_bytes()) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Returns the relative paths of the files below a folder of the repository, except those that start with a skipped prefix.
    fn list_repository_files(folder: &str, skipped: &[&str]) -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
        let mut found = BTreeSet::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                if skipped
                    .iter()
                    .any(|skip| name.starts_with(skip) || name.contains("__pycache__"))
                {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(name);
                }
            }
        }
        found
    }

    #[test]
    fn embedded_file_lists_match_the_repository() {
        let names = |files: EmbeddedFiles| {
            files
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(names(WIT_FILES), list_repository_files("wit", &[]));
        assert_eq!(
            names(RUST_SDK_FILES),
            list_repository_files("components/sdk", &["Cargo.toml", "js", "python", "tests"])
        );
        assert_eq!(
            names(JS_SDK_FILES),
            list_repository_files("components/sdk/js", &["node_modules", "test"])
        );
        assert_eq!(
            names(PYTHON_SDK_FILES),
            list_repository_files("components/sdk/python", &["pyproject.toml", "README.md", "test"])
        );
    }

    #[test]
    fn rust_sdk_uses_the_wit_bindgen_of_the_workspace() {
        let workspace_manifest = include_str!("../../../../components/Cargo.toml");
        let line = workspace_manifest
            .lines()
            .find(|line| line.starts_with("wit-bindgen = "))
            .unwrap();
        assert!(RUST_SDK_CARGO_TOML.contains(line), "{line}");
    }
}

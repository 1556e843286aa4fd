//! The contract and the SDKs, carried in this binary: what a component is built against is what this host speaks.

use std::io;
use std::path::Path;

/// Files under one folder of the repository, by their paths in it.
type Files = &'static [(&'static str, &'static str)];

macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../", $folder, "/", $name)))),+]
    };
}

/// The contract.
pub(crate) const CONTRACT: Files = files!("wit":
    "batching.wit", "capabilities.wit", "chunking.wit", "progress.wit", "routing.wit", "types.wit", "worlds.wit",
);

/// The Rust SDK without its manifest, which leans on this repository's workspace.
pub(crate) const RUST_SDK: Files = files!("components/sdk":
    "src/batching.rs", "src/bindings.rs", "src/chunking.rs", "src/export.rs", "src/lib.rs", "src/log.rs",
    "src/progress.rs", "src/routing.rs", "src/settings.rs",
);

/// A manifest for it that stands alone.
pub(crate) const RUST_SDK_MANIFEST: &str = include_str!("templates/rust/sdk.toml");

/// The JavaScript SDK, as `node_modules` has it.
pub(crate) const JS_SDK: Files = files!("components/sdk/js":
    "package.json", "README.md", "index.js", "index.d.ts", "inference.js", "inference.d.ts", "log.js", "policy.js",
    "rasterizer.js", "rasterizer.d.ts", "refusal.js", "refusal.d.ts", "settings.js", "state.js", "state.d.ts", "text.js",
);

/// The Python SDK: the package alone.
pub(crate) const PYTHON_SDK: Files = files!("components/sdk/python":
    "weir_sdk/__init__.py", "weir_sdk/batching.py", "weir_sdk/chunking.py", "weir_sdk/inference.py", "weir_sdk/log.py",
    "weir_sdk/policy.py", "weir_sdk/progress.py", "weir_sdk/py.typed", "weir_sdk/rasterizer.py", "weir_sdk/refusal.py",
    "weir_sdk/routing.py", "weir_sdk/settings.py", "weir_sdk/state.py", "weir_sdk/text.py",
);

/// Writes files under a folder.
pub(crate) fn lay(folder: &Path, files: Files) -> io::Result<()> {
    files
        .iter()
        .try_for_each(|(name, text)| write(&folder.join(name), text))
}

/// Writes a file unless it is like that already: a compiler goes by the time of the last change.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
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

    /// The names of the files below a folder of the repository.
    fn below(folder: &str, skipped: &[&str]) -> BTreeSet<String> {
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
    fn nothing_of_an_sdk_is_left_out() {
        let names = |files: Files| {
            files
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(names(CONTRACT), below("wit", &[]));
        assert_eq!(
            names(RUST_SDK),
            below("components/sdk", &["Cargo.toml", "js", "python", "tests"])
        );
        assert_eq!(
            names(JS_SDK),
            below("components/sdk/js", &["node_modules", "test"])
        );
        assert_eq!(
            names(PYTHON_SDK),
            below("components/sdk/python", &["pyproject.toml", "README.md", "test"])
        );
    }

    #[test]
    fn the_manifest_of_the_rust_sdk_follows_the_workspace() {
        let ours = include_str!("../../../../components/Cargo.toml");
        let line = ours
            .lines()
            .find(|line| line.starts_with("wit-bindgen = "))
            .unwrap();
        assert!(RUST_SDK_MANIFEST.contains(line), "{line}");
    }
}

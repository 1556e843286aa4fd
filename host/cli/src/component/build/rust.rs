//! Builds Rust components with cargo for `wasm32-unknown-unknown` and the linker `wasm-component-ld`.
//!
//! Two kinds of toolchain work, as for the guests of this repository (`components/build`): one with the standard library of the
//! target, which rustup adds, or one with the source of the library, which Debian packages.
//!
//! Builds are reproducible: paths of the library and of crates are remapped to fixed names, and cargo uses relative paths for the
//! component's own source. So the same source gives the same bytes in every folder, and a pipeline's revision does not depend on
//! the place of the build. The flags are the same for every folder, so that folders can share a target folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::toolchain::{find_program, run_program, run_program_showing_stderr};
use super::{ComponentSource, embedded_wit_and_sdk_files};

const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// Builds the crate in the folder and returns the path of the component.
pub(super) async fn build(source: &ComponentSource) -> Result<PathBuf> {
    let sdk = source.build_work_folder().join("sdk/rust");
    embedded_wit_and_sdk_files::write_files(&sdk, embedded_wit_and_sdk_files::RUST_SDK_FILES)
        .and_then(|()| {
            embedded_wit_and_sdk_files::write_if_changed(
                &sdk.join("Cargo.toml"),
                embedded_wit_and_sdk_files::RUST_SDK_CARGO_TOML,
            )
        })
        .with_context(|| format!("cannot write to {}", sdk.display()))?;
    let cargo = find_program("cargo", "install Rust from https://rustup.rs")?;
    let compiler = RustCompiler::find_wasm_compiler().await?;
    let linker = find_linker().await?;

    let mut command = Command::new(cargo);
    // Remove variables that the user has set for other builds.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let removed_prefixes = [
            "RUSTC",
            "RUSTFLAGS",
            "RUSTDOC",
            "CARGO_ENCODED",
            "CARGO_BUILD",
            "CARGO_PROFILE",
            "CARGO_UNSTABLE",
        ];
        if removed_prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The linker calls rust-lld, which is in the same folder.
    let folders = std::env::split_paths(&path).chain(linker.parent().map(Path::to_owned));
    command
        .args([
            "build",
            "--release",
            "--lib",
            "--target",
            WASM_TARGET,
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(&source.folder)
        .env("PATH", std::env::join_paths(folders)?)
        .env("RUSTC", &compiler.rustc)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            compiler.rustc_flags(&linker).join("\x1f"),
        );
    if compiler.builds_std {
        command
            .env("RUSTC_BOOTSTRAP", "1")
            .arg("-Zbuild-std=std,panic_abort");
    }
    let messages = run_program_showing_stderr(&mut command, "cargo build").await?;
    find_component_in_cargo_messages(&messages, &source.folder).with_context(|| {
        format!(
            "cargo built no component from {}: its Cargo.toml needs crate-type = [\"cdylib\"] under [lib]",
            source.folder.display()
        )
    })
}

/// Returns the path of the component in cargo's JSON messages.
fn find_component_in_cargo_messages(messages: &str, folder: &Path) -> Option<PathBuf> {
    let manifest = folder.join("Cargo.toml");
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| {
            message
                .get("manifest_path")
                .and_then(|path| path.as_str())
                .map(Path::new)
                == Some(&manifest)
        })
        .filter_map(|message| message.get("filenames")?.as_array().cloned())
        .flatten()
        .filter_map(|file| Some(PathBuf::from(file.as_str()?)))
        .find(|file| file.extension().is_some_and(|ending| ending == "wasm"))
}

struct RustCompiler {
    rustc: PathBuf,
    sysroot: PathBuf,
    /// Whether the standard library must be built from its source, because it is not installed for the target.
    builds_std: bool,
}

impl RustCompiler {
    async fn find_wasm_compiler() -> Result<Self> {
        let mut with_source = None;
        for rustc in list_rustc_executables() {
            let sysroot = query_path_from_rustc(&rustc, "sysroot").await?;
            let library = sysroot.join("lib/rustlib").join(WASM_TARGET).join("lib");
            let built = std::fs::read_dir(library).is_ok_and(|mut files| {
                files.any(|file| {
                    file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
                })
            });
            let source = sysroot
                .join("lib/rustlib/src/rust/library/std/Cargo.toml")
                .is_file();
            let this = |builds_std| Self {
                rustc: rustc.clone(),
                sysroot: sysroot.clone(),
                builds_std,
            };
            if built {
                return Ok(this(false));
            }
            if source && with_source.is_none() {
                with_source = Some(this(true));
            }
        }
        with_source.with_context(|| {
            format!(
                "no Rust compiler for {WASM_TARGET}: run `rustup target add {WASM_TARGET}`, or on Debian and Ubuntu \
                 `apt-get install rustc-web rust-web-src libstd-rust-web-dev`"
            )
        })
    }

    fn rustc_flags(&self, linker: &Path) -> Vec<String> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
        let registries = home
            .into_iter()
            .filter_map(|home| std::fs::read_dir(home.join("registry/src")).ok());
        let crates = registries
            .flatten()
            .filter_map(Result::ok)
            .map(|registry| (registry.path(), "/crates"));
        let source = self.sysroot.join("lib/rustlib/src/rust");
        let remap_flags = std::iter::once((source, "/rust"))
            .chain(crates)
            .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
        [
            "-C".into(),
            format!("linker={}", linker.display()),
            "-C".into(),
            "linker-flavor=wasm-ld".into(),
        ]
        .into_iter()
        .chain(remap_flags)
        .collect()
    }
}

/// Returns the Rust compilers of this machine: the one in `PATH`, then the one of Debian.
fn list_rustc_executables() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = find_program("rustc", "").into_iter().collect();
    let debian = PathBuf::from("/usr/bin/rustc");
    if debian.is_file() && !found.contains(&debian) {
        found.push(debian);
    }
    found
}

async fn query_path_from_rustc(rustc: &Path, print_option: &str) -> Result<PathBuf> {
    let output = run_program(
        Command::new(rustc).args(["--print", print_option]),
        "rustc --print",
    )
    .await?;
    Ok(PathBuf::from(output.trim()))
}

/// Finds the linker in the Rust toolchains, as rustup installs it, or else in `PATH`.
async fn find_linker() -> Result<PathBuf> {
    for rustc in list_rustc_executables() {
        let rustlib = query_path_from_rustc(&rustc, "sysroot")
            .await?
            .join("lib/rustlib");
        let hosts = std::fs::read_dir(rustlib)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        let bundled_linker = hosts
            .map(|host| host.path().join("bin/wasm-component-ld"))
            .find(|file| file.is_file());
        if let Some(linker) = bundled_linker {
            return Ok(linker);
        }
    }
    find_program(
        "wasm-component-ld",
        "run `cargo install wasm-component-ld` and, for the wasm-ld it calls, `apt-get install lld`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn component_is_found_in_cargo_messages() {
        let artifact = |folder: &str, files: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"{folder}/Cargo.toml","filenames":[{files}]}}"#
            )
        };
        let messages = [
            artifact("/sdk", r#""/t/libweir_sdk.rlib""#),
            "no json".into(),
            artifact("/c", r#""/t/policy.d","/t/policy.wasm""#),
        ]
        .join("\n");
        assert_eq!(
            find_component_in_cargo_messages(&messages, Path::new("/c")),
            Some("/t/policy.wasm".into())
        );
        assert_eq!(
            find_component_in_cargo_messages(&messages, Path::new("/sdk")),
            None
        );
    }
}

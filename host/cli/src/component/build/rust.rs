//! Rust: cargo, for `wasm32-unknown-unknown`, with a linker that makes components.
//!
//! Two toolchains will do, as for the guests of this repository (`components/build`): one that has the target's standard
//! library, which rustup adds, or one that has the library's source, which Debian packages. Paths of the library and of crates
//! are mapped to fixed names and cargo names the folder's own relatively, so that the same source gives the same bytes in every
//! folder and a pipeline's revision does not depend on where it was built. The flags are the same for every folder, so folders
//! that share a target folder share what it holds.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::tool::{find, run, run_shown};
use super::{Source, embedded};

const TARGET: &str = "wasm32-unknown-unknown";

/// Builds the folder's crate; gives the file cargo made.
pub(super) async fn build(source: &Source) -> Result<PathBuf> {
    let sdk = source.workshop().join("sdk/rust");
    embedded::lay(&sdk, embedded::RUST_SDK)
        .and_then(|()| embedded::write(&sdk.join("Cargo.toml"), embedded::RUST_SDK_MANIFEST))
        .with_context(|| format!("cannot write to {}", sdk.display()))?;
    let cargo = find("cargo", "install Rust from https://rustup.rs")?;
    let compiler = Compiler::find().await?;
    let linker = linker().await?;

    let mut command = Command::new(cargo);
    // What the caller has set for other builds does not count here.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let other = [
            "RUSTC",
            "RUSTFLAGS",
            "RUSTDOC",
            "CARGO_ENCODED",
            "CARGO_BUILD",
            "CARGO_PROFILE",
            "CARGO_UNSTABLE",
        ];
        if other.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // rust-lld lies beside the linker, which calls it.
    let folders = std::env::split_paths(&path).chain(linker.parent().map(Path::to_owned));
    command
        .args([
            "build",
            "--release",
            "--lib",
            "--target",
            TARGET,
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(&source.folder)
        .env("PATH", std::env::join_paths(folders)?)
        .env("RUSTC", &compiler.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", compiler.flags(&linker).join("\x1f"));
    if compiler.builds_std {
        command
            .env("RUSTC_BOOTSTRAP", "1")
            .arg("-Zbuild-std=std,panic_abort");
    }
    let said = run_shown(&mut command, "cargo build").await?;
    made(&said, &source.folder).with_context(|| {
        format!(
            "cargo made no component of {}: its Cargo.toml needs crate-type = [\"cdylib\"] under [lib]",
            source.folder.display()
        )
    })
}

/// The component among the messages of a build.
fn made(messages: &str, folder: &Path) -> Option<PathBuf> {
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

struct Compiler {
    rustc: PathBuf,
    sysroot: PathBuf,
    /// Whether it has no standard library for the target but the source of one.
    builds_std: bool,
}

impl Compiler {
    async fn find() -> Result<Self> {
        let mut with_source = None;
        for rustc in compilers() {
            let sysroot = print(&rustc, "sysroot").await?;
            let library = sysroot.join("lib/rustlib").join(TARGET).join("lib");
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
                "no Rust compiler for {TARGET}: run `rustup target add {TARGET}`, or on Debian and Ubuntu \
                 `apt-get install rustc-web rust-web-src libstd-rust-web-dev`"
            )
        })
    }

    fn flags(&self, linker: &Path) -> Vec<String> {
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
        let mapped = std::iter::once((source, "/rust"))
            .chain(crates)
            .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
        [
            "-C".into(),
            format!("linker={}", linker.display()),
            "-C".into(),
            "linker-flavor=wasm-ld".into(),
        ]
        .into_iter()
        .chain(mapped)
        .collect()
    }
}

/// The compilers of this machine: the one in use, and Debian's.
fn compilers() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = find("rustc", "").into_iter().collect();
    let debian = PathBuf::from("/usr/bin/rustc");
    if debian.is_file() && !found.contains(&debian) {
        found.push(debian);
    }
    found
}

async fn print(rustc: &Path, what: &str) -> Result<PathBuf> {
    let said = run(Command::new(rustc).args(["--print", what]), "rustc --print").await?;
    Ok(PathBuf::from(said.trim()))
}

/// The linker: rustup brings it with its tools.
async fn linker() -> Result<PathBuf> {
    for rustc in compilers() {
        let rustlib = print(&rustc, "sysroot").await?.join("lib/rustlib");
        let hosts = std::fs::read_dir(rustlib)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        let brought = hosts
            .map(|host| host.path().join("bin/wasm-component-ld"))
            .find(|file| file.is_file());
        if let Some(linker) = brought {
            return Ok(linker);
        }
    }
    find(
        "wasm-component-ld",
        "run `cargo install wasm-component-ld` and, for the wasm-ld it calls, `apt-get install lld`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_is_found_among_cargos_messages() {
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
        assert_eq!(made(&messages, Path::new("/c")), Some("/t/policy.wasm".into()));
        assert_eq!(made(&messages, Path::new("/sdk")), None);
    }
}

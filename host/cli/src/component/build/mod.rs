//! `weir component build`: builds the source in a folder and writes the component to the file that the manifest names.
//!
//! Each language is built by its own toolchain. npm and pip install the JavaScript and Python toolchains from their package
//! registries into separate cache folders. The versions and hashes are embedded in this binary. So a build does not depend on other
//! packages on the machine.

mod component_world;
mod javascript;
mod python;
mod rust;
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::args::BuildArgs;
use super::component_source::{ComponentSource, Language};
use super::embedded_wit_and_sdk_files::{self, WIT_FILES};
use crate::app_folders::AppFolders;
use crate::terminal::out_line;

/// The result of a build.
pub(crate) struct BuiltComponent {
    pub(crate) path: PathBuf,
    bytes: usize,
    digest: String,
    elapsed: Duration,
}

/// Builds the component in a folder and prints its path, size and build time.
pub(crate) async fn run(args: &BuildArgs, json: bool, folders: &AppFolders) -> Result<ExitCode> {
    let built = build_component(&ComponentSource::open(&args.folder)?, folders).await?;
    if json {
        out_line!(
            "{}",
            serde_json::json!({
                "component": built.path,
                "bytes": built.bytes,
                "sha256": built.digest,
                "seconds": built.elapsed.as_secs_f64(),
            })
        )?;
    } else {
        out_line!("{built}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds a component and atomically replaces the output file that the manifest names. If the build fails, the file stays unchanged.
pub(crate) async fn build_component(
    source: &ComponentSource,
    folders: &AppFolders,
) -> Result<BuiltComponent> {
    let started = Instant::now();
    let build_folder = source.build_work_folder();
    let contract = build_folder.join("wit");
    embedded_wit_and_sdk_files::write_files(&contract, WIT_FILES)
        .and_then(|()| {
            embedded_wit_and_sdk_files::write_if_changed(
                &contract.join("component.wit"),
                &component_world::generate_wit_world(source),
            )
        })
        .with_context(|| format!("cannot write to {}", build_folder.display()))?;
    let built_file = match source.language {
        Language::Rust => rust::build(source).await?,
        Language::Js => javascript::build(source, &contract, folders).await?,
        Language::Python => python::build(source, &contract, folders).await?,
    };
    let bytes =
        std::fs::read(&built_file).with_context(|| format!("cannot read {}", built_file.display()))?;
    replace_file(&source.output_file, &bytes)
        .with_context(|| format!("cannot write {}", source.output_file.display()))?;
    Ok(BuiltComponent {
        path: source.output_file.clone(),
        bytes: bytes.len(),
        digest: HEXLOWER.encode(&Sha256::digest(&bytes)),
        elapsed: started.elapsed(),
    })
}

/// Replaces a file by a rename, so that concurrent readers see either the old or the new content.
fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary_file = folder.join(name);
    std::fs::write(&temporary_file, bytes)?;
    std::fs::rename(&temporary_file, path)
}

impl std::fmt::Display for BuiltComponent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kib = self.bytes.div_ceil(1024);
        write!(
            f,
            "{} ({kib} KiB, in {:.1} s)",
            self.path.display(),
            self.elapsed.as_secs_f64()
        )
    }
}

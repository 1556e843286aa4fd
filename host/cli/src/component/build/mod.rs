//! `weir component build`: from a folder to the file its manifest names.
//!
//! Each language has its own toolchain and is built by it, not by a copy of it in here. The toolchains that are packages of a
//! registry are installed by that registry's client, at a version and with hashes that this binary carries, into a folder of
//! their own below the cache: what a component is built with is no matter of what else a machine has installed.

mod javascript;
mod python;
mod rust;
mod tool;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::args::Build;
use super::embedded::{self, CONTRACT};
use super::language::Language;
use super::source::Source;
use crate::places::Places;
use crate::terminal::out_line;

/// A component that was built.
pub(crate) struct Built {
    pub(crate) path: PathBuf,
    bytes: usize,
    digest: String,
    took: Duration,
}

/// Builds a folder and says where the component is.
pub(crate) async fn run(args: &Build, json: bool, places: &Places) -> Result<ExitCode> {
    let built = build(&Source::open(&args.folder)?, places).await?;
    if json {
        out_line!(
            "{}",
            serde_json::json!({
                "component": built.path,
                "bytes": built.bytes,
                "sha256": built.digest,
                "seconds": built.took.as_secs_f64(),
            })
        )?;
    } else {
        out_line!("{built}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds a component. The file the manifest names is replaced whole, or stays as it was.
pub(crate) async fn build(source: &Source, places: &Places) -> Result<Built> {
    let started = Instant::now();
    let workshop = source.workshop();
    let contract = workshop.join("wit");
    embedded::lay(&contract, CONTRACT)
        .and_then(|()| embedded::write(&contract.join("component.wit"), &world::of(source)))
        .with_context(|| format!("cannot write to {}", workshop.display()))?;
    let fresh = match source.language {
        Language::Rust => rust::build(source).await?,
        Language::Js => javascript::build(source, &contract, places).await?,
        Language::Python => python::build(source, &contract, places).await?,
    };
    let bytes = std::fs::read(&fresh).with_context(|| format!("cannot read {}", fresh.display()))?;
    put(&source.output, &bytes).with_context(|| format!("cannot write {}", source.output.display()))?;
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    Ok(Built {
        path: source.output.clone(),
        bytes: bytes.len(),
        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        took: started.elapsed(),
    })
}

/// Puts a file in its place at once: someone may be about to read the old one.
fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = folder.join(name);
    std::fs::write(&fresh, bytes)?;
    std::fs::rename(&fresh, path)
}

impl std::fmt::Display for Built {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kib = self.bytes.div_ceil(1024);
        write!(
            f,
            "{} ({kib} KiB, in {:.1} s)",
            self.path.display(),
            self.took.as_secs_f64()
        )
    }
}

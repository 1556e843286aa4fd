//! Component in, machine code out, in a process of its own.
//!
//! Compiling is the one moment when a tenant's bytes decide how much CPU and memory a large program of ours takes, and a
//! compiler leaves hundreds of megabytes behind in the process that ran it. So it runs in a child with limits, and what
//! it made is kept by digest: a component is compiled once for each build of Weir.

mod cache;
mod checksum;
mod child;
mod mapped;
mod strip;

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Component;
use weir_core::manifest::ComponentFile;
use weir_core::usage::{Meter, Usage};
use weir_core::{PolicyError, TenantId};

pub use child::compile_main;

use crate::config::PolicyConfig;
use crate::stats::HostMeter;
use cache::Cache;
pub(crate) use cache::Lease;

/// Bytes a component may have: several times the largest interpreter.
const COMPONENT_BYTES: u64 = 64 << 20;

/// Bytes of a child's complaint that are read.
const COMPLAINT_BYTES: u64 = 4096;

/// Environment variables that carry the limits to the child.
const SECONDS: &str = "WEIR_COMPILE_SECONDS";
const BYTES: &str = "WEIR_COMPILE_BYTES";

/// Threads of a child. Each reserves address space of its own, of which there is a limit.
const THREADS: usize = 4;

/// Compiles components and remembers the result.
pub(crate) struct Compiler {
    engine: Engine,
    cache: Arc<Cache>,
    command: Vec<OsString>,
    seconds: u32,
    bytes: u64,
    turns: Semaphore,
    meter: Arc<HostMeter>,
    told: Option<Arc<dyn Meter>>,
}

impl Compiler {
    pub(crate) fn new(
        config: &PolicyConfig,
        engine: Engine,
        meter: Arc<HostMeter>,
    ) -> Result<Self, PolicyError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            cache: Arc::new(Cache::open(&config.cache, config.cache_bytes, &engine)?),
            engine,
            command: config.compile_command.clone(),
            seconds: config.compile_seconds,
            bytes: config.compile_bytes,
            turns: Semaphore::new(cores.max(2)),
            meter,
            told: config.meter.clone(),
        })
    }

    /// The component, compiled; from the cache if it has been before.
    pub(crate) async fn component(
        &self,
        file: &ComponentFile,
        payer: Option<&TenantId>,
    ) -> Result<(Component, Lease), PolicyError> {
        if let Some(loaded) = self.cached(file).await? {
            return Ok(loaded);
        }
        let turn = self.turns.acquire().await.map_err(|e| unusable(file, e))?;
        // While this one waited, another may have made the same.
        if let Some(loaded) = self.cached(file).await? {
            return Ok(loaded);
        }
        let _lease = self.compile(file, payer).await?;
        drop(turn);
        self.cached(file)
            .await?
            .ok_or_else(|| unusable(file, "what was compiled cannot be loaded again"))
    }

    async fn cached(&self, file: &ComponentFile) -> Result<Option<(Component, Lease)>, PolicyError> {
        let (cache, engine, digest) = (Arc::clone(&self.cache), self.engine.clone(), file.digest);
        let found = tokio::task::spawn_blocking(move || cache.load(&engine, &digest))
            .await
            .map_err(|e| unusable(file, e))?;
        if found.is_some() {
            self.meter.loaded();
        }
        Ok(found)
    }

    async fn compile(&self, file: &ComponentFile, payer: Option<&TenantId>) -> Result<Lease, PolicyError> {
        let source = self.verified_copy(file).await?;
        let target = self
            .cache
            .temporary()
            .map_err(|e| unusable(file, self.cache.failed(&e)))?;
        self.meter.compiling();
        self.run_child(file, payer, &source, &target).await?;
        self.cache
            .keep(&file.digest, target)
            .map_err(|e| unusable(file, self.cache.failed(&e)))
    }

    /// A copy that nobody else can change, of bytes that are what the digest says.
    async fn verified_copy(&self, file: &ComponentFile) -> Result<TempPath, PolicyError> {
        let (cache, path, digest) = (Arc::clone(&self.cache), file.path.clone(), file.digest);
        tokio::task::spawn_blocking(move || {
            let bytes = read_component(&path)?;
            if <[u8; 32]>::from(Sha256::digest(&bytes)) != digest {
                return Err(String::from("its file has changed since the job began"));
            }
            let copy = cache.temporary().map_err(|e| cache.failed(&e))?;
            std::fs::write(&copy, &bytes).map_err(|e| format!("its copy cannot be written: {e}"))?;
            Ok(copy)
        })
        .await
        .map_err(|e| unusable(file, e))?
        .map_err(|e| unusable(file, e))
    }

    async fn run_child(
        &self,
        file: &ComponentFile,
        payer: Option<&TenantId>,
        source: &Path,
        target: &Path,
    ) -> Result<(), PolicyError> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(unusable(file, "no command to compile it with is set"));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .arg(source)
            .arg(target)
            .env_clear()
            .env(SECONDS, self.seconds.to_string())
            .env(BYTES, self.bytes.to_string())
            .env("RAYON_NUM_THREADS", THREADS.to_string())
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| {
                tracing::warn!(program = %program.display(), error = %e, "a compiler cannot be started");
                unusable(file, format!("its compiler cannot be started: {e}"))
            })?;
        let pid = child.id();
        let account = || self.account(payer, pid);
        let mut complaint = Vec::new();
        let ended = async {
            if let Some(stderr) = child.stderr.take() {
                stderr.take(COMPLAINT_BYTES).read_to_end(&mut complaint).await?;
            }
            // What it was written with is closed, so it has ended, or has told more than anyone reads. Until it is waited for, the
            // system remembers what it took.
            account();
            child.wait().await
        };
        // CPU seconds are the limit. The clock only ends a child that does not use them, and is generous with one that
        // hardly gets a turn on a busy machine.
        let deadline = Duration::from_secs(u64::from(self.seconds) * 10 + 30);
        let ended = tokio::time::timeout(deadline, ended).await;
        let status = match ended {
            Ok(status) => status.map_err(|e| unusable(file, e))?,
            Err(_) => {
                account();
                // Waits until it is gone, so that it cannot write any more.
                let _ = child.kill().await;
                return Err(unusable(
                    file,
                    format!(
                        "compiling it took more than {} s on the clock",
                        deadline.as_secs()
                    ),
                ));
            }
        };
        if status.success() {
            return Ok(());
        }
        Err(unusable(file, self.reason(status, &complaint)))
    }

    /// Puts the CPU time of a child on a tenant's account.
    fn account(&self, payer: Option<&TenantId>, child: Option<u32>) {
        if let (Some(meter), Some(tenant), Some(spent)) = (&self.told, payer, child.and_then(spent)) {
            let usage = Usage {
                guest_micros: u64::try_from(spent.as_micros()).unwrap_or(u64::MAX),
                ..Usage::default()
            };
            meter.used(tenant, &usage);
        }
    }

    fn reason(&self, status: ExitStatus, complaint: &[u8]) -> String {
        let said = String::from_utf8_lossy(complaint).trim().replace('\n', " ");
        match status.signal().and_then(Signal::from_named_raw) {
            Some(Signal::XCPU) => format!(
                "compiling it took more than the {} s of CPU that policy.compile_seconds allows",
                self.seconds
            ),
            Some(Signal::KILL) => {
                "its compiler was killed, most likely because the machine ran out of memory".into()
            }
            Some(Signal::ABORT | Signal::SEGV | Signal::BUS)
                if said.is_empty() || said.contains("memory allocation") =>
            {
                self.too_much_memory()
            }
            Some(signal) => format!("its compiler ended with signal {}: {said}", signal.as_raw()),
            None if said.contains("os error 12") => self.too_much_memory(),
            None => said,
        }
    }

    fn too_much_memory(&self) -> String {
        format!(
            "compiling it took more than the {} bytes that policy.compile_bytes allows",
            self.bytes
        )
    }
}

/// CPU time of a process that has not been waited for: see proc_pid_stat(5).
fn spent(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets, may have anything in it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    let ticks = times.next()?.ok()?.saturating_add(times.next()?.ok()?);
    Some(Duration::from_millis(
        ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1),
    ))
}

fn read_component(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| {
        tracing::warn!(path = %path.display(), error = %e, "a component cannot be read");
        format!("its file cannot be read: {e}")
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(COMPONENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > COMPONENT_BYTES {
        return Err(format!("it is larger than {COMPONENT_BYTES} bytes"));
    }
    Ok(bytes)
}

pub(crate) fn unusable(file: &ComponentFile, reason: impl std::fmt::Display) -> PolicyError {
    PolicyError::Unusable {
        component: file.name.clone(),
        reason: reason.to_string(),
    }
}

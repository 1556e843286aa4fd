//! Compiles components to machine code in a child process.
//!
//! A tenant's component determines how much CPU time and memory the compiler takes, and a compiler leaves hundreds of megabytes
//! allocated in its process. So it runs in a child process with limits. The compiled code is cached by the component's digest,
//! so a component is compiled once for each build of Weir.

mod cache;
mod child_process;
mod debug_info;
mod mapped_component;

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
use weir_core::manifest::ResolvedComponentFile;
use weir_core::usage::{Usage, UsageMeter};
use weir_core::{PolicyError, TenantId};

pub use child_process::compile_main;

use crate::config::PolicyHostConfig;
use crate::stats::HostCounters;
pub(crate) use cache::CacheFileInUseGuard;
use cache::CompiledCodeCache;

/// Bytes of a component: several times the size of the largest interpreter.
const MAX_COMPONENT_BYTES: u64 = 64 << 20;

/// Bytes that are read from the child's standard error.
const MAX_STDERR_BYTES: u64 = 4096;

/// Environment variables that pass the limits to the child.
const CPU_SECONDS_VARIABLE: &str = "WEIR_COMPILE_SECONDS";
const MEMORY_BYTES_VARIABLE: &str = "WEIR_COMPILE_BYTES";

/// Threads of a child. Each reserves address space, which is limited.
const CHILD_THREADS: usize = 4;

/// Compiles components and caches the result on disk.
pub(crate) struct ComponentCompiler {
    engine: Engine,
    cache: Arc<CompiledCodeCache>,
    command: Vec<OsString>,
    max_cpu_seconds: u32,
    max_memory_bytes: u64,
    compile_permits: Semaphore,
    counters: Arc<HostCounters>,
    usage_meter: Option<Arc<dyn UsageMeter>>,
}

impl ComponentCompiler {
    pub(crate) fn new(
        config: &PolicyHostConfig,
        engine: Engine,
        host_counters: Arc<HostCounters>,
    ) -> Result<Self, PolicyError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            cache: Arc::new(CompiledCodeCache::open_and_clean_folder(
                &config.cache_folder,
                config.max_cache_bytes,
                &engine,
            )?),
            engine,
            command: config.compile_command.clone(),
            max_cpu_seconds: config.max_compile_cpu_seconds,
            max_memory_bytes: config.max_compile_memory_bytes,
            compile_permits: Semaphore::new(cores.max(2)),
            counters: host_counters,
            usage_meter: config.usage_meter.clone(),
        })
    }

    /// Loads a component from the cache; compiles it first if the cache does not have it.
    pub(crate) async fn load_or_compile(
        &self,
        file: &ResolvedComponentFile,
        payer: Option<&TenantId>,
    ) -> Result<(Component, CacheFileInUseGuard), PolicyError> {
        if let Some(loaded) = self.load_from_cache(file).await? {
            return Ok(loaded);
        }
        let permit = self
            .compile_permits
            .acquire()
            .await
            .map_err(|e| component_unusable_error(file, e))?;
        // Another task may have compiled the same component during the wait.
        if let Some(loaded) = self.load_from_cache(file).await? {
            return Ok(loaded);
        }
        let _file_guard = self.compile_component(file, payer).await?;
        drop(permit);
        self.load_from_cache(file)
            .await?
            .ok_or_else(|| component_unusable_error(file, "the compiled code cannot be loaded"))
    }

    async fn load_from_cache(
        &self,
        file: &ResolvedComponentFile,
    ) -> Result<Option<(Component, CacheFileInUseGuard)>, PolicyError> {
        let (cache, engine, digest) = (Arc::clone(&self.cache), self.engine.clone(), file.digest);
        let found = tokio::task::spawn_blocking(move || cache.load_component(&engine, &digest))
            .await
            .map_err(|e| component_unusable_error(file, e))?;
        if found.is_some() {
            self.counters.count_load_from_cache();
        }
        Ok(found)
    }

    async fn compile_component(
        &self,
        file: &ResolvedComponentFile,
        payer: Option<&TenantId>,
    ) -> Result<CacheFileInUseGuard, PolicyError> {
        let source = self.copy_and_verify_component(file).await?;
        let target = self
            .cache
            .create_temporary_file()
            .map_err(|e| component_unusable_error(file, self.cache.log_and_describe_write_error(&e)))?;
        self.counters.count_compilation();
        self.run_compile_process(file, payer, &source, &target).await?;
        self.cache
            .commit_file(&file.digest, target)
            .map_err(|e| component_unusable_error(file, self.cache.log_and_describe_write_error(&e)))
    }

    /// Copies the component to a private file and checks that the bytes match the digest.
    async fn copy_and_verify_component(&self, file: &ResolvedComponentFile) -> Result<TempPath, PolicyError> {
        let (cache, source, digest) = (Arc::clone(&self.cache), file.file.clone(), file.digest);
        tokio::task::spawn_blocking(move || {
            let bytes = read_component_file(source.path())?;
            if <[u8; 32]>::from(Sha256::digest(&bytes)) != digest {
                return Err(String::from("its file has changed: its digest differs"));
            }
            let copy = cache
                .create_temporary_file()
                .map_err(|e| cache.log_and_describe_write_error(&e))?;
            std::fs::write(&copy, &bytes).map_err(|e| format!("cannot write a copy of it: {e}"))?;
            Ok(copy)
        })
        .await
        .map_err(|e| component_unusable_error(file, e))?
        .map_err(|e| component_unusable_error(file, e))
    }

    async fn run_compile_process(
        &self,
        file: &ResolvedComponentFile,
        payer: Option<&TenantId>,
        source: &Path,
        target: &Path,
    ) -> Result<(), PolicyError> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(component_unusable_error(file, "no compile command is configured"));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .arg(source)
            .arg(target)
            .env_clear()
            .env(CPU_SECONDS_VARIABLE, self.max_cpu_seconds.to_string())
            .env(MEMORY_BYTES_VARIABLE, self.max_memory_bytes.to_string())
            .env("RAYON_NUM_THREADS", CHILD_THREADS.to_string())
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| {
                tracing::warn!(program = %program.display(), error = %e, "cannot start the compile process");
                component_unusable_error(file, format!("its compiler cannot be started: {e}"))
            })?;
        let pid = child.id();
        let charge = || self.charge_compile_time_to_tenant(payer, pid);
        let mut error_output = Vec::new();
        let ended = async {
            if let Some(stderr) = child.stderr.take() {
                stderr
                    .take(MAX_STDERR_BYTES)
                    .read_to_end(&mut error_output)
                    .await?;
            }
            // Standard error is closed, so the child has exited, or it has written more than is read here. The system keeps the
            // CPU time of an exited child until it is reaped.
            charge();
            child.wait().await
        };
        // The limit is CPU time. The elapsed time only ends a child that hangs, so its limit is long enough for a child that
        // gets little CPU time on a busy machine.
        let deadline = Duration::from_secs(u64::from(self.max_cpu_seconds) * 10 + 30);
        let ended = tokio::time::timeout(deadline, ended).await;
        let status = match ended {
            Ok(status) => status.map_err(|e| component_unusable_error(file, e))?,
            Err(_) => {
                charge();
                // Waits until the child is reaped, so that it cannot write any more.
                let _ = child.kill().await;
                return Err(component_unusable_error(
                    file,
                    format!(
                        "compiling it took more than {} s of elapsed time",
                        deadline.as_secs()
                    ),
                ));
            }
        };
        if status.success() {
            return Ok(());
        }
        Err(component_unusable_error(
            file,
            self.describe_child_failure(status, &error_output),
        ))
    }

    /// Charges the CPU time of a child to a tenant.
    fn charge_compile_time_to_tenant(&self, payer: Option<&TenantId>, child: Option<u32>) {
        if let (Some(meter), Some(tenant), Some(cpu_time)) =
            (&self.usage_meter, payer, child.and_then(process_cpu_time))
        {
            let usage = Usage {
                guest_micros: u64::try_from(cpu_time.as_micros()).unwrap_or(u64::MAX),
                ..Usage::default()
            };
            meter.record_usage(tenant, &usage);
        }
    }

    fn describe_child_failure(&self, status: ExitStatus, error_output: &[u8]) -> String {
        let message = String::from_utf8_lossy(error_output).trim().replace('\n', " ");
        match status.signal().and_then(Signal::from_named_raw) {
            Some(Signal::XCPU) => format!(
                "compiling it took more than the {} s of CPU time that policy.max_compile_cpu_seconds allows",
                self.max_cpu_seconds
            ),
            Some(Signal::KILL) => {
                "its compiler was killed, most likely because the machine ran out of memory".into()
            }
            Some(Signal::ABORT | Signal::SEGV | Signal::BUS)
                if message.is_empty() || message.contains("memory allocation") =>
            {
                self.describe_exceeded_memory_limit()
            }
            Some(signal) => format!("its compiler ended with signal {}: {message}", signal.as_raw()),
            None if message.contains("os error 12") => self.describe_exceeded_memory_limit(),
            None => message,
        }
    }

    fn describe_exceeded_memory_limit(&self) -> String {
        format!(
            "compiling it took more than the {} bytes that policy.max_compile_memory_bytes allows",
            self.max_memory_bytes
        )
    }
}

/// Returns the CPU time of a process that has not been reaped; see proc_pid_stat(5).
fn process_cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program name, in parentheses, may contain any character.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    let ticks = times.next()?.ok()?.saturating_add(times.next()?.ok()?);
    Some(Duration::from_millis(
        ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1),
    ))
}

fn read_component_file(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| {
        tracing::warn!(path = %path.display(), error = %e, "cannot read a component");
        format!("its file cannot be read: {e}")
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(MAX_COMPONENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_COMPONENT_BYTES {
        return Err(format!("it is larger than {MAX_COMPONENT_BYTES} bytes"));
    }
    Ok(bytes)
}

pub(crate) fn component_unusable_error(
    file: &ResolvedComponentFile,
    reason: impl std::fmt::Display,
) -> PolicyError {
    PolicyError::Unusable {
        component: file.name.clone(),
        reason: reason.to_string(),
    }
}

//! Workers on a kernel that lacks a part of the sandbox.
//!
//! The worker starts through this test binary. The binary first denies itself the system call in question, as on a kernel without
//! it, and then executes the worker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tracing::subscriber::set_default;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use weir_core::RasterError;
use weir_core::ports::Rasterizer as _;
use weir_core::settings::SandboxMode;
use weir_raster::{EnforcementLevel, RasterConfig, RasterPool, probe_sandbox};

use self::common::{PIXELS_AT_72_DPI, TempFiles, test_config};

/// An argument that no test runner passes.
const WRAPPER_ARGUMENT: &str = "weir-raster-worker-without";

/// Returns a configuration in which the test of this name starts the worker.
fn config_with_wrapped_worker(worker: &str, sandbox: SandboxMode) -> RasterConfig {
    let test = std::env::current_exe().unwrap().into_os_string();
    let mut worker_command = vec![test];
    worker_command.extend([worker, "--exact", "--skip", WRAPPER_ARGUMENT].map(OsString::from));
    RasterConfig {
        worker_command,
        sandbox_mode: sandbox,
        ..test_config()
    }
}

/// If this process was started as a worker, becomes a worker for which this system call does not exist.
fn exec_worker_without_syscall(call: i64) {
    if !std::env::args().any(|argument| argument == WRAPPER_ARGUMENT) {
        return;
    }
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let rules = [(call, Vec::new())].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
    panic!(
        "{}",
        Command::new(env!("CARGO_BIN_EXE_weir-raster-worker")).exec()
    );
}

#[test]
fn becomes_worker_without_landlock_when_spawned() {
    exec_worker_without_syscall(libc::SYS_landlock_create_ruleset);
}

#[test]
fn becomes_worker_without_seccomp_when_spawned() {
    exec_worker_without_syscall(libc::SYS_seccomp);
}

const WRAPPED_WORKERS: [(&str, &str); 2] = [
    ("becomes_worker_without_landlock_when_spawned", "landlock"),
    ("becomes_worker_without_seccomp_when_spawned", "seccomp"),
];

#[tokio::test]
async fn worker_without_its_sandbox_gets_no_pdf() {
    let files = TempFiles::new();
    let source = files.write_source("a.pdf", &weir_samples::generate_text_document(1, 1));
    for (worker, part) in WRAPPED_WORKERS {
        let pool = RasterPool::new(config_with_wrapped_worker(worker, SandboxMode::Required)).unwrap();
        for error in [
            pool.check_worker_starts().await.err(),
            pool.open_document(&source).await.err(),
        ] {
            let error = error.unwrap_or_else(|| panic!("{worker} was accepted"));
            assert!(matches!(error, RasterError::Unavailable { .. }), "{error}");
            let message = error.to_string();
            assert!(
                message.contains(part) && message.contains("raster.sandbox_mode=best-effort"),
                "{message}"
            );
        }
        pool.close().await;
    }
}

/// Counts the warnings about an incomplete sandbox.
struct SandboxWarningCounter(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for SandboxWarningCounter {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let is_sandbox_warning = event.metadata().fields().field("missing").is_some();
        self.0
            .fetch_add(usize::from(is_sandbox_warning), Ordering::Relaxed);
    }
}

#[tokio::test]
async fn best_effort_draws_and_warns_once() {
    let files = TempFiles::new();
    let source = files.write_source("a.pdf", &weir_samples::generate_text_document(2, 1));
    for (worker, _) in WRAPPED_WORKERS {
        let warnings = Arc::new(AtomicUsize::new(0));
        let _log =
            set_default(tracing_subscriber::registry().with(SandboxWarningCounter(Arc::clone(&warnings))));
        let pool = RasterPool::new(config_with_wrapped_worker(worker, SandboxMode::BestEffort)).unwrap();
        pool.check_worker_starts().await.unwrap();
        let document = pool.open_document(&source).await.unwrap();
        for page in [1, 2] {
            document
                .reserve_and_rasterize_page(page, PIXELS_AT_72_DPI)
                .await
                .unwrap();
        }
        assert_eq!(warnings.load(Ordering::Relaxed), 1, "{worker}");
        pool.close().await;
    }
}

#[tokio::test]
async fn report_names_missing_parts_in_either_mode() {
    let config = config_with_wrapped_worker(
        "becomes_worker_without_landlock_when_spawned",
        SandboxMode::Required,
    );
    let report = probe_sandbox(&config).await.unwrap();
    assert_eq!(
        (report.status.landlock, report.status.seccomp),
        (EnforcementLevel::None, EnforcementLevel::Full)
    );
    let config = config_with_wrapped_worker(
        "becomes_worker_without_seccomp_when_spawned",
        SandboxMode::Required,
    );
    let report = probe_sandbox(&config).await.unwrap();
    assert_eq!(report.status.seccomp, EnforcementLevel::None);
    assert!(!report.unblocked_probes.is_empty());
}

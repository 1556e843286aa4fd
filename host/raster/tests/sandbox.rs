//! Where the kernel does not offer what locks a worker in.
//!
//! A worker is started by way of this test binary, which first denies itself the system call in question, as a kernel without
//! it would, and then becomes the worker.

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
use weir_raster::{Lock, RasterConfig, RasterPool, sandbox_report};

use self::common::{COARSE, Files, config};

/// An argument that no test runner gives.
const WRAPPED: &str = "weir-raster-worker-without";

/// A worker that is started by the test of this name.
fn config_of(worker: &str, sandbox: SandboxMode) -> RasterConfig {
    let test = std::env::current_exe().unwrap().into_os_string();
    let mut worker_command = vec![test];
    worker_command.extend([worker, "--exact", "--skip", WRAPPED].map(OsString::from));
    RasterConfig {
        worker_command,
        sandbox,
        ..config()
    }
}

/// Becomes a worker for which this system call does not exist, if this process was started to be one.
fn become_worker_without(call: i64) {
    if !std::env::args().any(|argument| argument == WRAPPED) {
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
fn worker_without_landlock() {
    become_worker_without(libc::SYS_landlock_create_ruleset);
}

#[test]
fn worker_without_seccomp() {
    become_worker_without(libc::SYS_seccomp);
}

const WORKERS: [(&str, &str); 2] = [
    ("worker_without_landlock", "landlock"),
    ("worker_without_seccomp", "seccomp"),
];

#[tokio::test]
async fn a_worker_that_is_not_locked_in_gets_no_pdf() {
    let files = Files::new();
    let source = files.source("a.pdf", &weir_samples::text_document(1, 1));
    for (worker, part) in WORKERS {
        let pool = RasterPool::new(config_of(worker, SandboxMode::Required)).unwrap();
        for error in [pool.check().await.err(), pool.open(&source).await.err()] {
            let error = error.unwrap_or_else(|| panic!("{worker} was taken"));
            assert!(matches!(error, RasterError::Unavailable { .. }), "{error}");
            let said = error.to_string();
            assert!(
                said.contains(part) && said.contains("raster.sandbox=best-effort"),
                "{said}"
            );
        }
        pool.close().await;
    }
}

/// Counts warnings of the sandbox.
struct Warnings(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let of_sandbox = event.metadata().fields().field("missing").is_some();
        self.0.fetch_add(usize::from(of_sandbox), Ordering::Relaxed);
    }
}

#[tokio::test]
async fn best_effort_draws_and_warns_once() {
    let files = Files::new();
    let source = files.source("a.pdf", &weir_samples::text_document(2, 1));
    for (worker, _) in WORKERS {
        let warnings = Arc::new(AtomicUsize::new(0));
        let _log = set_default(tracing_subscriber::registry().with(Warnings(Arc::clone(&warnings))));
        let pool = RasterPool::new(config_of(worker, SandboxMode::BestEffort)).unwrap();
        pool.check().await.unwrap();
        let document = pool.open(&source).await.unwrap();
        for page in [1, 2] {
            document.draw(page, COARSE).await.unwrap();
        }
        assert_eq!(warnings.load(Ordering::Relaxed), 1, "{worker}");
        pool.close().await;
    }
}

#[tokio::test]
async fn the_report_says_what_is_missing_whatever_is_required() {
    let without = config_of("worker_without_landlock", SandboxMode::Required);
    let report = sandbox_report(&without).await.unwrap();
    assert_eq!(
        (report.sandbox.landlock, report.sandbox.seccomp),
        (Lock::None, Lock::Full)
    );
    let without = config_of("worker_without_seccomp", SandboxMode::Required);
    let report = sandbox_report(&without).await.unwrap();
    assert_eq!(report.sandbox.seccomp, Lock::None);
    assert!(!report.leaks.is_empty());
}

//! What a decision costs: `cargo bench -p weir-policy`.
//!
//! Needs the default components (`components/build`). The last figure is memory, which criterion does not measure: it is
//! printed, and the run fails if it is over its limit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod support;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use tokio::runtime::Runtime;
use weir_core::manifest::{Manifest, Pipeline, Role};
use weir_core::page::PageFacts;
use weir_core::ports::{JobPolicy, Policies, PolicyRequest};
use weir_core::{DocumentId, JobId, TenantId};
use weir_policy::{PolicyConfig, PolicyHost, Retention};

use support::{Nothing, built, component};

/// Live instances that are weighed, and what they may weigh.
const INSTANCES: u32 = 10_000;
const INSTANCES_KIB: u64 = 450 << 10;

/// Calls of one job.
const CALLS: u64 = 5_000;

/// A pipeline of the default components of some roles.
fn pipeline(roles: &[Role]) -> Pipeline {
    let component = |role: &Role| (*role, component(built().join(format!("{}.wasm", role.name()))));
    Pipeline::new(
        Manifest::embedded(),
        roles.iter().map(component).collect(),
        [].into(),
    )
}

fn host(folder: &Path, instances: u32) -> Arc<PolicyHost> {
    PolicyHost::new(PolicyConfig {
        instances,
        call_millis: 50,
        memory_bytes: 32 << 20,
        output_bytes: 1 << 20,
        compile_seconds: 60,
        compile_bytes: 2 << 30,
        compile_command: vec![env!("CARGO_BIN_EXE_weir-compile").into()],
        cache: folder.join("compiled"),
        cache_bytes: 8 << 30,
        loaded_components: 1000,
        recordings: Some(folder.join("recordings")),
        record: true,
        retention: Retention::default(),
        state: Arc::new(Nothing),
        meter: None,
    })
    .unwrap()
}

async fn open(host: &PolicyHost, pipeline: &Pipeline) -> Arc<dyn JobPolicy> {
    host.open(PolicyRequest {
        tenant: &TenantId::single(),
        job: JobId::new(),
        pipeline,
        capabilities: Arc::new(Nothing),
    })
    .await
    .unwrap()
}

const PAGE: PageFacts = PageFacts {
    number: 1,
    width: 612.0,
    height: 792.0,
    text_chars: 2400,
    image_coverage: 0.1,
    readable: true,
};

fn main() {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let document = DocumentId::of(b"a document");
    let routing = pipeline(&[Role::Routing]);
    let whole = pipeline(&Role::ALL);
    let host_of_many = host(folder.path(), INSTANCES);
    weigh(&runtime, &host_of_many, &routing, &document);
    drop(host_of_many);

    let host = host(folder.path(), 100);
    let mut criterion = Criterion::default().configure_from_args();
    // Through the port, with its lock, deadline, checks and recording. Target: 1.5 µs. A job of its own for every few
    // thousand calls, since a recording has a limit beyond which a call would be cheaper.
    criterion.bench_function("decide on a page", |b| {
        b.iter_custom(|calls| {
            runtime.block_on(async {
                let mut spent = Duration::ZERO;
                let mut left = calls;
                while left > 0 {
                    let job = open(&host, &routing).await;
                    let some = left.min(CALLS);
                    let started = Instant::now();
                    for _ in 0..some {
                        black_box(
                            job.route_page(black_box(&document), black_box(PAGE))
                                .await
                                .unwrap(),
                        );
                    }
                    spent += started.elapsed();
                    left -= some;
                    drop(job);
                    host.flush_recordings().await;
                }
                spent
            })
        });
    });
    // A job of one component, opened and closed again. Target: 50 µs.
    for role in Role::ALL {
        let one = pipeline(&[role]);
        criterion.bench_function(&format!("open a job of one component, {}", role.name()), |b| {
            b.to_async(&runtime).iter(|| open(&host, &one));
        });
    }
    criterion.bench_function("open a job of the four defaults", |b| {
        b.to_async(&runtime).iter(|| open(&host, &whole));
    });
    criterion.final_summary();
}

/// Memory of many live instances, each after a call.
#[allow(clippy::print_stdout)]
fn weigh(runtime: &Runtime, host: &PolicyHost, pipeline: &Pipeline, document: &DocumentId) {
    runtime.block_on(async {
        drop(open(host, pipeline).await);
        let before = pss_kib();
        let mut jobs = Vec::new();
        for _ in 0..INSTANCES {
            let job = open(host, pipeline).await;
            job.route_page(document, PAGE).await.unwrap();
            jobs.push(job);
        }
        let weight = pss_kib() - before;
        println!(
            "{INSTANCES} live instances: {} MiB (PSS), {:.1} KiB each",
            weight >> 10,
            weight as f64 / f64::from(INSTANCES)
        );
        assert!(weight <= INSTANCES_KIB, "more than {} MiB", INSTANCES_KIB >> 10);
    });
}

fn pss_kib() -> u64 {
    std::fs::read_to_string("/proc/self/smaps_rollup")
        .unwrap()
        .lines()
        .find_map(|line| {
            line.strip_prefix("Pss:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse()
                .ok()
        })
        .unwrap()
}

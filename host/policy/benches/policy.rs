//! Benchmark of policy calls, of opening jobs and of memory: `cargo bench -p weir-policy`.
//!
//! It needs the default components (`components/build`). Criterion does not measure memory, so the memory of live instances is
//! printed first, and the run fails if it is over its limit.

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
use weir_conformance::MemoryRecordingStore;
use weir_core::manifest::{Manifest, ResolvedPipeline, Role};
use weir_core::memory_component_state::MemoryComponentState;
use weir_core::page::PageFacts;
use weir_core::ports::{JobPolicy, OpenPolicyRequest, PolicyFactory};
use weir_core::replay::RecordingRemover as _;
use weir_core::{DocumentId, JobId, TenantId};
use weir_policy::{PolicyHost, PolicyHostConfig, Retention};

use support::{UnavailableCapabilities, component_file, components_folder, read_pss_kib};

/// Live instances whose memory is measured, and the limit on that memory.
const LIVE_INSTANCES: u32 = 10_000;
const MAX_LIVE_INSTANCES_KIB: u64 = 450 << 10;

/// Calls of each job.
const CALLS_PER_JOB: u64 = 5_000;

/// Returns a pipeline of the default components of these roles.
fn default_pipeline(roles: &[Role]) -> ResolvedPipeline {
    let component = |role: &Role| {
        (
            *role,
            component_file(components_folder().join(format!("{}.wasm", role.name()))),
        )
    };
    ResolvedPipeline::new(
        Manifest::default_pipeline_manifest(),
        roles.iter().map(component).collect(),
        [].into(),
    )
}

fn new_host(folder: &Path, instances: u32) -> Arc<PolicyHost> {
    PolicyHost::new(PolicyHostConfig {
        max_instances: instances,
        call_timeout_millis: 50,
        max_memory_bytes: 32 << 20,
        max_output_bytes: 1 << 20,
        max_compile_cpu_seconds: 60,
        max_compile_memory_bytes: 2 << 30,
        compile_command: vec![env!("CARGO_BIN_EXE_weir-compile").into()],
        cache_folder: folder.join("compiled"),
        max_cache_bytes: 8 << 30,
        max_loaded_components: 1000,
        recordings: Some(Arc::new(MemoryRecordingStore::default())),
        record_calls: true,
        retention: Retention::default(),
        state: Arc::new(MemoryComponentState::default()),
        usage_meter: None,
    })
    .unwrap()
}

async fn open_job(host: &PolicyHost, pipeline: &ResolvedPipeline) -> Arc<dyn JobPolicy> {
    host.open_job_policy(OpenPolicyRequest {
        tenant: &TenantId::default_tenant(),
        job: JobId::new(),
        pipeline,
        capabilities: Arc::new(UnavailableCapabilities),
    })
    .await
    .unwrap()
}

const SAMPLE_PAGE: PageFacts = PageFacts {
    number: 1,
    width: 612.0,
    height: 792.0,
    text_chars: 2400,
    image_coverage: 0.1,
    readable: true,
};

fn main() {
    let runtime = Runtime::new().unwrap();
    // The hosts record calls on the runtime.
    let _entered = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let document = DocumentId::from_content(b"a document");
    let routing = default_pipeline(&[Role::Routing]);
    let whole = default_pipeline(&Role::ALL);
    let host_of_many = new_host(folder.path(), LIVE_INSTANCES);
    measure_instance_memory(&runtime, &host_of_many, &routing, &document);
    drop(host_of_many);

    let host = new_host(folder.path(), 100);
    let mut criterion = Criterion::default().configure_from_args();
    // Calls through the port, with lock, timeout, checks and recording. Target: 1.5 µs. Every few thousand calls have their own
    // job: a recording has a size limit, and calls that are no longer recorded would be cheaper.
    criterion.bench_function("decide on a page", |b| {
        b.iter_custom(|calls| {
            runtime.block_on(async {
                let mut spent = Duration::ZERO;
                let mut left = calls;
                while left > 0 {
                    let job = open_job(&host, &routing).await;
                    let some = left.min(CALLS_PER_JOB);
                    let started = Instant::now();
                    for _ in 0..some {
                        black_box(
                            job.route_page(black_box(&document), black_box(SAMPLE_PAGE))
                                .await
                                .unwrap(),
                        );
                    }
                    spent += started.elapsed();
                    left -= some;
                    drop(job);
                    host.flush_recordings().await;
                    // They are in memory.
                    host.remove_tenant_recordings(&TenantId::default_tenant())
                        .await
                        .unwrap();
                }
                spent
            })
        });
    });
    // Opening and closing a job of one component. Target: 50 µs.
    for role in Role::ALL {
        let one = default_pipeline(&[role]);
        criterion.bench_function(&format!("open a job of one component, {}", role.name()), |b| {
            b.to_async(&runtime).iter(|| open_job(&host, &one));
        });
    }
    criterion.bench_function("open a job of the four defaults", |b| {
        b.to_async(&runtime).iter(|| open_job(&host, &whole));
    });
    criterion.final_summary();
}

/// Measures the memory of many live instances, each after one call.
#[allow(clippy::print_stdout)]
fn measure_instance_memory(
    runtime: &Runtime,
    host: &PolicyHost,
    pipeline: &ResolvedPipeline,
    document: &DocumentId,
) {
    runtime.block_on(async {
        drop(open_job(host, pipeline).await);
        let before = read_pss_kib();
        let mut jobs = Vec::new();
        for _ in 0..LIVE_INSTANCES {
            let job = open_job(host, pipeline).await;
            job.route_page(document, SAMPLE_PAGE).await.unwrap();
            jobs.push(job);
        }
        let weight = read_pss_kib() - before;
        println!(
            "{LIVE_INSTANCES} live instances: {} MiB (PSS), {:.1} KiB each",
            weight >> 10,
            weight as f64 / f64::from(LIVE_INSTANCES)
        );
        assert!(
            weight <= MAX_LIVE_INSTANCES_KIB,
            "the instances take more than {} MiB",
            MAX_LIVE_INSTANCES_KIB >> 10
        );
    });
}

//! Benchmark of many tenants with their own components on one host: `cargo bench -p weir-policy --bench density`.
//!
//! Ten thousand tenants have pipelines with one of two hundred different routing components and the default components in the
//! other roles. The routing components differ only in a custom section that no program reads, so all of them do the same work.
//!
//! The benchmark times the first decision of a tenant: opening its job and routing the first page. A first decision is cold if
//! the component is not in memory, so that its compiled code is read, checked, mapped, linked and instantiated. The files are
//! in the page cache of the system, so disk reads are not measured.
//!
//! The output has elapsed time and the CPU time of all threads. CPU time does not depend on the load of the machine, so
//! the run fails if it is over its limit. The benchmark needs the default components (`components/build`).
//!
//! `WEIR_BENCH_ROUTING=contracts.wasm` measures another component, such as one that contains an interpreter, with fewer tenants
//! and without a limit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use weir_conformance::MemoryRecordingStore;
use weir_core::manifest::{Capability, Manifest, ResolvedComponentFile, ResolvedPipeline, Role};
use weir_core::memory_component_state::MemoryComponentState;
use weir_core::page::PageFacts;
use weir_core::ports::{JobPolicy as _, OpenPolicyRequest};
use weir_core::{DocumentId, JobId, TenantId};
use weir_policy::{PolicyHost, PolicyHostConfig, Retention};

use support::{UnavailableCapabilities, component_file, components_folder, read_pss_kib};

/// Numbers of tenants and of different routing components: for the default component, and for another one.
const DEFAULT_COUNTS: (usize, usize) = (10_000, 200);
const OTHER_COMPONENT_COUNTS: (usize, usize) = (200, 4);
/// CPU time that a cold first decision may take, as the 99th percentile.
const MAX_COLD_START_CPU: Duration = Duration::from_millis(5);

/// Writes a copy of the routing component with a custom section that contains its number.
fn write_distinct_component(folder: &Path, routing: &Path, number: usize) -> ResolvedComponentFile {
    let mut bytes = std::fs::read(routing).unwrap();
    let name = b"number";
    let number = u32::try_from(number).unwrap();
    // A custom section is its kind (0), its length, the length of its name, its name and its content.
    bytes.extend([0, 1 + 6 + 4, 6]);
    bytes.extend(name);
    bytes.extend(number.to_le_bytes());
    let path = folder.join(format!("routing-{number}.wasm"));
    std::fs::write(&path, bytes).unwrap();
    component_file(path)
}

fn new_host(folder: &Path, loaded_components: u32) -> Arc<PolicyHost> {
    PolicyHost::new(PolicyHostConfig {
        max_instances: 1000,
        call_timeout_millis: 50,
        max_memory_bytes: 32 << 20,
        max_output_bytes: 1 << 20,
        max_compile_cpu_seconds: 60,
        max_compile_memory_bytes: 2 << 30,
        compile_command: vec![env!("CARGO_BIN_EXE_weir-compile").into()],
        cache_folder: folder.join("compiled"),
        max_cache_bytes: 8 << 30,
        max_loaded_components: loaded_components,
        recordings: Some(Arc::new(MemoryRecordingStore::default())),
        record_calls: true,
        retention: Retention::default(),
        state: Arc::new(MemoryComponentState::default()),
        usage_meter: None,
    })
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

/// Elapsed time and CPU time of all threads.
type Timing = (Duration, Duration);

fn process_cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

async fn time_first_decision(host: &PolicyHost, tenant: &TenantId, pipeline: &ResolvedPipeline) -> Timing {
    let (began, before) = (Instant::now(), process_cpu_time());
    let request = OpenPolicyRequest {
        tenant,
        job: JobId::new(),
        pipeline,
        capabilities: Arc::new(UnavailableCapabilities),
    };
    let job = host.open_job(request).await.unwrap();
    job.route_page(&DocumentId::from_content(b"a document"), SAMPLE_PAGE)
        .await
        .unwrap();
    (began.elapsed(), process_cpu_time() - before)
}

/// Prints percentiles and returns the 99th percentile of CPU time.
fn print_percentiles(what: &str, took: &[Timing]) -> Duration {
    let sorted = |of: fn(&Timing) -> Duration| {
        let mut times: Vec<Duration> = took.iter().map(of).collect();
        times.sort();
        move |share: f64| times[((times.len() - 1) as f64 * share) as usize]
    };
    let (clock, cpu) = (sorted(|took| took.0), sorted(|took| took.1));
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{what}: median {:.2} ms, p99 {:.2} ms; CPU {:.2} and {:.2} ms",
        ms(clock(0.5)),
        ms(clock(0.99)),
        ms(cpu(0.5)),
        ms(cpu(0.99))
    );
    cpu(0.99)
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = std::env::var_os("WEIR_BENCH_ROUTING").map(PathBuf::from);
    let (count, distinct_ones) = if other.is_some() {
        OTHER_COMPONENT_COUNTS
    } else {
        DEFAULT_COUNTS
    };
    let limit = other.is_none().then_some(MAX_COLD_START_CPU);
    let routing = other.unwrap_or_else(|| components_folder().join("routing.wasm"));
    let defaults = Role::ALL.map(|role| {
        (
            role,
            component_file(components_folder().join(format!("{}.wasm", role.name()))),
        )
    });
    let pipelines: Vec<ResolvedPipeline> = (0..distinct_ones)
        .map(|number| {
            let mut components: std::collections::BTreeMap<_, _> = defaults.clone().into();
            components.insert(
                Role::Routing,
                write_distinct_component(folder.path(), &routing, number),
            );
            let mut manifest = Manifest::default_pipeline_manifest();
            manifest.capabilities.grant = Capability::ALL.to_vec();
            ResolvedPipeline::new(manifest, components, defaults.clone().into())
        })
        .collect();
    let tenants: Vec<TenantId> = (0..count)
        .map(|number| format!("tenant-{number}").parse().unwrap())
        .collect();

    runtime.block_on(async {
        let compiling = new_host(folder.path(), 1000);
        let began = Instant::now();
        for pair in pipelines.chunks(2) {
            let both = pair
                .iter()
                .map(|pipeline| time_first_decision(&compiling, &tenants[0], pipeline));
            futures::future::join_all(both).await;
        }
        println!(
            "compiled {distinct_ones} components in {:.1} s",
            began.elapsed().as_secs_f64()
        );
        drop(compiling);
        let files = std::fs::read_dir(folder.path().join("compiled")).unwrap();
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        println!(
            "compiled code on disk: {} KiB each",
            (bytes / distinct_ones as u64) >> 10
        );

        // The memory cache has space for the four default components and one more, so each tenant is cold.
        let began = Instant::now();
        let cold = new_host(folder.path(), 5);
        println!(
            "started the host in {:.1} ms",
            began.elapsed().as_secs_f64() * 1000.0
        );
        time_first_decision(&cold, &tenants[0], &pipelines[0]).await;
        let loads = cold.stats().cache_loads;
        let mut took = Vec::with_capacity(count);
        for (number, tenant) in tenants.iter().enumerate().skip(1) {
            took.push(time_first_decision(&cold, tenant, &pipelines[number % distinct_ones]).await);
        }
        assert_eq!(
            cold.stats().cache_loads - loads,
            took.len() as u64,
            "each first decision must load its component"
        );
        assert_eq!(cold.stats().compilations, 0);
        let p99 = print_percentiles("first decision, component not in memory", &took);
        drop(cold);

        let warm = new_host(folder.path(), 1000);
        time_first_decision(&warm, &tenants[0], &pipelines[0]).await;
        warm.flush_recordings().await;
        let before = read_pss_kib();
        let mut took = Vec::with_capacity(count);
        for (number, tenant) in tenants.iter().enumerate() {
            let spent = time_first_decision(&warm, tenant, &pipelines[number % distinct_ones]).await;
            if number >= distinct_ones {
                took.push(spent);
            }
        }
        warm.flush_recordings().await;
        let after = read_pss_kib();
        print_percentiles("first decision, component in memory", &took);
        println!(
            "{} components in memory after {count} tenants: {} MiB (PSS) more than with one, {} KiB each",
            warm.stats().loaded_components,
            after.saturating_sub(before) >> 10,
            after.saturating_sub(before) / distinct_ones as u64
        );
        if let Some(limit) = limit {
            assert!(
                p99 <= limit,
                "a cold first decision takes more than {} ms of CPU time",
                limit.as_millis()
            );
        }
    });
}

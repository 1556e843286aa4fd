//! Many tenants, each with a component of its own, on one host: `cargo bench -p weir-policy --bench density`.
//!
//! Ten thousand tenants have pipelines whose routing component is one of two hundred that differ (by a section that no program
//! reads, so that all of them do the same work); in the other roles the default components decide. What is timed is a tenant's
//! first decision: its job opened, the first page routed. It is cold when the tenant's component is not in memory, so that its
//! compiled code is read and checked, mapped, linked and instantiated. The files are in the system's cache: what a disk takes is
//! not measured. Beside the time on the clock stands the CPU time of all threads, which is the same on a machine that is busy
//! with other things; the run fails if that is over its limit. Needs the default components (`components/build`).
//!
//! `WEIR_BENCH_ROUTING=contracts.wasm` measures another component, such as one with an interpreter in it, with fewer tenants and
//! without a limit.

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
use weir_core::manifest::{Capability, ComponentFile, Manifest, Pipeline, Role};
use weir_core::page::PageFacts;
use weir_core::ports::{JobPolicy as _, PolicyRequest};
use weir_core::{DocumentId, JobId, TenantId};
use weir_policy::{PolicyConfig, PolicyHost, Retention};

use support::{Nothing, built, component};

/// Tenants, and components that differ among theirs: of the default component, and of another.
const USUAL: (usize, usize) = (10_000, 200);
const OTHER: (usize, usize) = (200, 4);
/// What a cold tenant's first decision may take.
const COLD: Duration = Duration::from_millis(5);

/// The routing component with a custom section behind it that says which one it is.
fn distinct(folder: &Path, routing: &Path, number: usize) -> ComponentFile {
    let mut bytes = std::fs::read(routing).unwrap();
    let name = b"number";
    let number = u32::try_from(number).unwrap();
    // A section is its kind (0: custom), its length, the length of its name, its name and what is in it.
    bytes.extend([0, 1 + 6 + 4, 6]);
    bytes.extend(name);
    bytes.extend(number.to_le_bytes());
    let path = folder.join(format!("routing-{number}.wasm"));
    std::fs::write(&path, bytes).unwrap();
    component(path)
}

fn host(folder: &Path, loaded_components: u32) -> Arc<PolicyHost> {
    PolicyHost::new(PolicyConfig {
        instances: 1000,
        call_millis: 50,
        memory_bytes: 32 << 20,
        output_bytes: 1 << 20,
        compile_seconds: 60,
        compile_bytes: 2 << 30,
        compile_command: vec![env!("CARGO_BIN_EXE_weir-compile").into()],
        cache: folder.join("compiled"),
        cache_bytes: 8 << 30,
        loaded_components,
        recordings: Some(folder.join("recordings")),
        record: true,
        retention: Retention::default(),
        state: Arc::new(Nothing),
        meter: None,
    })
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

/// What something took: on the clock, and of all threads' CPU time.
type Took = (Duration, Duration);

fn cpu() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

async fn first_decision(host: &PolicyHost, tenant: &TenantId, pipeline: &Pipeline) -> Took {
    let (began, before) = (Instant::now(), cpu());
    let request = PolicyRequest {
        tenant,
        job: JobId::new(),
        pipeline,
        capabilities: Arc::new(Nothing),
    };
    let job = host.open_job(request).await.unwrap();
    job.route_page(&DocumentId::of(b"a document"), PAGE)
        .await
        .unwrap();
    (began.elapsed(), cpu() - before)
}

/// Tells, and gives the 99th percentile of CPU time.
fn show(what: &str, took: &[Took]) -> Duration {
    let sorted = |of: fn(&Took) -> Duration| {
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
    let (count, distinct_ones) = if other.is_some() { OTHER } else { USUAL };
    let limit = other.is_none().then_some(COLD);
    let routing = other.unwrap_or_else(|| built().join("routing.wasm"));
    let defaults = Role::ALL.map(|role| (role, component(built().join(format!("{}.wasm", role.name())))));
    let pipelines: Vec<Pipeline> = (0..distinct_ones)
        .map(|number| {
            let mut components: std::collections::BTreeMap<_, _> = defaults.clone().into();
            components.insert(Role::Routing, distinct(folder.path(), &routing, number));
            let mut manifest = Manifest::embedded();
            manifest.capabilities.grant = Capability::ALL.to_vec();
            Pipeline::new(manifest, components, defaults.clone().into())
        })
        .collect();
    let tenants: Vec<TenantId> = (0..count)
        .map(|number| format!("tenant-{number}").parse().unwrap())
        .collect();

    runtime.block_on(async {
        let compiling = host(folder.path(), 1000);
        let began = Instant::now();
        for pair in pipelines.chunks(2) {
            let both = pair
                .iter()
                .map(|pipeline| first_decision(&compiling, &tenants[0], pipeline));
            futures::future::join_all(both).await;
        }
        println!(
            "{distinct_ones} components compiled within {:.1} s",
            began.elapsed().as_secs_f64()
        );
        drop(compiling);
        let files = std::fs::read_dir(folder.path().join("compiled")).unwrap();
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        println!(
            "compiled code on disk: {} KiB each",
            (bytes / distinct_ones as u64) >> 10
        );

        // Four places for the default components and one for whoever comes next: all others are cold.
        let began = Instant::now();
        let cold = host(folder.path(), 5);
        println!(
            "the host is there after {:.1} ms",
            began.elapsed().as_secs_f64() * 1000.0
        );
        first_decision(&cold, &tenants[0], &pipelines[0]).await;
        let loads = cold.stats().loads;
        let mut took = Vec::with_capacity(count);
        for (number, tenant) in tenants.iter().enumerate().skip(1) {
            took.push(first_decision(&cold, tenant, &pipelines[number % distinct_ones]).await);
        }
        assert_eq!(cold.stats().loads - loads, took.len() as u64, "each was cold");
        assert_eq!(cold.stats().compilations, 0);
        let p99 = show("a cold tenant's first decision", &took);
        drop(cold);

        let warm = host(folder.path(), 1000);
        first_decision(&warm, &tenants[0], &pipelines[0]).await;
        warm.flush_recordings().await;
        let before = pss_kib();
        let mut took = Vec::with_capacity(count);
        for (number, tenant) in tenants.iter().enumerate() {
            let spent = first_decision(&warm, tenant, &pipelines[number % distinct_ones]).await;
            if number >= distinct_ones {
                took.push(spent);
            }
        }
        warm.flush_recordings().await;
        let after = pss_kib();
        show("that of one whose component is in memory", &took);
        println!(
            "{} components in memory after {count} tenants: {} MiB (PSS) more than with one, {} KiB each",
            warm.stats().loaded,
            after.saturating_sub(before) >> 10,
            after.saturating_sub(before) / distinct_ones as u64
        );
        if let Some(limit) = limit {
            assert!(p99 <= limit, "more than {} ms", limit.as_millis());
        }
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

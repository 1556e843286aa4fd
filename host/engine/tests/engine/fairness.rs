//! Fairness between tenants, in virtual time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use weir_core::decision::{PageRoute, ReadingMethod};
use weir_core::event::{Event, EventKind};
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::{PriorityLane, Stage};
use weir_engine::{Engine, JobSpec};

use crate::fakes::{FakeHost, route_with_all_steps, tenant_job};
use crate::floor::STAGE_COSTS_MILLIS;

fn tenant_id(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// Creates a host with `workers` workers in each stage.
fn host_with_workers(workers: u32) -> FakeHost {
    let mut fakes = FakeHost::new();
    for (stage, millis) in STAGE_COSTS_MILLIS {
        fakes = fakes.with_cost(stage, millis).with_workers(stage, workers);
    }
    fakes.config.upsert_workers = workers;
    fakes.stages.varies_costs.store(true, Ordering::SeqCst);
    fakes
}

/// Starts `jobs` jobs of a tenant at once.
fn start_many_jobs(fakes: &FakeHost, engine: &Engine, spec: &JobSpec, jobs: usize, pages: u32) {
    for n in 0..jobs {
        let documents = vec![fakes.document_spec(&format!("{}-{n}.pdf", spec.tenant), pages)];
        let id = weir_core::JobId::new();
        drop(engine.start_or_resume_job(JobSpec {
            id,
            documents,
            ..spec.clone()
        }));
    }
}

/// Runs a job with a document of three pages. Returns its duration in milliseconds.
async fn time_three_page_job(
    fakes: &FakeHost,
    engine: &Engine,
    name: &str,
    lane: Option<PriorityLane>,
) -> u64 {
    let spec = JobSpec {
        lane,
        ..tenant_job(tenant_id("late"), [fakes.document_spec(name, 3)])
    };
    let handle = engine.start_or_resume_job(spec);
    assert_eq!(handle.await_outcome().await.state, JobState::Done);
    let events = fakes.ledger.job_events(handle.id());
    events.last().unwrap().since_job_created_millis
}

/// Returns the 95th percentile of these durations for forty documents, submitted at irregular times.
async fn p95_of_three_page_jobs(
    fakes: &FakeHost,
    engine: &Engine,
    name: &str,
    lane: Option<PriorityLane>,
) -> f64 {
    let mut times = Vec::new();
    for n in 0..40 {
        sleep(Duration::from_millis(137 * (n % 7))).await;
        times.push(time_three_page_job(fakes, engine, &format!("{name}-{n}.pdf"), lane).await);
    }
    times.sort_unstable();
    times[37] as f64
}

/// Returns by what factor that percentile grows beside two hundred jobs of another tenant.
async fn slowdown_beside_a_flood(workers: u32, lane: Option<PriorityLane>) -> f64 {
    let fakes = host_with_workers(workers);
    let engine = fakes.build_engine();
    let idle = p95_of_three_page_jobs(&fakes, &engine, "idle", lane).await;
    start_many_jobs(&fakes, &engine, &tenant_job(tenant_id("crowd"), []), 200, 20);
    sleep(Duration::from_secs(10)).await;
    let busy = p95_of_three_page_jobs(&fakes, &engine, "busy", lane).await;
    // The other tenant still has unfinished jobs.
    assert!(fakes.ledger.list_unfinished_jobs().await.unwrap().len() > 20);
    drop(engine);
    busy / idle
}

#[tokio::test(start_paused = true)]
async fn other_tenants_jobs_slow_three_pages_by_at_most_half() {
    for workers in [2, 3, 8, 16] {
        let ratio = slowdown_beside_a_flood(workers, None).await;
        assert!(ratio <= 1.5, "{ratio:.2} with {workers} workers a stage");
    }
    // With one worker in each stage, a page of the other tenant always holds it. Only the interactive lane is next then.
    let ratio = slowdown_beside_a_flood(1, Some(PriorityLane::Interactive)).await;
    assert!(ratio <= 1.5, "{ratio:.2} in the interactive lane");
}

/// Returns the same factor on a machine of two cores that all stages share, with the costs of text pages on such a machine.
async fn slowdown_on_two_cores(head_start: Duration) -> f64 {
    let mut fakes = FakeHost::new();
    for (stage, millis) in [
        (Stage::Rasterize, 15),
        (Stage::Store, 1),
        (Stage::Read, 4),
        (Stage::Embed, 20),
        (Stage::Upsert, 2),
    ] {
        fakes = fakes.with_cost(stage, millis).with_workers(stage, 2);
    }
    fakes.config.upsert_workers = 2;
    fakes.config.latency_boost = head_start;
    fakes.stages.varies_costs.store(true, Ordering::SeqCst);
    fakes.stages.cores.store(2, Ordering::SeqCst);
    let engine = fakes.build_engine();
    let idle = p95_of_three_page_jobs(&fakes, &engine, "idle", None).await;
    for _ in 0..5 {
        start_many_jobs(&fakes, &engine, &tenant_job(tenant_id("crowd"), []), 4, 500);
    }
    sleep(Duration::from_secs(2)).await;
    let busy = p95_of_three_page_jobs(&fakes, &engine, "busy", None).await;
    assert!(!fakes.ledger.list_unfinished_jobs().await.unwrap().is_empty());
    drop(engine);
    busy / idle
}

#[tokio::test(start_paused = true)]
async fn latency_boost_compensates_for_shared_cores() {
    let fair = slowdown_on_two_cores(Duration::ZERO).await;
    let ahead = slowdown_on_two_cores(Duration::from_millis(500)).await;
    assert!(
        ahead <= 1.5 && fair > 2.0,
        "slowdown {ahead:.2} with the boost, {fair:.2} without"
    );
}

/// Returns the 95th percentile of the duration of three pages, on an idle host and beside ten scans of three hundred pages by
/// another tenant. The host has two workers in each stage and memory for nineteen page images, the defaults for two cores.
async fn p95_beside_ten_scans(name: &str, lane: Option<PriorityLane>) -> (f64, f64) {
    let mut fakes = FakeHost::new().with_image_memory(19);
    for (stage, millis) in [
        (Stage::Rasterize, 50),
        (Stage::Store, 1),
        (Stage::Read, 1000),
        (Stage::Embed, 20),
        (Stage::Upsert, 2),
    ] {
        fakes = fakes.with_cost(stage, millis).with_workers(stage, 2);
    }
    *fakes.stages.text_layer_cost.lock() = Some(Duration::from_millis(4));
    fakes.stages.varies_costs.store(true, Ordering::SeqCst);
    fakes.config.upsert_workers = 2;
    fakes.script.route = Arc::new(|facts| {
        let reading = match facts.text_chars {
            0 => ReadingMethod::Ocr,
            _ => ReadingMethod::TextLayer,
        };
        Ok(PageRoute {
            reading_method: reading,
            ..route_with_all_steps()
        })
    });
    let engine = fakes.build_engine();
    let idle = p95_of_three_page_jobs(&fakes, &engine, &format!("{name}-idle"), lane).await;
    let jobs: Vec<_> = (0..10)
        .map(|n| {
            let document = fakes.document_spec(&format!("scan-{n}.pdf"), 300);
            engine.start_or_resume_job(tenant_job(tenant_id("crowd"), [document]))
        })
        .collect();
    sleep(Duration::from_secs(30)).await;
    let busy = p95_of_three_page_jobs(&fakes, &engine, &format!("{name}-busy"), lane).await;
    assert_eq!(
        fakes.ledger.list_unfinished_jobs().await.unwrap().len(),
        jobs.len()
    );
    // OCR never had to wait for a page meanwhile.
    let read = jobs[0]
        .stage_totals()
        .into_iter()
        .find(|work| work.stage == Stage::Read);
    assert!(read.unwrap().pages > 5);
    drop(engine);
    (idle, busy)
}

#[tokio::test(start_paused = true)]
async fn ten_scans_at_most_double_the_time_of_three_pages() {
    for (name, lane) in [("text", None), ("scan", Some(PriorityLane::Interactive))] {
        let (idle, busy) = p95_beside_ten_scans(name, lane).await;
        assert!(
            busy <= 2.0 * idle,
            "{name}: {idle} ms idle, {busy} ms beside ten scans"
        );
    }
}

/// Starts many jobs for each spec. Returns the number of pages that each tenant finished in a span of time.
async fn count_pages_done(workers: u32, specs: &[JobSpec], span: std::ops::Range<u64>) -> Vec<usize> {
    let fakes = host_with_workers(workers);
    let engine = fakes.build_engine();
    for spec in specs {
        start_many_jobs(&fakes, &engine, spec, 20, 200);
    }
    sleep(Duration::from_millis(span.end + 1000)).await;
    let mut pages = Vec::new();
    for spec in specs {
        let events = fakes
            .ledger
            .list_tenant_events(&spec.tenant, 0, usize::MAX)
            .await
            .unwrap();
        let done = |e: &Event| {
            matches!(e.kind, EventKind::PageDone { .. }) && span.contains(&e.since_job_created_millis)
        };
        pages.push(events.iter().filter(|(_, e)| done(e)).count());
    }
    drop(engine);
    pages
}

#[tokio::test(start_paused = true)]
async fn pages_per_second_follow_the_weights() {
    for workers in [1, 2, 8] {
        let heavy = JobSpec {
            weight: 3.0,
            ..tenant_job(tenant_id("heavy"), [])
        };
        let light = tenant_job(tenant_id("light"), []);
        let pages = count_pages_done(workers, &[heavy, light], 60_000..660_000).await;
        let ratio = pages[0] as f64 / pages[1] as f64;
        assert!(
            (2.7..=3.3).contains(&ratio),
            "{pages:?}: {ratio:.2} with {workers} workers a stage"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn tenant_share_does_not_grow_with_its_documents() {
    let fakes = host_with_workers(4);
    let engine = fakes.build_engine();
    start_many_jobs(&fakes, &engine, &tenant_job(tenant_id("many"), []), 50, 100);
    start_many_jobs(&fakes, &engine, &tenant_job(tenant_id("one"), []), 1, 1000);
    sleep(Duration::from_secs(300)).await;
    let mut pages = Vec::new();
    for name in ["many", "one"] {
        let events = fakes
            .ledger
            .list_tenant_events(&tenant_id(name), 0, usize::MAX)
            .await
            .unwrap();
        let done = events
            .iter()
            .filter(|(_, e)| matches!(e.kind, EventKind::PageDone { .. }));
        pages.push(done.count());
    }
    let ratio = pages[0] as f64 / pages[1] as f64;
    assert!((0.9..=1.1).contains(&ratio), "{pages:?}");
}

//! Tenants beside each other, in virtual time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use weir_core::decision::{PageRoute, Reading};
use weir_core::event::{Event, EventKind};
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::{Lane, Stage};
use weir_engine::{Engine, JobSpec};

use crate::fakes::{Fakes, everything, job_of};
use crate::floor::COSTS;

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// A host with so many workers in each stage.
fn host(workers: u32) -> Fakes {
    let mut fakes = Fakes::new();
    for (stage, millis) in COSTS {
        fakes = fakes.cost(stage, millis).workers(stage, workers);
    }
    fakes.config.upsert_workers = workers;
    fakes.stages.uneven.store(true, Ordering::SeqCst);
    fakes
}

/// Starts many jobs of a tenant at once.
fn flood(fakes: &Fakes, engine: &Engine, spec: &JobSpec, jobs: usize, pages: u32) {
    for n in 0..jobs {
        let documents = vec![fakes.document(&format!("{}-{n}.pdf", spec.tenant), pages)];
        let id = weir_core::JobId::new();
        drop(engine.start(JobSpec {
            id,
            documents,
            ..spec.clone()
        }));
    }
}

/// Milliseconds that a document of three pages takes, from its job's start to its end.
async fn three_pages(fakes: &Fakes, engine: &Engine, name: &str, lane: Option<Lane>) -> u64 {
    let spec = JobSpec {
        lane,
        ..job_of(tenant("late"), [fakes.document(name, 3)])
    };
    let handle = engine.start(spec);
    assert_eq!(handle.wait().await.state, JobState::Done);
    let events = fakes.ledger.log(handle.id());
    events.last().unwrap().at_millis
}

/// The 95th percentile of that, of forty documents submitted at moments that follow no beat.
async fn p95(fakes: &Fakes, engine: &Engine, name: &str, lane: Option<Lane>) -> f64 {
    let mut times = Vec::new();
    for n in 0..40 {
        sleep(Duration::from_millis(137 * (n % 7))).await;
        times.push(three_pages(fakes, engine, &format!("{name}-{n}.pdf"), lane).await);
    }
    times.sort_unstable();
    times[37] as f64
}

/// What a flood of two hundred jobs by another tenant makes of that time.
async fn beside_a_flood(workers: u32, lane: Option<Lane>) -> f64 {
    let fakes = host(workers);
    let engine = fakes.engine();
    let idle = p95(&fakes, &engine, "idle", lane).await;
    flood(&fakes, &engine, &job_of(tenant("crowd"), []), 200, 20);
    sleep(Duration::from_secs(10)).await;
    let busy = p95(&fakes, &engine, "busy", lane).await;
    // The flood has not run dry.
    assert!(fakes.ledger.unfinished().await.unwrap().len() > 20);
    drop(engine);
    busy / idle
}

#[tokio::test(start_paused = true)]
async fn three_pages_beside_a_flood_take_at_most_half_as_long_again() {
    for workers in [2, 3, 8, 16] {
        let ratio = beside_a_flood(workers, None).await;
        assert!(ratio <= 1.5, "{ratio:.2} with {workers} workers a stage");
    }
    // Where there is one worker of each kind, somebody's page is always in its hands; it takes the other lane to be next.
    let ratio = beside_a_flood(1, Some(Lane::Interactive)).await;
    assert!(ratio <= 1.5, "{ratio:.2} in the interactive lane");
}

/// The same on a machine of two cores that all stages share, with pages of text as they are on such a machine.
async fn beside_a_flood_on_two_cores(head_start: Duration) -> f64 {
    let mut fakes = Fakes::new();
    for (stage, millis) in [
        (Stage::Rasterize, 15),
        (Stage::Store, 1),
        (Stage::Read, 4),
        (Stage::Embed, 20),
        (Stage::Upsert, 2),
    ] {
        fakes = fakes.cost(stage, millis).workers(stage, 2);
    }
    fakes.config.upsert_workers = 2;
    fakes.config.head_start = head_start;
    fakes.stages.uneven.store(true, Ordering::SeqCst);
    fakes.stages.cores.store(2, Ordering::SeqCst);
    let engine = fakes.engine();
    let idle = p95(&fakes, &engine, "idle", None).await;
    for _ in 0..5 {
        flood(&fakes, &engine, &job_of(tenant("crowd"), []), 4, 500);
    }
    sleep(Duration::from_secs(2)).await;
    let busy = p95(&fakes, &engine, "busy", None).await;
    assert!(!fakes.ledger.unfinished().await.unwrap().is_empty());
    drop(engine);
    busy / idle
}

#[tokio::test(start_paused = true)]
async fn a_head_start_makes_up_for_cores_that_stages_share() {
    let fair = beside_a_flood_on_two_cores(Duration::ZERO).await;
    let ahead = beside_a_flood_on_two_cores(Duration::from_millis(500)).await;
    assert!(
        ahead <= 1.5 && fair > 2.0,
        "{ahead:.2} with it, {fair:.2} without"
    );
}

/// The 95th percentile of three pages on an idle host and beside ten scans of three hundred pages by another tenant. The host
/// has two workers of each kind and memory for nineteen page images, as the defaults give two cores.
async fn beside_ten_scans(name: &str, lane: Option<Lane>) -> (f64, f64) {
    let mut fakes = Fakes::new().image_memory(19);
    for (stage, millis) in [
        (Stage::Rasterize, 50),
        (Stage::Store, 1),
        (Stage::Read, 1000),
        (Stage::Embed, 20),
        (Stage::Upsert, 2),
    ] {
        fakes = fakes.cost(stage, millis).workers(stage, 2);
    }
    *fakes.stages.text_layer.lock() = Some(Duration::from_millis(4));
    fakes.stages.uneven.store(true, Ordering::SeqCst);
    fakes.config.upsert_workers = 2;
    fakes.script.route = Arc::new(|facts| {
        let reading = match facts.text_chars {
            0 => Reading::Ocr,
            _ => Reading::TextLayer,
        };
        Ok(PageRoute {
            reading,
            ..everything()
        })
    });
    let engine = fakes.engine();
    let idle = p95(&fakes, &engine, &format!("{name}-idle"), lane).await;
    let jobs: Vec<_> = (0..10)
        .map(|n| {
            let document = fakes.document(&format!("scan-{n}.pdf"), 300);
            engine.start(job_of(tenant("crowd"), [document]))
        })
        .collect();
    sleep(Duration::from_secs(30)).await;
    let busy = p95(&fakes, &engine, &format!("{name}-busy"), lane).await;
    assert_eq!(fakes.ledger.unfinished().await.unwrap().len(), jobs.len());
    // OCR has never had to wait for a page meanwhile.
    let read = jobs[0].work().into_iter().find(|work| work.stage == Stage::Read);
    assert!(read.unwrap().pages > 5);
    drop(engine);
    (idle, busy)
}

#[tokio::test(start_paused = true)]
async fn three_pages_beside_ten_scans_take_at_most_twice_as_long() {
    for (name, lane) in [("text", None), ("scan", Some(Lane::Interactive))] {
        let (idle, busy) = beside_ten_scans(name, lane).await;
        assert!(
            busy <= 2.0 * idle,
            "{name}: {idle} ms idle, {busy} ms beside ten scans"
        );
    }
}

/// Pages that tenants finished in a span of time, each of them flooding the host.
async fn pages_in(workers: u32, specs: &[JobSpec], span: std::ops::Range<u64>) -> Vec<usize> {
    let fakes = host(workers);
    let engine = fakes.engine();
    for spec in specs {
        flood(&fakes, &engine, spec, 20, 200);
    }
    sleep(Duration::from_millis(span.end + 1000)).await;
    let mut pages = Vec::new();
    for spec in specs {
        let events = fakes
            .ledger
            .tenant_events(&spec.tenant, 0, usize::MAX)
            .await
            .unwrap();
        let done = |e: &Event| matches!(e.what, EventKind::PageDone { .. }) && span.contains(&e.at_millis);
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
            ..job_of(tenant("heavy"), [])
        };
        let light = job_of(tenant("light"), []);
        let span = 60_000..60_000 + 600_000 / u64::from(workers);
        let pages = pages_in(workers, &[heavy, light], span).await;
        let ratio = pages[0] as f64 / pages[1] as f64;
        assert!(
            (2.7..=3.3).contains(&ratio),
            "{pages:?}: {ratio:.2} with {workers} workers a stage"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_documents_get_no_more_than_one() {
    let fakes = host(4);
    let engine = fakes.engine();
    flood(&fakes, &engine, &job_of(tenant("many"), []), 50, 100);
    flood(&fakes, &engine, &job_of(tenant("one"), []), 1, 1000);
    sleep(Duration::from_secs(300)).await;
    let mut pages = Vec::new();
    for name in ["many", "one"] {
        let events = fakes
            .ledger
            .tenant_events(&tenant(name), 0, usize::MAX)
            .await
            .unwrap();
        let done = events
            .iter()
            .filter(|(_, e)| matches!(e.what, EventKind::PageDone { .. }));
        pages.push(done.count());
    }
    let ratio = pages[0] as f64 / pages[1] as f64;
    assert!((0.9..=1.1).contains(&ratio), "{pages:?}");
}

//! What the engine tells meters and recorders.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use tokio::time::sleep;
use weir_core::Stage;
use weir_core::decision::Verdict;
use weir_core::id::TenantId;
use weir_core::usage::{Meter, Usage};

use crate::fakes::{Fakes, Fault, job, job_of};

#[derive(Default)]
struct Book(Mutex<HashMap<TenantId, Usage>>);

impl Meter for Book {
    fn used(&self, tenant: &TenantId, usage: &Usage) {
        self.0.lock().entry(tenant.clone()).or_default().add(usage);
    }
}

fn host() -> Fakes {
    let mut fakes = Fakes::new()
        .cost(Stage::Read, 100)
        .faults(|stage, page, _| (stage == Stage::Read && page == 5).then_some(Fault::Page));
    fakes.script.judge = Arc::new(|_| Ok(Verdict::SkipPage));
    fakes
}

#[tokio::test(start_paused = true)]
async fn pages_that_ended_are_metered_to_their_tenant() {
    let book = Arc::new(Book::default());
    let fakes = Fakes {
        meter: Some(Arc::clone(&book) as _),
        ..host()
    };
    let engine = fakes.engine();
    let other: TenantId = "other".parse().unwrap();
    engine.start(job([fakes.document("a.pdf", 10)])).wait().await;
    let documents = || [fakes.document("b.pdf", 3)];
    engine.start(job_of(other.clone(), documents())).wait().await;
    // Nothing is left to do the second time.
    engine.start(job_of(other.clone(), documents())).wait().await;
    let pages = |pages| Usage {
        pages,
        ..Usage::default()
    };
    let expected = HashMap::from([(TenantId::single(), pages(10)), (other, pages(3))]);
    assert_eq!(*book.0.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn recorders_hear_of_jobs_stages_and_commits() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let fakes = host();
    let engine = metrics::with_local_recorder(&recorder, || fakes.engine());
    let value = |name: &str| -> f64 {
        let text = recorder.handle().render();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .trim()
            .parse()
            .unwrap()
    };
    let handle = engine.start(job([fakes.document("a.pdf", 20)]));
    sleep(Duration::from_millis(450)).await;
    assert_eq!(value("weir_jobs_running "), 1.0);
    // Pages for OCR wait before they are drawn, and one is drawn ahead.
    let depth = value(r#"weir_queue_depth{stage="rasterize"} "#);
    assert!(depth >= 8.0);
    assert!(depth <= value(r#"weir_queue_capacity{stage="rasterize"} "#));
    assert_eq!(value(r#"weir_queue_depth{stage="read"} "#), 1.0);
    let workers = value(r#"weir_workers{stage="read"} "#);
    assert_eq!(value(r#"weir_workers_busy{stage="read"} "#), workers);
    handle.wait().await;
    assert_eq!(value("weir_jobs_running "), 0.0);
    for stage in Stage::ALL {
        assert_eq!(
            value(&format!("weir_queue_depth{{stage=\"{stage}\"}} ")),
            0.0,
            "{stage}"
        );
        for none in ["queue_capacity", "workers_busy"] {
            assert_eq!(
                value(&format!("weir_{none}{{stage=\"{stage}\"}} ")),
                0.0,
                "{none} of {stage}"
            );
        }
    }
    assert_eq!(value(r#"weir_pages_total{outcome="done"} "#), 19.0);
    assert_eq!(value(r#"weir_pages_total{outcome="failed"} "#), 1.0);
    // The one that failed is not among them.
    assert_eq!(value(r#"weir_stage_seconds_count{stage="read"} "#), 19.0);
    let seconds = value(r#"weir_stage_seconds_sum{stage="read"} "#);
    assert!((1.9..2.0).contains(&seconds), "{seconds}");
    assert_eq!(value(r#"weir_stage_seconds_count{stage="upsert"} "#), 19.0);
    let commits = fakes.ledger.commits.lock().len() as f64;
    assert_eq!(value("weir_ledger_commits_total "), commits);
    assert_eq!(value("weir_ledger_commit_seconds_count "), commits);
}

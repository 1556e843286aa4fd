//! Usage meters and metrics of the engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use tokio::time::sleep;
use weir_core::Stage;
use weir_core::decision::FailureAction;
use weir_core::id::TenantId;
use weir_core::usage::{Usage, UsageMeter};

use crate::fakes::{FakeHost, InjectedFault, single_tenant_job, tenant_job};

#[derive(Default)]
struct RecordingMeter(Mutex<HashMap<TenantId, Usage>>);

impl UsageMeter for RecordingMeter {
    fn record_usage(&self, tenant: &TenantId, usage: &Usage) {
        self.0
            .lock()
            .entry(tenant.clone())
            .or_default()
            .add_amounts(usage);
    }
}

fn host_with_failing_page() -> FakeHost {
    let mut fakes = FakeHost::new()
        .with_cost(Stage::Read, 100)
        .with_faults(|stage, page, _| (stage == Stage::Read && page == 5).then_some(InjectedFault::Page));
    fakes.script.on_failure = Arc::new(|_| Ok(FailureAction::SkipPage));
    fakes
}

#[tokio::test(start_paused = true)]
async fn pages_that_ended_are_metered_to_their_tenant() {
    let meter = Arc::new(RecordingMeter::default());
    let fakes = FakeHost {
        meter: Some(Arc::clone(&meter) as _),
        ..host_with_failing_page()
    };
    let engine = fakes.build_engine();
    let other: TenantId = "other".parse().unwrap();
    engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]))
        .await_outcome()
        .await;
    let documents = || [fakes.document_spec("b.pdf", 3)];
    engine
        .start_or_resume_job(tenant_job(other.clone(), documents()))
        .await_outcome()
        .await;
    // The second run has no pages to process.
    engine
        .start_or_resume_job(tenant_job(other.clone(), documents()))
        .await_outcome()
        .await;
    let pages = |pages| Usage {
        pages,
        ..Usage::default()
    };
    let expected = HashMap::from([(TenantId::default_tenant(), pages(10)), (other, pages(3))]);
    assert_eq!(*meter.0.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn metrics_cover_jobs_stages_and_commits() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let fakes = host_with_failing_page();
    let engine = metrics::with_local_recorder(&recorder, || fakes.build_engine());
    let value = |name: &str| -> f64 {
        let text = recorder.handle().render();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .trim()
            .parse()
            .unwrap()
    };
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 20)]));
    sleep(Duration::from_millis(450)).await;
    assert_eq!(value("weir_jobs_running "), 1.0);
    // Pages for OCR wait in front of the rasterizer, and one is rasterized ahead.
    let depth = value(r#"weir_stage_queue_depth{stage="rasterize"} "#);
    assert!(depth >= 8.0);
    assert!(depth <= value(r#"weir_stage_queue_capacity{stage="rasterize"} "#));
    assert_eq!(value(r#"weir_stage_queue_depth{stage="read"} "#), 1.0);
    let workers = value(r#"weir_stage_workers{stage="read"} "#);
    assert_eq!(value(r#"weir_stage_workers_busy{stage="read"} "#), workers);
    handle.await_outcome().await;
    assert_eq!(value("weir_jobs_running "), 0.0);
    for stage in Stage::ALL {
        assert_eq!(
            value(&format!("weir_stage_queue_depth{{stage=\"{stage}\"}} ")),
            0.0,
            "{stage}"
        );
        for none in ["stage_queue_capacity", "stage_workers_busy"] {
            assert_eq!(
                value(&format!("weir_{none}{{stage=\"{stage}\"}} ")),
                0.0,
                "{none} of {stage}"
            );
        }
    }
    assert_eq!(value(r#"weir_pages_ended_total{outcome="done"} "#), 19.0);
    assert_eq!(value(r#"weir_pages_ended_total{outcome="failed"} "#), 1.0);
    // The failed page is not counted.
    assert_eq!(
        value(r#"weir_stage_page_duration_seconds_count{stage="read"} "#),
        19.0
    );
    let seconds = value(r#"weir_stage_page_duration_seconds_sum{stage="read"} "#);
    assert!((1.9..2.0).contains(&seconds), "{seconds}");
    assert_eq!(
        value(r#"weir_stage_page_duration_seconds_count{stage="upsert"} "#),
        19.0
    );
    let commits = fakes.ledger.commits.lock().len() as f64;
    assert_eq!(value("weir_ledger_group_commits_total "), commits);
    assert_eq!(value("weir_ledger_commit_duration_seconds_count "), commits);
}

//! Jobs of a tenant whose page quota is used up while they run.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::event::EventKind;
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::usage::{QuotaExhaustedError, QuotaReserveError, Usage, UsageQuotaLimiter};
use weir_core::{JobId, Stage};
use weir_engine::{DocumentEndState, JobSpec};

use crate::document_ingestion::{collect_events, done_end};
use crate::fakes::{FakeHost, single_tenant_job};

const EXHAUSTED_QUOTA: QuotaExhaustedError = QuotaExhaustedError {
    quota: "pages_per_day",
    limit: 7,
};

/// Reserves a limited number of pages, and counts released ones.
#[derive(Default)]
struct FakeQuota {
    left: Mutex<u32>,
    released: Mutex<u64>,
}

#[async_trait]
impl UsageQuotaLimiter for FakeQuota {
    async fn reserve_pages(&self, _: &TenantId, max_pages: u32) -> Result<u32, QuotaReserveError> {
        let mut left = self.left.lock();
        let granted = max_pages.min(*left);
        *left -= granted;
        match granted {
            0 => Err(EXHAUSTED_QUOTA.into()),
            granted => Ok(granted),
        }
    }

    async fn reserve_llm_call(&self, _: &TenantId, _: &Usage) -> Result<(), QuotaReserveError> {
        Ok(())
    }

    fn release_reservation(&self, _: &TenantId, reserved: &Usage) {
        *self.released.lock() += reserved.pages;
    }
}

fn host_with_page_quota(pages: u32) -> (FakeHost, Arc<FakeQuota>) {
    let mut fakes = FakeHost::new();
    let quota = Arc::new(FakeQuota::default());
    *quota.left.lock() = pages;
    fakes.quotas = Some(Arc::clone(&quota) as _);
    (fakes, quota)
}

#[tokio::test(start_paused = true)]
async fn job_over_its_page_quota_is_held_and_goes_on_later() {
    for force in [false, true] {
        let (fakes, quota) = host_with_page_quota(7);
        let engine = fakes.build_engine();
        let spec = JobSpec {
            id: JobId::new(),
            force,
            ..single_tenant_job([fakes.document_spec("a.pdf", 20), fakes.document_spec("b.pdf", 30)])
        };
        let (events, outcome) = collect_events(&engine.start_or_resume_job(spec.clone())).await;
        assert_eq!(
            (outcome.state, outcome.exhausted_quota),
            (JobState::Running, Some(EXHAUSTED_QUOTA))
        );
        let done_of = |end: &DocumentEndState| match end {
            DocumentEndState::Suspended { done } => *done,
            other => panic!("{other:?}"),
        };
        let pages: u32 = outcome
            .documents
            .iter()
            .map(|document| done_of(&document.end))
            .sum();
        assert_eq!((outcome.documents.len(), pages), (2, 7));
        assert_eq!(fakes.stages.call_counter(Stage::Rasterize).call_count(), 7);
        assert_eq!(*quota.released.lock(), 7);
        let held = events.last().map(|event| &event.kind);
        let Some(EventKind::JobPausedByQuota { error }) = held else {
            panic!("{held:?}");
        };
        assert_eq!(error.kind, "quota");
        assert_eq!(
            error.message,
            "the quota pages_per_day of 7 is exhausted: wait until midnight UTC, or have the quota raised"
        );

        // Pages that are done are not processed again, also with `force`.
        *quota.left.lock() = 43;
        let outcome = engine.start_or_resume_job(spec).await_outcome().await;
        assert_eq!((outcome.state, outcome.exhausted_quota), (JobState::Done, None));
        assert_eq!(
            fakes.stages.call_counter(Stage::Rasterize).call_count(),
            50,
            "force: {force}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn document_whose_pages_just_fit_is_done() {
    let (fakes, quota) = host_with_page_quota(20);
    let outcome = fakes
        .build_engine()
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 20)]))
        .await_outcome()
        .await;
    assert_eq!((outcome.state, outcome.exhausted_quota), (JobState::Done, None));
    assert_eq!(outcome.documents[0].end, done_end(20, 0));
    assert_eq!((*quota.left.lock(), *quota.released.lock()), (0, 20));
}

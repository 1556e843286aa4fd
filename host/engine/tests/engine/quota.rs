//! Jobs whose tenant's quota of pages is used up while they are in work.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::event::EventKind;
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::usage::{QuotaExhausted, ReserveError, Usage, UsageQuotas};
use weir_core::{JobId, Stage};
use weir_engine::{DocumentEnd, JobSpec};

use crate::fakes::{Fakes, job};
use crate::flow::{done, follow};

const EXHAUSTED: QuotaExhausted = QuotaExhausted {
    quota: "pages_per_day",
    limit: 7,
};

/// Reserves so many pages, and counts those that were given back.
#[derive(Default)]
struct Pages {
    left: Mutex<u32>,
    released: Mutex<u64>,
}

#[async_trait]
impl UsageQuotas for Pages {
    async fn reserve_pages(&self, _: &TenantId, most: u32) -> Result<u32, ReserveError> {
        let mut left = self.left.lock();
        let granted = most.min(*left);
        *left -= granted;
        match granted {
            0 => Err(EXHAUSTED.into()),
            granted => Ok(granted),
        }
    }

    async fn reserve_llm_call(&self, _: &TenantId, _: &Usage) -> Result<(), ReserveError> {
        Ok(())
    }

    fn release(&self, _: &TenantId, reserved: &Usage) {
        *self.released.lock() += reserved.pages;
    }
}

fn limited(pages: u32) -> (Fakes, Arc<Pages>) {
    let mut fakes = Fakes::new();
    let quota = Arc::new(Pages::default());
    *quota.left.lock() = pages;
    fakes.quotas = Some(Arc::clone(&quota) as _);
    (fakes, quota)
}

#[tokio::test(start_paused = true)]
async fn job_over_its_page_quota_is_held_and_goes_on_later() {
    for force in [false, true] {
        let (fakes, quota) = limited(7);
        let engine = fakes.engine();
        let spec = JobSpec {
            id: JobId::new(),
            force,
            ..job([fakes.document("a.pdf", 20), fakes.document("b.pdf", 30)])
        };
        let (events, outcome) = follow(&engine.start(spec.clone())).await;
        assert_eq!(
            (outcome.state, outcome.held),
            (JobState::Running, Some(EXHAUSTED))
        );
        let done_of = |end: &DocumentEnd| match end {
            DocumentEnd::Suspended { done } => *done,
            other => panic!("{other:?}"),
        };
        let pages: u32 = outcome
            .documents
            .iter()
            .map(|document| done_of(&document.end))
            .sum();
        assert_eq!((outcome.documents.len(), pages), (2, 7));
        assert_eq!(fakes.stages.meter(Stage::Rasterize).calls(), 7);
        assert_eq!(*quota.released.lock(), 7);
        let held = events.last().map(|event| &event.what);
        let Some(EventKind::JobHeld { error }) = held else {
            panic!("{held:?}");
        };
        assert_eq!(error.kind, "quota");
        assert_eq!(error.message, "the quota pages_per_day = 7 is used up");

        // What is done is not done again, also where all is to be done anew.
        *quota.left.lock() = 43;
        let outcome = engine.start(spec).wait().await;
        assert_eq!((outcome.state, outcome.held), (JobState::Done, None));
        assert_eq!(fakes.stages.meter(Stage::Rasterize).calls(), 50, "force: {force}");
    }
}

#[tokio::test(start_paused = true)]
async fn document_whose_pages_just_fit_is_done() {
    let (fakes, quota) = limited(20);
    let outcome = fakes
        .engine()
        .start(job([fakes.document("a.pdf", 20)]))
        .wait()
        .await;
    assert_eq!((outcome.state, outcome.held), (JobState::Done, None));
    assert_eq!(outcome.documents[0].end, done(20, 0));
    assert_eq!((*quota.left.lock(), *quota.released.lock()), (0, 20));
}

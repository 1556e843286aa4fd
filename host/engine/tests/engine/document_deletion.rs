//! Deletion of documents.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use weir_core::Stage;
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_engine::{DeleteError, DocumentEndState};

use crate::fakes::{FakeHost, single_tenant_job};

const DOCUMENT_PAGES: u32 = 10;

/// Creates a host where the third page of a document has no passages.
fn host_with_unsearchable_page() -> FakeHost {
    let mut fakes = FakeHost::new().with_cost(Stage::Read, 10);
    let usual = Arc::clone(&fakes.script.passages);
    fakes.script.passages = Arc::new(move |source| match source.page {
        3 => Ok(vec![]),
        _ => usual(source),
    });
    fakes
}

/// Returns the number of passages and blobs of the document, and whether it is listed.
async fn count_remaining(fakes: &FakeHost) -> (usize, usize, bool) {
    let listed = fakes
        .ledger
        .find_document(&TenantId::default_tenant(), &fakes.document_id("a.pdf"))
        .await;
    (
        fakes.vectors.sorted_points().len(),
        fakes.blobs.keys().len(),
        listed.unwrap().is_some(),
    )
}

const ALL_ITEMS: (usize, usize, bool) = (
    2 * (DOCUMENT_PAGES as usize - 1),
    2 * DOCUMENT_PAGES as usize,
    true,
);
const NO_ITEMS: (usize, usize, bool) = (0, 0, false);

#[tokio::test(start_paused = true)]
async fn deleted_document_leaves_nothing_and_can_be_ingested_again() {
    let fakes = host_with_unsearchable_page();
    let (engine, tenant) = (fakes.build_engine(), TenantId::default_tenant());
    let document = fakes.document_spec("a.pdf", DOCUMENT_PAGES);
    let id = fakes.document_id("a.pdf");
    assert_eq!(engine.delete_document(&tenant, id).await, Ok(false));
    for _ in 0..2 {
        let outcome = engine
            .start_or_resume_job(single_tenant_job([document.clone()]))
            .await_outcome()
            .await;
        assert!(matches!(
            outcome.documents[0].end,
            DocumentEndState::Done { skipped: 0, .. }
        ));
        assert_eq!(count_remaining(&fakes).await, ALL_ITEMS);
        assert_eq!(engine.delete_document(&tenant, id).await, Ok(true));
        assert_eq!(count_remaining(&fakes).await, NO_ITEMS);
        fakes.simulate_power_cut();
        assert_eq!(count_remaining(&fakes).await, NO_ITEMS);
        assert!(
            fakes
                .ledger
                .list_pages(&tenant, &id, None)
                .await
                .unwrap()
                .is_empty()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn active_document_is_not_deleted() {
    let fakes = host_with_unsearchable_page();
    let (engine, tenant) = (fakes.build_engine(), TenantId::default_tenant());
    let first = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", DOCUMENT_PAGES)]));
    let second =
        engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", DOCUMENT_PAGES)]));
    sleep(Duration::from_millis(30)).await;
    let id = fakes.document_id("a.pdf");
    let refused = engine.delete_document(&tenant, id).await;
    assert_eq!(refused, Err(DeleteError::DocumentActive(id)));
    assert_eq!(refused.unwrap_err().kind(), "document-active");
    assert_eq!(first.await_outcome().await.state, JobState::Done);
    assert_eq!(second.await_outcome().await.state, JobState::Done);
    assert_eq!(count_remaining(&fakes).await, ALL_ITEMS);
    assert_eq!(engine.delete_document(&tenant, id).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn job_started_during_a_deletion_waits_for_it() {
    let fakes = host_with_unsearchable_page();
    let (engine, tenant) = (fakes.build_engine(), TenantId::default_tenant());
    engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", DOCUMENT_PAGES)]))
        .await_outcome()
        .await;
    fakes.stages.steps_until_hang.store(1, Ordering::SeqCst);
    let id = fakes.document_id("a.pdf");
    let mut deleting = Box::pin(engine.delete_document(&tenant, id));
    let brief = Duration::from_millis(100);
    assert!(timeout(brief, &mut deleting).await.is_err());
    let handle =
        engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", DOCUMENT_PAGES)]));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        fakes.stages.call_counter(Stage::Rasterize).call_count(),
        u64::from(DOCUMENT_PAGES)
    );
    drop(deleting);
    assert_eq!(handle.await_outcome().await.state, JobState::Done);
    assert_eq!(count_remaining(&fakes).await, ALL_ITEMS);
}

/// The deletion is interrupted after each of its steps, by a kill or by a power cut.
#[tokio::test(start_paused = true)]
async fn interrupted_deletion_hides_removed_pages_and_can_be_repeated() {
    for step in 1..=4 {
        for (power_cut, ingest_again) in [(false, false), (true, false), (false, true), (true, true)] {
            let which = format!("step {step}, power cut {power_cut}, ingested again {ingest_again}");
            let (fakes, tenant) = (host_with_unsearchable_page(), TenantId::default_tenant());
            let engine = fakes.build_engine();
            engine
                .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", DOCUMENT_PAGES)]))
                .await_outcome()
                .await;
            fakes.stages.steps_until_hang.store(step, Ordering::SeqCst);
            let id = fakes.document_id("a.pdf");
            let cut = timeout(Duration::from_millis(100), engine.delete_document(&tenant, id)).await;
            assert!(cut.is_err(), "{which}");
            drop(engine);
            if power_cut {
                fakes.simulate_power_cut();
            }
            let keys = fakes.blobs.keys();
            for point in fakes.vectors.sorted_points() {
                assert!(keys.contains(&point.image.unwrap()), "{which}");
                assert!(keys.contains(&point.lines.unwrap()), "{which}");
            }
            assert!(count_remaining(&fakes).await.2, "{which}: it is still listed");

            let engine = fakes.build_engine();
            if ingest_again {
                let outcome = engine
                    .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", DOCUMENT_PAGES)]))
                    .await_outcome()
                    .await;
                assert_eq!(outcome.state, JobState::Done, "{which}");
                assert_eq!(count_remaining(&fakes).await, ALL_ITEMS, "{which}");
            }
            assert_eq!(engine.delete_document(&tenant, id).await, Ok(true), "{which}");
            assert_eq!(count_remaining(&fakes).await, NO_ITEMS, "{which}");
            engine.cancel_jobs_and_shutdown(Duration::ZERO).await.unwrap();
            fakes.simulate_power_cut();
            assert_eq!(count_remaining(&fakes).await, NO_ITEMS, "{which}");
        }
    }
}

//! Documents that are deleted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use weir_core::Stage;
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_engine::{DeleteError, DocumentEnd};

use crate::fakes::{Fakes, job};

const PAGES: u32 = 10;

/// A host where the third page of a document says nothing that could be found.
fn host() -> Fakes {
    let mut fakes = Fakes::new().cost(Stage::Read, 10);
    let usual = Arc::clone(&fakes.script.passages);
    fakes.script.passages = Arc::new(move |source| match source.page {
        3 => Ok(vec![]),
        _ => usual(source),
    });
    fakes
}

/// What is there of a document: passages, blobs, whether it is listed.
async fn left(fakes: &Fakes) -> (usize, usize, bool) {
    let listed = fakes
        .ledger
        .document(&TenantId::single(), &fakes.id("a.pdf"))
        .await;
    (
        fakes.vectors.points().len(),
        fakes.blobs.keys().len(),
        listed.unwrap().is_some(),
    )
}

const ALL: (usize, usize, bool) = (2 * (PAGES as usize - 1), 2 * PAGES as usize, true);
const NOTHING: (usize, usize, bool) = (0, 0, false);

#[tokio::test(start_paused = true)]
async fn a_deleted_document_leaves_nothing_and_can_come_again() {
    let fakes = host();
    let (engine, tenant) = (fakes.engine(), TenantId::single());
    let document = fakes.document("a.pdf", PAGES);
    let id = fakes.id("a.pdf");
    assert_eq!(engine.delete(&tenant, id).await, Ok(false));
    for _ in 0..2 {
        let outcome = engine.start(job([document.clone()])).wait().await;
        assert!(matches!(
            outcome.documents[0].end,
            DocumentEnd::Done { skipped: 0, .. }
        ));
        assert_eq!(left(&fakes).await, ALL);
        assert_eq!(engine.delete(&tenant, id).await, Ok(true));
        assert_eq!(left(&fakes).await, NOTHING);
        fakes.crash();
        assert_eq!(left(&fakes).await, NOTHING);
        assert!(fakes.ledger.pages(&tenant, &id, None).await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_in_work_is_not_deleted() {
    let fakes = host();
    let (engine, tenant) = (fakes.engine(), TenantId::single());
    let first = engine.start(job([fakes.document("a.pdf", PAGES)]));
    let second = engine.start(job([fakes.document("a.pdf", PAGES)]));
    sleep(Duration::from_millis(30)).await;
    let id = fakes.id("a.pdf");
    let refused = engine.delete(&tenant, id).await;
    assert_eq!(refused, Err(DeleteError::InWork(id)));
    assert_eq!(refused.unwrap_err().kind(), "document-in-work");
    assert_eq!(first.wait().await.state, JobState::Done);
    assert_eq!(second.wait().await.state, JobState::Done);
    assert_eq!(left(&fakes).await, ALL);
    assert_eq!(engine.delete(&tenant, id).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_comes_meanwhile_waits_for_the_deletion() {
    let fakes = host();
    let (engine, tenant) = (fakes.engine(), TenantId::single());
    engine.start(job([fakes.document("a.pdf", PAGES)])).wait().await;
    fakes.stages.hang_after.store(1, Ordering::SeqCst);
    let id = fakes.id("a.pdf");
    let mut deleting = Box::pin(engine.delete(&tenant, id));
    let brief = Duration::from_millis(100);
    assert!(timeout(brief, &mut deleting).await.is_err());
    let handle = engine.start(job([fakes.document("a.pdf", PAGES)]));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(fakes.stages.meter(Stage::Rasterize).calls(), u64::from(PAGES));
    drop(deleting);
    assert_eq!(handle.wait().await.state, JobState::Done);
    assert_eq!(left(&fakes).await, ALL);
}

/// Cut short after each of its steps, by a kill or by a power cut.
#[tokio::test(start_paused = true)]
async fn a_deletion_cut_short_shows_no_page_that_is_gone_and_can_be_repeated() {
    for step in 1..=4 {
        for (power_cut, ingest_again) in [(false, false), (true, false), (false, true), (true, true)] {
            let which = format!("step {step}, power cut {power_cut}, ingested again {ingest_again}");
            let (fakes, tenant) = (host(), TenantId::single());
            let engine = fakes.engine();
            engine.start(job([fakes.document("a.pdf", PAGES)])).wait().await;
            fakes.stages.hang_after.store(step, Ordering::SeqCst);
            let id = fakes.id("a.pdf");
            let cut = timeout(Duration::from_millis(100), engine.delete(&tenant, id)).await;
            assert!(cut.is_err(), "{which}");
            drop(engine);
            if power_cut {
                fakes.crash();
            }
            let keys = fakes.blobs.keys();
            for point in fakes.vectors.points() {
                assert!(keys.contains(&point.image.unwrap()), "{which}");
                assert!(keys.contains(&point.lines.unwrap()), "{which}");
            }
            assert!(left(&fakes).await.2, "{which}: it is still listed");

            let engine = fakes.engine();
            if ingest_again {
                let outcome = engine.start(job([fakes.document("a.pdf", PAGES)])).wait().await;
                assert_eq!(outcome.state, JobState::Done, "{which}");
                assert_eq!(left(&fakes).await, ALL, "{which}");
            }
            assert_eq!(engine.delete(&tenant, id).await, Ok(true), "{which}");
            assert_eq!(left(&fakes).await, NOTHING, "{which}");
            engine.shutdown(Duration::ZERO).await.unwrap();
            fakes.crash();
            assert_eq!(left(&fakes).await, NOTHING, "{which}");
        }
    }
}

//! A failed page leaves no passages in the index, and no pixels in memory while it waits for a retry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use weir_core::Stage;
use weir_core::decision::FailureAction;
use weir_core::ledger::JobState;
use weir_engine::DocumentEndState;

use crate::document_ingestion::done_end;
use crate::fakes::{FakeHost, InjectedFault, single_tenant_job};

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_after_its_upsert_cannot_be_found() {
    // The image or the lines of page 7 fail before, during and after its upsert.
    for (millis, lines) in [(0, false), (5, false), (60, false), (2000, false), (0, true)] {
        let mut fakes = FakeHost::new()
            .with_cost(Stage::Read, 10)
            .with_cost(Stage::Upsert, 100)
            .with_cost(Stage::Store, millis)
            .with_faults(move |s, page, _| {
                (s == Stage::Store && page == 7 && !lines).then_some(InjectedFault::Page)
            });
        fakes
            .stages
            .page_with_unstorable_lines
            .store(if lines { 7 } else { 0 }, Ordering::SeqCst);
        fakes.script.on_failure = Arc::new(|_| Ok(FailureAction::SkipPage));
        let engine = fakes.build_engine();
        let outcome = engine
            .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 20)]))
            .await_outcome()
            .await;
        let DocumentEndState::Done {
            searchable: 19,
            failed,
            ..
        } = &outcome.documents[0].end
        else {
            panic!("{millis} ms, {lines}: {outcome:?}");
        };
        assert_eq!(failed.iter().map(|f| f.page).collect::<Vec<_>>(), [7]);
        let found: BTreeSet<_> = fakes.vectors.sorted_points().iter().map(|p| p.page).collect();
        assert_eq!(found.len(), 19, "{millis} ms, {lines}: {found:?}");
        assert!(!found.contains(&7));
        // Without the fault, the next run completes the document.
        *fakes.stages.faults.lock() = Arc::new(|_, _, _| None);
        fakes.stages.page_with_unstorable_lines.store(0, Ordering::SeqCst);
        let again = engine
            .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 20)]))
            .await_outcome()
            .await;
        assert_eq!(again.state, JobState::Done);
        fakes.assert_document_complete("a.pdf", 20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pixels_are_freed_before_the_failure_rule_and_the_backoff() {
    for stage in [Stage::Rasterize, Stage::Read, Stage::Embed, Stage::Upsert] {
        let mut fakes = FakeHost::new()
            .with_image_memory(1)
            .with_faults(move |s, _, attempt| (s == stage && attempt == 1).then_some(InjectedFault::Page));
        let stages = Arc::clone(&fakes.stages);
        fakes.script.on_failure = Arc::new(move |_| {
            assert_eq!(stages.live_images.in_flight(), 0, "{stage}");
            Ok(FailureAction::RetryAfter(60_000))
        });
        let engine = fakes.build_engine();
        let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 1)]));
        sleep(Duration::from_secs(30)).await;
        assert_eq!(fakes.stages.live_images.in_flight(), 0, "{stage}");
        assert_eq!(
            handle.await_outcome().await.documents[0].end,
            done_end(1, 0),
            "{stage}"
        );
        fakes.assert_document_complete("a.pdf", 1).await;
    }
}

//! What a page that fails leaves behind: no passages, and no pixels while it waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use weir_core::Stage;
use weir_core::decision::Verdict;
use weir_core::ledger::JobState;
use weir_engine::DocumentEnd;

use crate::fakes::{Fakes, Fault, job};
use crate::flow::done;

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_after_its_upsert_cannot_be_found() {
    // The image or the lines of page 7 fail before, during and after its upsert.
    for (millis, lines) in [(0, false), (5, false), (60, false), (2000, false), (0, true)] {
        let mut fakes = Fakes::new()
            .cost(Stage::Read, 10)
            .cost(Stage::Upsert, 100)
            .cost(Stage::Store, millis)
            .faults(move |s, page, _| (s == Stage::Store && page == 7 && !lines).then_some(Fault::Page));
        fakes
            .stages
            .lost_lines
            .store(if lines { 7 } else { 0 }, Ordering::SeqCst);
        fakes.script.judge = Arc::new(|_| Ok(Verdict::SkipPage));
        let engine = fakes.engine();
        let outcome = engine.start(job([fakes.document("a.pdf", 20)])).wait().await;
        let DocumentEnd::Done {
            searchable: 19,
            failed,
            ..
        } = &outcome.documents[0].end
        else {
            panic!("{millis} ms, {lines}: {outcome:?}");
        };
        assert_eq!(failed.iter().map(|f| f.page).collect::<Vec<_>>(), [7]);
        let found: BTreeSet<_> = fakes.vectors.points().iter().map(|p| p.page).collect();
        assert_eq!(found.len(), 19, "{millis} ms, {lines}: {found:?}");
        assert!(!found.contains(&7));
        // Trouble over, the next run does what is missing.
        *fakes.stages.faults.lock() = Arc::new(|_, _, _| None);
        fakes.stages.lost_lines.store(0, Ordering::SeqCst);
        let again = engine.start(job([fakes.document("a.pdf", 20)])).wait().await;
        assert_eq!(again.state, JobState::Done);
        fakes.assert_whole("a.pdf", 20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pixels_are_dropped_before_the_failure_rule_and_the_pause() {
    for stage in [Stage::Rasterize, Stage::Read, Stage::Embed, Stage::Upsert] {
        let mut fakes = Fakes::new()
            .image_memory(1)
            .faults(move |s, _, attempt| (s == stage && attempt == 1).then_some(Fault::Page));
        let stages = Arc::clone(&fakes.stages);
        fakes.script.judge = Arc::new(move |_| {
            assert_eq!(stages.images.now(), 0, "{stage}");
            Ok(Verdict::RetryAfter(60_000))
        });
        let engine = fakes.engine();
        let handle = engine.start(job([fakes.document("a.pdf", 1)]));
        sleep(Duration::from_secs(30)).await;
        assert_eq!(fakes.stages.images.now(), 0, "{stage}");
        assert_eq!(handle.wait().await.documents[0].end, done(1, 0), "{stage}");
        fakes.assert_whole("a.pdf", 1).await;
    }
}

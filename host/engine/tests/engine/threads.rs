//! The same on real threads and the real clock, where tasks do run at the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use weir_core::Stage;
use weir_core::decision::Verdict;
use weir_core::ledger::JobState;

use crate::fakes::{Fakes, Fault, job};
use crate::flow::{done, follow};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_documents_with_trouble_on_the_way_are_whole() {
    // Every seventh page fails once in some stage.
    let trouble = |stage: Stage, page: u32, attempt| {
        (page.is_multiple_of(7) && page as usize % Stage::ALL.len() == stage as usize && attempt == 1)
            .then_some(Fault::Page)
    };
    let mut fakes = Fakes::new()
        .workers(Stage::Rasterize, 4)
        .workers(Stage::Read, 3)
        .workers(Stage::Embed, 2)
        .faults(trouble);
    fakes.script.judge = Arc::new(|_| Ok(Verdict::RetryAfter(1)));
    fakes.config.documents = 4;
    let engine = fakes.engine();
    let names: Vec<_> = (0..8).map(|i| format!("{i}.pdf")).collect();
    let handle = engine.start(job(names.iter().map(|name| fakes.document(name, 50))));
    let (events, outcome) = follow(&handle).await;
    assert_eq!(outcome.state, JobState::Done);
    assert!(
        outcome.documents.iter().all(|d| d.end == done(50, 0)),
        "{outcome:?}"
    );
    assert!(events.iter().map(|e| e.seq).eq(1..=events.len() as u64));
    assert_eq!(fakes.ledger.log(handle.id()), events);
    assert_eq!(fakes.vectors.points().len(), 8 * 50 * 2);
    assert_eq!(fakes.blobs.keys().len(), 8 * 50 * 2);
    assert_eq!(fakes.stages.images.now(), 0);
    engine.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelled_again_and_again_it_is_still_whole_in_the_end() {
    let fakes = Fakes::new()
        .workers(Stage::Rasterize, 3)
        .cost(Stage::Rasterize, 1)
        .cost(Stage::Read, 1)
        .cost(Stage::Upsert, 1);
    for millis in [1, 5, 10, 20, 30] {
        let engine = fakes.engine();
        let handle = engine.start(job([fakes.document("a.pdf", 100)]));
        sleep(Duration::from_millis(millis)).await;
        if millis % 10 == 0 {
            // As a crash would, but for what a thread is just doing.
            drop(engine);
        } else {
            handle.cancel();
            handle.wait().await;
        }
    }
    let engine = fakes.engine();
    let outcome = engine.start(job([fakes.document("a.pdf", 100)])).wait().await;
    assert_eq!(outcome.state, JobState::Done);
    fakes.assert_whole("a.pdf", 100).await;
}

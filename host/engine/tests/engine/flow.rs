//! Documents from beginning to end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use weir_core::Stage;
use weir_core::decision::{BatchPlan, PageRoute, Reading};
use weir_core::event::{Event, EventKind};
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::text::PageLines;
use weir_engine::{DocumentEnd, JobHandle, JobOutcome, SearchRequest};

use crate::fakes::{Fakes, PLAN, everything, job, pipeline};

/// All events of a job, and its outcome.
pub(crate) async fn follow(handle: &JobHandle) -> (Vec<Event>, JobOutcome) {
    let events = handle.events().map(|e| e.unwrap()).collect().await;
    (events, handle.wait().await)
}

/// A document of which all is searchable.
pub(crate) fn done(pages: u32, skipped: u32) -> DocumentEnd {
    DocumentEnd::Done {
        pages,
        searchable: pages,
        skipped,
        failed: vec![],
    }
}

/// Pages done, with the time they were done at.
pub(crate) fn pages_done(events: &[Event]) -> Vec<(u32, u64)> {
    let page = |e: &Event| match e.what {
        EventKind::PageDone { page, .. } => Some((page, e.at_millis)),
        _ => None,
    };
    events.iter().filter_map(page).collect()
}

#[tokio::test(start_paused = true)]
async fn a_document_becomes_searchable_page_by_page() {
    let fakes = Fakes::new()
        .cost(Stage::Rasterize, 10)
        .cost(Stage::Read, 20)
        .cost(Stage::Embed, 10)
        .cost(Stage::Upsert, 1);
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 10)]));
    let (events, outcome) = follow(&handle).await;

    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(outcome.documents[0].end, done(10, 0));
    fakes.assert_whole("a.pdf", 10).await;

    let seqs: Vec<_> = events.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    assert!(events.is_sorted_by_key(|e| e.at_millis));
    assert_eq!(fakes.ledger.log(handle.id()), events);
    assert!(matches!(
        events[0].what,
        EventKind::DocumentStarted {
            pages: 10,
            already_done: 0,
            ..
        }
    ));
    let last: Vec<_> = events.iter().rev().take(2).map(|e| &e.what).collect();
    assert!(matches!(
        last[0],
        EventKind::JobEnded {
            state: JobState::Done,
            ..
        }
    ));
    assert!(matches!(last[1], EventKind::DocumentDone { .. }));

    // Each page is done when its own stages are, not when its batch is, and they follow at the pace of the slowest stage.
    let expected: Vec<_> = (1..=10)
        .map(|page| (page, 10 + 20 * u64::from(page) + 11))
        .collect();
    let first = pages_done(&events)[0].1 - 41;
    let expected: Vec<_> = expected.into_iter().map(|(p, at)| (p, at + first)).collect();
    assert_eq!(pages_done(&events), expected);
    engine.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_done_is_found_while_the_rest_is_in_work() {
    let fakes = Fakes::new().cost(Stage::Read, 1000);
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 4)]));
    let mut events = handle.events();
    while let Some(event) = events.next().await {
        if matches!(event.unwrap().what, EventKind::PageDone { page: 2, .. }) {
            break;
        }
    }
    let hits = engine
        .search(SearchRequest::new(TenantId::single(), "this and nothing"))
        .await
        .unwrap();
    assert_eq!(hits.iter().map(|h| h.page).collect::<Vec<_>>(), [1, 2]);
    let id = fakes.id("a.pdf");
    assert_eq!(hits[0].image, Some(format!("{id}/1/image/150.jpg")));
    assert_eq!(handle.wait().await.state, JobState::Done);
}

#[tokio::test(start_paused = true)]
async fn ten_pages_of_three_seconds_take_five_workers_six_seconds() {
    let fakes = Fakes::new().cost(Stage::Read, 3000).workers(Stage::Read, 5);
    let engine = fakes.engine();
    let (events, _) = follow(&engine.start(job([fakes.document("a.pdf", 10)]))).await;
    assert_eq!(fakes.stages.meter(Stage::Read).most(), 5);
    let at: Vec<_> = pages_done(&events).iter().map(|(_, at)| at / 1000).collect();
    assert_eq!(at, [3, 3, 3, 3, 3, 6, 6, 6, 6, 6]);
}

#[tokio::test(start_paused = true)]
async fn queues_and_workers_keep_their_bounds_wherever_the_jam_is() {
    for slow in Stage::ALL {
        let mut fakes = Fakes::new().workers(Stage::Rasterize, 3).workers(Stage::Read, 2);
        for stage in Stage::ALL {
            fakes = fakes.cost(stage, if stage == slow { 200 } else { 10 });
        }
        let plan = BatchPlan {
            queue_capacity: 2,
            ..PLAN
        };
        fakes.script.plan = Arc::new(move |_| Ok(plan));
        fakes.workers.insert(Stage::Store, 1);
        let engine = fakes.engine();
        let (events, outcome) = follow(&engine.start(job([fakes.document("a.pdf", 60)]))).await;
        assert_eq!(outcome.documents[0].end, done(60, 0), "{slow}");
        let workers = [
            (Stage::Rasterize, 3),
            (Stage::Read, 2),
            (Stage::Embed, 1),
            (Stage::Store, 1),
        ];
        for (stage, count) in workers {
            assert!(
                fakes.stages.meter(stage).most() <= count,
                "{stage} while {slow} is slow"
            );
        }
        let mut full = 0;
        for event in &events {
            if let EventKind::BatchRasterized { queues, .. } = &event.what {
                for queue in queues {
                    assert!(queue.depth <= queue.capacity, "{queue:?} while {slow} is slow");
                    assert_eq!(queue.capacity, 8);
                }
                // Pages for OCR wait before they are drawn.
                let jam = if slow == Stage::Read {
                    Stage::Rasterize
                } else {
                    slow
                };
                full += u32::from(queues[jam as usize].depth == 8);
            }
        }
        if slow != Stage::Rasterize {
            assert!(full > 0, "the queue before {slow} never filled");
        }
        // Images live in the rasterizer, in the queue before reading and in the readers, and nowhere else.
        assert!(
            fakes.stages.images.most() <= 2 + 3,
            "{}",
            fakes.stages.images.most()
        );
        assert_eq!(fakes.stages.images.now(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn memory_does_not_grow_with_the_document() {
    let mut most = vec![];
    for pages in [100, 1000] {
        let fakes = Fakes::new().cost(Stage::Read, 50).cost(Stage::Rasterize, 1);
        let engine = fakes.engine();
        let handle = engine.start(job([fakes.document("a.pdf", pages)]));
        assert_eq!(handle.wait().await.documents[0].end, done(pages, 0));
        most.push(fakes.stages.images.most());
    }
    assert_eq!(most[0], most[1]);
}

#[tokio::test(start_paused = true)]
async fn the_same_document_again_is_no_work_until_it_is_forced() {
    let fakes = Fakes::new();
    let engine = fakes.engine();
    let spec = || job([fakes.document("a.pdf", 20)]);
    engine.start(spec()).wait().await;
    let (calls, facts) = (fakes.stages.calls(), fakes.stages.facts.calls());
    let (events, outcome) = follow(&engine.start(spec())).await;
    assert_eq!(outcome.documents[0].end, done(20, 20));
    assert_eq!((fakes.stages.calls(), fakes.stages.facts.calls()), (calls, facts));
    assert_eq!(events.len(), 3);

    let mut forced = spec();
    forced.force = true;
    assert_eq!(engine.start(forced).wait().await.documents[0].end, done(20, 0));
    assert_eq!(fakes.stages.meter(Stage::Rasterize).calls(), 40);
    fakes.assert_whole("a.pdf", 20).await;
}

#[tokio::test(start_paused = true)]
async fn pages_asked_for_are_done_and_the_others_later() {
    let fakes = Fakes::new();
    let engine = fakes.engine();
    let mut some = fakes.document("a.pdf", 100);
    some.pages = Some(31..=50);
    let outcome = engine.start(job([some.clone()])).wait().await;
    assert_eq!(outcome.documents[0].end, done(20, 0));
    some.pages = Some(90..=200);
    let outcome = engine.start(job([some.clone()])).wait().await;
    assert_eq!(outcome.documents[0].end, done(11, 0));
    some.pages = None;
    let outcome = engine.start(job([some.clone()])).wait().await;
    assert_eq!(outcome.documents[0].end, done(100, 31));
    assert_eq!(fakes.stages.meter(Stage::Rasterize).calls(), 100);
    fakes.assert_whole("a.pdf", 100).await;

    some.pages = Some(101..=110);
    let outcome = engine.start(job([some])).wait().await;
    let DocumentEnd::Failed { error, .. } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!(error.kind, "no-such-page");
}

#[tokio::test(start_paused = true)]
async fn another_revision_replaces_what_the_first_has_indexed() {
    let mut fakes = Fakes::new();
    let first = fakes.engine();
    first.start(job([fakes.document("a.pdf", 5)])).wait().await;
    first.shutdown(Duration::ZERO).await.unwrap();
    // The second draws finer, and finds one passage where the first found two.
    fakes.script.plan = Arc::new(|_| Ok(BatchPlan { dpi: 200, ..PLAN }));
    fakes.script.passages = Arc::new(|source| Ok(vec![0..u32::try_from(source.text.len()).unwrap()]));
    let second = fakes.engine();
    let mut spec = job([fakes.document("a.pdf", 5)]);
    spec.pipeline = pipeline(1);
    assert_eq!(
        second.start(spec.clone()).wait().await.documents[0].end,
        done(5, 0)
    );
    assert_eq!(fakes.vectors.points().len(), 5);
    let id = fakes.id("a.pdf");
    let images: Vec<_> = fakes
        .blobs
        .keys()
        .into_iter()
        .filter(|k| k.contains("/image/"))
        .collect();
    assert_eq!(
        images,
        (1..=5)
            .map(|p| format!("{id}/{p}/image/200.jpg"))
            .collect::<Vec<_>>()
    );
    // Back at the first, its pages are in the ledger but not in the index any more: they are done again.
    spec.pipeline = pipeline(0);
    assert_eq!(second.start(spec).wait().await.documents[0].end, done(5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_page_goes_only_where_its_route_says() {
    let route = |reading, embed, store| PageRoute {
        reading,
        embed,
        store,
        labels: vec![("kind".into(), "test".into())],
    };
    let mut fakes = Fakes::new();
    fakes.script.route = Arc::new(move |facts| {
        Ok(match facts.number {
            1 => route(Reading::TextLayer, true, false),
            2 => route(Reading::TextLayer, true, true),
            3 => route(Reading::Ocr, false, false),
            4 => route(Reading::Nothing, false, true),
            _ => route(Reading::Nothing, false, false),
        })
    });
    let engine = fakes.engine();
    let outcome = engine.start(job([fakes.document("a.pdf", 5)])).wait().await;
    assert_eq!(
        outcome.documents[0].end,
        DocumentEnd::Done {
            pages: 5,
            searchable: 2,
            skipped: 0,
            failed: vec![]
        }
    );
    let id = fakes.id("a.pdf");
    let mut keys = vec![
        format!("{id}/1/ocr.json"),
        format!("{id}/2/image/150.jpg"),
        format!("{id}/2/ocr.json"),
        format!("{id}/3/ocr.json"),
        format!("{id}/4/image/150.jpg"),
    ];
    keys.sort();
    assert_eq!(fakes.blobs.keys().into_iter().collect::<Vec<_>>(), keys);
    let calls: HashMap<_, _> = Stage::ALL.map(|s| (s, fakes.stages.meter(s).calls())).into();
    assert_eq!(calls[&Stage::Rasterize], 3);
    assert_eq!(calls[&Stage::Read], 3);
    assert_eq!(calls[&Stage::Embed], 2);
    let points = fakes.vectors.points();
    assert_eq!(
        points
            .iter()
            .map(|p| (p.page, p.image.is_some()))
            .collect::<Vec<_>>(),
        [(1, false), (1, false), (2, true), (2, true)]
    );
    assert_eq!(points[0].labels, [("kind".to_owned(), "test".to_owned())]);
    assert_eq!(points[1].rect.y, 0.6);

    let lines: PageLines =
        serde_json::from_slice(&fakes.blobs.bytes(&format!("{id}/3/ocr.json")).unwrap()).unwrap();
    assert_eq!((lines.page, lines.width, lines.lines.len()), (3, 595.0, 2));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_pages_of_nothing_are_quick() {
    let mut fakes = Fakes::new();
    fakes.script.route = Arc::new(|_| {
        Ok(PageRoute {
            reading: Reading::Nothing,
            embed: false,
            store: false,
            labels: vec![],
        })
    });
    let began = std::time::Instant::now();
    let engine = fakes.engine();
    let outcome = engine.start(job([fakes.document("a.pdf", 10_000)])).wait().await;
    assert_eq!(
        outcome.documents[0].end,
        DocumentEnd::Done {
            pages: 10_000,
            searchable: 0,
            skipped: 0,
            failed: vec![]
        }
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(fakes.stages.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn small_files_are_not_stuck_behind_big_ones_nor_big_ones_behind_small() {
    let fakes = Fakes::new().cost(Stage::Read, 100);
    let engine = fakes.engine();
    let mut documents = vec![fakes.document("a-rather-large-file.pdf", 200)];
    documents.extend((0..10).map(|i| fakes.document(&format!("{i}.pdf"), 2)));
    let handle = engine.start(job(documents));
    let (events, outcome) = follow(&handle).await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(outcome.documents[0].name, "a-rather-large-file.pdf");
    let end = |name: &str| {
        let is_it = |e: &&Event| matches!(&e.what, EventKind::DocumentDone { name: n, .. } if n == name);
        events.iter().find(is_it).unwrap().at_millis
    };
    // Twenty small pages take turns with the big file's: all are through after about forty turns.
    let small = (0..10).map(|i| end(&format!("{i}.pdf"))).max().unwrap();
    assert!(small <= 5000, "{small}");
    // And all together take no longer than their pages do.
    let large = end("a-rather-large-file.pdf");
    assert!((22_000..22_500).contains(&large), "{large}");
}

#[tokio::test(start_paused = true)]
async fn the_same_document_twice_at_once_is_done_once() {
    let fakes = Fakes::new().cost(Stage::Read, 10);
    let engine = fakes.engine();
    let twice = [fakes.document("a.pdf", 10), fakes.document("a.pdf", 10)];
    let both = [engine.start(job(twice.clone())), engine.start(job(twice))];
    let mut ends = vec![];
    for handle in &both {
        ends.extend(handle.wait().await.documents.into_iter().map(|d| d.end));
    }
    assert_eq!(ends.iter().filter(|e| **e == done(10, 0)).count(), 1);
    assert_eq!(ends.iter().filter(|e| **e == done(10, 10)).count(), 3);
    assert_eq!(fakes.stages.meter(Stage::Rasterize).calls(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_jam_in_one_document_is_not_a_jam_in_another() {
    let mut fakes = Fakes::new().cost(Stage::Read, 10_000).cost(Stage::Rasterize, 10);
    fakes.script.route = Arc::new(|facts| {
        Ok(PageRoute {
            // The second document is kept and not read.
            reading: if facts.number > 50 {
                Reading::Nothing
            } else {
                Reading::Ocr
            },
            ..everything()
        })
    });
    let engine = fakes.engine();
    let jammed = engine.start(job([fakes.document("a.pdf", 50)]));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut other = fakes.document("b.pdf", 90);
    other.pages = Some(51..=90);
    let began = tokio::time::Instant::now();
    assert_eq!(engine.start(job([other])).wait().await.state, JobState::Done);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    jammed.cancel();
    assert_eq!(jammed.wait().await.state, JobState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn upserts_gather_what_is_ready() {
    let fakes = Fakes::new().cost(Stage::Upsert, 50).workers(Stage::Embed, 8);
    let engine = fakes.engine();
    let outcome = engine.start(job([fakes.document("a.pdf", 100)])).wait().await;
    assert_eq!(outcome.documents[0].end, done(100, 0));
    let upserts = fakes.vectors.upserts.load(Ordering::SeqCst);
    assert!(upserts < 20, "{upserts}");
    assert_eq!(fakes.stages.meter(Stage::Upsert).most(), 1);
}

#[tokio::test(start_paused = true)]
async fn facts_are_fetched_ahead_in_few_calls() {
    let fakes = Fakes::new().cost(Stage::Read, 10);
    let engine = fakes.engine();
    engine.start(job([fakes.document("a.pdf", 200)])).wait().await;
    // Pages 1–8, then 9–72, 73–136, 137–200.
    assert_eq!(fakes.stages.facts.calls(), 4);
    let record = fakes.ledger.documents(&TenantId::single()).await.unwrap();
    assert_eq!((record.len(), record[0].pages), (1, 200));
}

//! The ingestion of documents from beginning to end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use weir_core::Stage;
use weir_core::decision::{NextBatchPlan, PageRoute, ReadingMethod};
use weir_core::event::{Event, EventKind};
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::page_text::StoredPageText;
use weir_core::ports::Ledger as _;
use weir_engine::{DocumentEndState, JobHandle, JobOutcome, SearchRequest};

use crate::fakes::{DEFAULT_PLAN, FakeHost, route_with_all_steps, single_tenant_job, test_pipeline};

/// Waits for the end of a job. Returns all its events and its outcome.
pub(crate) async fn collect_events(handle: &JobHandle) -> (Vec<Event>, JobOutcome) {
    let events = handle.stream_events().map(|e| e.unwrap()).collect().await;
    (events, handle.await_outcome().await)
}

/// Returns the end of a document whose pages are all searchable.
pub(crate) fn done_end(pages: u32, skipped: u32) -> DocumentEndState {
    DocumentEndState::Done {
        pages,
        searchable: pages,
        skipped,
        failed: vec![],
    }
}

/// Returns the pages that are done, with the times of their events.
pub(crate) fn page_done_times(events: &[Event]) -> Vec<(u32, u64)> {
    let page = |e: &Event| match e.kind {
        EventKind::PageDone { page, .. } => Some((page, e.since_job_created_millis)),
        _ => None,
    };
    events.iter().filter_map(page).collect()
}

#[tokio::test(start_paused = true)]
async fn a_document_becomes_searchable_page_by_page() {
    let fakes = FakeHost::new()
        .with_cost(Stage::Rasterize, 10)
        .with_cost(Stage::Read, 20)
        .with_cost(Stage::Embed, 10)
        .with_cost(Stage::Upsert, 1);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]));
    let (events, outcome) = collect_events(&handle).await;

    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(outcome.documents[0].end, done_end(10, 0));
    fakes.assert_document_complete("a.pdf", 10).await;

    let seqs: Vec<_> = events.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    assert!(events.is_sorted_by_key(|e| e.since_job_created_millis));
    assert_eq!(fakes.ledger.job_events(handle.id()), events);
    assert!(matches!(
        events[0].kind,
        EventKind::DocumentStarted {
            pages: 10,
            already_done: 0,
            ..
        }
    ));
    let last: Vec<_> = events.iter().rev().take(2).map(|e| &e.kind).collect();
    assert!(matches!(
        last[0],
        EventKind::JobEnded {
            state: JobState::Done,
            ..
        }
    ));
    assert!(matches!(last[1], EventKind::DocumentDone { .. }));

    // Each page is done with its own stages, not with its batch. Pages follow each other at the pace of the slowest stage.
    let expected: Vec<_> = (1..=10)
        .map(|page| (page, 10 + 20 * u64::from(page) + 11))
        .collect();
    let first = page_done_times(&events)[0].1 - 41;
    let expected: Vec<_> = expected.into_iter().map(|(p, at)| (p, at + first)).collect();
    assert_eq!(page_done_times(&events), expected);
    engine.cancel_jobs_and_shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn finished_pages_are_searchable_while_the_rest_is_processed() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 1000);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 4)]));
    let mut events = handle.stream_events();
    while let Some(event) = events.next().await {
        if matches!(event.unwrap().kind, EventKind::PageDone { page: 2, .. }) {
            break;
        }
    }
    let hits = engine
        .search(SearchRequest::new(TenantId::default_tenant(), "this and nothing"))
        .await
        .unwrap();
    assert_eq!(hits.iter().map(|h| h.page).collect::<Vec<_>>(), [1, 2]);
    let id = fakes.document_id("a.pdf");
    assert_eq!(hits[0].image, Some(format!("{id}/1/image/150.jpg")));
    assert_eq!(handle.await_outcome().await.state, JobState::Done);
}

#[tokio::test(start_paused = true)]
async fn ten_pages_of_three_seconds_take_five_workers_six_seconds() {
    let fakes = FakeHost::new()
        .with_cost(Stage::Read, 3000)
        .with_workers(Stage::Read, 5);
    let engine = fakes.build_engine();
    let (events, _) =
        collect_events(&engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)])))
            .await;
    assert_eq!(fakes.stages.call_counter(Stage::Read).max_in_flight(), 5);
    let at: Vec<_> = page_done_times(&events).iter().map(|(_, at)| at / 1000).collect();
    assert_eq!(at, [3, 3, 3, 3, 3, 6, 6, 6, 6, 6]);
}

#[tokio::test(start_paused = true)]
async fn queues_and_workers_keep_their_limits_whichever_stage_is_slow() {
    for slow in Stage::ALL {
        let mut fakes = FakeHost::new()
            .with_workers(Stage::Rasterize, 3)
            .with_workers(Stage::Read, 2);
        for stage in Stage::ALL {
            fakes = fakes.with_cost(stage, if stage == slow { 200 } else { 10 });
        }
        let plan = NextBatchPlan {
            queue_capacity: 2,
            ..DEFAULT_PLAN
        };
        fakes.script.plan = Arc::new(move |_| Ok(plan));
        fakes.workers.insert(Stage::Store, 1);
        let engine = fakes.build_engine();
        let (events, outcome) = collect_events(
            &engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 60)])),
        )
        .await;
        assert_eq!(outcome.documents[0].end, done_end(60, 0), "{slow}");
        let workers = [
            (Stage::Rasterize, 3),
            (Stage::Read, 2),
            (Stage::Embed, 1),
            (Stage::Store, 1),
        ];
        for (stage, count) in workers {
            assert!(
                fakes.stages.call_counter(stage).max_in_flight() <= count,
                "{stage} while {slow} is slow"
            );
        }
        let mut full = 0;
        for event in &events {
            if let EventKind::BatchRasterized { queues, .. } = &event.kind {
                for queue in queues {
                    assert!(queue.depth <= queue.capacity, "{queue:?} while {slow} is slow");
                    assert_eq!(queue.capacity, 8);
                }
                // Pages for OCR wait in front of the rasterizer.
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
        // Only the rasterizer, the read queue and the readers hold images.
        assert!(
            fakes.stages.live_images.max_in_flight() <= 2 + 3,
            "{}",
            fakes.stages.live_images.max_in_flight()
        );
        assert_eq!(fakes.stages.live_images.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn live_page_images_do_not_grow_with_the_document() {
    let mut max_live_images = vec![];
    for pages in [100, 1000] {
        let fakes = FakeHost::new()
            .with_cost(Stage::Read, 50)
            .with_cost(Stage::Rasterize, 1);
        let engine = fakes.build_engine();
        let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", pages)]));
        assert_eq!(handle.await_outcome().await.documents[0].end, done_end(pages, 0));
        max_live_images.push(fakes.stages.live_images.max_in_flight());
    }
    assert_eq!(max_live_images[0], max_live_images[1]);
}

#[tokio::test(start_paused = true)]
async fn unchanged_document_is_skipped_unless_forced() {
    let fakes = FakeHost::new();
    let engine = fakes.build_engine();
    let spec = || single_tenant_job([fakes.document_spec("a.pdf", 20)]);
    engine.start_or_resume_job(spec()).await_outcome().await;
    let (calls, facts) = (fakes.stages.total_calls(), fakes.stages.facts_calls.call_count());
    let (events, outcome) = collect_events(&engine.start_or_resume_job(spec())).await;
    assert_eq!(outcome.documents[0].end, done_end(20, 20));
    assert_eq!(
        (fakes.stages.total_calls(), fakes.stages.facts_calls.call_count()),
        (calls, facts)
    );
    assert_eq!(events.len(), 3);

    let mut forced = spec();
    forced.force = true;
    assert_eq!(
        engine.start_or_resume_job(forced).await_outcome().await.documents[0].end,
        done_end(20, 0)
    );
    assert_eq!(fakes.stages.call_counter(Stage::Rasterize).call_count(), 40);
    fakes.assert_document_complete("a.pdf", 20).await;
}

#[tokio::test(start_paused = true)]
async fn requested_page_range_is_done_and_the_rest_later() {
    let fakes = FakeHost::new();
    let engine = fakes.build_engine();
    let mut some = fakes.document_spec("a.pdf", 100);
    some.pages = Some(31..=50);
    let outcome = engine
        .start_or_resume_job(single_tenant_job([some.clone()]))
        .await_outcome()
        .await;
    assert_eq!(outcome.documents[0].end, done_end(20, 0));
    some.pages = Some(90..=200);
    let outcome = engine
        .start_or_resume_job(single_tenant_job([some.clone()]))
        .await_outcome()
        .await;
    assert_eq!(outcome.documents[0].end, done_end(11, 0));
    some.pages = None;
    let outcome = engine
        .start_or_resume_job(single_tenant_job([some.clone()]))
        .await_outcome()
        .await;
    assert_eq!(outcome.documents[0].end, done_end(100, 31));
    assert_eq!(fakes.stages.call_counter(Stage::Rasterize).call_count(), 100);
    fakes.assert_document_complete("a.pdf", 100).await;

    some.pages = Some(101..=110);
    let outcome = engine
        .start_or_resume_job(single_tenant_job([some]))
        .await_outcome()
        .await;
    let DocumentEndState::Failed { error, .. } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!(error.kind, "no-such-page");
}

#[tokio::test(start_paused = true)]
async fn another_revision_replaces_indexed_passages() {
    let mut fakes = FakeHost::new();
    let first = fakes.build_engine();
    first
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 5)]))
        .await_outcome()
        .await;
    first.cancel_jobs_and_shutdown(Duration::ZERO).await.unwrap();
    // The second revision has a higher resolution, and one passage on each page instead of two.
    fakes.script.plan = Arc::new(|_| {
        Ok(NextBatchPlan {
            dpi: 200,
            ..DEFAULT_PLAN
        })
    });
    fakes.script.passages = Arc::new(|source| Ok(vec![0..u32::try_from(source.text.len()).unwrap()]));
    let second = fakes.build_engine();
    let mut spec = single_tenant_job([fakes.document_spec("a.pdf", 5)]);
    spec.pipeline = test_pipeline(1);
    assert_eq!(
        second
            .start_or_resume_job(spec.clone())
            .await_outcome()
            .await
            .documents[0]
            .end,
        done_end(5, 0)
    );
    assert_eq!(fakes.vectors.sorted_points().len(), 5);
    let id = fakes.document_id("a.pdf");
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
    // The pages of the first revision are in the ledger but no longer in the index, so they are processed again.
    spec.pipeline = test_pipeline(0);
    assert_eq!(
        second.start_or_resume_job(spec).await_outcome().await.documents[0].end,
        done_end(5, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn page_runs_only_the_stages_of_its_route() {
    let route = |reading, embed, store| PageRoute {
        reading_method: reading,
        embed,
        store,
        labels: vec![("kind".into(), "test".into())],
    };
    let mut fakes = FakeHost::new();
    fakes.script.route = Arc::new(move |facts| {
        Ok(match facts.number {
            1 => route(ReadingMethod::TextLayer, true, false),
            2 => route(ReadingMethod::TextLayer, true, true),
            3 => route(ReadingMethod::Ocr, false, false),
            4 => route(ReadingMethod::Nothing, false, true),
            _ => route(ReadingMethod::Nothing, false, false),
        })
    });
    let engine = fakes.build_engine();
    let outcome = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 5)]))
        .await_outcome()
        .await;
    assert_eq!(
        outcome.documents[0].end,
        DocumentEndState::Done {
            pages: 5,
            searchable: 2,
            skipped: 0,
            failed: vec![]
        }
    );
    let id = fakes.document_id("a.pdf");
    let mut keys = vec![
        format!("{id}/1/ocr.json"),
        format!("{id}/2/image/150.jpg"),
        format!("{id}/2/ocr.json"),
        format!("{id}/3/ocr.json"),
        format!("{id}/4/image/150.jpg"),
    ];
    keys.sort();
    assert_eq!(fakes.blobs.keys().into_iter().collect::<Vec<_>>(), keys);
    let calls: HashMap<_, _> = Stage::ALL
        .map(|s| (s, fakes.stages.call_counter(s).call_count()))
        .into();
    assert_eq!(calls[&Stage::Rasterize], 3);
    assert_eq!(calls[&Stage::Read], 3);
    assert_eq!(calls[&Stage::Embed], 2);
    let points = fakes.vectors.sorted_points();
    assert_eq!(
        points
            .iter()
            .map(|p| (p.page, p.image.is_some()))
            .collect::<Vec<_>>(),
        [(1, false), (1, false), (2, true), (2, true)]
    );
    assert_eq!(points[0].labels, [("kind".to_owned(), "test".to_owned())]);
    assert_eq!(points[1].rect.y, 0.6);

    let lines: StoredPageText =
        serde_json::from_slice(&fakes.blobs.get_bytes(&format!("{id}/3/ocr.json")).unwrap()).unwrap();
    assert_eq!((lines.page, lines.width, lines.lines.len()), (3, 595.0, 2));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_pages_without_steps_take_under_20_s() {
    let mut fakes = FakeHost::new();
    fakes.script.route = Arc::new(|_| {
        Ok(PageRoute {
            reading_method: ReadingMethod::Nothing,
            embed: false,
            store: false,
            labels: vec![],
        })
    });
    let began = std::time::Instant::now();
    let engine = fakes.build_engine();
    let outcome = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10_000)]))
        .await_outcome()
        .await;
    assert_eq!(
        outcome.documents[0].end,
        DocumentEndState::Done {
            pages: 10_000,
            searchable: 0,
            skipped: 0,
            failed: vec![]
        }
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(fakes.stages.total_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn small_and_large_files_do_not_block_each_other() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 100);
    let engine = fakes.build_engine();
    let mut documents = vec![fakes.document_spec("a-rather-large-file.pdf", 200)];
    documents.extend((0..10).map(|i| fakes.document_spec(&format!("{i}.pdf"), 2)));
    let handle = engine.start_or_resume_job(single_tenant_job(documents));
    let (events, outcome) = collect_events(&handle).await;
    assert_eq!(outcome.state, JobState::Done);
    assert_eq!(outcome.documents[0].name, "a-rather-large-file.pdf");
    let end = |name: &str| {
        let is_it = |e: &&Event| matches!(&e.kind, EventKind::DocumentDone { name: n, .. } if n == name);
        events.iter().find(is_it).unwrap().since_job_created_millis
    };
    // Twenty pages of small files alternate with those of the large file, so all are done after about forty pages.
    let small = (0..10).map(|i| end(&format!("{i}.pdf"))).max().unwrap();
    assert!(small <= 5000, "{small}");
    // All documents together take no longer than the sum of their pages.
    let large = end("a-rather-large-file.pdf");
    assert!((22_000..22_500).contains(&large), "{large}");
}

#[tokio::test(start_paused = true)]
async fn concurrent_duplicates_of_a_document_are_processed_once() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 10);
    let engine = fakes.build_engine();
    let twice = [fakes.document_spec("a.pdf", 10), fakes.document_spec("a.pdf", 10)];
    let both = [
        engine.start_or_resume_job(single_tenant_job(twice.clone())),
        engine.start_or_resume_job(single_tenant_job(twice)),
    ];
    let mut ends = vec![];
    for handle in &both {
        ends.extend(handle.await_outcome().await.documents.into_iter().map(|d| d.end));
    }
    assert_eq!(ends.iter().filter(|e| **e == done_end(10, 0)).count(), 1);
    assert_eq!(ends.iter().filter(|e| **e == done_end(10, 10)).count(), 3);
    assert_eq!(fakes.stages.call_counter(Stage::Rasterize).call_count(), 10);
}

#[tokio::test(start_paused = true)]
async fn congestion_in_one_document_does_not_block_another() {
    let mut fakes = FakeHost::new()
        .with_cost(Stage::Read, 10_000)
        .with_cost(Stage::Rasterize, 10);
    fakes.script.route = Arc::new(|facts| {
        Ok(PageRoute {
            // The pages of the second document are stored and not read.
            reading_method: if facts.number > 50 {
                ReadingMethod::Nothing
            } else {
                ReadingMethod::Ocr
            },
            ..route_with_all_steps()
        })
    });
    let engine = fakes.build_engine();
    let jammed = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 50)]));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut other = fakes.document_spec("b.pdf", 90);
    other.pages = Some(51..=90);
    let began = tokio::time::Instant::now();
    assert_eq!(
        engine
            .start_or_resume_job(single_tenant_job([other]))
            .await_outcome()
            .await
            .state,
        JobState::Done
    );
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    jammed.cancel_job();
    assert_eq!(jammed.await_outcome().await.state, JobState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn ready_pages_are_upserted_in_groups() {
    let fakes = FakeHost::new()
        .with_cost(Stage::Upsert, 50)
        .with_workers(Stage::Embed, 8);
    let engine = fakes.build_engine();
    let outcome = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 100)]))
        .await_outcome()
        .await;
    assert_eq!(outcome.documents[0].end, done_end(100, 0));
    let upserts = fakes.vectors.upserts.load(Ordering::SeqCst);
    assert!(upserts < 20, "{upserts}");
    assert_eq!(fakes.stages.call_counter(Stage::Upsert).max_in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn page_facts_are_fetched_ahead_in_few_calls() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 10);
    let engine = fakes.build_engine();
    engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 200)]))
        .await_outcome()
        .await;
    // Pages 1–8, then 9–72, 73–136, 137–200.
    assert_eq!(fakes.stages.facts_calls.call_count(), 4);
    let record = fakes
        .ledger
        .list_tenant_documents(&TenantId::default_tenant())
        .await
        .unwrap();
    assert_eq!((record.len(), record[0].pages), (1, 200));
}

//! What follows when something goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use weir_core::decision::{Observation, PageRoute, Reading, Verdict};
use weir_core::event::EventKind;
use weir_core::id::TenantId;
use weir_core::ledger::{JobState, PageState};
use weir_core::ports::Ledger as _;
use weir_core::said::{LogLevel, Remark, RemarkKind};
use weir_core::{PolicyError, Stage};
use weir_engine::{DocumentEnd, DocumentSpec};

use crate::fakes::{Fakes, Fault, everything, job, pipeline};
use crate::flow::{done, follow};

fn failed(end: &DocumentEnd) -> (&str, &str, u32) {
    match end {
        DocumentEnd::Failed { error, done } => (&error.kind, &error.message, *done),
        other => panic!("{other:?}"),
    }
}

fn trap() -> PolicyError {
    PolicyError::Trap {
        component: "ours".into(),
        function: "plan",
        reason: "unreachable".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn in_every_stage_the_rule_decides_between_skip_fail_and_retry() {
    for stage in Stage::ALL {
        let trouble = move |s, page, _| (s == stage && page == 7).then_some(Fault::Page);
        for verdict in [
            Verdict::SkipPage,
            Verdict::FailDocument,
            Verdict::RetryAfter(1000),
        ] {
            let mut fakes = Fakes::new().faults(trouble).cost(Stage::Read, 10);
            fakes.script.judge = Arc::new(move |failure| {
                assert_eq!((failure.page, failure.stage), (7, stage));
                Ok(verdict)
            });
            let engine = fakes.engine();
            let handle = engine.start(job([fakes.document("a.pdf", 20)]));
            let (events, outcome) = follow(&handle).await;
            let retried = |e: &&weir_core::event::Event| matches!(e.what, EventKind::PageRetried { .. });
            let end = &outcome.documents[0].end;
            if verdict == Verdict::FailDocument {
                assert_eq!(outcome.state, JobState::Failed, "{stage}");
                assert!(failed(end).1.contains("told to"), "{stage}: {end:?}");
                assert!(matches!(
                    events[events.len() - 2].what,
                    EventKind::DocumentFailed { .. }
                ));
            } else {
                let DocumentEnd::Done {
                    pages: 20,
                    searchable: 19,
                    failed,
                    ..
                } = end
                else {
                    panic!("{stage} {verdict:?}: {end:?}");
                };
                assert_eq!(failed.iter().map(|f| f.page).collect::<Vec<_>>(), [7]);
                assert_eq!(outcome.state, JobState::Done);
                let expected = if verdict == Verdict::SkipPage { 0 } else { 4 };
                assert_eq!(events.iter().filter(retried).count(), expected, "{stage}");
                let records = fakes
                    .ledger
                    .pages(&TenantId::single(), &fakes.id("a.pdf"), None)
                    .await
                    .unwrap();
                assert_eq!(records.len(), 20);
                assert!(matches!(records[6].state, PageState::Failed { .. }));
            }
            // Trouble over, the next run does what is missing.
            *fakes.stages.faults.lock() = Arc::new(|_, _, _| None);
            let again = engine.start(job([fakes.document("a.pdf", 20)])).wait().await;
            assert_eq!(again.state, JobState::Done, "{stage} {verdict:?}");
            fakes.assert_whole("a.pdf", 20).await;
            assert_eq!(fakes.stages.images.now(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_recovers_is_done() {
    for stage in Stage::ALL {
        let trouble = move |s, page: u32, attempt| {
            (s == stage && page.is_multiple_of(3) && attempt < 3).then_some(Fault::Page)
        };
        let mut fakes = Fakes::new().faults(trouble).cost(Stage::Read, 10);
        fakes.script.judge = Arc::new(|_| Ok(Verdict::RetryAfter(500)));
        let engine = fakes.engine();
        let handle = engine.start(job([fakes.document("a.pdf", 60)]));
        assert_eq!(handle.wait().await.documents[0].end, done(60, 0), "{stage}");
        fakes.assert_whole("a.pdf", 60).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_waits_to_try_again_occupies_no_worker() {
    let mut fakes = Fakes::new()
        .cost(Stage::Read, 100)
        .faults(|s, page, attempt| (s == Stage::Read && page == 1 && attempt == 1).then_some(Fault::Page));
    fakes.script.judge = Arc::new(|_| Ok(Verdict::RetryAfter(60_000)));
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 20)]));
    let (events, _) = follow(&handle).await;
    let pages = crate::flow::pages_done(&events);
    let last_of_the_others = pages[pages.len() - 2].1;
    assert!(last_of_the_others <= 2200, "{pages:?}");
    assert_eq!(pages.last().unwrap().0, 1);
}

#[tokio::test(start_paused = true)]
async fn trouble_that_every_page_would_have_stops_at_once_and_asks_nobody() {
    for (stage, fault, kind) in [
        (Stage::Rasterize, Fault::Unavailable, "rasterizer-unavailable"),
        (Stage::Read, Fault::Unavailable, "model-unavailable"),
        (Stage::Embed, Fault::Unavailable, "model-unavailable"),
        (Stage::Store, Fault::Full, "storage-full"),
        (Stage::Upsert, Fault::Full, "storage-full"),
    ] {
        let mut fakes = Fakes::new().faults(move |s, page, _| (s == stage && page > 2).then_some(fault));
        fakes.script.judge = Arc::new(|f| panic!("asked about {f:?}"));
        let engine = fakes.engine();
        let outcome = engine.start(job([fakes.document("a.pdf", 500)])).wait().await;
        assert_eq!(failed(&outcome.documents[0].end).0, kind);
        assert!(fakes.stages.meter(stage).calls() < 10);
    }
}

#[tokio::test(start_paused = true)]
async fn ocr_without_a_model_and_vision_models_are_named_failures() {
    let mut fakes = Fakes::new();
    let skip: Arc<AtomicU32> = Arc::default();
    let asked = Arc::clone(&skip);
    fakes.script.judge = Arc::new(move |failure| {
        assert_eq!(failure.kind, "model-unavailable");
        asked.fetch_add(1, Ordering::SeqCst);
        Ok(Verdict::SkipPage)
    });
    fakes.script.route = Arc::new(|facts| {
        Ok(PageRoute {
            reading: if facts.number == 2 {
                Reading::VisionModel
            } else {
                Reading::TextLayer
            },
            ..everything()
        })
    });
    let engine = fakes.engine();
    let outcome = engine.start(job([fakes.document("a.pdf", 3)])).wait().await;
    let DocumentEnd::Done { failed: pages, .. } = &outcome.documents[0].end else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (pages[0].page, pages[0].error.kind.as_str()),
        (2, "model-unavailable")
    );
    assert_eq!(skip.load(Ordering::SeqCst), 1);

    let mut ports = fakes.ports();
    ports.reader = None;
    let engine = weir_engine::Engine::new(ports, fakes.config.clone());
    let mut spec = job([fakes.document("b.pdf", 3)]);
    spec.pipeline = pipeline(1);
    let text_only = engine.start(spec.clone()).wait().await;
    assert_eq!(text_only.state, JobState::Done);
    let mut fakes = fakes;
    fakes.script.route = Arc::new(|_| Ok(everything()));
    let mut ports = fakes.ports();
    ports.reader = None;
    let engine = weir_engine::Engine::new(ports, fakes.config.clone());
    spec.force = true;
    let outcome = engine.start(spec).wait().await;
    assert_eq!(failed(&outcome.documents[0].end).0, "model-unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_component_that_fails_fails_the_document() {
    type Break = fn(&mut Fakes);
    let broken: [(Break, &str); 6] = [
        (|f| f.script.open = Arc::new(|()| Err(trap())), "open"),
        (|f| f.script.plan = Arc::new(|_| Err(trap())), "plan"),
        (|f| f.script.document = Arc::new(|_| Err(trap())), "document"),
        (|f| f.script.route = Arc::new(|_| Err(trap())), "route"),
        (|f| f.script.passages = Arc::new(|_| Err(trap())), "passages"),
        (|f| f.script.observe = Arc::new(|_| Err(trap())), "observe"),
    ];
    for (break_it, what) in broken {
        let mut fakes = Fakes::new().cost(Stage::Read, 10);
        break_it(&mut fakes);
        let engine = fakes.engine();
        let handle = engine.start(job([fakes.document("a.pdf", 20)]));
        let (events, outcome) = follow(&handle).await;
        assert_eq!(failed(&outcome.documents[0].end).0, "component-trap", "{what}");
        assert_eq!(outcome.state, JobState::Failed);
        let ends = |e: &&weir_core::event::Event| matches!(e.what, EventKind::DocumentFailed { .. });
        assert_eq!(events.iter().filter(ends).count(), 1, "{what}");
        assert_eq!(fakes.stages.images.now(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_component_that_fails_on_the_good_end_still_fails_the_document() {
    let mut fakes = Fakes::new();
    fakes.script.observe = Arc::new(|what| match what {
        Observation::DocumentDone { .. } => Err(trap()),
        _ => Ok(vec![]),
    });
    let engine = fakes.engine();
    let outcome = engine.start(job([fakes.document("a.pdf", 3)])).wait().await;
    assert_eq!(
        failed(&outcome.documents[0].end),
        ("component-trap", trap().to_string().as_str(), 3)
    );
}

#[tokio::test(start_paused = true)]
async fn ranges_outside_the_text_are_nonsense() {
    for range in [0..100_000, 70..71, 5..3] {
        let mut fakes = Fakes::new();
        let answer = range.clone();
        fakes.script.passages = Arc::new(move |_| Ok(vec![answer.clone()]));
        let engine = fakes.engine();
        let outcome = engine.start(job([fakes.document("a.pdf", 3)])).wait().await;
        assert_eq!(
            failed(&outcome.documents[0].end).0,
            "component-nonsense",
            "{range:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_panics_is_never_a_completed_job() {
    for stage in Stage::ALL {
        let fakes = Fakes::new().faults(move |s, page, _| (s == stage && page == 5).then_some(Fault::Panic));
        let engine = fakes.engine();
        let documents = [fakes.document("a.pdf", 20), fakes.document("b.pdf", 3)];
        let outcome = engine.start(job(documents)).wait().await;
        assert_eq!(outcome.state, JobState::Failed, "{stage}");
        assert_eq!(failed(&outcome.documents[0].end).0, "stage-died", "{stage}");
        assert_eq!(outcome.documents[1].end, done(3, 0), "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_between_the_stages_is_never_a_completed_job_either() {
    type Break = fn(&mut Fakes);
    let broken: [Break; 4] = [
        |f| f.script.plan = Arc::new(|_| panic!("a fake was told to")),
        |f| f.script.passages = Arc::new(|_| panic!("a fake was told to")),
        |f| f.script.observe = Arc::new(|_| panic!("a fake was told to")),
        |f| f.script.open = Arc::new(|()| panic!("a fake was told to")),
    ];
    for (which, break_it) in broken.into_iter().enumerate() {
        let mut fakes = Fakes::new().cost(Stage::Read, 10);
        break_it(&mut fakes);
        let engine = fakes.engine();
        let handle = engine.start(job([fakes.document("a.pdf", 20)]));
        let outcome = handle.wait().await;
        assert_eq!(outcome.state, JobState::Failed, "{which}");
        // Whoever watches hears the end, too.
        let events: Vec<_> = handle.events().map(|e| e.unwrap().what).collect().await;
        let state = match events.last() {
            Some(EventKind::JobEnded { state, .. }) => Some(*state),
            _ => None,
        };
        assert_eq!(state, Some(JobState::Failed), "{which}");
        engine.shutdown(Duration::from_secs(1)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_document_that_cannot_be_opened_harms_no_other() {
    let fakes = Fakes::new();
    let engine = fakes.engine();
    let path = fakes.files.path().join("c.pdf");
    std::fs::write(&path, "not a PDF at all").unwrap();
    let documents = [
        DocumentSpec::new(fakes.files.path().join("missing.pdf")),
        DocumentSpec::new(path),
        DocumentSpec::new(fakes.files.path()),
        fakes.document("a.pdf", 3),
    ];
    let handle = engine.start(job(documents));
    let (events, outcome) = follow(&handle).await;
    let kinds: Vec<_> = outcome.documents[..3].iter().map(|d| failed(&d.end).0).collect();
    assert_eq!(kinds, ["file", "not-a-pdf", "file"]);
    assert_eq!(outcome.documents[3].end, done(3, 0));
    let unread = |e: &&weir_core::event::Event| {
        e.document.is_none() && matches!(e.what, EventKind::DocumentFailed { .. })
    };
    assert_eq!(events.iter().filter(unread).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_default_that_took_over_is_reported() {
    let mut fakes = Fakes::new();
    fakes.script.opened = Arc::new(|capabilities| capabilities.policy_failed(&trap()));
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 3)]));
    let (events, outcome) = follow(&handle).await;
    assert_eq!(outcome.state, JobState::Done);
    let told = events.iter().find_map(|e| match &e.what {
        EventKind::PolicyFailed { error } => Some(error.kind.clone()),
        _ => None,
    });
    assert_eq!(told.as_deref(), Some("component-trap"));
}

fn line(message: &str) -> Remark {
    Remark {
        component: "ours".into(),
        function: "routing.page".into(),
        what: RemarkKind::Line {
            level: LogLevel::Info,
            message: message.into(),
        },
    }
}

#[tokio::test(start_paused = true)]
async fn what_components_say_is_kept_in_order_also_over_a_restart() {
    let mut fakes = Fakes::new();
    fakes.script.opened = Arc::new(|capabilities| {
        for message in ["one", "two"] {
            capabilities.said(line(message));
        }
    });
    let document = fakes.document("a.pdf", 3);
    let spec = job([document]);
    let id = spec.id;
    for _ in 0..2 {
        let engine = fakes.engine();
        let outcome = engine.start(spec.clone()).wait().await;
        assert_eq!(outcome.state, JobState::Done);
        engine.shutdown(Duration::ZERO).await.unwrap();
    }
    let ledger = &fakes.ledger;
    let tenant = TenantId::single();
    let said = ledger.said(&tenant, &id, 0, 100).await.unwrap();
    let lines: Vec<_> = said
        .iter()
        .map(|entry| (entry.seq, entry.remark.clone()))
        .collect();
    assert_eq!(
        lines,
        [
            (1, line("one")),
            (2, line("two")),
            (3, line("one")),
            (4, line("two"))
        ]
    );
}

//! Failures of stages, components and documents.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use weir_core::component_log::{ComponentLogRecord, ComponentLogRecordKind, LogLevel};
use weir_core::decision::{FailureAction, ObservedEvent, PageRoute, ReadingMethod};
use weir_core::event::EventKind;
use weir_core::id::TenantId;
use weir_core::ledger::{FinalPageState, JobState};
use weir_core::ports::Ledger as _;
use weir_core::{PolicyError, Stage};
use weir_engine::{DocumentEndState, DocumentSpec};

use crate::document_ingestion::{collect_events, done_end};
use crate::fakes::{FakeHost, InjectedFault, route_with_all_steps, single_tenant_job, test_pipeline};

fn failure_details(end: &DocumentEndState) -> (&str, &str, u32) {
    match end {
        DocumentEndState::Failed { error, done } => (&error.kind, &error.message, *done),
        other => panic!("{other:?}"),
    }
}

fn trap_error() -> PolicyError {
    PolicyError::Trap {
        component: "ours".into(),
        function: "plan",
        reason: "unreachable".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn failure_rule_decides_skip_fail_or_retry_in_every_stage() {
    for stage in Stage::ALL {
        let faults = move |s, page, _| (s == stage && page == 7).then_some(InjectedFault::Page);
        for verdict in [
            FailureAction::SkipPage,
            FailureAction::FailDocument,
            FailureAction::RetryAfter(1000),
        ] {
            let mut fakes = FakeHost::new().with_faults(faults).with_cost(Stage::Read, 10);
            fakes.script.on_failure = Arc::new(move |failure| {
                assert_eq!((failure.page, failure.stage), (7, stage));
                Ok(verdict)
            });
            let engine = fakes.build_engine();
            let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 20)]));
            let (events, outcome) = collect_events(&handle).await;
            let retried = |e: &&weir_core::event::Event| matches!(e.kind, EventKind::PageRetried { .. });
            let end = &outcome.documents[0].end;
            if verdict == FailureAction::FailDocument {
                assert_eq!(outcome.state, JobState::Failed, "{stage}");
                assert!(
                    failure_details(end).1.contains("injected fault"),
                    "{stage}: {end:?}"
                );
                assert!(matches!(
                    events[events.len() - 2].kind,
                    EventKind::DocumentFailed { .. }
                ));
            } else {
                let DocumentEndState::Done {
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
                let expected = if verdict == FailureAction::SkipPage { 0 } else { 4 };
                assert_eq!(events.iter().filter(retried).count(), expected, "{stage}");
                let records = fakes
                    .ledger
                    .list_pages(&TenantId::default_tenant(), &fakes.document_id("a.pdf"), None)
                    .await
                    .unwrap();
                assert_eq!(records.len(), 20);
                assert!(matches!(records[6].state, FinalPageState::Failed { .. }));
            }
            // Without the fault, the next run completes the document.
            *fakes.stages.faults.lock() = Arc::new(|_, _, _| None);
            let again = engine
                .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 20)]))
                .await_outcome()
                .await;
            assert_eq!(again.state, JobState::Done, "{stage} {verdict:?}");
            fakes.assert_document_complete("a.pdf", 20).await;
            assert_eq!(fakes.stages.live_images.in_flight(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn page_that_succeeds_on_retry_is_done() {
    for stage in Stage::ALL {
        let faults = move |s, page: u32, attempt| {
            (s == stage && page.is_multiple_of(3) && attempt < 3).then_some(InjectedFault::Page)
        };
        let mut fakes = FakeHost::new().with_faults(faults).with_cost(Stage::Read, 10);
        fakes.script.on_failure = Arc::new(|_| Ok(FailureAction::RetryAfter(500)));
        let engine = fakes.build_engine();
        let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 60)]));
        assert_eq!(
            handle.await_outcome().await.documents[0].end,
            done_end(60, 0),
            "{stage}"
        );
        fakes.assert_document_complete("a.pdf", 60).await;
    }
}

#[tokio::test(start_paused = true)]
async fn page_in_retry_backoff_occupies_no_worker() {
    let mut fakes = FakeHost::new()
        .with_cost(Stage::Read, 100)
        .with_faults(|s, page, attempt| {
            (s == Stage::Read && page == 1 && attempt == 1).then_some(InjectedFault::Page)
        });
    fakes.script.on_failure = Arc::new(|_| Ok(FailureAction::RetryAfter(60_000)));
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 20)]));
    let (events, _) = collect_events(&handle).await;
    let pages = crate::document_ingestion::page_done_times(&events);
    let last_of_the_others = pages[pages.len() - 2].1;
    assert!(last_of_the_others <= 2200, "{pages:?}");
    assert_eq!(pages.last().unwrap().0, 1);
}

#[tokio::test(start_paused = true)]
async fn error_that_affects_every_page_fails_the_document_at_once() {
    for (stage, fault, kind) in [
        (
            Stage::Rasterize,
            InjectedFault::Unavailable,
            "rasterizer-unavailable",
        ),
        (Stage::Read, InjectedFault::Unavailable, "model-unavailable"),
        (Stage::Embed, InjectedFault::Unavailable, "model-unavailable"),
        (Stage::Store, InjectedFault::Full, "storage-full"),
        (Stage::Upsert, InjectedFault::Full, "storage-full"),
    ] {
        let mut fakes =
            FakeHost::new().with_faults(move |s, page, _| (s == stage && page > 2).then_some(fault));
        fakes.script.on_failure = Arc::new(|f| panic!("the failure rule was called for {f:?}"));
        let engine = fakes.build_engine();
        let outcome = engine
            .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 500)]))
            .await_outcome()
            .await;
        assert_eq!(failure_details(&outcome.documents[0].end).0, kind);
        assert!(fakes.stages.call_counter(stage).call_count() < 10);
    }
}

#[tokio::test(start_paused = true)]
async fn missing_ocr_or_vision_model_is_reported_as_unavailable() {
    let mut fakes = FakeHost::new();
    let failure_count: Arc<AtomicU32> = Arc::default();
    let counter = Arc::clone(&failure_count);
    fakes.script.on_failure = Arc::new(move |failure| {
        assert_eq!(failure.kind, "model-unavailable");
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(FailureAction::SkipPage)
    });
    fakes.script.route = Arc::new(|facts| {
        Ok(PageRoute {
            reading_method: if facts.number == 2 {
                ReadingMethod::VisionModel
            } else {
                ReadingMethod::TextLayer
            },
            ..route_with_all_steps()
        })
    });
    let engine = fakes.build_engine();
    let outcome = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 3)]))
        .await_outcome()
        .await;
    let DocumentEndState::Done { failed: pages, .. } = &outcome.documents[0].end else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (pages[0].page, pages[0].error.kind.as_str()),
        (2, "model-unavailable")
    );
    assert_eq!(failure_count.load(Ordering::SeqCst), 1);

    let mut ports = fakes.fake_ports();
    ports.ocr_engine = None;
    let engine = weir_engine::Engine::new(ports, fakes.config.clone());
    let mut spec = single_tenant_job([fakes.document_spec("b.pdf", 3)]);
    spec.pipeline = test_pipeline(1);
    let text_only = engine.start_or_resume_job(spec.clone()).await_outcome().await;
    assert_eq!(text_only.state, JobState::Done);
    let mut fakes = fakes;
    fakes.script.route = Arc::new(|_| Ok(route_with_all_steps()));
    let mut ports = fakes.fake_ports();
    ports.ocr_engine = None;
    let engine = weir_engine::Engine::new(ports, fakes.config.clone());
    spec.force = true;
    let outcome = engine.start_or_resume_job(spec).await_outcome().await;
    assert_eq!(failure_details(&outcome.documents[0].end).0, "model-unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_component_that_fails_fails_the_document() {
    type ScriptChange = fn(&mut FakeHost);
    let broken: [(ScriptChange, &str); 6] = [
        (|f| f.script.open = Arc::new(|()| Err(trap_error())), "open"),
        (|f| f.script.plan = Arc::new(|_| Err(trap_error())), "plan"),
        (
            |f| f.script.document = Arc::new(|_| Err(trap_error())),
            "document",
        ),
        (|f| f.script.route = Arc::new(|_| Err(trap_error())), "route"),
        (
            |f| f.script.passages = Arc::new(|_| Err(trap_error())),
            "passages",
        ),
        (|f| f.script.observe = Arc::new(|_| Err(trap_error())), "observe"),
    ];
    for (break_it, what) in broken {
        let mut fakes = FakeHost::new().with_cost(Stage::Read, 10);
        break_it(&mut fakes);
        let engine = fakes.build_engine();
        let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 20)]));
        let (events, outcome) = collect_events(&handle).await;
        assert_eq!(
            failure_details(&outcome.documents[0].end).0,
            "component-trap",
            "{what}"
        );
        assert_eq!(outcome.state, JobState::Failed);
        let ends = |e: &&weir_core::event::Event| matches!(e.kind, EventKind::DocumentFailed { .. });
        assert_eq!(events.iter().filter(ends).count(), 1, "{what}");
        assert_eq!(fakes.stages.live_images.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn component_that_fails_on_document_done_fails_the_document() {
    let mut fakes = FakeHost::new();
    fakes.script.observe = Arc::new(|what| match what {
        ObservedEvent::DocumentDone { .. } => Err(trap_error()),
        _ => Ok(vec![]),
    });
    let engine = fakes.build_engine();
    let outcome = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 3)]))
        .await_outcome()
        .await;
    assert_eq!(
        failure_details(&outcome.documents[0].end),
        ("component-trap", trap_error().to_string().as_str(), 3)
    );
}

#[tokio::test(start_paused = true)]
async fn passage_ranges_outside_the_text_fail_the_document() {
    for range in [0..100_000, 70..71, 5..3] {
        let mut fakes = FakeHost::new();
        let passage_range = range.clone();
        fakes.script.passages = Arc::new(move |_| Ok(vec![passage_range.clone()]));
        let engine = fakes.build_engine();
        let outcome = engine
            .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 3)]))
            .await_outcome()
            .await;
        assert_eq!(
            failure_details(&outcome.documents[0].end).0,
            "component-invalid-decision",
            "{range:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn panic_in_a_stage_fails_the_job() {
    for stage in Stage::ALL {
        let fakes = FakeHost::new()
            .with_faults(move |s, page, _| (s == stage && page == 5).then_some(InjectedFault::Panic));
        let engine = fakes.build_engine();
        let documents = [fakes.document_spec("a.pdf", 20), fakes.document_spec("b.pdf", 3)];
        let outcome = engine
            .start_or_resume_job(single_tenant_job(documents))
            .await_outcome()
            .await;
        assert_eq!(outcome.state, JobState::Failed, "{stage}");
        assert_eq!(
            failure_details(&outcome.documents[0].end).0,
            "stage-died",
            "{stage}"
        );
        assert_eq!(outcome.documents[1].end, done_end(3, 0), "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn panic_outside_the_stages_fails_the_job() {
    type ScriptChange = fn(&mut FakeHost);
    let broken: [ScriptChange; 4] = [
        |f| f.script.plan = Arc::new(|_| panic!("injected panic")),
        |f| f.script.passages = Arc::new(|_| panic!("injected panic")),
        |f| f.script.observe = Arc::new(|_| panic!("injected panic")),
        |f| f.script.open = Arc::new(|()| panic!("injected panic")),
    ];
    for (which, break_it) in broken.into_iter().enumerate() {
        let mut fakes = FakeHost::new().with_cost(Stage::Read, 10);
        break_it(&mut fakes);
        let engine = fakes.build_engine();
        let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 20)]));
        let outcome = handle.await_outcome().await;
        assert_eq!(outcome.state, JobState::Failed, "{which}");
        // Subscribers see the end of the job as well.
        let events: Vec<_> = handle.stream_events().map(|e| e.unwrap().kind).collect().await;
        let state = match events.last() {
            Some(EventKind::JobEnded { state, .. }) => Some(*state),
            _ => None,
        };
        assert_eq!(state, Some(JobState::Failed), "{which}");
        engine
            .cancel_jobs_and_shutdown(Duration::from_secs(1))
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn unreadable_document_does_not_affect_the_others() {
    let fakes = FakeHost::new();
    let engine = fakes.build_engine();
    let path = fakes.files.path().join("c.pdf");
    std::fs::write(&path, "not a PDF at all").unwrap();
    let documents = [
        DocumentSpec::new(fakes.files.path().join("missing.pdf")),
        DocumentSpec::new(path),
        DocumentSpec::new(fakes.files.path()),
        fakes.document_spec("a.pdf", 3),
    ];
    let handle = engine.start_or_resume_job(single_tenant_job(documents));
    let (events, outcome) = collect_events(&handle).await;
    let kinds: Vec<_> = outcome.documents[..3]
        .iter()
        .map(|d| failure_details(&d.end).0)
        .collect();
    assert_eq!(kinds, ["file", "not-a-pdf", "file"]);
    assert_eq!(outcome.documents[3].end, done_end(3, 0));
    let unread = |e: &&weir_core::event::Event| {
        e.document.is_none() && matches!(e.kind, EventKind::DocumentFailed { .. })
    };
    assert_eq!(events.iter().filter(unread).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn fallback_to_a_default_component_is_reported() {
    let mut fakes = FakeHost::new();
    fakes.script.on_open = Arc::new(|capabilities| capabilities.report_policy_fallback(&trap_error()));
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 3)]));
    let (events, outcome) = collect_events(&handle).await;
    assert_eq!(outcome.state, JobState::Done);
    let reported_kind = events.iter().find_map(|e| match &e.kind {
        EventKind::PolicyFallback { error } => Some(error.kind.clone()),
        _ => None,
    });
    assert_eq!(reported_kind.as_deref(), Some("component-trap"));
}

fn log_remark(message: &str) -> ComponentLogRecord {
    ComponentLogRecord {
        component: "ours".into(),
        function: "routing.page".into(),
        kind: ComponentLogRecordKind::Line {
            level: LogLevel::Info,
            message: message.into(),
        },
    }
}

#[tokio::test(start_paused = true)]
async fn component_log_keeps_its_order_across_a_restart() {
    let mut fakes = FakeHost::new();
    fakes.script.on_open = Arc::new(|capabilities| {
        for message in ["one", "two"] {
            capabilities.append_component_log(log_remark(message));
        }
    });
    let document = fakes.document_spec("a.pdf", 3);
    let spec = single_tenant_job([document]);
    let id = spec.id;
    for _ in 0..2 {
        let engine = fakes.build_engine();
        let outcome = engine.start_or_resume_job(spec.clone()).await_outcome().await;
        assert_eq!(outcome.state, JobState::Done);
        engine.cancel_jobs_and_shutdown(Duration::ZERO).await.unwrap();
    }
    let ledger = &fakes.ledger;
    let tenant = TenantId::default_tenant();
    let log_entries = ledger.list_component_log(&tenant, &id, 0, 100).await.unwrap();
    let lines: Vec<_> = log_entries
        .iter()
        .map(|entry| (entry.seq, entry.record.clone()))
        .collect();
    assert_eq!(
        lines,
        [
            (1, log_remark("one")),
            (2, log_remark("two")),
            (3, log_remark("one")),
            (4, log_remark("two"))
        ]
    );
}

//! Jobs whose language models deny requests or fail for some time, with the real router.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use weir_core::decision::{FailureAction, PageRoute, ReadingMethod, SummaryPlan, SummaryPrompt};
use weir_core::event::{Event, EventKind};
use weir_core::ledger::JobState;
use weir_core::llm::{DenialReason, LlmRequest, ProviderError};
use weir_engine::{DocumentEndState, JobSpec};
use weir_llm::{Provider, ProviderEntry, ProviderOptions, ProviderResponse, Router, RouterConfig};

use crate::document_ingestion::collect_events;
use crate::fakes::{FakeHost, route_with_all_steps, single_tenant_job};

/// Fails until a given time, and responds after it.
struct TemporarilyFailingModel {
    fault: ProviderError,
    until: Instant,
}

#[async_trait]
impl Provider for TemporarilyFailingModel {
    fn model_name(&self) -> &'static str {
        "fake"
    }

    fn supports_images(&self) -> bool {
        true
    }

    async fn call_model(&self, _: &LlmRequest) -> Result<ProviderResponse, ProviderError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if Instant::now() < self.until {
            return Err(self.fault.clone());
        }
        Ok(ProviderResponse {
            text: "It says what it says.".into(),
            ..ProviderResponse::default()
        })
    }
}

/// Creates a host whose only language model fails for `seconds` seconds.
fn host_with_failing_model(fault: ProviderError, seconds: u64) -> FakeHost {
    let mut fakes = FakeHost::new();
    fakes.script.summarize = Arc::new(|_| {
        Ok(SummaryPlan::Single(SummaryPrompt {
            prompt: "{text}".into(),
            max_tokens: 100,
        }))
    });
    let entry = ProviderEntry {
        name: "far".into(),
        provider: Arc::new(TemporarilyFailingModel {
            fault,
            until: Instant::now() + Duration::from_secs(seconds),
        }),
        options: ProviderOptions::default(),
    };
    fakes.language_model = Some(Arc::new(Router::new(vec![entry], RouterConfig::default())));
    fakes
}

fn denied_fault() -> ProviderError {
    ProviderError::Denied {
        status: 401,
        denial: DenialReason::Authentication,
        reason: "no such key".into(),
    }
}

fn model_wait_events(events: &[Event]) -> Vec<&EventKind> {
    let is_wait = |kind: &&EventKind| {
        matches!(
            kind,
            EventKind::ModelWaitStarted { .. } | EventKind::ModelWaitEnded {}
        )
    };
    events.iter().map(|event| &event.kind).filter(is_wait).collect()
}

#[tokio::test(start_paused = true)]
async fn summaries_that_are_denied_fail_at_once_and_pages_stay() {
    let fakes = host_with_failing_model(denied_fault(), 1_000_000);
    let engine = fakes.build_engine();
    let began = Instant::now();
    let handle = engine.start_or_resume_job(JobSpec {
        summarize: true,
        ..single_tenant_job([fakes.document_spec("a.pdf", 5)])
    });
    let (events, outcome) = collect_events(&handle).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let DocumentEndState::Failed { error, done: 5 } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!(error.kind, "llm-denied");
    assert!(
        error.message.ends_with(
            "far: authentication failed (401): no such key; check llm.provider.far.key_env or key_file"
        ),
        "{error:?}"
    );
    assert!(model_wait_events(&events).is_empty());
    fakes.assert_document_complete("a.pdf", 5).await;
}

#[tokio::test(start_paused = true)]
async fn denied_pages_fail_with_kind_llm_denied_without_retries() {
    let mut fakes = host_with_failing_model(denied_fault(), 1_000_000);
    fakes.script.route = Arc::new(|_| {
        Ok(PageRoute {
            reading_method: ReadingMethod::VisionModel,
            ..route_with_all_steps()
        })
    });
    fakes.script.on_failure = Arc::new(|_| Ok(FailureAction::RetryAfter(60_000)));
    let engine = fakes.build_engine();
    let began = Instant::now();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 30)]));
    let (events, outcome) = collect_events(&handle).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let DocumentEndState::Done { failed, .. } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!(failed.len(), 30);
    assert!(
        failed.iter().all(|page| page.error.kind == "llm-denied"),
        "{failed:?}"
    );
    let retried = |event: &&Event| matches!(event.kind, EventKind::PageRetried { .. });
    assert_eq!(events.iter().filter(retried).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn job_reports_waits_for_a_failing_provider_as_events() {
    let fault = ProviderError::Unreachable("connection refused".into());
    let fakes = host_with_failing_model(fault, 300);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(JobSpec {
        summarize: true,
        ..single_tenant_job([fakes.document_spec("a.pdf", 5)])
    });
    let (events, outcome) = collect_events(&handle).await;
    assert_eq!(outcome.state, JobState::Done);
    let waits = model_wait_events(&events);
    let [
        EventKind::ModelWaitStarted { providers },
        EventKind::ModelWaitEnded {},
    ] = waits.as_slice()
    else {
        panic!("{waits:?}");
    };
    let [far] = providers.as_slice() else {
        panic!("{providers:?}");
    };
    assert_eq!(
        (far.provider.as_str(), far.error.kind.as_str()),
        ("far", "unreachable")
    );
    assert_eq!(far.error.message, "cannot be reached: connection refused");
    assert!(far.since_millis > 0);
    let began = events
        .iter()
        .find(|event| matches!(event.kind, EventKind::ModelWaitStarted { .. }));
    let at = began.unwrap().since_job_created_millis / 1000;
    assert!((5..60).contains(&at), "after {at} s");
}

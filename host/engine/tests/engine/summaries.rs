//! Summaries are planned by the component, requested concurrently, and reported as they finish. The tests use the real language
//! model router with fake providers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::JobId;
use weir_core::decision::{SummaryPlan, SummaryPrompt};
use weir_core::event::{Event, EventKind};
use weir_core::id::TenantId;
use weir_core::ledger::JobState;
use weir_core::llm::{LlmRequest, LlmRequestKind, ProviderError, ResponseQuote};
use weir_core::ports::BlobStore as _;
use weir_core::search::FIRST_SUMMARY_NUMBER;
use weir_core::settings::Settings;
use weir_core::summary::{DocumentSummaries, document_summaries_blob_key};
use weir_engine::{DocumentEndState, EngineConfig, JobSpec};
use weir_llm::{
    CachedLanguageModel, MemoryResponseCache, Provider, ProviderEntry, ProviderOptions, ProviderResponse,
    Router, RouterConfig,
};

use crate::document_ingestion::collect_events;
use crate::fakes::{FakeHost, single_tenant_job, test_pipeline};

/// Responds after a time with the beginning of the text as a quote, and refuses requests with a given text.
pub(crate) struct QuotingModel {
    response_seconds: fn(&LlmRequest) -> f64,
    refused_text: Mutex<Option<&'static str>>,
    requests: Mutex<Vec<(Instant, LlmRequestKind, String)>>,
}

#[async_trait]
impl Provider for QuotingModel {
    fn model_name(&self) -> &'static str {
        "fake"
    }

    fn supports_images(&self) -> bool {
        false
    }

    async fn call_model(&self, request: &LlmRequest) -> Result<ProviderResponse, ProviderError> {
        self.requests
            .lock()
            .push((Instant::now(), request.kind, request.text.clone()));
        tokio::time::sleep(Duration::from_secs_f64((self.response_seconds)(request))).await;
        if self
            .refused_text
            .lock()
            .is_some_and(|part| request.text.contains(part))
        {
            let reason = "not this one".into();
            return Err(ProviderError::RequestRejected { status: 400, reason });
        }
        let text: String = request.text.chars().take(12).collect();
        let all = 0..u32::try_from(text.len()).unwrap();
        Ok(ProviderResponse {
            quotes: vec![ResponseQuote {
                response_range: all.clone(),
                source_range: all,
            }],
            text,
            ..ProviderResponse::default()
        })
    }
}

impl QuotingModel {
    pub(crate) fn new(response_seconds: fn(&LlmRequest) -> f64) -> Arc<Self> {
        Arc::new(Self {
            response_seconds,
            refused_text: Mutex::new(None),
            requests: Mutex::default(),
        })
    }

    fn count_requests(&self, kind: LlmRequestKind) -> usize {
        self.requests.lock().iter().filter(|(_, k, _)| *k == kind).count()
    }
}

pub(crate) fn build_router(models: &[Arc<QuotingModel>]) -> Router {
    let providers = (0..).zip(models).map(|(number, model)| ProviderEntry {
        name: format!("model-{number}"),
        provider: Arc::clone(model) as _,
        options: ProviderOptions::default(),
    });
    Router::new(providers.collect(), RouterConfig::default())
}

fn prompt_with_text(prompt: &str) -> SummaryPrompt {
    SummaryPrompt {
        prompt: format!("{prompt}: {{text}}"),
        max_tokens: 100,
    }
}

/// Creates a host for documents with one chapter on each page. Of each hundred chapters, the first `long` are summarized in parts
/// and the others as a whole.
pub(crate) fn host_with_chapters(long: u32, parts: fn(u32) -> u32) -> FakeHost {
    let mut fakes = FakeHost::new();
    fakes.stages.has_outline.store(true, Ordering::SeqCst);
    fakes.script.summarize = Arc::new(move |section| {
        if section.first_page % 100 >= long || section.first_page != section.last_page {
            return Ok(SummaryPlan::Single(prompt_with_text("whole")));
        }
        let parts = parts(section.first_page);
        Ok(SummaryPlan::MapReduce {
            ranges: (0..parts).map(|part| part..part + 9).collect(),
            map: prompt_with_text("part"),
            reduce: prompt_with_text("reduce"),
        })
    });
    fakes
}

pub(crate) fn summarizing_job(documents: impl IntoIterator<Item = weir_engine::DocumentSpec>) -> JobSpec {
    JobSpec {
        summarize: true,
        ..single_tenant_job(documents)
    }
}

pub(crate) async fn load_summary(fakes: &FakeHost, name: &str) -> Option<DocumentSummaries> {
    let key = document_summaries_blob_key(&fakes.document_id(name), &test_pipeline(0).revision);
    let bytes = fakes
        .blobs
        .get_blob(&TenantId::default_tenant(), &key)
        .await
        .unwrap()?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn summarized_sections(events: &[Event]) -> Vec<u32> {
    let sections = events.iter().filter_map(|event| match &event.kind {
        EventKind::SectionSummarized { section, .. } => Some(*section),
        _ => None,
    });
    sections.collect()
}

#[tokio::test(start_paused = true)]
async fn a_document_is_summarized_by_section_and_as_a_whole() {
    let mut fakes = host_with_chapters(50, |_| 3);
    let model = QuotingModel::new(|_| 1.0);
    fakes.language_model = Some(Arc::new(build_router(&[Arc::clone(&model)])));
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(summarizing_job([fakes.document_spec("a.pdf", 4)]));
    let (events, outcome) = collect_events(&handle).await;
    assert_eq!(outcome.state, JobState::Done);

    let mut sections = summarized_sections(&events);
    sections.sort_unstable();
    assert_eq!(sections, [1, 2, 3, 4]);
    let event_index = |name: &str| events.iter().position(|e| e.kind.name() == name).unwrap();
    assert!(event_index("page-done") < event_index("section-summarized"));
    assert!(event_index("document-summarized") < event_index("document-done"));

    let stored_summary = load_summary(&fakes, "a.pdf").await.unwrap();
    assert_eq!((stored_summary.pages, stored_summary.sections.len()), (4, 4));
    for (page, section) in (1..).zip(&stored_summary.sections) {
        let title = format!("page {page} says this and nothing else");
        assert_eq!(section.title.as_deref(), Some(title.as_str()));
        let summary = section.summary.as_ref().unwrap();
        let [quote] = summary.quotes.as_slice() else {
            panic!("{summary:?}");
        };
        // The quote is located at the second line of the page, through two responses.
        assert_eq!((quote.page, summary.provider.as_str()), (page, "model-0"));
        assert!(quote.rect.y > 0.3, "{quote:?}");
    }
    let whole = stored_summary.summary.unwrap();
    assert_eq!(whole.quotes[0].page, 1);
    assert_eq!(model.count_requests(LlmRequestKind::Map), 4 * 3 + 1);
    assert_eq!(model.count_requests(LlmRequestKind::Reduce), 4);

    let summaries = fakes
        .vectors
        .sorted_points()
        .into_iter()
        .filter(|p| p.passage >= FIRST_SUMMARY_NUMBER);
    let mut pages: Vec<_> = summaries.map(|point| point.page).collect();
    pages.sort_unstable();
    assert_eq!(pages, [1, 2, 3, 4]);

    // A second run sends no requests. With `force` all of them are sent again.
    let before = model.requests.lock().len();
    engine
        .start_or_resume_job(summarizing_job([fakes.document_spec("a.pdf", 4)]))
        .await_outcome()
        .await;
    assert_eq!(model.requests.lock().len(), before);
    let forced = JobSpec {
        force: true,
        ..summarizing_job([fakes.document_spec("a.pdf", 4)])
    };
    engine.start_or_resume_job(forced).await_outcome().await;
    assert_eq!(model.requests.lock().len(), 2 * before);
}

#[tokio::test(start_paused = true)]
async fn section_that_fails_is_reported_and_the_others_are_kept() {
    let mut fakes = host_with_chapters(0, |_| 1);
    let model = QuotingModel::new(|_| 1.0);
    *model.refused_text.lock() = Some("page 3 says that");
    let cached_model = CachedLanguageModel::new(
        build_router(&[Arc::clone(&model)]),
        Some(Arc::new(MemoryResponseCache::new(1 << 20))),
    );
    fakes.language_model = Some(Arc::new(cached_model));
    let engine = fakes.build_engine();
    let text = fakes.document_spec("a.pdf", 5);
    let handle = engine.start_or_resume_job(summarizing_job([text.clone()]));
    let (events, outcome) = collect_events(&handle).await;
    let DocumentEndState::Failed { error, done } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!((outcome.state, *done), (JobState::Failed, 5));
    assert!(
        error.message.contains("1 of 5 sections") && error.message.contains("not this one"),
        "{error:?}"
    );
    let failed: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::SectionFailed { section, .. } => Some(*section),
            _ => None,
        })
        .collect();
    assert_eq!(
        (failed.as_slice(), summarized_sections(&events).len()),
        ([3].as_slice(), 4)
    );
    assert_eq!(load_summary(&fakes, "a.pdf").await, None);

    // The next job only requests the missing summaries.
    *model.refused_text.lock() = None;
    let before = model.requests.lock().len();
    let outcome = engine
        .start_or_resume_job(summarizing_job([text]))
        .await_outcome()
        .await;
    assert_eq!(outcome.state, JobState::Done);
    let asked: Vec<_> = model.requests.lock()[before..]
        .iter()
        .map(|(_, _, text)| text.clone())
        .collect();
    assert_eq!(asked.len(), 2, "one section and the whole document: {asked:?}");
    assert!(load_summary(&fakes, "a.pdf").await.unwrap().summary.is_some());
}

#[tokio::test(start_paused = true)]
async fn summary_without_a_language_model_fails_the_document() {
    let fakes = host_with_chapters(0, |_| 1);
    let engine = fakes.build_engine();
    let outcome = engine
        .start_or_resume_job(summarizing_job([fakes.document_spec("a.pdf", 2)]))
        .await_outcome()
        .await;
    let DocumentEndState::Failed { error, done: 2 } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!(error.kind, "llm-unavailable");
}

#[tokio::test(start_paused = true)]
async fn summary_request_fails_after_the_model_timeout() {
    let mut fakes = host_with_chapters(0, |_| 1);
    let mut settings = Settings::default();
    settings.set("llm.request_deadline_seconds", "50").unwrap();
    fakes.config = EngineConfig {
        upsert_workers: 1,
        ..EngineConfig::from_settings(&settings)
    };
    fakes.language_model = Some(Arc::new(build_router(&[QuotingModel::new(|_| 1e6)])));
    let engine = fakes.build_engine();
    let began = Instant::now();
    let outcome = engine
        .start_or_resume_job(summarizing_job([fakes.document_spec("a.pdf", 2)]))
        .await_outcome()
        .await;
    let DocumentEndState::Failed { error, .. } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!(error.kind, "llm-timeout", "{error:?}");
    assert!(
        (50..60).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn cancelled_job_sends_no_further_requests() {
    let mut fakes = host_with_chapters(0, |_| 1);
    let model = QuotingModel::new(|_| 1e6);
    fakes.language_model = Some(Arc::new(build_router(&[Arc::clone(&model)])));
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(summarizing_job([fakes.document_spec("a.pdf", 20)]));
    while model.requests.lock().len() < 4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    handle.cancel_job();
    let outcome = handle.await_outcome().await;
    assert_eq!(outcome.state, JobState::Cancelled);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(model.requests.lock().len(), 4, "no further request is sent");
}

#[tokio::test(start_paused = true)]
async fn resumed_job_reuses_cached_responses() {
    let mut fakes = host_with_chapters(50, |_| 2);
    let model = QuotingModel::new(|_| 10.0);
    let cache = Arc::new(MemoryResponseCache::new(1 << 20));
    let spec = JobSpec {
        id: JobId::new(),
        ..summarizing_job([fakes.document_spec("a.pdf", 30)])
    };
    let language = |model: &Arc<QuotingModel>| {
        CachedLanguageModel::new(build_router(&[Arc::clone(model)]), Some(cache.clone()))
    };
    fakes.language_model = Some(Arc::new(language(&model)));
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(spec.clone());
    while model.requests.lock().len() < 40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.suspend_jobs_and_shutdown(Duration::ZERO).await.unwrap();
    assert_eq!(handle.await_outcome().await.state, JobState::Running);
    let finished = 36; // Four of the 40 requests were in flight.
    fakes.language_model = Some(Arc::new(language(&model)));
    let engine = fakes.build_engine();
    let before = model.requests.lock().len();
    let outcome = engine.start_or_resume_job(spec).await_outcome().await;
    assert_eq!(outcome.state, JobState::Done);
    // 30 chapters with two parts and a reduction each, and the whole book.
    let after = model.requests.lock().len() - before;
    assert_eq!(after, 30 * 3 + 1 - finished);
}

//! Pages read by vision models: a limited number at a time, with at most one image each. A failure affects only its own page.
//! Tests of provider limits use the real language model router.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use weir_core::decision::{FailureAction, PageRoute, ReadingMethod};
use weir_core::id::{DocumentId, TenantId};
use weir_core::ledger::{FinalPageState, JobState};
use weir_core::llm::{
    LanguageModel, LlmError, LlmRequest, LlmRequestKind, LlmResponse, ProviderError, ProviderFailureInfo,
};
use weir_core::page_text::{StoredPageText, TextSource};
use weir_core::ports::Ledger as _;
use weir_core::{Rect, Stage, StorageError};
use weir_engine::{DocumentEndState, VisionConfig};
use weir_llm::{Provider, ProviderEntry, ProviderOptions, ProviderResponse, Router, RouterConfig};

use crate::document_ingestion::{collect_events, done_end, page_done_times};
use crate::fakes::{CallCounter, FakeHost, FakeStages, route_with_all_steps, single_tenant_job};

/// Returns the page number from the image of a request.
fn page_number_in_image(request: &LlmRequest) -> u32 {
    assert_eq!(request.kind, LlmRequestKind::Page);
    assert!(request.text.is_empty() && request.prompt.contains("Markdown"));
    let image = request.image.as_ref().unwrap();
    u32::from_be_bytes(image.bytes.as_ref().try_into().unwrap())
}

fn transcription_of_page(page: u32) -> String {
    format!("page {page} says *this*\npage {page} says that")
}

/// Transcribes pages, each in a given time.
struct TranscribingModel {
    stages: Arc<FakeStages>,
    millis: fn(u32) -> u64,
    /// The response in place of the page's text.
    instead: fn(u32) -> Option<Result<&'static str, LlmError>>,
    calls: Arc<CallCounter>,
    /// The most images in memory at the time of a request.
    max_live_images: AtomicUsize,
}

impl TranscribingModel {
    fn new(fakes: &FakeHost, millis: fn(u32) -> u64) -> Self {
        Self {
            stages: Arc::clone(&fakes.stages),
            millis,
            instead: |_| None,
            calls: Arc::default(),
            max_live_images: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl LanguageModel for TranscribingModel {
    async fn request_completion(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let _inside = self.calls.start_call();
        self.max_live_images
            .fetch_max(self.stages.live_encoded_images(), Ordering::SeqCst);
        let page = page_number_in_image(&request);
        sleep(Duration::from_millis((self.millis)(page))).await;
        let text = match (self.instead)(page) {
            Some(instead) => instead?.to_owned(),
            None => transcription_of_page(page),
        };
        Ok(LlmResponse {
            text,
            quotes: Vec::new(),
            prompt_tokens: None,
            completion_tokens: None,
            provider: "seer".into(),
            model: "fake".into(),
            cached: false,
            waiting_time: Duration::ZERO,
            provider_time: Duration::ZERO,
        })
    }

    async fn clear_tenant_cache(&self, _: &TenantId) -> Result<(), StorageError> {
        Ok(())
    }

    fn supports_images(&self) -> bool {
        true
    }

    fn failing_providers_if_all_fail(&self, _: bool) -> Vec<ProviderFailureInfo> {
        Vec::new()
    }

    fn useful_concurrency(&self) -> u32 {
        64
    }

    async fn clear_document_cache(&self, _: &TenantId, _: &DocumentId) -> Result<(), StorageError> {
        Ok(())
    }

    async fn wait_for_tenant_queue_space(&self, _: &TenantId) {}
}

fn vision_route(store: bool) -> PageRoute {
    PageRoute {
        reading_method: ReadingMethod::VisionModel,
        store,
        ..route_with_all_steps()
    }
}

/// Creates a host whose pages are all read by a vision model.
fn vision_host(store: bool) -> FakeHost {
    let mut fakes = FakeHost::new();
    fakes.script.route = Arc::new(move |_| Ok(vision_route(store)));
    fakes
}

fn load_page_lines(fakes: &FakeHost, name: &str, page: u32) -> StoredPageText {
    let key = format!("{}/{page}/ocr.json", fakes.document_id(name));
    serde_json::from_slice(&fakes.blobs.get_bytes(&key).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn ten_pages_of_three_seconds_take_five_workers_six_seconds() {
    let mut fakes = vision_host(true)
        .with_cost(Stage::Rasterize, 5)
        .with_cost(Stage::Embed, 10);
    let model = Arc::new(TranscribingModel::new(&fakes, |_| 3000));
    fakes.language_model = Some(Arc::clone(&model) as _);
    let engine = fakes.build_engine();
    let began = Instant::now();
    let outcome = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]))
        .await_outcome()
        .await;
    let took = began.elapsed().as_secs_f64();
    assert!((5.7..=6.3).contains(&took), "{took}");
    assert_eq!(outcome.documents[0].end, done_end(10, 0));
    assert_eq!((model.calls.call_count(), model.calls.max_in_flight()), (10, 5));
    fakes.assert_document_complete("a.pdf", 10).await;
    for page in 1..=10 {
        let read = load_page_lines(&fakes, "a.pdf", page);
        let texts: Vec<_> = read.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts.join("\n"), transcription_of_page(page));
        assert_eq!(read.source, TextSource::VisionModel);
        assert!(read.lines.iter().all(|line| line.rect == Rect::WHOLE_PAGE));
    }
    assert!(
        fakes
            .vectors
            .sorted_points()
            .iter()
            .all(|p| p.rect == Rect::WHOLE_PAGE && p.image.is_some())
    );

    // Pages that are done are not requested again.
    let again = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]))
        .await_outcome()
        .await;
    assert_eq!(again.documents[0].end, done_end(10, 10));
    assert_eq!(model.calls.call_count(), 10);
}

#[tokio::test(start_paused = true)]
async fn live_images_grow_with_workers_not_with_pages() {
    for (workers, pages) in [(1, 40), (5, 40), (5, 400), (12, 400)] {
        // Earlier pages take longer, so pages end out of order.
        let mut fakes = vision_host(false);
        fakes.config.vision.workers = workers;
        let model = Arc::new(TranscribingModel::new(&fakes, |page| {
            2000 - 7 * u64::from(page % 11)
        }));
        fakes.language_model = Some(Arc::clone(&model) as _);
        let engine = fakes.build_engine();
        let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", pages)]));
        let (events, outcome) = collect_events(&handle).await;
        assert_eq!(outcome.documents[0].end, done_end(pages, 0));
        let max_live_images = model.max_live_images.load(Ordering::SeqCst);
        assert_eq!(
            (max_live_images, model.calls.max_in_flight()),
            (workers as usize, workers)
        );
        assert_eq!(fakes.stages.live_encoded_images(), 0);
        if workers > 1 {
            assert!(!page_done_times(&events).is_sorted());
        }
        let recorded = fakes
            .ledger
            .list_pages(&TenantId::default_tenant(), &fakes.document_id("a.pdf"), None)
            .await;
        assert!(recorded.unwrap().iter().map(|page| page.page).eq(1..=pages));
    }
}

#[tokio::test(start_paused = true)]
async fn page_that_is_not_transcribed_is_reported_and_the_rest_is_kept() {
    let mut fakes = vision_host(false);
    fakes.script.on_failure = Arc::new(|failure| {
        assert_eq!((failure.stage, failure.attempt), (Stage::Read, 1));
        Ok(FailureAction::SkipPage)
    });
    let mut model = TranscribingModel::new(&fakes, |_| 1000);
    model.instead = |page| {
        let provider = || "seer".to_owned();
        let broken = ProviderError::ServerError {
            status: 500,
            reason: "oops".into(),
            after: None,
        };
        Some(match page {
            2 => Err(LlmError::AllProvidersFailed(vec![(provider(), broken)])),
            3 => Err(LlmError::AllProvidersFailed(vec![(
                provider(),
                ProviderError::Declined,
            )])),
            4 => Err(LlmError::ProviderFailed {
                provider: provider(),
                fault: ProviderError::TokenLimitReached,
            }),
            5 => Ok("[[blank page]]"),
            6 => Ok("```markdown\npage 6 | says\n```"),
            7 => Err(LlmError::TimedOut {
                seconds: 600,
                faults: Vec::new(),
            }),
            _ => return None,
        })
    };
    fakes.language_model = Some(Arc::new(model));
    let engine = fakes.build_engine();
    let outcome = engine
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 8)]))
        .await_outcome()
        .await;
    assert_eq!(outcome.state, JobState::Done);
    let DocumentEndState::Done {
        searchable: 3,
        failed,
        ..
    } = &outcome.documents[0].end
    else {
        panic!("{outcome:?}");
    };
    let failed: Vec<_> = failed
        .iter()
        .map(|page| (page.page, page.error.kind.as_str(), page.error.message.as_str()))
        .collect();
    assert_eq!(
        failed,
        [
            (
                2,
                "llm-down",
                "no language model responds: seer failed with status 500: oops"
            ),
            (
                3,
                "page-declined",
                "seer declined to transcribe page 3: set up another model, or route the page to OCR"
            ),
            (
                4,
                "page-too-long",
                "the transcription of page 4 exceeds the 4096 tokens that seer may return: raise vision.max_page_tokens, or route \
                 the page to OCR"
            ),
            (
                7,
                "llm-timeout",
                "no response within 600 s: all language models were busy"
            ),
        ]
    );
    assert!(load_page_lines(&fakes, "a.pdf", 5).lines.is_empty());
    assert_eq!(load_page_lines(&fakes, "a.pdf", 6).lines[0].text, "page 6 | says");
    let recorded = fakes
        .ledger
        .list_pages(&TenantId::default_tenant(), &fakes.document_id("a.pdf"), None)
        .await
        .unwrap();
    let blank = &recorded[4].state;
    assert!(
        matches!(
            blank,
            FinalPageState::Done {
                source: TextSource::VisionModel,
                passages: 0,
                ..
            }
        ),
        "{blank:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn model_request_uses_prompt_and_limits_from_the_settings() {
    struct RecordingModel(Mutex<Option<LlmRequest>>);
    #[async_trait]
    impl LanguageModel for RecordingModel {
        async fn request_completion(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
            *self.0.lock() = Some(request);
            Err(LlmError::QueueFull { waiting: 1 })
        }
        fn supports_images(&self) -> bool {
            true
        }
        fn failing_providers_if_all_fail(&self, _: bool) -> Vec<ProviderFailureInfo> {
            Vec::new()
        }
        fn useful_concurrency(&self) -> u32 {
            1
        }
        async fn clear_tenant_cache(&self, _: &TenantId) -> Result<(), StorageError> {
            Ok(())
        }
        async fn clear_document_cache(&self, _: &TenantId, _: &DocumentId) -> Result<(), StorageError> {
            Ok(())
        }
        async fn wait_for_tenant_queue_space(&self, _: &TenantId) {}
    }
    let mut fakes = vision_host(false);
    fakes.config.vision = VisionConfig {
        max_tokens: 77,
        timeout: Duration::from_secs(8),
        prompt: Some("OCR:".into()),
        ..fakes.config.vision
    };
    let model = Arc::new(RecordingModel(Mutex::default()));
    fakes.language_model = Some(Arc::clone(&model) as _);
    let outcome = fakes
        .build_engine()
        .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 1)]))
        .await_outcome()
        .await;
    let end = &outcome.documents[0].end;
    assert!(
        matches!(end, DocumentEndState::Failed { error, .. } if error.kind == "llm-queue-full"),
        "{end:?}"
    );
    let request = model.0.lock().take().unwrap();
    assert_eq!(
        (
            request.prompt.as_str(),
            request.max_response_tokens,
            request.timeout
        ),
        ("OCR:", 77, Duration::from_secs(8))
    );
}

#[tokio::test(start_paused = true)]
async fn pages_that_wait_for_a_vision_model_hold_up_no_others() {
    let mut fakes = FakeHost::new().with_cost(Stage::Read, 100);
    fakes.script.route = Arc::new(|facts| {
        Ok(match facts.number {
            1..=4 => vision_route(true),
            _ => route_with_all_steps(),
        })
    });
    let model = TranscribingModel::new(&fakes, |_| 60_000);
    fakes.language_model = Some(Arc::new(model));
    fakes.config.vision.workers = 1;
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 20)]));
    let (events, outcome) = collect_events(&handle).await;
    assert_eq!(outcome.documents[0].end, done_end(20, 0));
    let pages = page_done_times(&events);
    let recognized: Vec<_> = pages.iter().take(16).map(|(page, _)| *page).collect();
    assert_eq!(recognized, (5..=20).collect::<Vec<_>>());
    assert!(pages[15].1 - pages[0].1 <= 1600, "{pages:?}");
}

#[tokio::test(start_paused = true)]
async fn cancelled_job_sends_no_further_page_and_frees_its_images() {
    let mut fakes = vision_host(true);
    let model = Arc::new(TranscribingModel::new(&fakes, |page| {
        if page <= 5 { 10_500 } else { 60_000 }
    }));
    fakes.language_model = Some(Arc::clone(&model) as _);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 50)]));
    sleep(Duration::from_secs(10)).await;
    handle.cancel_job();
    let outcome = handle.await_outcome().await;
    // Requests in flight at the cancellation ended within the grace period, and their slots were not used again.
    assert_eq!(outcome.documents[0].end, DocumentEndState::Cancelled { done: 5 });
    assert_eq!((model.calls.call_count(), model.calls.in_flight()), (5, 0));
    assert_eq!(fakes.stages.live_encoded_images(), 0);
}

/// Refuses its first requests with a rate limit error that says when to retry.
struct RateLimitedProvider {
    call_times: Mutex<Vec<Instant>>,
    refuses_first: usize,
}

#[async_trait]
impl Provider for RateLimitedProvider {
    fn model_name(&self) -> &'static str {
        "strict"
    }

    fn supports_images(&self) -> bool {
        true
    }

    async fn call_model(&self, request: &LlmRequest) -> Result<ProviderResponse, ProviderError> {
        let number = {
            let mut call_times = self.call_times.lock();
            call_times.push(Instant::now());
            call_times.len()
        };
        sleep(Duration::from_secs(1)).await;
        if number <= self.refuses_first {
            let after = Some(Duration::from_secs(20));
            return Err(ProviderError::RateLimited { after });
        }
        Ok(ProviderResponse {
            text: transcription_of_page(page_number_in_image(request)),
            ..ProviderResponse::default()
        })
    }
}

#[tokio::test(start_paused = true)]
async fn vision_requests_respect_provider_rate_limits() {
    for (per_minute, refuses_first) in [(10, 0), (0, 3)] {
        let mut fakes = vision_host(false);
        let strict = Arc::new(RateLimitedProvider {
            call_times: Mutex::default(),
            refuses_first,
        });
        let entry = ProviderEntry {
            name: "strict".into(),
            provider: Arc::clone(&strict) as _,
            options: ProviderOptions {
                requests_per_minute: per_minute,
                ..ProviderOptions::default()
            },
        };
        fakes.language_model = Some(Arc::new(Router::new(vec![entry], RouterConfig::default())));
        let outcome = fakes
            .build_engine()
            .start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 25)]))
            .await_outcome()
            .await;
        assert_eq!(outcome.documents[0].end, done_end(25, 0));
        let asked = strict.call_times.lock();
        assert_eq!(asked.len(), 25 + refuses_first);
        if per_minute > 0 {
            let minute = |from: &Instant| {
                let within = |at: &&Instant| **at >= *from && **at - *from < Duration::from_secs(60);
                asked.iter().filter(within).count()
            };
            assert!(asked.iter().all(|from| minute(from) <= per_minute as usize));
        } else {
            // Requests in flight at the first refusal are the only ones until the retry time.
            let refused = asked[0] + Duration::from_secs(1);
            let again = refused + Duration::from_secs(20);
            assert!(asked.iter().all(|at| *at <= refused || *at >= again), "{asked:?}");
        }
    }
}

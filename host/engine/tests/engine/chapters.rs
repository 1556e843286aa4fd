//! Summarizes a book of 385 chapters with the real router in virtual time, optionally with single optimizations switched off.
//!
//! The response times are those measured in the source system. A short chapter takes 22.5 s. A part of a long chapter takes
//! 17.5 s, and so does the reduction of the parts. A provider processes four concurrent calls and never responds to further ones.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::decision::{SummaryPlan, SummaryPrompt};
use weir_core::event::{Event, EventKind};
use weir_core::id::{DocumentId, TenantId};
use weir_core::ledger::JobState;
use weir_core::llm::{
    LanguageModel, LlmError, LlmRequest, LlmResponse, ProviderError, ProviderFailureInfo, ResponseQuote,
};
use weir_core::{JobId, StorageError};
use weir_engine::JobSpec;
use weir_llm::{
    CachedLanguageModel, MemoryResponseCache, Provider, ProviderEntry, ProviderOptions, ProviderResponse,
    Router, RouterConfig,
};

use crate::fakes::{FakeHost, single_tenant_job};

/// The number of chapters of at most 5000 characters.
pub const SHORT_CHAPTERS: u32 = 192;
/// The number of longer chapters.
pub const LONG_CHAPTERS: u32 = 193;
/// The number of parts of the long chapters, which are chunks of 3500 characters with an overlap of 275.
pub const LONG_CHAPTER_PARTS: u32 = 444;
/// Concurrent calls that a provider processes.
const PROVIDER_CAPACITY: u32 = 4;

/// The optimizations that are on and the faults that happen. By default all optimizations are on and no fault happens.
#[derive(Debug, Clone)]
pub struct BookSetup {
    pub providers: usize,
    /// The configured concurrency limit of each provider.
    pub stated_concurrency: u32,
    pub adaptive: bool,
    pub breaker: bool,
    pub cache: bool,
    /// The number of parts of the long chapters.
    pub parts: u32,
    /// The number of waiting requests at which the router delays further ones.
    pub max_waiting_requests: usize,
    /// The seconds, counted from the first request, in which the first provider does not respond.
    pub outage_seconds: Option<Range<u64>>,
    /// The number of responses after which the engine stops and a new one resumes the job.
    pub stop_after_responses: Option<u64>,
}

impl Default for BookSetup {
    fn default() -> Self {
        Self {
            providers: 1,
            stated_concurrency: PROVIDER_CAPACITY,
            adaptive: true,
            breaker: true,
            cache: true,
            parts: LONG_CHAPTER_PARTS,
            max_waiting_requests: 800,
            outage_seconds: None,
            stop_after_responses: None,
        }
    }
}

/// The result of a run. Times count from the first request.
#[derive(Debug)]
pub struct BookRun {
    /// The number of summarized chapters.
    pub summarized: usize,
    /// Why the document failed, if it did.
    pub failure_message: Option<String>,
    pub minimum: Duration,
    pub took: Duration,
    pub calls: u64,
    pub timeouts: u64,
    /// The longest time that a request waited before it was accepted.
    pub longest_admission_wait: Duration,
    /// How often a breaker opened.
    pub breaker_openings: u64,
}

impl BookRun {
    pub fn ratio_to_floor(&self) -> f64 {
        self.took.as_secs_f64() / self.minimum.as_secs_f64()
    }
}

struct MeasuredModel {
    down: Option<Range<u64>>,
    busy: AtomicU32,
    calls: AtomicU64,
    first: Mutex<Option<Instant>>,
}

/// Counts a call as in flight until it is dropped.
struct CallGuard<'a>(&'a AtomicU32);

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Provider for MeasuredModel {
    fn model_name(&self) -> &'static str {
        "measured"
    }

    fn supports_images(&self) -> bool {
        false
    }

    async fn call_model(&self, question: &LlmRequest) -> Result<ProviderResponse, ProviderError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let began = *self.first.lock().get_or_insert_with(Instant::now);
        let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        let _call = CallGuard(&self.busy);
        let down = |down: &Range<u64>| down.contains(&began.elapsed().as_secs());
        if busy > PROVIDER_CAPACITY || self.down.as_ref().is_some_and(down) {
            return std::future::pending().await;
        }
        tokio::time::sleep(Duration::from_secs_f64(response_seconds(question))).await;
        let text: String = question.text.chars().take(12).collect();
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

fn response_seconds(question: &LlmRequest) -> f64 {
    match question.prompt.starts_with("whole") {
        true => 22.5,
        false => 17.5,
    }
}

/// Measures how long requests wait until the models accept them.
struct AdmissionTimingModel {
    models: CachedLanguageModel,
    longest_wait: Mutex<Duration>,
}

#[async_trait]
impl LanguageModel for AdmissionTimingModel {
    async fn request_completion(&self, question: LlmRequest) -> Result<LlmResponse, LlmError> {
        self.models.request_completion(question).await
    }

    fn supports_images(&self) -> bool {
        self.models.supports_images()
    }

    fn failing_providers_if_all_fail(&self, image: bool) -> Vec<ProviderFailureInfo> {
        self.models.failing_providers_if_all_fail(image)
    }

    fn useful_concurrency(&self) -> u32 {
        self.models.useful_concurrency()
    }

    async fn clear_tenant_cache(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.models.clear_tenant_cache(tenant).await
    }

    async fn clear_document_cache(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        self.models.clear_document_cache(tenant, document).await
    }

    async fn wait_for_tenant_queue_space(&self, tenant: &TenantId) {
        let began = Instant::now();
        self.models.wait_for_tenant_queue_space(tenant).await;
        let mut blocked = self.longest_wait.lock();
        *blocked = began.elapsed().max(*blocked);
    }
}

/// Creates a host for a book with one chapter on each page. The long chapters come first and have `parts` parts together.
fn book_host(parts: u32) -> FakeHost {
    let create_prompt = |prompt: &str| SummaryPrompt {
        prompt: format!("{prompt}: {{text}}"),
        max_tokens: 100,
    };
    let mut fakes = FakeHost::new();
    fakes.stages.has_outline.store(true, Ordering::SeqCst);
    fakes.script.summarize = Arc::new(move |section| {
        let chapter = section.first_page;
        if chapter > LONG_CHAPTERS || section.first_page != section.last_page {
            return Ok(SummaryPlan::Single(create_prompt("whole")));
        }
        let of_chapter = chapter * parts / LONG_CHAPTERS - (chapter - 1) * parts / LONG_CHAPTERS;
        Ok(SummaryPlan::MapReduce {
            ranges: (0..of_chapter).map(|part| part..part + 9).collect(),
            map: create_prompt("part"),
            reduce: create_prompt("reduce"),
        })
    });
    fakes
}

/// Summarizes the book in virtual time.
pub async fn summarize_book(setup: &BookSetup) -> BookRun {
    let models: Vec<Arc<MeasuredModel>> = (0..setup.providers)
        .map(|number| {
            Arc::new(MeasuredModel {
                down: setup.outage_seconds.clone().filter(|_| number == 0),
                busy: AtomicU32::new(0),
                calls: AtomicU64::new(0),
                first: Mutex::new(None),
            })
        })
        .collect();
    let kept = Arc::new(MemoryResponseCache::new(1 << 24));
    let config = RouterConfig {
        adaptive_concurrency: setup.adaptive,
        backpressure_threshold: setup.max_waiting_requests,
        breaker: RouterConfig::default().breaker.filter(|_| setup.breaker),
        backoff_seed: Some(385),
        ..RouterConfig::default()
    };
    let watched = || {
        let members = (0..).zip(&models).map(|(number, model)| ProviderEntry {
            name: format!("model-{number}"),
            provider: Arc::clone(model) as _,
            options: ProviderOptions {
                max_concurrency: setup.stated_concurrency,
                call_timeout: Duration::from_secs(60),
                ..ProviderOptions::default()
            },
        });
        let router = Router::new(members.collect(), config);
        let kept = setup.cache.then(|| Arc::clone(&kept) as _);
        Arc::new(AdmissionTimingModel {
            models: CachedLanguageModel::new(router, kept),
            longest_wait: Mutex::default(),
        })
    };
    let mut fakes = book_host(setup.parts);
    let spec = JobSpec {
        id: JobId::new(),
        summarize: true,
        ..single_tenant_job([fakes.document_spec("book.pdf", SHORT_CHAPTERS + LONG_CHAPTERS)])
    };
    let (mut timeouts, mut opened, mut blocked) = (0, 0, Duration::ZERO);
    let mut look = |watched: &AdmissionTimingModel| {
        let stats = watched.models.router_stats();
        timeouts += stats.providers.iter().map(|p| p.timeouts).sum::<u64>();
        opened += stats.providers.iter().map(|p| p.breaker_openings).sum::<u64>();
        blocked = blocked.max(*watched.longest_wait.lock());
    };
    if let Some(answers) = setup.stop_after_responses {
        let watching = watched();
        fakes.language_model = Some(Arc::clone(&watching) as _);
        let engine = fakes.build_engine();
        let handle = engine.start_or_resume_job(spec.clone());
        let answered = || -> u64 {
            let stats = watching.models.router_stats();
            stats.providers.iter().map(|p| p.successes).sum()
        };
        while answered() < answers {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        engine.suspend_jobs_and_shutdown(Duration::ZERO).await.unwrap();
        assert_eq!(handle.await_outcome().await.state, JobState::Running);
        look(&watching);
    }
    let watching = watched();
    fakes.language_model = Some(Arc::clone(&watching) as _);
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(spec);
    let events: Vec<_> = handle.stream_events().map(|event| event.unwrap()).collect().await;
    handle.await_outcome().await;
    let end = Instant::now();
    look(&watching);
    let told = |event: &&Event| matches!(event.kind, EventKind::SectionSummarized { .. });
    let summarized = events.iter().filter(told).count();
    let why = events.iter().find_map(|event| match &event.kind {
        EventKind::DocumentFailed { error, .. } => Some(error.message.clone()),
        _ => None,
    });
    let first = models
        .iter()
        .filter_map(|model| *model.first.lock())
        .min()
        .unwrap();
    let calls = f64::from(SHORT_CHAPTERS) * 22.5 + f64::from(setup.parts + LONG_CHAPTERS) * 17.5;
    let all = setup.providers as f64;
    // During an outage of the first provider, the others continue. The whole book is summarized after all chapters.
    let away = setup
        .outage_seconds
        .as_ref()
        .map_or(0.0, |down| (down.end - down.start) as f64);
    let floor = calls / (f64::from(PROVIDER_CAPACITY) * all) + away / all + 22.5;
    BookRun {
        summarized,
        failure_message: why,
        minimum: Duration::from_secs_f64(floor),
        took: end.duration_since(first),
        calls: models
            .iter()
            .map(|model| model.calls.load(Ordering::SeqCst))
            .sum(),
        timeouts,
        longest_admission_wait: blocked,
        breaker_openings: opened,
    }
}

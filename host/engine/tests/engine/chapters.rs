//! A book of 385 chapters, summarized by the real router in virtual time, by models that take as long as those of the source
//! system's measurements, and how much longer it takes with each optimization switched off.
//!
//! A short chapter takes 22.5 s, a part of a long one 17.5 s, and so does bringing parts together. A provider bears four
//! calls at once; one call more is never answered.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::decision::{Question as Asked, SummaryPlan};
use weir_core::event::{Event, EventKind};
use weir_core::id::{DocumentId, TenantId};
use weir_core::language::{Answer, FailingProvider, Fault, LanguageError, LanguageModel, Question, Quote};
use weir_core::ledger::JobState;
use weir_core::{JobId, StorageError};
use weir_engine::JobSpec;
use weir_llm::{Answers, Member, MemoryAnswers, Provider, Reply, Router, RouterConfig, Terms};

use crate::fakes::{Fakes, job};

/// Chapters of at most 5000 characters, longer ones, and the parts of those as chunks of 3500 characters overlapping by 275.
pub const SHORT: u32 = 192;
pub const LONG: u32 = 193;
pub const PARTS: u32 = 444;
/// Calls that a provider bears at once.
const BEARS: u32 = 4;

/// What is switched on, and what goes wrong. The default is everything, and nothing.
#[derive(Debug, Clone)]
pub struct Setup {
    pub providers: usize,
    /// Calls at once that each provider states.
    pub stated: u32,
    pub adaptive: bool,
    pub breaker: bool,
    pub cache: bool,
    /// Parts of the long chapters.
    pub parts: u32,
    /// Questions that wait when whoever asks slows down.
    pub slow_at: usize,
    /// Seconds from the first question in which the first provider answers nothing.
    pub down: Option<Range<u64>>,
    /// Answers after which the process stops, to go on anew.
    pub stopped_after: Option<u64>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            providers: 1,
            stated: BEARS,
            adaptive: true,
            breaker: true,
            cache: true,
            parts: PARTS,
            slow_at: 800,
            down: None,
            stopped_after: None,
        }
    }
}

/// How it went. Times are from the first question on.
#[derive(Debug)]
pub struct Run {
    /// Chapters that have their summary.
    pub summarized: usize,
    /// Why not all of them have.
    pub why: Option<String>,
    pub floor: Duration,
    pub took: Duration,
    pub calls: u64,
    pub timeouts: u64,
    /// The longest that one question had to wait before it could be put.
    pub blocked: Duration,
    /// How often a provider began to be left alone.
    pub opened: u64,
}

impl Run {
    pub fn ratio(&self) -> f64 {
        self.took.as_secs_f64() / self.floor.as_secs_f64()
    }
}

struct Model {
    down: Option<Range<u64>>,
    busy: AtomicU32,
    calls: AtomicU64,
    first: Mutex<Option<Instant>>,
}

/// A call under way.
struct Call<'a>(&'a AtomicU32);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Provider for Model {
    fn model(&self) -> &'static str {
        "measured"
    }

    fn sees(&self) -> bool {
        false
    }

    async fn ask(&self, question: &Question) -> Result<Reply, Fault> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let began = *self.first.lock().get_or_insert_with(Instant::now);
        let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        let _call = Call(&self.busy);
        let down = |down: &Range<u64>| down.contains(&began.elapsed().as_secs());
        if busy > BEARS || self.down.as_ref().is_some_and(down) {
            return std::future::pending().await;
        }
        tokio::time::sleep(Duration::from_secs_f64(seconds(question))).await;
        let text: String = question.text.chars().take(12).collect();
        let all = 0..u32::try_from(text.len()).unwrap();
        Ok(Reply {
            quotes: vec![Quote {
                answer: all.clone(),
                source: all,
            }],
            text,
            ..Reply::default()
        })
    }
}

fn seconds(question: &Question) -> f64 {
    match question.prompt.starts_with("whole") {
        true => 22.5,
        false => 17.5,
    }
}

/// The models, and how long whoever asks them had to wait before.
struct Watched {
    models: Answers,
    blocked: Mutex<Duration>,
}

#[async_trait]
impl LanguageModel for Watched {
    async fn ask(&self, question: Question) -> Result<Answer, LanguageError> {
        self.models.ask(question).await
    }

    fn sees(&self) -> bool {
        self.models.sees()
    }

    fn failing(&self, image: bool) -> Vec<FailingProvider> {
        self.models.failing(image)
    }

    fn workers(&self) -> u32 {
        self.models.workers()
    }

    async fn forget(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.models.forget(tenant).await
    }

    async fn forget_document(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError> {
        self.models.forget_document(tenant, document).await
    }

    async fn room(&self, tenant: &TenantId) {
        let began = Instant::now();
        self.models.room(tenant).await;
        let mut blocked = self.blocked.lock();
        *blocked = began.elapsed().max(*blocked);
    }
}

/// A chapter a page, the long ones first in order; of each, so many parts that they are as many as asked for.
fn book(parts: u32) -> Fakes {
    let question = |prompt: &str| Asked {
        prompt: format!("{prompt}: {{text}}"),
        max_tokens: 100,
    };
    let mut fakes = Fakes::new();
    fakes.stages.outlined.store(true, Ordering::SeqCst);
    fakes.script.summarize = Arc::new(move |section| {
        let chapter = section.first_page;
        if chapter > LONG || section.first_page != section.last_page {
            return Ok(SummaryPlan::Single(question("whole")));
        }
        let of_chapter = chapter * parts / LONG - (chapter - 1) * parts / LONG;
        Ok(SummaryPlan::MapReduce {
            ranges: (0..of_chapter).map(|part| part..part + 9).collect(),
            map: question("part"),
            reduce: question("reduce"),
        })
    });
    fakes
}

/// Summarizes the book. In virtual time.
pub async fn run(setup: &Setup) -> Run {
    let models: Vec<Arc<Model>> = (0..setup.providers)
        .map(|number| {
            Arc::new(Model {
                down: setup.down.clone().filter(|_| number == 0),
                busy: AtomicU32::new(0),
                calls: AtomicU64::new(0),
                first: Mutex::new(None),
            })
        })
        .collect();
    let kept = Arc::new(MemoryAnswers::new(1 << 24));
    let config = RouterConfig {
        adaptive: setup.adaptive,
        slow_at: setup.slow_at,
        breaker: RouterConfig::default().breaker.filter(|_| setup.breaker),
        seed: Some(385),
        ..RouterConfig::default()
    };
    let watched = || {
        let members = (0..).zip(&models).map(|(number, model)| Member {
            name: format!("model-{number}"),
            provider: Arc::clone(model) as _,
            terms: Terms {
                concurrency: setup.stated,
                timeout: Duration::from_secs(60),
                ..Terms::default()
            },
        });
        let router = Router::new(members.collect(), config);
        let kept = setup.cache.then(|| Arc::clone(&kept) as _);
        Arc::new(Watched {
            models: Answers::new(router, kept),
            blocked: Mutex::default(),
        })
    };
    let mut fakes = book(setup.parts);
    let spec = JobSpec {
        id: JobId::new(),
        summarize: true,
        ..job([fakes.document("book.pdf", SHORT + LONG)])
    };
    let (mut timeouts, mut opened, mut blocked) = (0, 0, Duration::ZERO);
    let mut look = |watched: &Watched| {
        let stats = watched.models.stats();
        timeouts += stats.providers.iter().map(|p| p.timeouts).sum::<u64>();
        opened += stats.providers.iter().map(|p| p.opened).sum::<u64>();
        blocked = blocked.max(*watched.blocked.lock());
    };
    if let Some(answers) = setup.stopped_after {
        let watching = watched();
        fakes.language = Some(Arc::clone(&watching) as _);
        let engine = fakes.engine();
        let handle = engine.start(spec.clone());
        let answered = || -> u64 {
            let stats = watching.models.stats();
            stats.providers.iter().map(|p| p.answered).sum()
        };
        while answered() < answers {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        engine.suspend(Duration::ZERO).await.unwrap();
        assert_eq!(handle.wait().await.state, JobState::Running);
        look(&watching);
    }
    let watching = watched();
    fakes.language = Some(Arc::clone(&watching) as _);
    let engine = fakes.engine();
    let handle = engine.start(spec);
    let events: Vec<_> = handle.events().map(|event| event.unwrap()).collect().await;
    handle.wait().await;
    let end = Instant::now();
    look(&watching);
    let told = |event: &&Event| matches!(event.what, EventKind::SectionSummarized { .. });
    let summarized = events.iter().filter(told).count();
    let why = events.iter().find_map(|event| match &event.what {
        EventKind::DocumentFailed { error, .. } => Some(error.message.clone()),
        _ => None,
    });
    let first = models
        .iter()
        .filter_map(|model| *model.first.lock())
        .min()
        .unwrap();
    let calls = f64::from(SHORT) * 22.5 + f64::from(setup.parts + LONG) * 17.5;
    let all = setup.providers as f64;
    // While the first is down the others go on; the book itself can only be summarized when all of it is.
    let away = setup
        .down
        .as_ref()
        .map_or(0.0, |down| (down.end - down.start) as f64);
    let floor = calls / (f64::from(BEARS) * all) + away / all + 22.5;
    Run {
        summarized,
        why,
        floor: Duration::from_secs_f64(floor),
        took: end.duration_since(first),
        calls: models
            .iter()
            .map(|model| model.calls.load(Ordering::SeqCst))
            .sum(),
        timeouts,
        blocked,
        opened,
    }
}

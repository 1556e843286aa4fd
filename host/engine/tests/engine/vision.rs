//! Pages read by vision models: so many at once, each with its own image and no more images than that, and what goes wrong with
//! one is that one's. Where limits of providers matter, with the real router of language models.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use weir_core::decision::{PageRoute, Reading, Verdict};
use weir_core::id::{DocumentId, TenantId};
use weir_core::language::{
    Answer, FailingProvider, Fault, LanguageError, LanguageModel, Question, QuestionKind,
};
use weir_core::ledger::{JobState, PageState};
use weir_core::ports::Ledger as _;
use weir_core::text::{PageLines, TextSource};
use weir_core::{Rect, Stage, StorageError};
use weir_engine::{DocumentEnd, VisionConfig};
use weir_llm::{Member, Provider, Reply, Router, RouterConfig, Terms};

use crate::fakes::{Fakes, Meter, Stages, everything, job};
use crate::flow::{done, follow, pages_done};

/// Reads the number of a page in its image.
fn page_of(question: &Question) -> u32 {
    assert_eq!(question.kind, QuestionKind::Page);
    assert!(question.text.is_empty() && question.prompt.contains("Markdown"));
    let image = question.image.as_ref().unwrap();
    u32::from_be_bytes(image.bytes.as_ref().try_into().unwrap())
}

fn says(page: u32) -> String {
    format!("page {page} says *this*\npage {page} says that")
}

/// Writes pages down, each in its own time.
struct Writer {
    stages: Arc<Stages>,
    millis: fn(u32) -> u64,
    /// What it answers in place of a page's text.
    instead: fn(u32) -> Option<Result<&'static str, LanguageError>>,
    calls: Arc<Meter>,
    /// Most images that existed when it was asked.
    images: AtomicUsize,
}

impl Writer {
    fn new(fakes: &Fakes, millis: fn(u32) -> u64) -> Self {
        Self {
            stages: Arc::clone(&fakes.stages),
            millis,
            instead: |_| None,
            calls: Arc::default(),
            images: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl LanguageModel for Writer {
    async fn ask(&self, question: Question) -> Result<Answer, LanguageError> {
        let _inside = self.calls.enter();
        self.images.fetch_max(self.stages.encoded_now(), Ordering::SeqCst);
        let page = page_of(&question);
        sleep(Duration::from_millis((self.millis)(page))).await;
        let text = match (self.instead)(page) {
            Some(instead) => instead?.to_owned(),
            None => says(page),
        };
        Ok(Answer {
            text,
            quotes: Vec::new(),
            prompt_tokens: None,
            answer_tokens: None,
            provider: "seer".into(),
            model: "fake".into(),
            cached: false,
            waited: Duration::ZERO,
            spent: Duration::ZERO,
        })
    }

    async fn forget(&self, _: &TenantId) -> Result<(), StorageError> {
        Ok(())
    }

    fn sees(&self) -> bool {
        true
    }

    fn failing(&self, _: bool) -> Vec<FailingProvider> {
        Vec::new()
    }

    fn workers(&self) -> u32 {
        64
    }

    async fn forget_document(&self, _: &TenantId, _: &DocumentId) -> Result<(), StorageError> {
        Ok(())
    }

    async fn room(&self, _: &TenantId) {}
}

fn seen(store: bool) -> PageRoute {
    PageRoute {
        reading: Reading::VisionModel,
        store,
        ..everything()
    }
}

/// A host whose pages are all read by a vision model.
fn fakes(store: bool) -> Fakes {
    let mut fakes = Fakes::new();
    fakes.script.route = Arc::new(move |_| Ok(seen(store)));
    fakes
}

fn lines(fakes: &Fakes, name: &str, page: u32) -> PageLines {
    let key = format!("{}/{page}/ocr.json", fakes.id(name));
    serde_json::from_slice(&fakes.blobs.bytes(&key).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn ten_pages_of_three_seconds_take_five_workers_six_seconds() {
    let mut fakes = fakes(true).cost(Stage::Rasterize, 5).cost(Stage::Embed, 10);
    let writer = Arc::new(Writer::new(&fakes, |_| 3000));
    fakes.language = Some(Arc::clone(&writer) as _);
    let engine = fakes.engine();
    let began = Instant::now();
    let outcome = engine.start(job([fakes.document("a.pdf", 10)])).wait().await;
    let took = began.elapsed().as_secs_f64();
    assert!((5.7..=6.3).contains(&took), "{took}");
    assert_eq!(outcome.documents[0].end, done(10, 0));
    assert_eq!((writer.calls.calls(), writer.calls.most()), (10, 5));
    fakes.assert_whole("a.pdf", 10).await;
    for page in 1..=10 {
        let read = lines(&fakes, "a.pdf", page);
        let texts: Vec<_> = read.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts.join("\n"), says(page));
        assert_eq!(read.source, TextSource::VisionModel);
        assert!(read.lines.iter().all(|line| line.rect == Rect::PAGE));
    }
    assert!(
        fakes
            .vectors
            .points()
            .iter()
            .all(|p| p.rect == Rect::PAGE && p.image.is_some())
    );

    // It is not asked again about what is done.
    let again = engine.start(job([fakes.document("a.pdf", 10)])).wait().await;
    assert_eq!(again.documents[0].end, done(10, 10));
    assert_eq!(writer.calls.calls(), 10);
}

#[tokio::test(start_paused = true)]
async fn images_grow_with_the_workers_and_not_with_the_document() {
    for (workers, pages) in [(1, 40), (5, 40), (5, 400), (12, 400)] {
        // Earlier pages take longer, so that they end out of order.
        let mut fakes = fakes(false);
        fakes.config.vision.workers = workers;
        let writer = Arc::new(Writer::new(&fakes, |page| 2000 - 7 * u64::from(page % 11)));
        fakes.language = Some(Arc::clone(&writer) as _);
        let engine = fakes.engine();
        let handle = engine.start(job([fakes.document("a.pdf", pages)]));
        let (events, outcome) = follow(&handle).await;
        assert_eq!(outcome.documents[0].end, done(pages, 0));
        let most = writer.images.load(Ordering::SeqCst);
        assert_eq!((most, writer.calls.most()), (workers as usize, workers));
        assert_eq!(fakes.stages.encoded_now(), 0);
        if workers > 1 {
            assert!(!pages_done(&events).is_sorted());
        }
        let recorded = fakes
            .ledger
            .pages(&TenantId::single(), &fakes.id("a.pdf"), None)
            .await;
        assert!(recorded.unwrap().iter().map(|page| page.page).eq(1..=pages));
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_not_written_down_is_reported_and_the_rest_is_kept() {
    let mut fakes = fakes(false);
    fakes.script.judge = Arc::new(|failure| {
        assert_eq!((failure.stage, failure.attempt), (Stage::Read, 1));
        Ok(Verdict::SkipPage)
    });
    let mut writer = Writer::new(&fakes, |_| 1000);
    writer.instead = |page| {
        let provider = || "seer".to_owned();
        let broken = Fault::Server {
            status: 500,
            reason: "oops".into(),
            after: None,
        };
        Some(match page {
            2 => Err(LanguageError::AllDown(vec![(provider(), broken)])),
            3 => Err(LanguageError::AllDown(vec![(provider(), Fault::Declined)])),
            4 => Err(LanguageError::Provider {
                provider: provider(),
                fault: Fault::CutShort,
            }),
            5 => Ok("[[blank page]]"),
            6 => Ok("```markdown\npage 6 | says\n```"),
            7 => Err(LanguageError::Deadline {
                seconds: 600,
                faults: Vec::new(),
            }),
            _ => return None,
        })
    };
    fakes.language = Some(Arc::new(writer));
    let engine = fakes.engine();
    let outcome = engine.start(job([fakes.document("a.pdf", 8)])).wait().await;
    assert_eq!(outcome.state, JobState::Done);
    let DocumentEnd::Done {
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
                "language-down",
                "no language model answers: seer failed with status 500: oops"
            ),
            (
                3,
                "page-declined",
                "seer declined to write down page 3: ask another model, or route the page to OCR"
            ),
            (
                4,
                "page-too-long",
                "page 4 did not fit into the 4096 tokens that seer may answer with: raise vision.max_tokens, or route the \
                 page to OCR"
            ),
            (
                7,
                "language-deadline",
                "no answer within 600 s: every language model was busy"
            ),
        ]
    );
    assert!(lines(&fakes, "a.pdf", 5).lines.is_empty());
    assert_eq!(lines(&fakes, "a.pdf", 6).lines[0].text, "page 6 | says");
    let recorded = fakes
        .ledger
        .pages(&TenantId::single(), &fakes.id("a.pdf"), None)
        .await
        .unwrap();
    let blank = &recorded[4].state;
    assert!(
        matches!(
            blank,
            PageState::Done {
                source: TextSource::VisionModel,
                passages: 0,
                ..
            }
        ),
        "{blank:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_question_of_the_settings_is_asked_with_their_limits() {
    struct Asked(Mutex<Option<Question>>);
    #[async_trait]
    impl LanguageModel for Asked {
        async fn ask(&self, question: Question) -> Result<Answer, LanguageError> {
            *self.0.lock() = Some(question);
            Err(LanguageError::Full { waiting: 1 })
        }
        fn sees(&self) -> bool {
            true
        }
        fn failing(&self, _: bool) -> Vec<FailingProvider> {
            Vec::new()
        }
        fn workers(&self) -> u32 {
            1
        }
        async fn forget(&self, _: &TenantId) -> Result<(), StorageError> {
            Ok(())
        }
        async fn forget_document(&self, _: &TenantId, _: &DocumentId) -> Result<(), StorageError> {
            Ok(())
        }
        async fn room(&self, _: &TenantId) {}
    }
    let mut fakes = fakes(false);
    fakes.config.vision = VisionConfig {
        max_tokens: 77,
        patience: Duration::from_secs(8),
        prompt: Some("OCR:".into()),
        ..fakes.config.vision
    };
    let asked = Arc::new(Asked(Mutex::default()));
    fakes.language = Some(Arc::clone(&asked) as _);
    let outcome = fakes
        .engine()
        .start(job([fakes.document("a.pdf", 1)]))
        .wait()
        .await;
    let end = &outcome.documents[0].end;
    assert!(
        matches!(end, DocumentEnd::Failed { error, .. } if error.kind == "language-queue-full"),
        "{end:?}"
    );
    let question = asked.0.lock().take().unwrap();
    assert_eq!(
        (question.prompt.as_str(), question.max_tokens, question.patience),
        ("OCR:", 77, Duration::from_secs(8))
    );
}

#[tokio::test(start_paused = true)]
async fn pages_that_wait_for_a_vision_model_hold_up_no_others() {
    let mut fakes = Fakes::new().cost(Stage::Read, 100);
    fakes.script.route = Arc::new(|facts| {
        Ok(match facts.number {
            1..=4 => seen(true),
            _ => everything(),
        })
    });
    let writer = Writer::new(&fakes, |_| 60_000);
    fakes.language = Some(Arc::new(writer));
    fakes.config.vision.workers = 1;
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 20)]));
    let (events, outcome) = follow(&handle).await;
    assert_eq!(outcome.documents[0].end, done(20, 0));
    let pages = pages_done(&events);
    let recognized: Vec<_> = pages.iter().take(16).map(|(page, _)| *page).collect();
    assert_eq!(recognized, (5..=20).collect::<Vec<_>>());
    assert!(pages[15].1 - pages[0].1 <= 1600, "{pages:?}");
}

#[tokio::test(start_paused = true)]
async fn cancelled_no_further_page_is_shown_and_nothing_is_left() {
    let mut fakes = fakes(true);
    let writer = Arc::new(Writer::new(
        &fakes,
        |page| if page <= 5 { 10_500 } else { 60_000 },
    ));
    fakes.language = Some(Arc::clone(&writer) as _);
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 50)]));
    sleep(Duration::from_secs(10)).await;
    handle.cancel();
    let outcome = handle.wait().await;
    // Those at the model when it was cancelled ended within the grace; their seats were given to nobody.
    assert_eq!(outcome.documents[0].end, DocumentEnd::Cancelled { done: 5 });
    assert_eq!((writer.calls.calls(), writer.calls.now()), (5, 0));
    assert_eq!(fakes.stages.encoded_now(), 0);
}

/// Asked too often, it says so and when it may be asked again.
struct Strict {
    asked: Mutex<Vec<Instant>>,
    refuses_first: usize,
}

#[async_trait]
impl Provider for Strict {
    fn model(&self) -> &'static str {
        "strict"
    }

    fn sees(&self) -> bool {
        true
    }

    async fn ask(&self, question: &Question) -> Result<Reply, Fault> {
        let number = {
            let mut asked = self.asked.lock();
            asked.push(Instant::now());
            asked.len()
        };
        sleep(Duration::from_secs(1)).await;
        if number <= self.refuses_first {
            let after = Some(Duration::from_secs(20));
            return Err(Fault::RateLimited { after });
        }
        Ok(Reply {
            text: says(page_of(question)),
            ..Reply::default()
        })
    }
}

#[tokio::test(start_paused = true)]
async fn pages_keep_to_what_a_provider_allows() {
    for (per_minute, refuses_first) in [(10, 0), (0, 3)] {
        let mut fakes = fakes(false);
        let strict = Arc::new(Strict {
            asked: Mutex::default(),
            refuses_first,
        });
        let member = Member {
            name: "strict".into(),
            provider: Arc::clone(&strict) as _,
            terms: Terms {
                requests_per_minute: per_minute,
                ..Terms::default()
            },
        };
        fakes.language = Some(Arc::new(Router::new(vec![member], RouterConfig::default())));
        let outcome = fakes
            .engine()
            .start(job([fakes.document("a.pdf", 25)]))
            .wait()
            .await;
        assert_eq!(outcome.documents[0].end, done(25, 0));
        let asked = strict.asked.lock();
        assert_eq!(asked.len(), 25 + refuses_first);
        if per_minute > 0 {
            let minute = |from: &Instant| {
                let within = |at: &&Instant| **at >= *from && **at - *from < Duration::from_secs(60);
                asked.iter().filter(within).count()
            };
            assert!(asked.iter().all(|from| minute(from) <= per_minute as usize));
        } else {
            // What was under way when the first was refused, and nothing more until it may be asked again.
            let refused = asked[0] + Duration::from_secs(1);
            let again = refused + Duration::from_secs(20);
            assert!(asked.iter().all(|at| *at <= refused || *at >= again), "{asked:?}");
        }
    }
}

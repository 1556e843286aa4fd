//! Summaries: planned by the component, asked all at once, told as they come. With the real router of language models, so that what
//! the two promise together is held; the models' answers and times are made up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::JobId;
use weir_core::decision::{Question as Asked, SummaryPlan};
use weir_core::event::{Event, EventKind};
use weir_core::id::TenantId;
use weir_core::language::{Fault, Question, QuestionKind, Quote};
use weir_core::ledger::JobState;
use weir_core::ports::BlobStore as _;
use weir_core::search::SUMMARY;
use weir_core::settings::Settings;
use weir_core::summary::{DocumentSummary, summary_key};
use weir_engine::{DocumentEnd, EngineConfig, JobSpec};
use weir_llm::{Answers, Member, MemoryAnswers, Provider, Reply, Router, RouterConfig, Terms};

use crate::fakes::{Fakes, job, pipeline};
use crate::flow::follow;

/// Answers after a time with the beginning of the text, as a quote of it; refuses what it is told to.
pub(crate) struct Model {
    seconds: fn(&Question) -> f64,
    refuses: Mutex<Option<&'static str>>,
    asked: Mutex<Vec<(Instant, QuestionKind, String)>>,
}

#[async_trait]
impl Provider for Model {
    fn model(&self) -> &'static str {
        "fake"
    }

    fn sees(&self) -> bool {
        false
    }

    async fn ask(&self, question: &Question) -> Result<Reply, Fault> {
        self.asked
            .lock()
            .push((Instant::now(), question.kind, question.text.clone()));
        tokio::time::sleep(Duration::from_secs_f64((self.seconds)(question))).await;
        if self
            .refuses
            .lock()
            .is_some_and(|part| question.text.contains(part))
        {
            let reason = "not this one".into();
            return Err(Fault::Refused { status: 400, reason });
        }
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

impl Model {
    pub(crate) fn new(seconds: fn(&Question) -> f64) -> Arc<Self> {
        Arc::new(Self {
            seconds,
            refuses: Mutex::new(None),
            asked: Mutex::default(),
        })
    }

    fn count(&self, kind: QuestionKind) -> usize {
        self.asked.lock().iter().filter(|(_, k, _)| *k == kind).count()
    }
}

pub(crate) fn router(models: &[Arc<Model>]) -> Router {
    let members = (0..).zip(models).map(|(number, model)| Member {
        name: format!("model-{number}"),
        provider: Arc::clone(model) as _,
        terms: Terms::default(),
    });
    Router::new(members.collect(), RouterConfig::default())
}

fn question(prompt: &str) -> Asked {
    Asked {
        prompt: format!("{prompt}: {{text}}"),
        max_tokens: 100,
    }
}

/// Chapters, one a page; of `long` in each hundred the text is cut in parts, of the others it is asked as a whole.
pub(crate) fn book(long: u32, parts: fn(u32) -> u32) -> Fakes {
    let mut fakes = Fakes::new();
    fakes.stages.outlined.store(true, Ordering::SeqCst);
    fakes.script.summarize = Arc::new(move |section| {
        if section.first_page % 100 >= long || section.first_page != section.last_page {
            return Ok(SummaryPlan::Single(question("whole")));
        }
        let parts = parts(section.first_page);
        Ok(SummaryPlan::MapReduce {
            ranges: (0..parts).map(|part| part..part + 9).collect(),
            map: question("part"),
            reduce: question("reduce"),
        })
    });
    fakes
}

pub(crate) fn summarized(documents: impl IntoIterator<Item = weir_engine::DocumentSpec>) -> JobSpec {
    JobSpec {
        summarize: true,
        ..job(documents)
    }
}

pub(crate) async fn kept(fakes: &Fakes, name: &str) -> Option<DocumentSummary> {
    let key = summary_key(&fakes.id(name), &pipeline(0).revision);
    let bytes = fakes.blobs.get(&TenantId::single(), &key).await.unwrap()?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn sections(events: &[Event]) -> Vec<u32> {
    let told = events.iter().filter_map(|event| match &event.what {
        EventKind::SectionSummarized { section, .. } => Some(*section),
        _ => None,
    });
    told.collect()
}

#[tokio::test(start_paused = true)]
async fn a_document_is_summarized_by_section_and_as_a_whole() {
    let mut fakes = book(50, |_| 3);
    let model = Model::new(|_| 1.0);
    fakes.language = Some(Arc::new(router(&[Arc::clone(&model)])));
    let engine = fakes.engine();
    let handle = engine.start(summarized([fakes.document("a.pdf", 4)]));
    let (events, outcome) = follow(&handle).await;
    assert_eq!(outcome.state, JobState::Done);

    let mut told = sections(&events);
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, 4]);
    let place = |name: &str| events.iter().position(|e| e.what.name() == name).unwrap();
    assert!(place("page-done") < place("section-summarized"));
    assert!(place("document-summarized") < place("document-done"));

    let kept = kept(&fakes, "a.pdf").await.unwrap();
    assert_eq!((kept.pages, kept.sections.len()), (4, 4));
    for (page, section) in (1..).zip(&kept.sections) {
        let title = format!("page {page} says this and nothing else");
        assert_eq!(section.title.as_deref(), Some(title.as_str()));
        let summary = section.summary.as_ref().unwrap();
        let [quote] = summary.quotes.as_slice() else {
            panic!("{summary:?}");
        };
        // The second line of the page, through two answers.
        assert_eq!((quote.page, summary.provider.as_str()), (page, "model-0"));
        assert!(quote.rect.y > 0.3, "{quote:?}");
    }
    let whole = kept.summary.unwrap();
    assert_eq!(whole.quotes[0].page, 1);
    assert_eq!(model.count(QuestionKind::Map), 4 * 3 + 1);
    assert_eq!(model.count(QuestionKind::Reduce), 4);

    let summaries = fakes
        .vectors
        .points()
        .into_iter()
        .filter(|p| p.passage >= SUMMARY);
    let mut pages: Vec<_> = summaries.map(|point| point.page).collect();
    pages.sort_unstable();
    assert_eq!(pages, [1, 2, 3, 4]);

    // Again it costs nothing; by force it is done anew.
    let before = model.asked.lock().len();
    engine
        .start(summarized([fakes.document("a.pdf", 4)]))
        .wait()
        .await;
    assert_eq!(model.asked.lock().len(), before);
    let forced = JobSpec {
        force: true,
        ..summarized([fakes.document("a.pdf", 4)])
    };
    engine.start(forced).wait().await;
    assert_eq!(model.asked.lock().len(), 2 * before);
}

#[tokio::test(start_paused = true)]
async fn a_section_that_cannot_be_summarized_is_named_and_the_others_are_kept() {
    let mut fakes = book(0, |_| 1);
    let model = Model::new(|_| 1.0);
    *model.refuses.lock() = Some("page 3 says that");
    let answers = Answers::new(
        router(&[Arc::clone(&model)]),
        Some(Arc::new(MemoryAnswers::new(1 << 20))),
    );
    fakes.language = Some(Arc::new(answers));
    let engine = fakes.engine();
    let text = fakes.document("a.pdf", 5);
    let handle = engine.start(summarized([text.clone()]));
    let (events, outcome) = follow(&handle).await;
    let DocumentEnd::Failed { error, done } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!((outcome.state, *done), (JobState::Failed, 5));
    assert!(
        error.message.contains("1 of 5 sections") && error.message.contains("not this one"),
        "{error:?}"
    );
    let failed: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.what {
            EventKind::SectionFailed { section, .. } => Some(*section),
            _ => None,
        })
        .collect();
    assert_eq!((failed.as_slice(), sections(&events).len()), ([3].as_slice(), 4));
    assert_eq!(kept(&fakes, "a.pdf").await, None);

    // The next job asks for what is missing alone.
    *model.refuses.lock() = None;
    let before = model.asked.lock().len();
    let outcome = engine.start(summarized([text])).wait().await;
    assert_eq!(outcome.state, JobState::Done);
    let asked: Vec<_> = model.asked.lock()[before..]
        .iter()
        .map(|(_, _, text)| text.clone())
        .collect();
    assert_eq!(asked.len(), 2, "one section and the whole: {asked:?}");
    assert!(kept(&fakes, "a.pdf").await.unwrap().summary.is_some());
}

#[tokio::test(start_paused = true)]
async fn without_a_language_model_the_document_says_so() {
    let fakes = book(0, |_| 1);
    let engine = fakes.engine();
    let outcome = engine
        .start(summarized([fakes.document("a.pdf", 2)]))
        .wait()
        .await;
    let DocumentEnd::Failed { error, done: 2 } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!(error.kind, "language-unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_question_is_given_up_when_patience_ends() {
    let mut fakes = book(0, |_| 1);
    let mut settings = Settings::default();
    settings.set("llm.patience_seconds", "50").unwrap();
    fakes.config = EngineConfig {
        upsert_workers: 1,
        ..EngineConfig::from_settings(&settings)
    };
    fakes.language = Some(Arc::new(router(&[Model::new(|_| 1e6)])));
    let engine = fakes.engine();
    let began = Instant::now();
    let outcome = engine
        .start(summarized([fakes.document("a.pdf", 2)]))
        .wait()
        .await;
    let DocumentEnd::Failed { error, .. } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!(error.kind, "language-deadline", "{error:?}");
    assert!(
        (50..60).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_withdraws_its_questions() {
    let mut fakes = book(0, |_| 1);
    let model = Model::new(|_| 1e6);
    fakes.language = Some(Arc::new(router(&[Arc::clone(&model)])));
    let engine = fakes.engine();
    let handle = engine.start(summarized([fakes.document("a.pdf", 20)]));
    while model.asked.lock().len() < 4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    handle.cancel();
    let outcome = handle.wait().await;
    assert_eq!(outcome.state, JobState::Cancelled);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(model.asked.lock().len(), 4, "nobody is asked any more");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_stopped_pays_for_no_finished_answer_twice() {
    let mut fakes = book(50, |_| 2);
    let model = Model::new(|_| 10.0);
    let answers = Arc::new(MemoryAnswers::new(1 << 20));
    let spec = JobSpec {
        id: JobId::new(),
        ..summarized([fakes.document("a.pdf", 30)])
    };
    let language = |model: &Arc<Model>| Answers::new(router(&[Arc::clone(model)]), Some(answers.clone()));
    fakes.language = Some(Arc::new(language(&model)));
    let engine = fakes.engine();
    let handle = engine.start(spec.clone());
    while model.asked.lock().len() < 40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.suspend(Duration::ZERO).await.unwrap();
    assert_eq!(handle.wait().await.state, JobState::Running);
    let finished = 36; // Four were under way.
    fakes.language = Some(Arc::new(language(&model)));
    let engine = fakes.engine();
    let before = model.asked.lock().len();
    let outcome = engine.start(spec).wait().await;
    assert_eq!(outcome.state, JobState::Done);
    // 30 chapters of two parts and what is made of them, and the book.
    let after = model.asked.lock().len() - before;
    assert_eq!(after, 30 * 3 + 1 - finished);
}

//! Nothing is asked twice.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::{Duration, Instant, sleep};
use weir_core::language::{
    Answer, AnswerCache, AnswerKey, Fault, LanguageError, LanguageModel, Question, QuestionKind,
};
use weir_core::page::EncodedImage;
use weir_core::{DocumentId, StorageError, TenantId};
use weir_llm::{Answers, MemoryAnswers, Router, RouterConfig};

use crate::fakes::{Fake, account, down, question, terms};

fn answers(fakes: &[&Arc<Fake>], kept: Option<Arc<dyn AnswerCache>>) -> Arc<Answers> {
    let members = fakes.iter().map(|fake| fake.member(terms(4))).collect();
    let config = RouterConfig {
        fail_when_down: true,
        ..RouterConfig::default()
    };
    Arc::new(Answers::new(Router::new(members, config), kept))
}

fn memory() -> Arc<dyn AnswerCache> {
    Arc::new(MemoryAnswers::new(1 << 20))
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_done_again_asks_nothing() {
    let (fake, kept) = (Fake::steady("m", 1.0), memory());
    let first = answers(&[&fake], Some(Arc::clone(&kept)));
    join_all((0..20).map(|i| first.ask(question(format!("{i}"))))).await;
    // Another router, as after a restart, with what was kept.
    let again = answers(&[&fake], Some(kept));
    let began = Instant::now();
    for (i, answer) in join_all((0..20).map(|i| again.ask(question(format!("{i}")))))
        .await
        .into_iter()
        .enumerate()
    {
        let answer = answer.unwrap();
        assert_eq!(
            (answer.text, answer.cached, answer.spent),
            (i.to_string(), true, Duration::ZERO)
        );
    }
    assert_eq!((fake.count(), began.elapsed()), (20, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn whatever_an_answer_depends_on_makes_another_question() {
    let fake = Fake::steady("m", 1.0);
    let answers = answers(&[&fake], Some(memory()));
    let base = question("text");
    let variants = [
        base.clone(),
        Question {
            prompt: "Of that: {text}".into(),
            ..base.clone()
        },
        Question {
            text: "tex".into(),
            prompt: "Of this: {text}t".into(),
            ..base.clone()
        },
        Question {
            max_tokens: 99,
            ..base.clone()
        },
        Question {
            system: Some(String::new()),
            ..base.clone()
        },
        Question {
            account: account("other", 1.0),
            ..base.clone()
        },
        Question {
            kind: weir_core::language::QuestionKind::Title,
            ..base.clone()
        },
    ];
    for variant in variants.iter().chain(&variants) {
        answers.ask(variant.clone()).await.unwrap();
    }
    assert_eq!(fake.count(), variants.len());
    // Who asks, how urgently and how patiently changes nothing of the answer.
    let mut same = base.clone();
    (same.patience, same.account.weight) = (Duration::from_secs(5), 7.0);
    assert!(answers.ask(same).await.unwrap().cached);
    let image = Question {
        image: Some(EncodedImage {
            media_type: "image/jpeg",
            bytes: Arc::from(*b"x"),
        }),
        ..base
    };
    assert_eq!(
        answers.ask(image).await.unwrap_err().kind(),
        "language-unavailable"
    );
}

#[tokio::test(start_paused = true)]
async fn equal_questions_at_one_time_are_one_call() {
    let fake = Fake::steady("m", 10.0);
    let answers = answers(&[&fake], None);
    let same = join_all((0..30).map(|_| answers.ask(question("same")))).await;
    assert_eq!(fake.count(), 1);
    assert_eq!(
        same.iter()
            .filter(|answer| answer.as_ref().unwrap().cached)
            .count(),
        29
    );
    // Nothing is kept: later it is asked again.
    answers.ask(question("same")).await.unwrap();
    assert_eq!(fake.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_one_caller_gives_up_costs_another_nothing() {
    let fake = Fake::steady("m", 10.0);
    let answers = answers(&[&fake], None);
    let leader = tokio::spawn({
        let answers = Arc::clone(&answers);
        async move { answers.ask(question("same")).await }
    });
    sleep(Duration::from_secs(1)).await;
    let follower = tokio::spawn({
        let answers = Arc::clone(&answers);
        async move { answers.ask(question("same")).await }
    });
    sleep(Duration::from_secs(1)).await;
    leader.abort();
    assert_eq!(follower.await.unwrap().unwrap().text, "same");
    assert_eq!(fake.count(), 2);

    // One that runs out of its time, too; and one that waits for another runs out of its own.
    let short = Question {
        patience: Duration::from_secs(3),
        ..question("late")
    };
    let began = Instant::now();
    let (first, second, third) = tokio::join!(
        answers.ask(short.clone()),
        answers.ask(question("late")),
        answers.ask(short),
    );
    assert_eq!(first.unwrap_err().kind(), "language-deadline");
    assert_eq!(third.unwrap_err().kind(), "language-deadline");
    assert_eq!(
        (second.unwrap().text.as_str(), began.elapsed().as_secs()),
        ("late", 13)
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_and_not_kept() {
    let fake = Fake::after("m", std::iter::repeat_n(down(), 3));
    let answers = answers(&[&fake], Some(memory()));
    let same = join_all((0..10).map(|_| answers.ask(question("same")))).await;
    assert!(
        same.iter()
            .all(|answer| answer.as_ref().unwrap_err().kind() == "language-down")
    );
    assert_eq!(fake.count(), 3);
    assert_eq!(answers.ask(question("same")).await.unwrap().text, "same");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_either_provider_is_found() {
    let (first, second) = (Fake::failing("first", down()), Fake::steady("second", 1.0));
    let answers = answers(&[&first, &second], Some(memory()));
    assert_eq!(answers.ask(question("x")).await.unwrap().model, "second");
    let asked = first.count();
    let again = answers.ask(question("x")).await.unwrap();
    assert_eq!(
        (again.cached, again.model.as_str(), first.count()),
        (true, "second", asked)
    );
}

/// A store that is out of order.
struct Broken;

#[async_trait]
impl AnswerCache for Broken {
    async fn get(&self, _: &TenantId, _: &AnswerKey) -> Result<Option<Answer>, StorageError> {
        Err(StorageError::Full {
            what: "answers".into(),
        })
    }

    async fn put(
        &self,
        _: &TenantId,
        _: &AnswerKey,
        _: Option<&DocumentId>,
        _: &Answer,
    ) -> Result<(), StorageError> {
        Err(StorageError::Full {
            what: "answers".into(),
        })
    }

    async fn remove(&self, _: &TenantId, _: &DocumentId) -> Result<(), StorageError> {
        Ok(())
    }

    async fn clear(&self, _: &TenantId) -> Result<(), StorageError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_cannot_be_kept_are_answers() {
    let fake = Fake::steady("m", 1.0);
    let answers = answers(&[&fake], Some(Arc::new(Broken)));
    for _ in 0..2 {
        assert_eq!(answers.ask(question("x")).await.unwrap().text, "x");
    }
    assert_eq!(fake.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_no_in_words_is_no_answer_and_is_not_kept() {
    const NO: &str = "I'm sorry, but I can't assist with that.";
    let fake = Fake::steady("m", 1.0);
    let answers = answers(&[&fake], Some(memory()));
    let asked = |kind| Question { kind, ..question(NO) };
    for tries in 1..=2 {
        let error = answers.ask(asked(QuestionKind::Page)).await.unwrap_err();
        assert_eq!(error, LanguageError::AllDown(vec![("m".into(), Fault::Declined)]));
        assert_eq!(fake.count(), tries);
    }
    let heard = answers.ask(asked(QuestionKind::Component)).await.unwrap();
    assert_eq!(heard.text, NO);
}

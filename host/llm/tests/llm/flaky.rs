//! The whole against real endpoints that fail in every way there is, in real time.

use std::time::{Duration, Instant};

use futures::future::join_all;
use weir_core::language::{LanguageError, LanguageModel, Question};
use weir_llm::{BreakerConfig, Member, Router, RouterConfig, Terms};

use crate::endpoint::{Act, Endpoint, asked};
use crate::fakes::{question, terms};

/// Time in which a breaker stays open at least.
const OPEN: Duration = Duration::from_millis(500);

fn config() -> RouterConfig {
    RouterConfig {
        pause: Duration::from_millis(10),
        max_pause: Duration::from_millis(100),
        breaker: Some(BreakerConfig {
            open: OPEN,
            ..BreakerConfig::default()
        }),
        ..RouterConfig::default()
    }
}

fn member(name: &str, endpoint: &Endpoint, concurrency: u32) -> Member {
    Member {
        name: name.into(),
        provider: std::sync::Arc::new(endpoint.provider()),
        terms: Terms {
            timeout: Duration::from_millis(800),
            ..terms(concurrency)
        },
    }
}

fn patient(text: String, seconds: u64) -> Question {
    Question {
        patience: Duration::from_secs(seconds),
        ..question(text)
    }
}

/// Every way to fail, one after the other.
fn trouble(number: usize) -> Act {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    match number % 12 {
        0 => Act::Status(429, vec![("retry-after", "0.1".into())], String::new()),
        1 => Act::Status(429, Vec::new(), String::new()),
        2 => Act::Status(500, Vec::new(), "broken".into()),
        3 => Act::Whole("garbage".into()),
        4 => Act::HalfStream,
        5 => Act::Whole(String::new()),
        6 => Act::Hangs,
        7 => Act::GoesSilent,
        8 => Act::HalfBody,
        9 => Act::Status(503, vec![("retry-after", date)], String::new()),
        10 => Act::Closes,
        _ => Act::Answer,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_bad_provider_every_question_has_its_own_answer() {
    // It recovers, and fails again.
    let bad = Endpoint::start(|number, _| {
        if (60..120).contains(&number) {
            Act::Answer
        } else {
            trouble(number)
        }
    })
    .await;
    let good = Endpoint::always(Act::AnswerAfter(Duration::from_millis(30))).await;
    let router = Router::new(vec![member("bad", &bad, 6), member("good", &good, 3)], config());
    let began = Instant::now();
    let answers = join_all((0..400).map(|i| router.ask(patient(format!("question {i}"), 60)))).await;
    let took = began.elapsed();
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap().text, format!("question {i}"));
    }
    assert!(
        bad.seen.peak() <= 6 && good.seen.peak() <= 3,
        "{} {}",
        bad.seen.peak(),
        good.seen.peak()
    );
    let stats = router.stats();
    let most = took.as_millis() / OPEN.as_millis() + 1;
    println!(
        "{} ms, left alone {} times, at most {most}",
        took.as_millis(),
        stats.providers[0].opened
    );
    assert!(
        stats.providers[0].opened >= 1 && u128::from(stats.providers[0].opened) <= most,
        "{stats:?}"
    );
    assert_eq!(stats.providers[1].opened, 0);
    // Nothing is asked of a provider again that has answered it.
    let of_good = good.seen.requests.lock();
    let mut texts: Vec<String> = of_good.iter().map(|request| asked(&request.body)).collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), of_good.len());
}

#[tokio::test]
async fn no_more_calls_a_minute_than_are_stated() {
    let endpoint = Endpoint::always(Act::Answer).await;
    let mut limited = member("limited", &endpoint, 4);
    limited.terms.requests_per_minute = 20;
    let router = Router::new(vec![limited], config());
    let answers = join_all((0..30).map(|i| router.ask(patient(format!("{i}"), 2)))).await;
    let answered = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((answered, endpoint.seen.count()), (20, 20));
    let late = answers
        .iter()
        .filter(|a| matches!(a, Err(LanguageError::Deadline { .. })))
        .count();
    assert_eq!(late, 10);
}

#[tokio::test]
async fn retry_after_is_honoured_on_the_wire() {
    let endpoint = Endpoint::start(|number, _| match number {
        0 => Act::Status(429, vec![("retry-after", "1".into())], String::new()),
        _ => Act::Answer,
    })
    .await;
    let router = Router::new(vec![member("only", &endpoint, 1)], config());
    let _ = join_all((0..5).map(|i| router.ask(patient(format!("{i}"), 10)))).await;
    let requests = endpoint.seen.requests.lock();
    assert_eq!(requests.len(), 6);
    let rest = requests[1].at.duration_since(requests[0].at);
    assert!(rest >= Duration::from_millis(990), "{rest:?}");
}

#[tokio::test]
async fn with_everything_down_it_fails_by_name_or_waits_until_one_recovers() {
    let began = Instant::now();
    let near = Endpoint::start(move |_, _| match began.elapsed() {
        early if early < Duration::from_millis(1500) => Act::Status(500, Vec::new(), "not yet".into()),
        _ => Act::Answer,
    })
    .await;
    let far = Endpoint::always(Act::Whole("garbage".into())).await;
    let members = || vec![member("near", &near, 4), member("far", &far, 4)];
    let failing = RouterConfig {
        fail_when_down: true,
        ..config()
    };
    let error = Router::new(members(), failing)
        .ask(patient("x".into(), 30))
        .await
        .unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("near failed with status 500: not yet") && words.contains("far answered what"),
        "{words}"
    );
    let router = Router::new(members(), config());
    let answers = join_all((0..20).map(|i| router.ask(patient(format!("{i}"), 30)))).await;
    for (i, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!((answer.text, answer.provider.as_str()), (i.to_string(), "near"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_pages_of_three_seconds_take_five_workers_six_seconds() {
    let endpoint = Endpoint::always(Act::AnswerAfter(Duration::from_secs(3))).await;
    let mut sees = member("sees", &endpoint, 5);
    sees.terms.timeout = Duration::from_secs(30);
    let router = Router::new(vec![sees], RouterConfig::default());
    let began = Instant::now();
    let answers = join_all((1..=10).map(|page| router.ask(patient(format!("page {page}"), 60)))).await;
    let seconds = began.elapsed().as_secs_f64();
    println!("10 pages of 3 s, 5 at a time: {seconds:.2} s");
    assert!(answers.iter().all(Result::is_ok));
    assert!((5.7..=6.3).contains(&seconds), "{seconds}");
    assert_eq!(endpoint.seen.peak(), 5);
}

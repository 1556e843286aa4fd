//! Providers that deny requests, and providers that requests wait for, in virtual time.

use std::io::Write as _;

use futures::future::join_all;
use tokio::time::{Duration, Instant, sleep};
use weir_core::language::{Fault, LanguageError, LanguageModel};
use weir_llm::{OpenAi, OpenAiConfig, Provider as _, Router, RouterConfig, Secret, Terms};

use crate::endpoint::{Act, Endpoint};
use crate::fakes::{Fake, denied, down, question, terms};

fn config() -> RouterConfig {
    RouterConfig {
        seed: Some(1),
        ..RouterConfig::default()
    }
}

/// Denies requests until so many seconds have passed, and answers after that.
fn denied_for(seconds: u64) -> std::sync::Arc<Fake> {
    let began = Instant::now();
    Fake::new("far", move |_, _| {
        let denies = began.elapsed() < Duration::from_secs(seconds);
        (
            Duration::from_secs(1),
            if denies { Err(denied()) } else { Ok(()) },
        )
    })
}

#[tokio::test(start_paused = true)]
async fn denied_requests_fail_at_once_and_are_not_repeated() {
    let far = denied_for(1_000_000);
    let router = Router::new(vec![far.member(terms(4))], config());
    let began = Instant::now();
    let outcomes = join_all((0..100).map(|i| router.ask(question(format!("{i}"))))).await;
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (
                "language-denied",
                "no language model answers: far: authentication failed (401): wrong key; check llm.provider.far.key_env or \
                 key_file"
            )
        );
    }
    assert_eq!(far.count(), 4, "only the calls that were under way together");
    assert_eq!(router.stats().providers[0].state, "denied");
    assert!(router.failing(false).is_empty(), "nobody waits for it");
}

#[tokio::test(start_paused = true)]
async fn denied_provider_is_asked_again_after_its_pause() {
    let far = denied_for(90);
    let router = Router::new(vec![far.member(terms(4))], config());
    router.ask(question("a")).await.unwrap_err();
    sleep(Duration::from_secs(61)).await;
    // One call tells that it still denies requests, and the others that came with it fail with it.
    let outcomes = join_all((0..10).map(|i| router.ask(question(format!("{i}"))))).await;
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(far.count(), 2);
    sleep(Duration::from_secs(61)).await;
    let outcomes = join_all((0..10).map(|i| router.ask(question(format!("{i}"))))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(router.stats().providers[0].state, "asked");
}

#[tokio::test(start_paused = true)]
async fn denied_pause_is_the_one_of_the_settings() {
    let far = denied_for(1_000_000);
    let short = RouterConfig {
        denied_pause: Duration::from_secs(2),
        ..config()
    };
    let router = Router::new(vec![far.member(terms(4))], short);
    router.ask(question("a")).await.unwrap_err();
    sleep(Duration::from_secs(3)).await;
    router.ask(question("b")).await.unwrap_err();
    assert_eq!(far.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn other_providers_are_asked_instead_of_a_denied_one() {
    let far = denied_for(1_000_000);
    let spare = Fake::steady("spare", 1.0);
    let saved = Terms {
        spare: true,
        ..terms(4)
    };
    let router = Router::new(vec![far.member(terms(1)), spare.member(saved)], config());
    let answers = join_all((0..20).map(|i| router.ask(question(format!("{i}"))))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().provider == "spare")
    );
    assert_eq!((far.count(), spare.count()), (1, 20));
}

#[tokio::test(start_paused = true)]
async fn outage_of_another_provider_is_waited_for_despite_a_denial() {
    let began = Instant::now();
    let near = Fake::new("near", move |_, _| {
        let outage = began.elapsed() < Duration::from_secs(1000);
        (Duration::from_secs(1), if outage { Err(down()) } else { Ok(()) })
    });
    let far = denied_for(1_000_000);
    let router = Router::new(vec![near.member(terms(1)), far.member(terms(1))], config());
    let asked = join_all((0..5).map(|i| router.ask(question(format!("{i}")))));
    let watched = async {
        sleep(Duration::from_secs(500)).await;
        router.failing(false)
    };
    let (answers, failing) = tokio::join!(asked, watched);
    for answer in answers {
        assert_eq!(answer.unwrap().provider, "near");
    }
    let failing: Vec<_> = failing
        .iter()
        .map(|f| (f.provider.as_str(), f.error.kind.as_str()))
        .collect();
    assert_eq!(failing, [("near", "server-error")]);
    // Once it fails at once, it fails with both.
    let both = RouterConfig {
        fail_when_down: true,
        ..config()
    };
    let near = Fake::failing("near", down());
    let router = Router::new(vec![near.member(terms(1)), far.member(terms(1))], both);
    let error = router.ask(question("a")).await.unwrap_err();
    assert!(
        matches!(&error, LanguageError::AllDown(faults) if faults.len() == 2),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn failing_provider_is_reported_with_since_and_last_error() {
    let began = Instant::now();
    let only = Fake::new("only", move |_, _| {
        let outage = (50..150).contains(&began.elapsed().as_secs());
        (
            Duration::from_secs(1),
            if outage { Err(Fault::BrokenOff) } else { Ok(()) },
        )
    });
    let router = Router::new(vec![only.member(terms(4))], config());
    let asked = join_all((0..800).map(|i| router.ask(question(format!("{i}")))));
    let watched = async {
        let mut seen = Vec::new();
        for _ in 0..100 {
            sleep(Duration::from_secs(5)).await;
            seen.push((began.elapsed().as_secs(), router.failing(false)));
        }
        seen
    };
    let (_, seen) = tokio::join!(asked, watched);
    assert!(
        seen.iter().all(|(at, failing)| *at >= 55 || failing.is_empty()),
        "{seen:?}"
    );
    let (_, first) = seen
        .iter()
        .find(|(_, failing)| !failing.is_empty())
        .expect("it is reported");
    assert_eq!(
        (first.len(), first[0].error.message.as_str()),
        (1, "broke off in the middle of its answer")
    );
    assert!(seen.last().unwrap().1.is_empty(), "it answers again: {seen:?}");
    assert!(router.failing(true).is_empty(), "it takes no images");
}

#[tokio::test]
async fn changed_key_file_is_used_by_the_next_call() {
    let endpoint = Endpoint::always(Act::Answer).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "first").unwrap();
    let provider = OpenAi::new(OpenAiConfig {
        key: Some(Secret::new("first").unwrap()),
        key_file: Some(file.path().to_owned()),
        ..endpoint.config()
    })
    .unwrap();
    provider.ask(&question("a")).await.unwrap();
    std::fs::write(file.path(), "second\n").unwrap();
    provider.ask(&question("b")).await.unwrap();
    file.close().unwrap();
    provider.ask(&question("c")).await.unwrap();
    let seen = endpoint.seen.requests.lock();
    let keys: Vec<_> = seen
        .iter()
        .map(|request| request.authorization.clone().unwrap())
        .collect();
    assert_eq!(keys, ["Bearer first", "Bearer second", "Bearer second"]);
}

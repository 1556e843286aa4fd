//! Providers that fail, in virtual time: what is tried again, where, how often, and for how long.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::{Duration, Instant, sleep};
use weir_core::language::{Fault, LanguageError, LanguageModel};
use weir_llm::{BreakerConfig, Router, RouterConfig, Terms, examine};

use crate::fakes::{Fake, denied, down, question, terms};

fn config() -> RouterConfig {
    RouterConfig {
        seed: Some(1),
        ..RouterConfig::default()
    }
}

fn failing() -> RouterConfig {
    RouterConfig {
        fail_when_down: true,
        ..config()
    }
}

fn limited(seconds: Option<u64>) -> Fault {
    Fault::RateLimited {
        after: seconds.map(Duration::from_secs),
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_tried_again_and_then_another_is_asked() {
    let first = Fake::after("first", [down(), Fault::BrokenOff]);
    let second = Fake::steady("second", 1.0);
    let router = Router::new(vec![first.member(terms(4)), second.member(terms(4))], config());
    let answer = router.ask(question("a")).await.unwrap();
    assert_eq!(
        (answer.provider.as_str(), first.count(), second.count()),
        ("first", 3, 0)
    );
    assert_eq!(answer.spent.as_secs(), 3);

    let first = Fake::failing("first", down());
    let router = Router::new(vec![first.member(terms(4)), second.member(terms(4))], config());
    let answer = router.ask(question("b")).await.unwrap();
    assert_eq!(
        (answer.provider.as_str(), first.count(), second.count()),
        ("second", 3, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn what_will_not_pass_is_not_tried_again() {
    for (fault, elsewhere) in [
        (denied(), true),
        (
            Fault::Refused {
                status: 400,
                reason: "long".into(),
            },
            true,
        ),
        (Fault::TooLong { needed: 9, room: 8 }, true),
        (Fault::NoAnswer, true),
        (Fault::Filtered, true),
        (Fault::Declined, true),
        (Fault::Parroted, true),
        (Fault::Looped, true),
        (Fault::CutShort, false),
    ] {
        let first = Fake::failing("first", fault.clone());
        let second = Fake::steady("second", 1.0);
        let router = Router::new(vec![first.member(terms(4)), second.member(terms(4))], config());
        let outcome = router.ask(question("a")).await;
        assert_eq!(
            (first.count(), second.count()),
            (1, usize::from(elsewhere)),
            "{fault:?}"
        );
        if !elsewhere {
            assert_eq!(
                outcome.unwrap_err().to_string(),
                "first did not end its answer within the tokens it has"
            );
        }
    }
    // Refused by all: nobody waits for that to change.
    let only = Fake::failing(
        "only",
        Fault::Refused {
            status: 400,
            reason: "long".into(),
        },
    );
    let router = Router::new(vec![only.member(terms(4))], config());
    let error = router.ask(question("a")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no language model answers: only does not take the question, with status 400: long"
    );
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_by_all_questions() {
    let only = Fake::after("only", [limited(Some(20))]);
    let router = Router::new(vec![only.member(terms(1))], config());
    let began = Instant::now();
    let answers = join_all((0..5).map(|i| router.ask(question(format!("{i}"))))).await;
    assert!(answers.iter().all(Result::is_ok));
    let calls: Vec<_> = only
        .calls()
        .iter()
        .map(|(at, _)| at.duration_since(began).as_secs())
        .collect();
    assert_eq!(
        calls,
        [0, 21, 22, 23, 24, 25],
        "a second of the first, then twenty of nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn while_one_rests_another_is_asked_at_once() {
    let first = Fake::failing("first", limited(Some(600)));
    let second = Fake::steady("second", 1.0);
    let router = Router::new(vec![first.member(terms(4)), second.member(terms(4))], config());
    let began = Instant::now();
    let answer = router.ask(question("a")).await.unwrap();
    assert_eq!(
        (answer.provider.as_str(), began.elapsed().as_secs()),
        ("second", 2)
    );
    assert_eq!(first.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_retry_after_pauses_grow() {
    let only = Fake::after("only", std::iter::repeat_n(limited(None), 12));
    let router = Router::new(vec![only.member(terms(4))], config());
    let answer = router.ask(question("a")).await.unwrap();
    assert_eq!(only.count(), 13);
    assert!(answer.waited > Duration::from_secs(30), "{:?}", answer.waited);
}

#[tokio::test(start_paused = true)]
async fn with_all_down_it_fails_at_once_and_names_them_or_waits_as_is_set() {
    let members = || {
        let near = Fake::failing("near", Fault::Unreachable("connection refused".into()));
        let far = Fake::failing("far", down());
        vec![near.member(terms(4)), far.member(terms(4))]
    };
    let router = Router::new(members(), failing());
    let error = router.ask(question("a")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no language model answers: near cannot be reached: connection refused; far failed with status 500: down"
    );
    // Once both are left alone, nobody is even asked.
    let _ = join_all((0..20).map(|i| router.ask(question(format!("{i}"))))).await;
    let calls: u64 = router.stats().providers.iter().map(|p| p.calls).sum();
    let began = Instant::now();
    let error = router.ask(question("b")).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), ("language-down", Duration::ZERO));
    assert!(
        error.to_string().contains("near") && error.to_string().contains("far"),
        "{error}"
    );
    assert_eq!(
        router.stats().providers.iter().map(|p| p.calls).sum::<u64>(),
        calls
    );

    let router = Router::new(members(), config());
    let mut hour = question("a");
    hour.patience = Duration::from_secs(3600);
    let began = Instant::now();
    let error = router.ask(hour).await.unwrap_err();
    assert_eq!(
        (error.kind(), began.elapsed().as_secs()),
        ("language-deadline", 3600)
    );
    assert!(
        error.to_string().contains("near") && error.to_string().contains("far"),
        "{error}"
    );
    let calls: u64 = router.stats().providers.iter().map(|p| p.calls).sum();
    assert!(calls < 80, "an hour of trouble is no hour of calls: {calls}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_answered_when_a_provider_recovers() {
    let began = Instant::now();
    let only = Fake::new("only", move |_, _| {
        let down_yet = began.elapsed() < Duration::from_secs(1000);
        (
            Duration::from_secs(1),
            if down_yet { Err(down()) } else { Ok(()) },
        )
    });
    let router = Router::new(vec![only.member(terms(4))], config());
    let answers = join_all((0..50).map(|i| router.ask(question(format!("{i}"))))).await;
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap().text, i.to_string());
    }
    // 120, then 240, 480 and 960 seconds of being left alone.
    assert!(
        began.elapsed() < Duration::from_secs(2200),
        "{:?}",
        began.elapsed()
    );
    let stats = router.stats().providers.remove(0);
    assert!(stats.opened <= 4 && stats.failed < 40, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_outlives_its_deadline_and_nothing_is_left_of_it() {
    let only = Fake::silent("only");
    let router = Arc::new(Router::new(vec![only.member(terms(2))], config()));
    let asked = (0..10).map(|i| {
        let mut question = question(format!("{i}"));
        question.patience = Duration::from_secs(10 + i);
        router.ask(question)
    });
    let began = Instant::now();
    let errors = join_all(asked).await;
    assert_eq!(began.elapsed().as_secs(), 19);
    assert!(
        errors
            .iter()
            .all(|e| matches!(e, Err(LanguageError::Deadline { .. })))
    );
    let busy = errors[9].as_ref().unwrap_err().to_string();
    assert_eq!(busy, "no answer within 19 s: every language model was busy");
    assert_eq!(only.busy(), 0);
    let stats = router.stats();
    assert_eq!((stats.waiting, stats.providers[0].busy), (0, 0));
    assert_eq!(stats.providers[0].withdrawn, only.count() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_question_gives_back_its_call_and_its_place() {
    let only = Fake::steady("only", 10.0);
    let router = Arc::new(Router::new(vec![only.member(terms(2))], config()));
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let router = Arc::clone(&router);
            tokio::spawn(async move { router.ask(question(format!("{i}"))).await })
        })
        .collect();
    sleep(Duration::from_secs(5)).await;
    assert_eq!((router.stats().waiting, only.busy()), (18, 2));
    for task in &tasks[..19] {
        task.abort();
    }
    let began = Instant::now();
    let answer = tasks.into_iter().next_back().unwrap().await.unwrap().unwrap();
    assert_eq!((answer.text.as_str(), began.elapsed().as_secs()), ("19", 10));
    assert_eq!((router.stats().waiting, only.count()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_slow_provider_is_left_alone_only_if_another_can_answer() {
    let slow = || Fake::steady("slow", 40.0);
    let alone = Router::new(vec![slow().member(terms(4))], config());
    let _ = join_all((0..100).map(|i| alone.ask(question(format!("{i}"))))).await;
    assert_eq!(alone.stats().providers[0].opened, 0);

    let quick = Fake::steady("quick", 5.0);
    let router = Router::new(vec![slow().member(terms(4)), quick.member(terms(4))], config());
    let _ = join_all((0..500).map(|i| router.ask(question(format!("{i}"))))).await;
    let stats = router.stats();
    // Once as it was slow, and twice as it was when it was tried.
    assert_eq!((stats.providers[0].opened, stats.providers[1].opened), (3, 0));
    assert!(quick.count() > 400, "{}", quick.count());
}

#[tokio::test(start_paused = true)]
async fn a_spare_provider_is_asked_only_in_need() {
    let began = Instant::now();
    let usual = Fake::new("usual", move |_, _| {
        let down_now = (100..150).contains(&began.elapsed().as_secs());
        (
            Duration::from_secs(1),
            if down_now { Err(down()) } else { Ok(()) },
        )
    });
    let spare = Fake::steady("spare", 1.0);
    let spare_terms = Terms {
        spare: true,
        ..terms(4)
    };
    // First in the settings, and still spare.
    let router = Router::new(vec![spare.member(spare_terms), usual.member(terms(4))], config());
    let _ = join_all((0..2000).map(|i| {
        let router = &router;
        async move {
            sleep(Duration::from_millis(i * 500)).await;
            router.ask(question(format!("{i}"))).await.unwrap()
        }
    }))
    .await;
    let asked: Vec<u64> = spare
        .calls()
        .iter()
        .map(|(at, _)| at.duration_since(began).as_secs())
        .collect();
    assert!(asked.iter().all(|at| (100..240).contains(at)), "{asked:?}");
    assert!(asked.len() > 150, "{}", asked.len());
    assert_eq!(router.stats().providers[1].opened, 1);
}

#[tokio::test(start_paused = true)]
async fn providers_change_no_more_often_than_they_may() {
    // Two providers that fail and recover at random, for hours.
    let began = Instant::now();
    let flaky = |model, seed: u64| {
        Fake::new(model, move |_, _| {
            let phase = began.elapsed().as_secs() / 97 + seed;
            let bad = phase.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1;
            (Duration::from_secs(2), if bad { Err(down()) } else { Ok(()) })
        })
    };
    let (one, two) = (flaky("one", 1), flaky("two", 1000));
    let large = RouterConfig {
        queue: 5000,
        ..config()
    };
    let router = Router::new(vec![one.member(terms(4)), two.member(terms(4))], large);
    let answers = join_all((0..5000).map(|i| {
        let router = &router;
        async move {
            sleep(Duration::from_secs(4 * i)).await;
            router
                .ask(question(format!("{i}")))
                .await
                .map(|answer| answer.text)
        }
    }))
    .await;
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), i.to_string(), "no answer is lost or another's");
    }
    let most = began.elapsed().as_secs() / BreakerConfig::default().open.as_secs() + 1;
    for provider in router.stats().providers {
        println!(
            "{}: left alone {} times, at most {most}",
            provider.name, provider.opened
        );
        assert!(provider.opened > 2 && provider.opened <= most, "{provider:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_provider_is_examined_by_itself() {
    let members = [
        Fake::steady("well", 2.0).member(terms(1)),
        Fake::failing("verbose", Fault::CutShort).member(terms(1)),
        Fake::failing("down", down()).member(terms(1)),
        Fake::silent("silent").member(terms(1)),
    ];
    let found = examine(&members).await;
    let found: Vec<String> = found
        .into_iter()
        .map(|one| match one.outcome {
            Ok(took) => format!("{} {} s", one.name, took.as_secs()),
            Err(fault) => format!("{} {fault}", one.name),
        })
        .collect();
    let expected = [
        "well 2 s",
        "verbose 1 s",
        "down failed with status 500: down",
        "silent did not answer within 30 s",
    ];
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_when_it_is_tried_is_not_well_again() {
    let began = Instant::now();
    let hangs = Fake::new("hangs", move |_, _| match began.elapsed() {
        early if early < Duration::from_secs(60) => (Duration::from_secs(1), Err(down())),
        _ => (Duration::from_secs(1_000_000), Ok(())),
    });
    let mut member = hangs.member(terms(4));
    member.terms.timeout = Duration::from_secs(3600);
    let router = Router::new(vec![member], config());
    let impatient = |i: u64| {
        let mut question = question(format!("{i}"));
        question.patience = Duration::from_secs(40);
        let router = &router;
        async move {
            // Some at first, to find out that it is down, and then one now and then.
            sleep(Duration::from_secs(100 * i.saturating_sub(4))).await;
            router.ask(question).await
        }
    };
    let answers = join_all((0..20).map(impatient)).await;
    assert!(answers.iter().all(Result::is_err));
    let stats = router.stats().providers.remove(0);
    assert!(
        stats.opened >= 2,
        "what is withdrawn after 40 s does not close it: {stats:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_question_that_one_chokes_on_again_and_again_while_it_answers_others_is_given_up() {
    let broken = || Fault::Server {
        status: 500,
        reason: "cannot decode the image".into(),
        after: None,
    };
    let only = Fake::new("only", move |question, _| {
        let outcome = if question.text == "bad" {
            Err(broken())
        } else {
            Ok(())
        };
        (Duration::from_secs(1), outcome)
    });
    let router = Router::new(vec![only.member(terms(4))], config());
    let others = async {
        for i in 0..600 {
            router.ask(question(format!("{i}"))).await.unwrap();
        }
    };
    let (outcome, ()) = tokio::join!(router.ask(question("bad")), others);
    assert_eq!(
        outcome.unwrap_err().to_string(),
        "no language model answers: only failed with status 500: cannot decode the image"
    );
    let asked = only.calls().iter().filter(|(_, text)| text == "bad").count();
    assert_eq!(asked, 12);
    // Alone it cannot be told from a provider that is down, and that is waited for.
    let mut alone = question("bad");
    alone.patience = Duration::from_secs(1000);
    let error = router.ask(alone).await.unwrap_err();
    assert!(matches!(error, LanguageError::Deadline { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_spare_one_answers_what_nobody_else_can_and_nothing_else() {
    let first = Fake::new("first", |question, _| {
        let outcome = if question.text == "bad" {
            Err(Fault::Looped)
        } else {
            Ok(())
        };
        (Duration::from_secs(1), outcome)
    });
    let spare = Fake::steady("spare", 1.0);
    let saved = Terms {
        spare: true,
        ..terms(4)
    };
    let router = Router::new(vec![first.member(terms(1)), spare.member(saved)], config());
    let asked = (0..20).map(|i| if i == 7 { "bad".into() } else { format!("{i}") });
    let answers = join_all(asked.map(|text| router.ask(question(text)))).await;
    let by_spare: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().unwrap())
        .filter(|answer| answer.provider == "spare")
        .map(|answer| answer.text.as_str())
        .collect();
    assert_eq!((by_spare, first.count(), spare.count()), (vec!["bad"], 20, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_paid_for_and_says_nothing_against_the_provider() {
    let only = Fake::steady("only", 1.0);
    let router = Router::new(vec![only.member(terms(4))], config());
    let error = router
        .ask(question("I'm sorry, but I can't assist with that."))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        LanguageError::AllDown(vec![("only".into(), Fault::Declined)])
    );
    let stats = &router.stats().providers[0];
    assert_eq!(
        (
            stats.calls,
            stats.failed,
            stats.prompt_tokens,
            stats.answer_tokens
        ),
        (1, 0, 1000, 100)
    );
}

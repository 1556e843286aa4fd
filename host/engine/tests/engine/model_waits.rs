//! Jobs whose language models deny requests or fail for a while, with the real router.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use weir_core::decision::{PageRoute, Question as Asked, Reading, SummaryPlan, Verdict};
use weir_core::event::{Event, EventKind};
use weir_core::language::{Denial, Fault, Question};
use weir_core::ledger::JobState;
use weir_engine::{DocumentEnd, JobSpec};
use weir_llm::{Member, Provider, Reply, Router, RouterConfig, Terms};

use crate::fakes::{Fakes, everything, job};
use crate::flow::follow;

/// Fails until a time, and answers after it.
struct Failing {
    fault: Fault,
    until: Instant,
}

#[async_trait]
impl Provider for Failing {
    fn model(&self) -> &'static str {
        "fake"
    }

    fn sees(&self) -> bool {
        true
    }

    async fn ask(&self, _: &Question) -> Result<Reply, Fault> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if Instant::now() < self.until {
            return Err(self.fault.clone());
        }
        Ok(Reply {
            text: "It says what it says.".into(),
            ..Reply::default()
        })
    }
}

/// A host whose only language model fails for so many seconds.
fn fakes(fault: Fault, seconds: u64) -> Fakes {
    let mut fakes = Fakes::new();
    fakes.script.summarize = Arc::new(|_| {
        Ok(SummaryPlan::Single(Asked {
            prompt: "{text}".into(),
            max_tokens: 100,
        }))
    });
    let member = Member {
        name: "far".into(),
        provider: Arc::new(Failing {
            fault,
            until: Instant::now() + Duration::from_secs(seconds),
        }),
        terms: Terms::default(),
    };
    fakes.language = Some(Arc::new(Router::new(vec![member], RouterConfig::default())));
    fakes
}

fn denied() -> Fault {
    Fault::Denied {
        status: 401,
        denial: Denial::Authentication,
        reason: "no such key".into(),
    }
}

fn waits(events: &[Event]) -> Vec<&EventKind> {
    let is_wait = |kind: &&EventKind| {
        matches!(
            kind,
            EventKind::ModelWaitStarted { .. } | EventKind::ModelWaitEnded {}
        )
    };
    events.iter().map(|event| &event.what).filter(is_wait).collect()
}

#[tokio::test(start_paused = true)]
async fn summaries_that_are_denied_fail_at_once_and_pages_stay() {
    let fakes = fakes(denied(), 1_000_000);
    let engine = fakes.engine();
    let began = Instant::now();
    let handle = engine.start(JobSpec {
        summarize: true,
        ..job([fakes.document("a.pdf", 5)])
    });
    let (events, outcome) = follow(&handle).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let DocumentEnd::Failed { error, done: 5 } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!(error.kind, "language-denied");
    assert!(
        error.message.ends_with(
            "far: authentication failed (401): no such key; check llm.provider.far.key_env or key_file"
        ),
        "{error:?}"
    );
    assert!(waits(&events).is_empty());
    fakes.assert_whole("a.pdf", 5).await;
}

#[tokio::test(start_paused = true)]
async fn pages_that_are_denied_fail_by_name_without_retries() {
    let mut fakes = fakes(denied(), 1_000_000);
    fakes.script.route = Arc::new(|_| {
        Ok(PageRoute {
            reading: Reading::VisionModel,
            ..everything()
        })
    });
    fakes.script.judge = Arc::new(|_| Ok(Verdict::RetryAfter(60_000)));
    let engine = fakes.engine();
    let began = Instant::now();
    let handle = engine.start(job([fakes.document("a.pdf", 30)]));
    let (events, outcome) = follow(&handle).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let DocumentEnd::Done { failed, .. } = &outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    assert_eq!(failed.len(), 30);
    assert!(
        failed.iter().all(|page| page.error.kind == "language-denied"),
        "{failed:?}"
    );
    let retried = |event: &&Event| matches!(event.what, EventKind::PageRetried { .. });
    assert_eq!(events.iter().filter(retried).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn job_that_waits_for_a_provider_says_so_in_its_events() {
    let fault = Fault::Unreachable("connection refused".into());
    let fakes = fakes(fault, 300);
    let engine = fakes.engine();
    let handle = engine.start(JobSpec {
        summarize: true,
        ..job([fakes.document("a.pdf", 5)])
    });
    let (events, outcome) = follow(&handle).await;
    assert_eq!(outcome.state, JobState::Done);
    let waits = waits(&events);
    let [
        EventKind::ModelWaitStarted { providers },
        EventKind::ModelWaitEnded {},
    ] = waits.as_slice()
    else {
        panic!("{waits:?}");
    };
    let [far] = providers.as_slice() else {
        panic!("{providers:?}");
    };
    assert_eq!(
        (far.provider.as_str(), far.error.kind.as_str()),
        ("far", "unreachable")
    );
    assert_eq!(far.error.message, "cannot be reached: connection refused");
    assert!(far.since_millis > 0);
    let began = events
        .iter()
        .find(|event| matches!(event.what, EventKind::ModelWaitStarted { .. }));
    let at = began.unwrap().at_millis / 1000;
    assert!((5..60).contains(&at), "after {at} s");
}

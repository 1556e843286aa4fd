//! Providers that are made up, and questions for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::{Duration, Instant, sleep};
use weir_core::Lane;
use weir_core::language::{Denial, Fault, Question, QuestionKind};
use weir_core::ports::Account;
use weir_llm::{Member, Provider, Reply, Terms};

/// What a provider does with a call: takes so long, and then this.
pub(crate) type Act = (Duration, Result<(), Fault>);
type Plan = Box<dyn FnMut(&Question, u32) -> Act + Send>;

/// Answers with the question's text, as planned.
pub(crate) struct Fake {
    model: &'static str,
    sees: bool,
    plan: Mutex<Plan>,
    busy: AtomicU32,
    peak: AtomicU32,
    calls: Mutex<Vec<(Instant, String)>>,
}

/// A call under way.
struct Busy<'a>(&'a AtomicU32);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fake {
    /// The plan is given the question and how many calls are under way with it.
    pub(crate) fn new(
        model: &'static str,
        plan: impl FnMut(&Question, u32) -> Act + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            model,
            sees: false,
            plan: Mutex::new(Box::new(plan)),
            busy: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            calls: Mutex::default(),
        })
    }

    /// Answers after so many seconds.
    pub(crate) fn steady(model: &'static str, seconds: f64) -> Arc<Self> {
        Self::new(model, move |_, _| (Duration::from_secs_f64(seconds), Ok(())))
    }

    /// These first, and then answers, each after a second.
    pub(crate) fn after(model: &'static str, faults: impl IntoIterator<Item = Fault>) -> Arc<Self> {
        let mut faults: VecDeque<Fault> = faults.into_iter().collect();
        Self::new(model, move |_, _| {
            (Duration::from_secs(1), faults.pop_front().map_or(Ok(()), Err))
        })
    }

    /// Fails always, after a second.
    pub(crate) fn failing(model: &'static str, fault: Fault) -> Arc<Self> {
        Self::new(model, move |_, _| (Duration::from_secs(1), Err(fault.clone())))
    }

    /// Never answers.
    pub(crate) fn silent(model: &'static str) -> Arc<Self> {
        Self::steady(model, 1e9)
    }

    /// When it was asked what.
    pub(crate) fn calls(&self) -> Vec<(Instant, String)> {
        self.calls.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.calls.lock().len()
    }

    /// Most calls that were under way at once.
    pub(crate) fn peak(&self) -> u32 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Calls under way.
    pub(crate) fn busy(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    /// As a member of a router, under its model's name.
    pub(crate) fn member(self: &Arc<Self>, terms: Terms) -> Member {
        Member {
            name: self.model.into(),
            provider: Arc::<Self>::clone(self),
            terms,
        }
    }
}

#[async_trait]
impl Provider for Fake {
    fn model(&self) -> &str {
        self.model
    }

    fn sees(&self) -> bool {
        self.sees
    }

    async fn ask(&self, question: &Question) -> Result<Reply, Fault> {
        let busy = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
        let _busy = Busy(&self.busy);
        self.peak.fetch_max(busy, Ordering::Relaxed);
        self.calls.lock().push((Instant::now(), question.text.clone()));
        let (takes, outcome) = (self.plan.lock())(question, busy);
        sleep(takes).await;
        outcome.map(|()| Reply {
            text: question.text.clone(),
            quotes: Vec::new(),
            prompt_tokens: Some(1000),
            answer_tokens: Some(100),
        })
    }
}

pub(crate) fn account(tenant: &str, weight: f64) -> Account {
    Account {
        tenant: tenant.parse().unwrap(),
        lane: Lane::Bulk,
        linger: Duration::ZERO,
        weight,
    }
}

/// A question of which a fake answers the text, that may take a day.
pub(crate) fn question(text: impl Into<String>) -> Question {
    Question {
        account: account("one", 1.0),
        kind: QuestionKind::Map,
        system: None,
        prompt: "Of this: {text}".into(),
        text: text.into(),
        image: None,
        max_tokens: 100,
        patience: Duration::from_secs(86_400),
        document: None,
    }
}

pub(crate) fn terms(concurrency: u32) -> Terms {
    Terms {
        concurrency,
        ..Terms::default()
    }
}

pub(crate) fn down() -> Fault {
    Fault::Server {
        status: 500,
        reason: "down".into(),
        after: None,
    }
}

pub(crate) fn denied() -> Fault {
    Fault::Denied {
        status: 401,
        denial: Denial::Authentication,
        reason: "wrong key".into(),
    }
}

//! The one place that tries again.
//!
//! A question waits its turn, is put to a provider, and if that fails, pauses and is put to the same one again; after so many
//! tries to another. When all have failed at it, it waits for one to recover, or fails, as is set. All of it is one future
//! with one deadline around it: what the deadline or its caller ends is dropped, and dropping gives back the place in the queue
//! or the call under way.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout};
use weir_core::TenantId;
use weir_core::language::{Answer, FailingProvider, Fault, LanguageError, LanguageModel, Question};

use crate::backoff::Backoff;
use crate::breaker::BreakerConfig;
use crate::course::{Course, course, may_be_the_questions, passes};
use crate::desk::Desk;
use crate::dispatch::{Shared, Turn, Wish};
use crate::fair::QuestionId;
use crate::nonanswer;
use crate::permit::{InQueue, Pausing, Permit};
use crate::provider::{Member, Reply};
use crate::stats::RouterStats;

/// Bytes of a token, roughly, where nobody has counted.
const BYTES_PER_TOKEN: u64 = 4;
/// Failures in a row after which the question is thought to be why, if the provider has answered as many others meanwhile. A
/// provider that fails every third time by itself does so in 1 of 500,000 questions.
const ITS_OWN: u32 = 12;
/// Tokens of an image, roughly.
const TOKENS_PER_IMAGE: u64 = 1500;

/// How questions are routed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouterConfig {
    /// Questions of one tenant that may wait.
    pub queue: usize,
    /// Questions of one tenant at which those who ask many slow down.
    pub slow_at: usize,
    /// Tries at one provider before another is asked.
    pub tries: u32,
    /// Longest pause before the second try.
    pub pause: Duration,
    /// Longest pause.
    pub max_pause: Duration,
    /// Whether a question fails when every provider has failed at it; else it waits.
    pub fail_when_down: bool,
    /// When a provider is left alone; `None`: never.
    pub breaker: Option<BreakerConfig>,
    /// Whether fewer calls are made than a provider allows where more would not help.
    pub adaptive: bool,
    /// How long a provider that has denied a call is not asked.
    pub denied_pause: Duration,
    /// Makes pauses the same every time.
    pub seed: Option<u64>,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            queue: 1000,
            slow_at: 800,
            tries: 3,
            pause: Duration::from_secs(1),
            max_pause: Duration::from_secs(30),
            fail_when_down: false,
            breaker: Some(BreakerConfig::default()),
            adaptive: true,
            denied_pause: Duration::from_secs(60),
            seed: None,
        }
    }
}

/// Puts questions to providers.
pub struct Router {
    config: RouterConfig,
    members: Vec<Member>,
    shared: Arc<Shared>,
    dispatcher: OnceLock<JoinHandle<()>>,
}

impl Router {
    /// Providers in the order in which they are preferred. It starts nothing until it is asked.
    pub fn new(members: Vec<Member>, config: RouterConfig) -> Self {
        let now = Instant::now();
        let desks = members
            .iter()
            .map(|member| Desk::new(member, &config, now))
            .collect();
        let backoff = Backoff::new(config.pause, config.max_pause, config.seed);
        Self {
            shared: Arc::new(Shared::new(desks, config.fail_when_down, backoff, config.queue)),
            config,
            members,
            dispatcher: OnceLock::new(),
        }
    }

    /// How it and its providers are.
    pub fn stats(&self) -> RouterStats {
        self.shared.stats()
    }

    /// The providers.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Which providers may answer a question, in their order.
    fn suited(&self, question: &Question) -> Result<Vec<bool>, LanguageError> {
        let sees = question.image.is_some();
        let suited: Vec<bool> = self.members.iter().map(|m| !sees || m.provider.sees()).collect();
        if suited.contains(&true) {
            return Ok(suited);
        }
        let (what, remedy) = if self.members.is_empty() {
            ("questions", "give one as [[llm.provider]] in weir.toml")
        } else {
            ("images", "set vision = true of a provider whose model takes them")
        };
        Err(LanguageError::Unavailable {
            what: what.into(),
            remedy: remedy.into(),
        })
    }

    /// Waits for a turn.
    async fn turn(&self, question: &Question, id: QuestionId, wish: Wish) -> Option<Permit> {
        let told = self.shared.enqueue(&question.account, id, wish);
        let _place = InQueue {
            shared: &self.shared,
            account: &question.account,
            id,
        };
        match told.await {
            Ok(Turn::Granted(permit)) => Some(permit),
            // The dispatcher outlives every question, so it is never silent.
            Ok(Turn::AllDown) | Err(_) => None,
        }
    }

    async fn pursue(
        &self,
        question: &Question,
        suited: &[bool],
        way: &mut Way,
    ) -> Result<Answer, LanguageError> {
        let id = self.shared.name_question(question.kind);
        let tokens = estimate(question);
        let mut wish = Wish {
            may: suited.to_vec(),
            again: None,
            tokens,
        };
        let mut tries = vec![0; self.members.len()];
        let mut rounds = 0;
        loop {
            if let Some(permit) = self.turn(question, id, wish.clone()).await {
                let at = permit.member;
                let Some(member) = self.members.get(at) else {
                    continue;
                };
                let fault = match way.call(member, question, permit).await {
                    Ok(reply) => return Ok(way.arrive(member, reply)),
                    Err(fault) => fault,
                };
                way.failed(at, fault.clone(), self.shared.answered(at));
                let spent = tries.get_mut(at).map_or(u32::MAX, |tries| {
                    *tries += 1;
                    *tries
                });
                match course(&fault) {
                    Course::GiveUp => {
                        let provider = member.name.clone();
                        return Err(LanguageError::Provider { provider, fault });
                    }
                    Course::Again if spent < self.config.tries => {
                        // A provider that rests is waited for in the queue, where another may be found instead.
                        let rests = matches!(
                            fault,
                            Fault::RateLimited { .. } | Fault::Server { after: Some(_), .. }
                        );
                        wish.again = (!rests).then_some(at);
                        let _pausing = Pausing::begin(&self.shared, at);
                        if !rests {
                            sleep(self.shared.backoff.after(spent)).await;
                        }
                        continue;
                    }
                    Course::Again | Course::Elsewhere => {}
                }
                wish.again = None;
                if let Some(may) = wish.may.get_mut(at) {
                    *may = false;
                }
            } else if self.config.fail_when_down {
                return Err(LanguageError::AllDown(self.shared.down(suited)));
            } else {
                // Those that are left deny requests. Others, which failed at it before, may recover.
                for (at, fault) in self.shared.denials(&wish.may) {
                    way.failed(at, fault, self.shared.answered(at));
                }
                wish.may.fill(false);
            }
            if wish.may.contains(&true) {
                self.shared.measures.elsewhere.increment(1);
                continue;
            }
            let may_again = way.may_again(suited, |at| self.shared.answered(at));
            if self.config.fail_when_down || !may_again.contains(&true) {
                return Err(LanguageError::AllDown(way.faults(&self.members)));
            }
            wish.may = may_again;
            tries.fill(0);
            rounds += 1;
            sleep(self.shared.backoff.after(rounds)).await;
        }
    }
}

#[async_trait]
impl LanguageModel for Router {
    async fn ask(&self, question: Question) -> Result<Answer, LanguageError> {
        let suited = self.suited(&question)?;
        let waiting = self.shared.waiting_of(&question.account.tenant);
        if waiting >= self.config.queue {
            return Err(LanguageError::Full { waiting });
        }
        self.dispatcher
            .get_or_init(|| tokio::spawn(Arc::clone(&self.shared).serve()));
        let mut way = Way::begin();
        let outcome = timeout(question.patience, self.pursue(&question, &suited, &mut way)).await;
        let result = outcome.unwrap_or_else(|_elapsed| {
            Err(LanguageError::Deadline {
                seconds: question.patience.as_secs(),
                faults: way.faults(&self.members),
            })
        });
        let waited = way.waited();
        self.shared.measures.ended(question.kind, waited, way.spent);
        result
    }

    fn sees(&self) -> bool {
        self.members.iter().any(|member| member.provider.sees())
    }

    fn failing(&self, image: bool) -> Vec<FailingProvider> {
        let suited: Vec<bool> = self
            .members
            .iter()
            .map(|member| !image || member.provider.sees())
            .collect();
        self.shared.failing(&suited)
    }

    fn workers(&self) -> u32 {
        self.shared.workers()
    }

    async fn room(&self, tenant: &TenantId) {
        self.shared.fewer_than(tenant, self.config.slow_at.max(1)).await;
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Some(dispatcher) = self.dispatcher.get() {
            dispatcher.abort();
        }
    }
}

/// What a question has been through.
struct Way {
    began: Instant,
    spent: Duration,
    /// Of each provider that was tried.
    failures: Vec<Failures>,
}

/// A provider's failures at a question.
struct Failures {
    /// Its place.
    at: usize,
    /// The last of them.
    fault: Fault,
    /// How many in a row may have been the question's.
    count: u32,
    /// Calls that it had answered before these.
    answered: u64,
}

impl Way {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            spent: Duration::ZERO,
            failures: Vec::new(),
        }
    }

    fn waited(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.spent)
    }

    /// One call.
    async fn call(&mut self, member: &Member, question: &Question, permit: Permit) -> Result<Reply, Fault> {
        let began = Instant::now();
        let limit = member.terms.timeout;
        let result = match timeout(limit, member.provider.ask(question)).await {
            Ok(Ok(reply)) if reply.text.trim().is_empty() => Err(Fault::Empty),
            Ok(result) => result,
            Err(_elapsed) => Err(Fault::Late {
                seconds: limit.as_secs(),
            }),
        };
        self.spent += began.elapsed();
        match &result {
            Ok(reply) => permit.answered(reply),
            Err(fault) => permit.failed(fault),
        }
        // Whatever it said, the provider is well, and its tokens are spent.
        let reply = result?;
        nonanswer::fault(question, &reply).map_or(Ok(reply), Err)
    }

    /// A provider, which has answered so many calls of others by now, has failed.
    fn failed(&mut self, at: usize, fault: Fault, answered: u64) {
        let its_own = may_be_the_questions(&fault);
        let known = self.failures.iter().position(|failures| failures.at == at);
        let before = known.map(|place| self.failures.remove(place));
        let (count, answered) = before
            .filter(|before| its_own && before.count > 0)
            .map_or((0, answered), |before| (before.count, before.answered));
        self.failures.push(Failures {
            at,
            fault,
            count: count + u32::from(its_own),
            answered,
        });
    }

    fn faults(&self, members: &[Member]) -> Vec<(String, Fault)> {
        let named = |failed: &Failures| Some((members.get(failed.at)?.name.clone(), failed.fault.clone()));
        self.failures.iter().filter_map(named).collect()
    }

    /// Which of the suited providers may answer it yet, when all have failed. `answered` says how many calls one has by now.
    fn may_again(&self, suited: &[bool], answered: impl Fn(usize) -> u64) -> Vec<bool> {
        let failures = |at: usize| self.failures.iter().find(|failures| failures.at == at);
        let hopeless = |at: usize| {
            failures(at).is_some_and(|failures| {
                let others = answered(at).saturating_sub(failures.answered);
                let its_own = failures.count >= ITS_OWN && others >= u64::from(failures.count);
                its_own || !passes(&failures.fault)
            })
        };
        let denied = |at: usize| failures(at).is_some_and(|failures| failures.fault.is_denial());
        let suited = suited.iter().enumerate();
        let may: Vec<bool> = suited
            .clone()
            .map(|(at, suited)| *suited && !hopeless(at))
            .collect();
        // A denial is not waited for, but while another is, it may be lifted.
        let waits = may.contains(&true);
        let lifted = |at: usize, suited: bool| waits && suited && denied(at);
        suited
            .zip(may)
            .map(|((at, suited), may)| may || lifted(at, *suited))
            .collect()
    }

    fn arrive(&self, member: &Member, reply: Reply) -> Answer {
        Answer {
            text: reply.text,
            quotes: reply.quotes,
            prompt_tokens: reply.prompt_tokens,
            answer_tokens: reply.answer_tokens,
            provider: member.name.clone(),
            model: member.provider.model().to_owned(),
            cached: false,
            waited: self.waited(),
            spent: self.spent,
        }
    }
}

/// Tokens of a question and its answer, for want of the model's own count.
fn estimate(question: &Question) -> u64 {
    let system = question.system.as_ref().map_or(0, String::len);
    let bytes = (system + question.prompt.len() + question.text.len()) as u64;
    let image = question.image.as_ref().map_or(0, |_| TOKENS_PER_IMAGE);
    bytes / BYTES_PER_TOKEN + image + u64::from(question.max_tokens)
}

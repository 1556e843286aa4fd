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
use weir_core::language::{Answer, FailingProvider, Fault, LanguageError, LanguageModel, Question};
use weir_core::usage::Reservation;
use weir_core::{DocumentId, StorageError, TenantId};

use crate::accounts::{Accounts, prompt_tokens};
use crate::attempts::Attempts;
use crate::backoff::Backoff;
use crate::breaker::BreakerConfig;
use crate::course::{Course, course};
use crate::desk::Desk;
use crate::dispatch::{Shared, Turn, Wish};
use crate::fair::QuestionId;
use crate::permit::{InQueue, Pausing, Permit};
use crate::provider::Member;
use crate::stats::RouterStats;

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
    accounts: Accounts,
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
            accounts: Accounts::default(),
            dispatcher: OnceLock::new(),
        }
    }

    /// The same, with calls metered and kept within tenants' quotas.
    #[must_use]
    pub fn with_accounts(mut self, accounts: Accounts) -> Self {
        self.accounts = accounts;
        self
    }

    /// Reserves a call to one of the providers that may answer. If the tenant's quota allows none, only those that are not metered
    /// may, if there are any.
    async fn reserve(
        &self,
        question: &Question,
        may: &mut [bool],
    ) -> Result<Option<Reservation>, LanguageError> {
        let terms = || self.members.iter().map(|member| member.terms);
        let suited = terms()
            .zip(may.iter())
            .filter(|(_, may)| **may)
            .map(|(terms, _)| terms);
        if !suited.clone().any(|terms| terms.metered) {
            return Ok(None);
        }
        let reserved = self.accounts.reserve(question, suited).await;
        if reserved.is_err() {
            for (may, terms) in may.iter_mut().zip(terms()) {
                *may &= !terms.metered;
            }
            if may.contains(&true) {
                return Ok(None);
            }
        }
        reserved
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
        attempts: &mut Attempts,
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
            let reservation = self.reserve(question, &mut wish.may).await?;
            if let Some(permit) = self.turn(question, id, wish.clone()).await {
                let at = permit.member;
                let Some(member) = self.members.get(at) else {
                    continue;
                };
                let called = attempts.call(member, question, permit, &self.accounts).await;
                // By now it is metered.
                drop(reservation);
                let fault = match called {
                    Ok(reply) => return Ok(attempts.answer(member, reply)),
                    Err(fault) => fault,
                };
                attempts.failed(at, fault.clone(), self.shared.answered(at));
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
                    attempts.failed(at, fault, self.shared.answered(at));
                }
                wish.may.fill(false);
            }
            if wish.may.contains(&true) {
                self.shared.measures.elsewhere.increment(1);
                continue;
            }
            let may_again = attempts.may_again(suited, |at| self.shared.answered(at));
            if self.config.fail_when_down || !may_again.contains(&true) {
                return Err(LanguageError::AllDown(attempts.faults(&self.members)));
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
        let mut attempts = Attempts::begin();
        let outcome = timeout(question.patience, self.pursue(&question, &suited, &mut attempts)).await;
        let result = outcome.unwrap_or_else(|_elapsed| {
            Err(LanguageError::Deadline {
                seconds: question.patience.as_secs(),
                faults: attempts.faults(&self.members),
            })
        });
        let waited = attempts.waited();
        self.shared.measures.ended(question.kind, waited, attempts.spent);
        result
    }

    /// It keeps no answers.
    async fn forget(&self, _tenant: &TenantId) -> Result<(), StorageError> {
        Ok(())
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

    async fn forget_document(&self, _: &TenantId, _: &DocumentId) -> Result<(), StorageError> {
        Ok(())
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

/// Tokens of a question and its answer, for want of the model's own count.
fn estimate(question: &Question) -> u64 {
    prompt_tokens(question) + u64::from(question.max_tokens)
}

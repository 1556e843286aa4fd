//! The attempts to have one question answered: what they took, and how each provider failed at it.

use tokio::time::{Duration, Instant, timeout};
use weir_core::language::{Answer, Fault, Question};

use crate::accounts::{Accounts, OpenCall};
use crate::course::{may_be_the_questions, passes};
use crate::nonanswer;
use crate::permit::Permit;
use crate::provider::{Member, Reply};

/// Failures in a row after which the question is thought to be why, if the provider has answered as many others meanwhile. A
/// provider that fails every third time by itself does so in 1 of 500,000 questions.
const ITS_OWN: u32 = 12;

/// The attempts at one question.
pub(crate) struct Attempts {
    began: Instant,
    /// How long providers worked on it.
    pub(crate) spent: Duration,
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

impl Attempts {
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
            spent: Duration::ZERO,
            failures: Vec::new(),
        }
    }

    /// How long it waited for its turns and between tries.
    pub(crate) fn waited(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.spent)
    }

    /// Makes one call.
    pub(crate) async fn call(
        &mut self,
        member: &Member,
        question: &Question,
        permit: Permit,
        accounts: &Accounts,
    ) -> Result<Reply, Fault> {
        let began = Instant::now();
        let limit = member.terms.timeout;
        let open = OpenCall::new(accounts, member, question);
        let result = match timeout(limit, member.provider.ask(question)).await {
            Ok(Ok(reply)) if reply.text.trim().is_empty() => Err(Fault::Empty),
            Ok(result) => result,
            Err(_elapsed) => Err(Fault::Late {
                seconds: limit.as_secs(),
            }),
        };
        self.spent += began.elapsed();
        open.end(&result);
        match &result {
            Ok(reply) => permit.answered(reply),
            Err(fault) => permit.failed(fault),
        }
        // Whatever it said, the provider is well, and its tokens are spent.
        let reply = result?;
        nonanswer::fault(question, &reply).map_or(Ok(reply), Err)
    }

    /// A provider, which has answered so many calls of others by now, has failed.
    pub(crate) fn failed(&mut self, at: usize, fault: Fault, answered: u64) {
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

    /// The last fault of each provider that was tried, by its name.
    pub(crate) fn faults(&self, members: &[Member]) -> Vec<(String, Fault)> {
        let named = |failed: &Failures| Some((members.get(failed.at)?.name.clone(), failed.fault.clone()));
        self.failures.iter().filter_map(named).collect()
    }

    /// Which of the suited providers may answer it yet, when all have failed. `answered` says how many calls one has by now.
    pub(crate) fn may_again(&self, suited: &[bool], answered: impl Fn(usize) -> u64) -> Vec<bool> {
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

    /// The answer that this provider's reply is.
    pub(crate) fn answer(&self, member: &Member, reply: Reply) -> Answer {
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

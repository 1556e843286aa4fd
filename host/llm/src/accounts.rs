//! What tenants use of language models: metered for each call, within their quotas.

use std::sync::Arc;

use weir_core::language::{Fault, LanguageError, Question};
use weir_core::usage::{Meter, Reservation, Usage, UsageQuotas};

use crate::provider::{Member, Reply, Terms};

/// Estimated bytes of a token, where the provider reports no count.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens of an image, roughly.
const TOKENS_PER_IMAGE: u64 = 1500;

/// Where calls are metered and what keeps tenants within their quotas; without them, calls are neither.
#[derive(Clone, Default)]
pub struct Accounts {
    /// Told of each call.
    pub meter: Option<Arc<dyn Meter>>,
    /// Reserves each call before it is made.
    pub quotas: Option<Arc<dyn UsageQuotas>>,
}

impl Accounts {
    /// Reserves a call to one of these providers, of which at least one is metered.
    pub(crate) async fn reserve(
        &self,
        question: &Question,
        terms: impl Iterator<Item = Terms>,
    ) -> Result<Option<Reservation>, LanguageError> {
        let Some(quotas) = &self.quotas else {
            return Ok(None);
        };
        let (prompt, answer) = (prompt_tokens(question), u64::from(question.max_tokens));
        let cost = terms
            .filter(|terms| terms.metered)
            .map(|terms| terms.cost_micros(prompt, answer));
        let expected = Usage {
            llm_calls: 1,
            llm_prompt_tokens: prompt,
            llm_answer_tokens: answer,
            llm_cost_micros: cost.max().unwrap_or(0),
            ..Usage::default()
        };
        let tenant = &question.account.tenant;
        quotas.reserve_llm_call(tenant, &expected).await?;
        Ok(Some(Reservation::new(quotas, tenant, expected)))
    }
}

/// A call under way. One that is dropped before its end is metered, too: its provider has begun to work.
pub(crate) struct OpenCall<'a> {
    accounts: &'a Accounts,
    member: &'a Member,
    question: &'a Question,
    ended: bool,
}

impl<'a> OpenCall<'a> {
    pub(crate) const fn new(accounts: &'a Accounts, member: &'a Member, question: &'a Question) -> Self {
        Self {
            accounts,
            member,
            question,
            ended: false,
        }
    }

    /// Meters the call, which has ended like this.
    pub(crate) fn end(mut self, result: &Result<Reply, Fault>) {
        self.ended = true;
        if let Some((prompt, answer)) = tokens(self.question, result) {
            self.meter(prompt, answer);
        }
    }

    fn meter(&self, prompt: u64, answer: u64) {
        let terms = self.member.terms;
        let Some(meter) = self.accounts.meter.as_ref().filter(|_| terms.metered) else {
            return;
        };
        let used = Usage {
            llm_calls: 1,
            llm_prompt_tokens: prompt,
            llm_answer_tokens: answer,
            llm_cost_micros: terms.cost_micros(prompt, answer),
            ..Usage::default()
        };
        meter.used(&self.question.account.tenant, &used);
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.meter(prompt_tokens(self.question), 0);
        }
    }
}

/// Tokens of a request, for want of the model's own count.
pub(crate) fn prompt_tokens(question: &Question) -> u64 {
    let system = question.system.as_ref().map_or(0, String::len);
    let bytes = (system + question.prompt.len() + question.text.len()) as u64;
    bytes / BYTES_PER_TOKEN + question.image.as_ref().map_or(0, |_| TOKENS_PER_IMAGE)
}

/// Tokens of a call's request and answer; `None` if the provider did not work on it.
fn tokens(question: &Question, result: &Result<Reply, Fault>) -> Option<(u64, u64)> {
    let prompt = prompt_tokens(question);
    match result {
        Ok(reply) => {
            let counted = |tokens: Option<u32>, estimate| tokens.map_or(estimate, u64::from);
            let answer = reply.text.len() as u64 / BYTES_PER_TOKEN;
            Some((
                counted(reply.prompt_tokens, prompt),
                counted(reply.answer_tokens, answer),
            ))
        }
        // It wrote all that it may.
        Err(Fault::CutShort) => Some((prompt, u64::from(question.max_tokens))),
        // It has begun to work, and charges for that.
        Err(
            Fault::Unintelligible(_)
            | Fault::BrokenOff
            | Fault::Empty
            | Fault::Filtered
            | Fault::Declined
            | Fault::Parroted
            | Fault::Looped
            | Fault::Stalled { .. }
            | Fault::Late { .. },
        ) => Some((prompt, 0)),
        Err(
            Fault::Unreachable(_)
            | Fault::RateLimited { .. }
            | Fault::Server { .. }
            | Fault::Denied { .. }
            | Fault::Refused { .. }
            | Fault::TooLong { .. }
            | Fault::NothingToQuote
            | Fault::NoAnswer
            | Fault::Failed(_),
        ) => None,
    }
}

//! Asks each provider something small, to tell whether it is there, lets us in and knows its model.
//!
//! It goes past the queue and the limits: it is for someone who has just set a provider up and looks whether it works, one call
//! each.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use weir_core::language::{Fault, Question, QuestionKind};
use weir_core::ports::Account;
use weir_core::{Lane, TenantId};

use crate::course::{Verdict, verdict};
use crate::provider::Member;

/// Longest wait for one of them.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a provider did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Its name.
    pub name: String,
    /// Its model.
    pub model: String,
    /// What should be known of it.
    pub remark: Option<String>,
    /// How long it took to answer, or what it did instead.
    pub outcome: Result<Duration, Fault>,
}

/// Asks each provider once, one after the other.
pub async fn examine(members: &[Member]) -> Vec<Examined> {
    let mut examined = Vec::with_capacity(members.len());
    for member in members {
        let began = Instant::now();
        let limit = PATIENCE.min(member.terms.timeout);
        let asked = timeout(limit, member.provider.ask(&question())).await;
        let outcome = match asked {
            Ok(Ok(_)) => Ok(began.elapsed()),
            // An answer it does not finish, or keeps back, is a sign that it is there.
            Ok(Err(fault)) if verdict(&fault) == Verdict::Good && !matches!(fault, Fault::Refused { .. }) => {
                Ok(began.elapsed())
            }
            Ok(Err(fault)) => Err(fault),
            Err(_elapsed) => Err(Fault::Late {
                seconds: limit.as_secs(),
            }),
        };
        examined.push(Examined {
            name: member.name.clone(),
            model: member.provider.model().to_owned(),
            remark: member.provider.remark(),
            outcome,
        });
    }
    examined
}

fn question() -> Question {
    Question {
        account: Account {
            tenant: TenantId::single(),
            lane: Lane::Interactive,
            linger: Duration::ZERO,
            weight: 1.0,
        },
        kind: QuestionKind::Preview,
        system: None,
        prompt: "Repeat this sentence and say nothing else: {text}".into(),
        text: "A weir is a low gate across a river.".into(),
        image: None,
        max_tokens: 32,
        patience: PATIENCE,
        document: None,
    }
}

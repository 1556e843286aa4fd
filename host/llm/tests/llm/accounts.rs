//! Calls that are metered, and kept within a tenant's quota.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::Duration;
use weir_core::TenantId;
use weir_core::language::{Fault, LanguageModel as _};
use weir_core::usage::{Meter, QuotaExhausted, ReserveError, Usage, UsageQuotas};
use weir_llm::{Accounts, Router, RouterConfig, Terms};

use crate::fakes::{Fake, down, question, terms};

/// Allows so many calls at a time and in all.
#[derive(Default)]
struct Book {
    calls: u64,
    state: Mutex<(Usage, Usage)>,
}

impl Meter for Book {
    fn used(&self, _: &TenantId, usage: &Usage) {
        self.state.lock().0.add(usage);
    }
}

#[async_trait]
impl UsageQuotas for Book {
    async fn reserve_pages(&self, _: &TenantId, most: u32) -> Result<u32, ReserveError> {
        Ok(most)
    }

    async fn reserve_llm_call(&self, _: &TenantId, expected: &Usage) -> Result<(), ReserveError> {
        let mut state = self.state.lock();
        if state.0.llm_calls + state.1.llm_calls >= self.calls {
            let (quota, limit) = ("llm_calls_per_day", self.calls);
            return Err(QuotaExhausted { quota, limit }.into());
        }
        state.1.add(expected);
        Ok(())
    }

    fn release(&self, _: &TenantId, reserved: &Usage) {
        let reserved_now = &mut self.state.lock().1;
        reserved_now.llm_calls -= reserved.llm_calls;
        reserved_now.llm_prompt_tokens -= reserved.llm_prompt_tokens;
        reserved_now.llm_answer_tokens -= reserved.llm_answer_tokens;
        reserved_now.llm_cost_micros -= reserved.llm_cost_micros;
    }
}

fn accounts(calls: u64) -> (Arc<Book>, Accounts) {
    let book = Arc::new(Book {
        calls,
        ..Book::default()
    });
    let accounts = Accounts {
        meter: Some(Arc::clone(&book) as _),
        quotas: Some(Arc::clone(&book) as _),
    };
    (book, accounts)
}

#[tokio::test(start_paused = true)]
async fn calls_stop_at_the_quota_and_are_metered() {
    let (book, accounts) = accounts(5);
    let only = Fake::steady("only", 1.0);
    let priced = Terms {
        prompt_price: 2.0,
        answer_price: 10.0,
        ..terms(4)
    };
    let router = Router::new(vec![only.member(priced)], RouterConfig::default()).with_accounts(accounts);
    let outcomes = join_all((0..20).map(|i| router.ask(question(format!("{i}"))))).await;
    let refused: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| outcome.as_ref().err())
        .collect();
    assert_eq!((refused.len(), only.count()), (15, 5));
    assert_eq!(
        (refused[0].kind(), refused[0].to_string().as_str()),
        ("quota", "the quota llm_calls_per_day = 5 is used up")
    );
    let (used, reserved) = *book.state.lock();
    let expected = Usage {
        llm_calls: 5,
        llm_prompt_tokens: 5 * 1000,
        llm_answer_tokens: 5 * 100,
        llm_cost_micros: 5 * (1000 * 2 + 100 * 10),
        ..Usage::default()
    };
    assert_eq!((used, reserved), (expected, Usage::default()));
}

#[tokio::test(start_paused = true)]
async fn calls_that_no_provider_worked_on_are_not_metered() {
    let (book, accounts) = accounts(5);
    let only = Fake::after(
        "only",
        [down(), Fault::RateLimited { after: None }, Fault::CutShort],
    );
    let router = Router::new(vec![only.member(terms(4))], RouterConfig::default()).with_accounts(accounts);
    router.ask(question("a")).await.unwrap_err();
    let (used, reserved) = *book.state.lock();
    assert_eq!(
        (only.count(), used.llm_calls, used.llm_answer_tokens),
        (3, 1, 100)
    );
    assert_eq!(reserved, Usage::default());
}

#[tokio::test(start_paused = true)]
async fn provider_that_is_not_metered_answers_beyond_the_quota() {
    let (book, accounts) = accounts(2);
    let paid = Fake::steady("paid", 1.0);
    let free = Fake::steady("free", 1.0);
    let unmetered = Terms {
        spare: true,
        metered: false,
        ..terms(4)
    };
    let members = vec![paid.member(terms(4)), free.member(unmetered)];
    let router = Router::new(members, RouterConfig::default()).with_accounts(accounts);
    for i in 0..5 {
        router.ask(question(format!("{i}"))).await.unwrap();
    }
    assert_eq!((paid.count(), free.count()), (2, 3));
    assert_eq!(book.state.lock().0.llm_calls, 2);
}

#[tokio::test(start_paused = true)]
async fn call_that_is_withdrawn_is_metered() {
    let (book, accounts) = accounts(5);
    let only = Fake::silent("only");
    let router = Router::new(vec![only.member(terms(4))], RouterConfig::default()).with_accounts(accounts);
    let mut impatient = question("a");
    impatient.patience = Duration::from_secs(10);
    router.ask(impatient).await.unwrap_err();
    let (used, reserved) = *book.state.lock();
    assert_eq!((used.llm_calls, used.llm_answer_tokens), (1, 0));
    assert_eq!(reserved, Usage::default());
}

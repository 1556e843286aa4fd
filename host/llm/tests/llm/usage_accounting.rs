//! Calls are metered and stay within a tenant's quota.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::Duration;
use weir_core::TenantId;
use weir_core::llm::{LanguageModel as _, ProviderError};
use weir_core::usage::{QuotaExhaustedError, QuotaReserveError, Usage, UsageMeter, UsageQuotaLimiter};
use weir_llm::{ProviderOptions, Router, RouterConfig, UsageAccounting};

use crate::fake_provider::{FakeProvider, build_request, options_with_concurrency, server_error};

/// A meter and a quota limiter that allow `calls` calls in total.
#[derive(Default)]
struct FakeMeterAndQuota {
    max_calls: u64,
    state: Mutex<(Usage, Usage)>,
}

impl UsageMeter for FakeMeterAndQuota {
    fn record_usage(&self, _: &TenantId, usage: &Usage) {
        self.state.lock().0.add_amounts(usage);
    }
}

#[async_trait]
impl UsageQuotaLimiter for FakeMeterAndQuota {
    async fn reserve_pages(&self, _: &TenantId, max_pages: u32) -> Result<u32, QuotaReserveError> {
        Ok(max_pages)
    }

    async fn reserve_llm_call(&self, _: &TenantId, expected: &Usage) -> Result<(), QuotaReserveError> {
        let mut state = self.state.lock();
        if state.0.llm_calls + state.1.llm_calls >= self.max_calls {
            let (quota, limit) = ("llm_calls_per_day", self.max_calls);
            return Err(QuotaExhaustedError { quota, limit }.into());
        }
        state.1.add_amounts(expected);
        Ok(())
    }

    fn release_reservation(&self, _: &TenantId, reserved: &Usage) {
        let reserved_now = &mut self.state.lock().1;
        reserved_now.llm_calls -= reserved.llm_calls;
        reserved_now.llm_prompt_tokens -= reserved.llm_prompt_tokens;
        reserved_now.llm_answer_tokens -= reserved.llm_answer_tokens;
        reserved_now.llm_cost_micros -= reserved.llm_cost_micros;
    }
}

fn accounting_with_limit(calls: u64) -> (Arc<FakeMeterAndQuota>, UsageAccounting) {
    let usage = Arc::new(FakeMeterAndQuota {
        max_calls: calls,
        ..FakeMeterAndQuota::default()
    });
    let accounts = UsageAccounting {
        meter: Some(Arc::clone(&usage) as _),
        quotas: Some(Arc::clone(&usage) as _),
    };
    (usage, accounts)
}

#[tokio::test(start_paused = true)]
async fn calls_stop_at_the_quota_and_are_metered() {
    let (usage, accounts) = accounting_with_limit(5);
    let only = FakeProvider::succeeding("only", 1.0);
    let priced = ProviderOptions {
        prompt_price_per_million: 2.0,
        completion_price_per_million: 10.0,
        ..options_with_concurrency(4)
    };
    let router = Router::new(vec![only.provider_entry(priced)], RouterConfig::default())
        .with_usage_accounting(accounts);
    let outcomes = join_all((0..20).map(|i| router.request_completion(build_request(format!("{i}"))))).await;
    let refused: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| outcome.as_ref().err())
        .collect();
    assert_eq!((refused.len(), only.call_count()), (15, 5));
    assert_eq!(
        (refused[0].kind(), refused[0].to_string().as_str()),
        (
            "quota",
            "the quota llm_calls_per_day of 5 is exhausted: wait until midnight UTC, or have the quota raised"
        )
    );
    let (used, reserved) = *usage.state.lock();
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
    let (usage, accounts) = accounting_with_limit(5);
    let only = FakeProvider::failing_first(
        "only",
        [
            server_error(),
            ProviderError::RateLimited { after: None },
            ProviderError::TokenLimitReached,
        ],
    );
    let router = Router::new(
        vec![only.provider_entry(options_with_concurrency(4))],
        RouterConfig::default(),
    )
    .with_usage_accounting(accounts);
    router.request_completion(build_request("a")).await.unwrap_err();
    let (used, reserved) = *usage.state.lock();
    assert_eq!(
        (only.call_count(), used.llm_calls, used.llm_answer_tokens),
        (3, 1, 100)
    );
    assert_eq!(reserved, Usage::default());
}

#[tokio::test(start_paused = true)]
async fn unmetered_provider_answers_beyond_the_quota() {
    let (usage, accounts) = accounting_with_limit(2);
    let paid = FakeProvider::succeeding("paid", 1.0);
    let free = FakeProvider::succeeding("free", 1.0);
    let unmetered = ProviderOptions {
        is_fallback: true,
        metered: false,
        ..options_with_concurrency(4)
    };
    let providers = vec![
        paid.provider_entry(options_with_concurrency(4)),
        free.provider_entry(unmetered),
    ];
    let router = Router::new(providers, RouterConfig::default()).with_usage_accounting(accounts);
    for i in 0..5 {
        router
            .request_completion(build_request(format!("{i}")))
            .await
            .unwrap();
    }
    assert_eq!((paid.call_count(), free.call_count()), (2, 3));
    assert_eq!(usage.state.lock().0.llm_calls, 2);
}

#[tokio::test(start_paused = true)]
async fn dropped_call_is_metered() {
    let (usage, accounts) = accounting_with_limit(5);
    let only = FakeProvider::hanging("only");
    let router = Router::new(
        vec![only.provider_entry(options_with_concurrency(4))],
        RouterConfig::default(),
    )
    .with_usage_accounting(accounts);
    let mut impatient = build_request("a");
    impatient.timeout = Duration::from_secs(10);
    router.request_completion(impatient).await.unwrap_err();
    let (used, reserved) = *usage.state.lock();
    assert_eq!((used.llm_calls, used.llm_answer_tokens), (1, 0));
    assert_eq!(reserved, Usage::default());
}

//! Conformance checks of daily usage: sums by tenant and day.

use weir_core::tenancy::TenantStore;
use weir_core::usage::{Usage, UsageStore};

use crate::records::{make_tenant, unique_tenant_id};

/// Checks a store of usage. Panics if the store breaks the contract of its port.
pub async fn check_usage_store(store: &(impl UsageStore + TenantStore)) {
    let (a, b, gone) = (
        unique_tenant_id("a"),
        unique_tenant_id("b"),
        unique_tenant_id("gone"),
    );
    for tenant in [&a, &b] {
        store.create_tenant(&make_tenant(tenant)).await.unwrap();
    }
    let add = async |day, amounts| store.add_daily_usage_of_tenants(day, amounts).await.unwrap();
    let list = async |tenant, from, to| store.list_daily_usage(tenant, from, to).await.unwrap();
    assert_eq!(list(&a, 0, u32::MAX).await, []);
    assert_eq!(store.count_stored_bytes(&a).await.unwrap(), 0);
    assert_eq!(store.count_stored_bytes(&gone).await.unwrap(), 0);

    add(12, vec![(a.clone(), usage_from(5))]).await;
    let group = vec![
        (a.clone(), usage_from(1)),
        (b.clone(), usage_from(7)),
        (gone.clone(), usage_from(1)),
        (a.clone(), usage_from(20)),
    ];
    add(10, group).await;
    add(10, vec![(a.clone(), usage_from(300))]).await;
    add(11, Vec::new()).await;
    let mut sum = usage_from(1);
    sum.add_amounts(&usage_from(20));
    sum.add_amounts(&usage_from(300));
    let days = [(10, sum), (12, usage_from(5))];
    assert_eq!(
        list(&a, 0, u32::MAX).await,
        days,
        "the sum of each day, oldest first"
    );
    assert_eq!(
        list(&a, 10, 12).await,
        days,
        "both ends of the range are included"
    );
    assert_eq!(list(&a, 10, 11).await, [(10, sum)]);
    assert_eq!(list(&a, 11, 11).await, [], "days without usage are omitted");
    assert_eq!(list(&a, 12, 10).await, [], "the range is empty");
    assert_eq!(list(&b, 0, u32::MAX).await, [(10, usage_from(7))]);
    assert_eq!(
        list(&gone, 0, u32::MAX).await,
        [],
        "usage of a tenant that does not exist is discarded"
    );

    for pages in [u64::MAX, 1000] {
        let most = Usage {
            pages,
            ..Usage::default()
        };
        add(14, vec![(a.clone(), most)]).await;
    }
    let largest = list(&a, 14, 14).await;
    assert!(
        matches!(largest[..], [(14, usage)] if usage.pages >= i64::MAX.unsigned_abs()),
        "a sum that is too large becomes the largest that can be stored: {largest:?}"
    );

    assert!(store.remove_tenant(&a).await.unwrap());
    store.create_tenant(&make_tenant(&a)).await.unwrap();
    assert_eq!(
        list(&a, 0, u32::MAX).await,
        [],
        "a new tenant of the same name does not get the usage"
    );
    assert_eq!(list(&b, 0, u32::MAX).await, [(10, usage_from(7))]);
}

/// Returns usage with a different amount of each resource.
const fn usage_from(n: u64) -> Usage {
    Usage {
        requests: n,
        jobs: n + 1,
        upload_bytes: n + 2,
        pages: n + 3,
        inference_micros: n + 4,
        guest_micros: n + 5,
        searches: n + 6,
        refusals: n + 7,
        llm_calls: n + 8,
        llm_prompt_tokens: n + 9,
        llm_answer_tokens: n + 10,
        llm_cost_micros: n + 11,
    }
}

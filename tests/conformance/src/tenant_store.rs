//! Conformance checks of tenants and API keys: changes, revocation, replacement and removal.

use weir_core::StorageError;
use weir_core::retention::RetentionPeriods;
use weir_core::tenancy::{KeyScope, Quotas, Tenant, TenantState, TenantStore, TenantUpdate};

use crate::records::{make_api_key, make_tenant, unique_name, unique_tenant_id};

/// Checks a store of tenants and API keys. Panics if the store breaks the contract of its port.
pub async fn check_tenant_store(store: &dyn TenantStore) {
    check_tenant_records(store).await;
    check_concurrent_updates(store).await;
    check_api_key_records(store).await;
    check_key_revocation(store).await;
    check_key_replacement(store).await;
    check_tenant_removal(store).await;
}

async fn check_tenant_records(store: &dyn TenantStore) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let update = TenantUpdate {
        state: Some(TenantState::Suspended),
        weight: Some(3.0),
        quotas: vec![
            ("concurrent_jobs".into(), None),
            ("queued_jobs".into(), Some(9)),
            ("no such".into(), Some(1)),
        ],
        retention: vec![("ended_jobs_days".into(), Some(7)), ("usage_days".into(), None)],
    };
    assert_eq!(store.update_tenant(&a, &update).await.unwrap(), None);
    let created = store.find_tenant(&a).await.unwrap();
    assert_eq!(created, None, "an update creates no tenant");

    let (of_a, of_b) = (make_tenant(&a), make_tenant(&b));
    assert!(store.create_tenant(&of_b).await.unwrap());
    assert!(store.create_tenant(&of_a).await.unwrap());
    let listed = store.list_tenants().await.unwrap();
    assert!(
        listed.is_sorted_by_key(|tenant| &tenant.id),
        "tenants are sorted by name: {listed:?}"
    );
    assert!(listed.contains(&of_a) && listed.contains(&of_b), "{listed:?}");

    let changed = Tenant {
        state: TenantState::Suspended,
        weight: 3.0,
        quotas: Quotas {
            queued_jobs: Some(9),
            ..Quotas::default()
        },
        retention: RetentionPeriods {
            ended_jobs_days: Some(7),
            ..RetentionPeriods::default()
        },
        ..of_a.clone()
    };
    assert!(!store.create_tenant(&changed).await.unwrap(), "the tenant exists");
    let found = store.find_tenant(&a).await.unwrap();
    assert_eq!(found, Some(of_a), "a tenant that exists does not change");
    let updated = store.update_tenant(&a, &update).await.unwrap();
    assert_eq!(updated.as_ref(), Some(&changed));
    let updated = store.update_tenant(&a, &TenantUpdate::default()).await.unwrap();
    assert_eq!(
        updated.as_ref(),
        Some(&changed),
        "an empty update changes nothing"
    );
    assert_eq!(store.find_tenant(&a).await.unwrap(), Some(changed));
    assert_eq!(store.find_tenant(&b).await.unwrap(), Some(of_b));
}

async fn check_concurrent_updates(store: &dyn TenantStore) {
    let t = unique_tenant_id("t");
    assert!(store.create_tenant(&make_tenant(&t)).await.unwrap());
    let state = TenantUpdate {
        state: Some(TenantState::Suspended),
        ..TenantUpdate::default()
    };
    let weight = TenantUpdate {
        weight: Some(7.0),
        ..TenantUpdate::default()
    };
    let quotas = TenantUpdate {
        quotas: vec![("queued_jobs".into(), Some(9))],
        ..TenantUpdate::default()
    };
    let (state, weight, quotas) = tokio::join!(
        store.update_tenant(&t, &state),
        store.update_tenant(&t, &weight),
        store.update_tenant(&t, &quotas),
    );
    assert!([state, weight, quotas].into_iter().all(|t| t.unwrap().is_some()));
    let found = store.find_tenant(&t).await.unwrap().unwrap();
    assert_eq!(
        (found.state, found.weight, found.quotas.queued_jobs),
        (TenantState::Suspended, 7.0, Some(9)),
        "no concurrent update is lost"
    );
}

async fn check_api_key_records(store: &dyn TenantStore) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let [k1, k2, k3, k4] = ["k1", "k2", "k3", "k4"].map(unique_name);
    let late = make_api_key(&a, &k1, 5);
    let refused = store.put_api_key(&late).await;
    assert!(
        matches!(refused, Err(StorageError::NotFound { .. })),
        "the tenant of the key does not exist: {refused:?}"
    );
    for tenant in [&a, &b] {
        store.create_tenant(&make_tenant(tenant)).await.unwrap();
    }
    assert_eq!(store.list_api_keys(&a).await.unwrap(), []);
    let (early, of_b) = (make_api_key(&a, &k2, 3), make_api_key(&b, &k3, 1));
    let same_time = make_api_key(&a, &k4, 5);
    for key in [&same_time, &late, &of_b, &early] {
        store.put_api_key(key).await.unwrap();
    }
    assert_eq!(
        store.list_api_keys(&a).await.unwrap(),
        [early.clone(), late.clone(), same_time],
        "oldest first; keys of the same time are sorted by id"
    );
    let mut replaced = early;
    replaced.revoked_millis = Some(8);
    replaced.expires_millis = None;
    replaced.scopes = KeyScope::ALL.into();
    store.put_api_key(&replaced).await.unwrap();
    assert_eq!(
        store.find_api_key_with_tenant(&k2).await.unwrap(),
        Some((replaced.clone(), make_tenant(&replaced.tenant)))
    );
    assert_eq!(store.find_api_key_by_id(&k2).await.unwrap(), Some(replaced));
    let none = unique_name("none");
    assert_eq!(store.find_api_key_by_id(&none).await.unwrap(), None);
    assert_eq!(store.find_api_key_with_tenant(&none).await.unwrap(), None);

    let taken = store.put_api_key(&make_api_key(&b, &k1, 2)).await.unwrap_err();
    assert_eq!(
        taken.kind(),
        "storage-failed",
        "the id is of another tenant's key: {taken}"
    );
    assert_eq!(store.find_api_key_by_id(&k1).await.unwrap(), Some(late));
    assert_eq!(store.list_api_keys(&b).await.unwrap(), [of_b]);
}

async fn check_key_revocation(store: &dyn TenantStore) {
    let (t, id) = (unique_tenant_id("t"), unique_name("key"));
    assert!(
        !store.revoke_api_key(&id, 5).await.unwrap(),
        "there is no such key"
    );
    store.create_tenant(&make_tenant(&t)).await.unwrap();
    store.put_api_key(&make_api_key(&t, &id, 1)).await.unwrap();
    for now_millis in [5, 9] {
        assert!(store.revoke_api_key(&id, now_millis).await.unwrap());
        let key = store.find_api_key_by_id(&id).await.unwrap().unwrap();
        assert_eq!(
            key.revoked_millis,
            Some(5),
            "the first revocation stays, at {now_millis}"
        );
    }
}

async fn check_key_replacement(store: &dyn TenantStore) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let [old, revoked, of_b, fresh, second] = ["old", "revoked", "of-b", "fresh", "second"].map(unique_name);
    for tenant in [&a, &b] {
        store.create_tenant(&make_tenant(tenant)).await.unwrap();
    }
    for (tenant, id) in [(&a, &old), (&a, &revoked), (&b, &of_b)] {
        store.put_api_key(&make_api_key(tenant, id, 1)).await.unwrap();
    }
    store.revoke_api_key(&revoked, 5).await.unwrap();
    let replacement = make_api_key(&a, &fresh, 9);
    for (id, now_millis, why) in [
        (&revoked, 9, "a revoked key"),
        (&old, 99, "an expired key"),
        (&of_b, 9, "another tenant's key"),
        (&unique_name("none"), 9, "a missing key"),
    ] {
        let replaced = store.replace_api_key(id, &replacement, now_millis).await;
        assert!(!replaced.unwrap(), "{why} is not replaced");
        assert_eq!(store.find_api_key_by_id(&fresh).await.unwrap(), None, "{why}");
    }
    let taken = store.replace_api_key(&old, &make_api_key(&a, &of_b, 9), 9).await;
    assert_eq!(taken.unwrap_err().kind(), "storage-failed");
    for id in [&old, &of_b] {
        let key = store.find_api_key_by_id(id).await.unwrap().unwrap();
        assert_eq!(key.revoked_millis, None, "a refused replacement revokes no key");
    }

    let other = make_api_key(&a, &second, 9);
    let (one, two) = tokio::join!(
        store.replace_api_key(&old, &replacement, 98),
        store.replace_api_key(&old, &other, 98),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(
        one != two,
        "exactly one of two replacements succeeds: {one}, {two}"
    );
    let key = store.find_api_key_by_id(&old).await.unwrap().unwrap();
    assert_eq!(key.revoked_millis, Some(98));
    let found = (
        store.find_api_key_by_id(&fresh).await.unwrap(),
        store.find_api_key_by_id(&second).await.unwrap(),
    );
    assert_eq!(found, (one.then_some(replacement), two.then_some(other)));
}

async fn check_tenant_removal(store: &dyn TenantStore) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let [of_a, of_b] = ["of-a", "of-b"].map(unique_name);
    assert!(!store.suspend_tenant_and_remove_keys(&a).await.unwrap());
    assert!(!store.remove_tenant(&a).await.unwrap());
    for (tenant, key) in [(&a, &of_a), (&b, &of_b)] {
        store.create_tenant(&make_tenant(tenant)).await.unwrap();
        store.put_api_key(&make_api_key(tenant, key, 1)).await.unwrap();
    }
    assert!(store.suspend_tenant_and_remove_keys(&a).await.unwrap());
    let suspended = store.find_tenant(&a).await.unwrap().unwrap();
    assert_eq!(suspended.state, TenantState::Suspended);
    assert_eq!(store.find_api_key_by_id(&of_a).await.unwrap(), None);

    store.put_api_key(&make_api_key(&a, &of_a, 1)).await.unwrap();
    assert!(store.remove_tenant(&a).await.unwrap());
    assert!(
        !store.remove_tenant(&a).await.unwrap(),
        "the tenant has been removed"
    );
    assert_eq!(store.find_tenant(&a).await.unwrap(), None);
    store.create_tenant(&make_tenant(&a)).await.unwrap();
    assert_eq!(
        store.find_api_key_by_id(&of_a).await.unwrap(),
        None,
        "a new tenant of the same name does not get the key"
    );
    assert_eq!(store.find_tenant(&b).await.unwrap(), Some(make_tenant(&b)));
    assert_eq!(
        store.list_api_keys(&b).await.unwrap(),
        [make_api_key(&b, &of_b, 1)],
        "another tenant keeps its keys"
    );
}

//! Tenants and keys that several processes change at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use fixture::{key_record, open, tenant, tenant_record};
use weir_core::tenancy::{Registry, TenantState, TenantUpdate};
use weir_storage::TenantDesk;

fn weight(weight: f64) -> TenantUpdate {
    TenantUpdate {
        weight: Some(weight),
        ..TenantUpdate::default()
    }
}

#[tokio::test]
async fn changes_of_two_processes_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = tenant("a");
    let desk = TenantDesk::open(dir.path()).await.unwrap();
    assert!(desk.create_tenant(&tenant_record(&t)).await.unwrap());
    for n in 0..50_u32 {
        let state = [TenantState::Suspended, TenantState::Active][n as usize % 2];
        let state = TenantUpdate {
            state: Some(state),
            ..TenantUpdate::default()
        };
        let quotas = TenantUpdate {
            quotas: vec![("queued_jobs".into(), Some(n.into()))],
            ..TenantUpdate::default()
        };
        let weight = weight(f64::from(n) + 1.0);
        let changed = tokio::join!(
            desk.change_tenant(&t, &state),
            storage.ledger.change_tenant(&t, &weight),
            desk.change_tenant(&t, &quotas),
        );
        changed.0.unwrap().unwrap();
        changed.1.unwrap().unwrap();
        changed.2.unwrap().unwrap();
        let now = storage.ledger.tenant(&t).await.unwrap().unwrap();
        assert_eq!(
            (Some(now.state), now.weight, now.quotas.queued_jobs),
            (state.state, f64::from(n) + 1.0, Some(n.into()))
        );
    }
    storage.close().await.unwrap();
}

#[tokio::test]
async fn key_is_revoked_once_and_replaced_only_while_it_counts() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (ledger, t) = (&storage.ledger, tenant("a"));
    ledger.create_tenant(&tenant_record(&t)).await.unwrap();
    for id in ["k1", "k2"] {
        ledger.put_key(&key_record(&t, id, 1)).await.unwrap();
    }
    let desk = TenantDesk::open(dir.path()).await.unwrap();
    assert!(desk.revoke_key("k1", 5).await.unwrap());
    assert!(ledger.revoke_key("k1", 9).await.unwrap());
    assert_eq!(
        ledger.key("k1").await.unwrap().unwrap().revoked_millis,
        Some(5),
        "the first time counts"
    );
    assert!(!ledger.revoke_key("none", 9).await.unwrap());
    let fresh = key_record(&t, "k3", 9);
    assert!(
        !ledger.replace_key("k1", &fresh, 9).await.unwrap(),
        "it is revoked"
    );
    assert!(
        !ledger.replace_key("k2", &fresh, 99).await.unwrap(),
        "it has expired"
    );
    assert!(ledger.key("k3").await.unwrap().is_none());
    assert!(ledger.replace_key("k2", &fresh, 9).await.unwrap());
    assert_eq!(ledger.key("k2").await.unwrap().unwrap().revoked_millis, Some(9));
    assert!(ledger.key("k3").await.unwrap() == Some(fresh));
    storage.close().await.unwrap();
}

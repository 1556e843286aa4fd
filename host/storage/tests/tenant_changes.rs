//! Concurrent changes of a tenant by several processes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use fixture::{open_storage, tenant_id};
use weir_conformance::records::make_tenant;
use weir_core::tenancy::{TenantState, TenantStore, TenantUpdate};
use weir_storage::SqlLedger;

fn weight_update(weight: f64) -> TenantUpdate {
    TenantUpdate {
        weight: Some(weight),
        ..TenantUpdate::default()
    }
}

#[tokio::test]
async fn concurrent_changes_of_two_processes_are_all_applied() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = tenant_id("a");
    let admin = SqlLedger::open_shared(dir.path()).await.unwrap();
    assert!(admin.create_tenant(&make_tenant(&t)).await.unwrap());
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
        let weight = weight_update(f64::from(n) + 1.0);
        let changed = tokio::join!(
            admin.update_tenant(&t, &state),
            storage.ledger.update_tenant(&t, &weight),
            admin.update_tenant(&t, &quotas),
        );
        changed.0.unwrap().unwrap();
        changed.1.unwrap().unwrap();
        changed.2.unwrap().unwrap();
        let now = storage.ledger.find_tenant(&t).await.unwrap().unwrap();
        assert_eq!(
            (Some(now.state), now.weight, now.quotas.queued_jobs),
            (state.state, f64::from(n) + 1.0, Some(n.into()))
        );
    }
    storage.close().await.unwrap();
}

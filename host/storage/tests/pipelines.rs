//! Components, revisions, rollouts and job outcomes in a data folder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use fixture::{open_storage, tenant_id};
use weir_conformance::records::{make_api_key, make_tenant};
use weir_core::component::{ComponentDigest, ComponentInterface, ComponentRecord};
use weir_core::manifest::{Capability, Manifest, Role};
use weir_core::revision::{PipelineStore as _, RevisionSpec};
use weir_core::rollout::RolloutAction;
use weir_core::tenancy::TenantStore as _;
use weir_core::{JobId, TenantId};

#[tokio::test]
async fn sqlite_ledger_passes_the_pipeline_and_shadow_suites() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    weir_conformance::check_pipeline_store(&*storage.ledger).await;
    weir_conformance::check_shadow_store(&*storage.ledger).await;
    storage.close().await.unwrap();
}

fn make_component_record(tenant: &TenantId) -> ComponentRecord {
    ComponentRecord {
        tenant: tenant.clone(),
        digest: ComponentDigest::from_content(b"one"),
        name: "ours".into(),
        bytes: 3,
        interface: ComponentInterface {
            roles: vec![Role::Routing, Role::Progress],
            capabilities: vec![Capability::State],
        },
        created_millis: 5,
        pushed_by_key: "key".into(),
    }
}

#[tokio::test]
async fn pipeline_and_assignments_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (ledger, a, job) = (&storage.ledger, tenant_id("a"), JobId::new());
    ledger.create_tenant(&make_tenant(&a)).await.unwrap();
    ledger.put_api_key(&make_api_key(&a, "key", 1)).await.unwrap();
    let record = make_component_record(&a);
    ledger.put_component_record(&record).await.unwrap();
    let mut spec = RevisionSpec {
        manifest: Manifest::default_pipeline_manifest(),
        components: [(Role::Routing, record.digest)].into(),
    };
    let first = ledger.add_revision_if_changed(&a, "p", &spec, "key", 7).await;
    let first = first.unwrap().unwrap();
    spec.manifest.settings.insert("dpi".into(), 200_i64.into());
    let second = ledger.add_revision_if_changed(&a, "p", &spec, "key", 8).await;
    second.unwrap().unwrap();
    let activate = async |revision| {
        let action = RolloutAction::Activate { revision };
        let changed = ledger.change_rollout(&a, "p", None, &action, "key", None, 9);
        changed.await.unwrap().unwrap()
    };
    activate(1).await;
    let assignment = ledger.assign_revision_to_job(&a, "p", &job).await.unwrap();
    assert_eq!(assignment.map(|assigned| assigned.revision), Some(1));
    let rollout = activate(2).await;
    let pipeline = ledger.find_pipeline(&a, "p").await.unwrap().unwrap();
    assert_eq!((pipeline.revision_count, &pipeline.rollout), (2, &rollout));
    let audit_log = ledger.list_audit_log(&a, "p", None, 9).await.unwrap();
    assert_eq!(audit_log.len(), 4);
    storage.close().await.unwrap();

    let storage = open_storage(dir.path()).await;
    let ledger = &storage.ledger;
    assert_eq!(ledger.list_components(&a).await.unwrap(), [record]);
    assert_eq!(ledger.find_revision(&a, "p", 1).await.unwrap(), Some(first));
    assert_eq!(ledger.find_pipeline(&a, "p").await.unwrap(), Some(pipeline));
    assert_eq!(ledger.list_audit_log(&a, "p", None, 9).await.unwrap(), audit_log);
    assert_eq!(
        ledger.assign_revision_to_job(&a, "p", &job).await.unwrap(),
        assignment,
        "a job keeps its revision"
    );
    storage.close().await.unwrap();
}

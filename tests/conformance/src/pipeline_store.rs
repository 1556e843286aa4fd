//! Conformance checks of pipelines: components, revisions, rollouts with their audit log, and outcomes of jobs.

mod rollouts;

use weir_core::StorageError;
use weir_core::canary_analysis::JobMetrics;
use weir_core::component::{ComponentDigest, ComponentInterface, ComponentRecord};
use weir_core::ledger::JobState;
use weir_core::manifest::{Capability, Manifest, Role};
use weir_core::revision::{PipelineRecord, PipelineStore, Revision, RevisionJobOutcome, RevisionSpec};
use weir_core::rollout::{Rollout, RolloutAction};
use weir_core::tenancy::TenantStore;
use weir_core::{JobId, TenantId};

use crate::records::{make_api_key, make_tenant, unique_name, unique_tenant_id};

const ACTIVATE_1: RolloutAction = RolloutAction::Activate { revision: 1 };

/// Checks a store of pipelines. Panics if the store breaks the contract of its port.
pub async fn check_pipeline_store(store: &(impl PipelineStore + TenantStore)) {
    check_components(store).await;
    check_revisions(store).await;
    check_component_use(store).await;
    rollouts::check_rollouts(store).await;
    check_removed_tenants(store).await;
}

async fn check_components(store: &(impl PipelineStore + TenantStore)) {
    let ((a, key), (b, key_b)) = (create_tenant(store).await, create_tenant(store).await);
    let digest = ComponentDigest::from_content(b"one");
    assert_eq!(store.list_components(&a).await.unwrap(), []);
    assert_eq!(store.find_component(&a, &digest).await.unwrap(), None);
    let late = make_component(&a, &key, b"one", 7);
    let early = make_component(&a, &key, b"two", 5);
    let foreign = make_component(&b, &key_b, b"one", 9);
    for record in [&late, &early, &foreign] {
        store.put_component_record(record).await.unwrap();
    }
    assert_eq!(
        store.list_components(&a).await.unwrap(),
        [late.clone(), early.clone()],
        "newest first"
    );
    let renamed = ComponentRecord {
        name: "renamed".into(),
        bytes: 99,
        created_millis: 9,
        ..early.clone()
    };
    store.put_component_record(&renamed).await.unwrap();
    let expected = ComponentRecord {
        name: "renamed".into(),
        ..early
    };
    let found = store.find_component(&a, &expected.digest).await.unwrap();
    assert_eq!(found.as_ref(), Some(&expected), "only the name changes");
    assert_eq!(store.find_component(&a, &digest).await.unwrap(), Some(late));
    assert_eq!(
        store.list_components(&b).await.unwrap(),
        std::slice::from_ref(&foreign)
    );

    assert_eq!(
        store.remove_unused_component(&a, &digest).await.unwrap(),
        Ok(true)
    );
    assert_eq!(
        store.remove_unused_component(&a, &digest).await.unwrap(),
        Ok(false)
    );
    assert_eq!(store.list_components(&a).await.unwrap(), [expected]);
    assert_eq!(store.find_component(&b, &digest).await.unwrap(), Some(foreign));
}

async fn check_revisions(store: &(impl PipelineStore + TenantStore)) {
    let ((a, key), (b, key_b)) = (create_tenant(store).await, create_tenant(store).await);
    assert_eq!(store.list_pipelines(&a).await.unwrap(), []);
    assert_eq!(store.find_pipeline(&a, "p").await.unwrap(), None);
    assert_eq!(store.list_revisions(&a, "p", None, 9).await.unwrap(), []);
    let mut numbers = Vec::new();
    for (at, dpi) in [(1, 100), (2, 100), (3, 200), (4, 100)] {
        numbers.push(add_revision(store, &a, "p", &key, dpi, at).await.number);
    }
    assert_eq!(numbers, [1, 1, 2, 3], "only the newest revision is compared");
    let second = Revision {
        tenant: a.clone(),
        pipeline: "p".into(),
        number: 2,
        spec: make_spec(200, &[]),
        created_millis: 3,
        pushed_by_key: key.clone(),
    };
    assert_eq!(store.find_revision(&a, "p", 2).await.unwrap(), Some(second));
    add_revision(store, &a, "other", &key, 300, 5).await;
    add_revision(store, &b, "p", &key_b, 400, 6).await;

    let list = async |tenant, pipeline, before, limit| {
        let revisions = store.list_revisions(tenant, pipeline, before, limit);
        let revisions = revisions.await.unwrap().into_iter();
        revisions.map(|revision| revision.number).collect::<Vec<u32>>()
    };
    assert_eq!(list(&a, "p", None, 9).await, [3, 2, 1], "newest first");
    assert_eq!(list(&a, "p", None, 1).await, [3]);
    assert_eq!(list(&a, "p", Some(3), 9).await, [2, 1]);
    assert_eq!(list(&a, "p", Some(1), 9).await, []);
    assert_eq!(list(&a, "p", None, 0).await, []);
    assert_eq!(list(&a, "other", None, 9).await, [1]);
    assert_eq!(list(&b, "p", None, 9).await, [1]);
    for (tenant, pipeline, number) in [(&a, "p", 4), (&a, "other", 2), (&b, "p", 2)] {
        let found = store.find_revision(tenant, pipeline, number).await.unwrap();
        assert_eq!(found, None, "{tenant} {pipeline} {number}");
    }
    let of_a = [make_pipeline("other", 1), make_pipeline("p", 3)];
    assert_eq!(store.list_pipelines(&a).await.unwrap(), of_a, "sorted by name");
    let of_b = store.find_pipeline(&b, "p").await.unwrap();
    assert_eq!(of_b, Some(make_pipeline("p", 1)));
    assert_eq!(store.find_pipeline(&b, "other").await.unwrap(), None);
}

async fn check_component_use(store: &(impl PipelineStore + TenantStore)) {
    let ((a, key), (b, key_b)) = (create_tenant(store).await, create_tenant(store).await);
    let record = make_component(&a, &key, b"used", 1);
    let foreign = make_component(&b, &key_b, b"used", 1);
    store.put_component_record(&record).await.unwrap();
    let spec = make_spec(100, &[(Role::Routing, record.digest)]);
    let missing = store
        .add_revision_if_changed(&b, "p", &spec, &key_b, 1)
        .await
        .unwrap();
    assert_eq!(missing, Err(record.digest), "another tenant stores the component");
    assert_eq!(store.find_pipeline(&b, "p").await.unwrap(), None);
    assert_eq!(store.list_audit_log(&b, "p", None, 9).await.unwrap(), []);

    let added = store.add_revision_if_changed(&a, "p", &spec, &key, 1).await;
    assert_eq!(added.unwrap().unwrap().spec, spec);
    add_revision(store, &a, "p", &key, 200, 1).await;
    store.put_component_record(&foreign).await.unwrap();
    let used = store.remove_unused_component(&a, &record.digest).await.unwrap();
    assert_eq!(used, Err(("p".into(), 1)), "an older revision uses the component");
    assert_eq!(
        store.find_component(&a, &record.digest).await.unwrap(),
        Some(record)
    );
    let unused = store.remove_unused_component(&b, &foreign.digest).await.unwrap();
    assert_eq!(unused, Ok(true), "no revision of this tenant uses it");
}

async fn check_removed_tenants(store: &(impl PipelineStore + TenantStore)) {
    let ((a, key), (b, key_b)) = (create_tenant(store).await, create_tenant(store).await);
    let outcome = make_outcome(&a, 100);
    for (tenant, key) in [(&a, &key), (&b, &key_b)] {
        let record = make_component(tenant, key, b"one", 1);
        store.put_component_record(&record).await.unwrap();
        add_revision(store, tenant, "p", key, 100, 1).await;
        change_rollout(store, tenant, key, ACTIVATE_1).await;
        store
            .assign_revision_to_job(tenant, "p", &outcome.job)
            .await
            .unwrap();
    }
    store.record_job_outcome(&outcome).await.unwrap();
    assert!(store.suspend_tenant_and_remove_keys(&a).await.unwrap());
    check_changes_are_refused(store, &a, &key).await;
    assert!(store.find_pipeline(&a, "p").await.unwrap().is_some());
    assert!(store.remove_tenant(&a).await.unwrap());
    store.create_tenant(&make_tenant(&a)).await.unwrap();
    check_changes_are_refused(store, &a, &key).await;

    assert_eq!(store.list_components(&a).await.unwrap(), []);
    assert_eq!(store.list_pipelines(&a).await.unwrap(), []);
    assert_eq!(store.list_revisions(&a, "p", None, 9).await.unwrap(), []);
    assert_eq!(store.list_audit_log(&a, "p", None, 9).await.unwrap(), []);
    let assigned = store.find_assigned_revision_of_job(&a, &outcome.job).await;
    assert_eq!(assigned.unwrap(), None);
    let ended = store.sample_ended_jobs(&a, "p", 1, 0..=u64::MAX, 9).await;
    assert_eq!(ended.unwrap(), []);
    assert_eq!(store.list_components(&b).await.unwrap().len(), 1);
    assert_eq!(store.list_pipelines(&b).await.unwrap().len(), 1);
    let assigned = store.find_assigned_revision_of_job(&b, &outcome.job).await;
    assert!(assigned.unwrap().is_some(), "another tenant keeps its data");
}

/// Checks that a key that was removed with its tenant can change nothing.
async fn check_changes_are_refused(store: &impl PipelineStore, tenant: &TenantId, key: &str) {
    let component = make_component(tenant, key, b"late", 1);
    let refused = [
        store.put_component_record(&component).await.err(),
        store
            .add_revision_if_changed(tenant, "late", &make_spec(100, &[]), key, 1)
            .await
            .err(),
        store
            .change_rollout(
                tenant,
                "p",
                None,
                &RolloutAction::Pin { revision: 1 },
                key,
                None,
                1,
            )
            .await
            .err(),
    ];
    for refused in refused {
        assert!(
            matches!(refused, Some(StorageError::NotFound { .. })),
            "the key {key} was removed: {refused:?}"
        );
    }
}

/// Creates a tenant with a key, and returns both ids.
pub(crate) async fn create_tenant(store: &impl TenantStore) -> (TenantId, String) {
    let (tenant, key) = (unique_tenant_id("t"), unique_name("key"));
    store.create_tenant(&make_tenant(&tenant)).await.unwrap();
    store.put_api_key(&make_api_key(&tenant, &key, 1)).await.unwrap();
    (tenant, key)
}

fn make_component(tenant: &TenantId, key: &str, content: &[u8], created_millis: u64) -> ComponentRecord {
    ComponentRecord {
        tenant: tenant.clone(),
        digest: ComponentDigest::from_content(content),
        name: "ours".into(),
        bytes: 7,
        interface: ComponentInterface {
            roles: vec![Role::Routing, Role::Progress],
            capabilities: vec![Capability::State],
        },
        created_millis,
        pushed_by_key: key.into(),
    }
}

fn make_spec(dpi: i64, components: &[(Role, ComponentDigest)]) -> RevisionSpec {
    let mut manifest = Manifest::default_pipeline_manifest();
    manifest.settings.insert("dpi".into(), dpi.into());
    RevisionSpec {
        manifest,
        components: components.iter().copied().collect(),
    }
}

fn make_pipeline(name: &str, revision_count: u32) -> PipelineRecord {
    PipelineRecord {
        name: name.into(),
        revision_count,
        rollout: Rollout::default(),
    }
}

fn make_outcome(tenant: &TenantId, ended_at_millis: u64) -> RevisionJobOutcome {
    RevisionJobOutcome {
        tenant: tenant.clone(),
        job: JobId::new(),
        state: JobState::Done,
        ended_at_millis,
        metrics: JobMetrics {
            jobs: 1,
            pages: 10,
            millis: ended_at_millis,
            ..JobMetrics::default()
        },
    }
}

/// Adds a revision that has this resolution and uses no components.
pub(crate) async fn add_revision(
    store: &impl PipelineStore,
    tenant: &TenantId,
    pipeline: &str,
    key: &str,
    dpi: i64,
    now_millis: u64,
) -> Revision {
    let spec = make_spec(dpi, &[]);
    let added = store.add_revision_if_changed(tenant, pipeline, &spec, key, now_millis);
    added.await.unwrap().unwrap()
}

async fn change_rollout(
    store: &impl PipelineStore,
    tenant: &TenantId,
    key: &str,
    action: RolloutAction,
) -> Rollout {
    let changed = store.change_rollout(tenant, "p", None, &action, key, None, 1);
    changed.await.unwrap().unwrap()
}

//! Components, revisions, rollouts and job outcomes in a data folder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::collections::BTreeMap;

use tempfile::TempDir;
use weir_core::canary_analysis::{CanaryEvidence, JobMetrics};
use weir_core::component::{ComponentDigest, ComponentInterface, ComponentRecord};
use weir_core::ledger::JobState;
use weir_core::manifest::{Capability, Manifest, Role};
use weir_core::replay::{DecisionDifference, ReplayReport};
use weir_core::revision::{PipelineAuditAction, PipelineStore as _, RevisionJobOutcome, RevisionSpec};
use weir_core::rollout::{RolloutAction, RolloutArm, RolloutError};
use weir_core::shadow::{MAX_SHADOW_RUNS, ShadowRun, ShadowStore as _};
use weir_core::tenancy::{TenantState, TenantStore as _};
use weir_core::{JobId, StorageError, TenantId};
use weir_storage::Storage;

struct TestData {
    folder: TempDir,
    storage: Storage,
}

impl TestData {
    async fn create() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open_or_create(folder.path(), 4, "test").await.unwrap();
        let a = tenant_id("a");
        storage
            .ledger
            .create_tenant(&fixture::make_tenant(&a))
            .await
            .unwrap();
        for id in ["key", "pusher", "changer", "0123456789ab"] {
            let key = fixture::make_api_key(&a, id, 1);
            storage.ledger.put_api_key(&key).await.unwrap();
        }
        Self { folder, storage }
    }

    async fn reopen(self) -> Self {
        self.storage.close().await.unwrap();
        let storage = Storage::open_or_create(self.folder.path(), 4, "test")
            .await
            .unwrap();
        Self {
            folder: self.folder,
            storage,
        }
    }
}

fn tenant_id(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn make_component_record(tenant: &TenantId, bytes: &[u8]) -> ComponentRecord {
    ComponentRecord {
        tenant: tenant.clone(),
        digest: ComponentDigest::from_content(bytes),
        name: "ours".into(),
        bytes: bytes.len() as u64,
        interface: ComponentInterface {
            roles: vec![Role::Routing, Role::Progress],
            capabilities: vec![Capability::State],
        },
        created_millis: 5,
        pushed_by_key: "0123456789ab".into(),
    }
}

fn make_revision_spec(settings: &[(&str, i64)], components: &[(Role, ComponentDigest)]) -> RevisionSpec {
    let mut manifest = Manifest::default_pipeline_manifest();
    for (name, value) in settings {
        manifest.settings.insert((*name).into(), (*value).into());
    }
    RevisionSpec {
        manifest,
        components: components.iter().copied().collect::<BTreeMap<_, _>>(),
    }
}

#[tokio::test]
async fn revisions_survive_a_restart_and_belong_to_their_tenant() {
    let data = TestData::create().await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let record = make_component_record(&a, b"one");
    let ledger = &data.storage.ledger;
    ledger.put_component_record(&record).await.unwrap();
    let with = make_revision_spec(&[("dpi", 200)], &[(Role::Routing, record.digest)]);
    let added = ledger
        .add_revision_if_changed(&a, "reports", &with, "key", 7)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(added.number, 1);

    let data = data.reopen().await;
    let ledger = &data.storage.ledger;
    assert_eq!(
        ledger.find_component(&a, &record.digest).await.unwrap().as_ref(),
        Some(&record)
    );
    assert_eq!(
        ledger.list_components(&a).await.unwrap(),
        std::slice::from_ref(&record)
    );
    assert_eq!(ledger.find_revision(&a, "reports", 1).await.unwrap(), Some(added));
    let pipelines = ledger.list_pipelines(&a).await.unwrap();
    assert_eq!((pipelines.len(), pipelines[0].revision_count), (1, 1));
    assert_eq!(pipelines[0].rollout.stable, None);

    assert_eq!(ledger.find_component(&b, &record.digest).await.unwrap(), None);
    assert_eq!(ledger.find_revision(&b, "reports", 1).await.unwrap(), None);
    assert!(ledger.list_pipelines(&b).await.unwrap().is_empty());
    let foreign = ledger
        .add_revision_if_changed(&b, "reports", &with, "key", 8)
        .await
        .unwrap();
    assert_eq!(foreign, Err(record.digest));
}

#[tokio::test]
async fn change_by_a_key_of_a_removed_tenant_is_refused() {
    let data = TestData::create().await;
    let (ledger, a) = (&data.storage.ledger, tenant_id("a"));
    let known = make_component_record(&a, b"known");
    ledger.put_component_record(&known).await.unwrap();
    assert!(ledger.suspend_tenant_and_remove_keys(&a).await.unwrap());
    let locked = ledger.find_tenant(&a).await.unwrap().unwrap();
    assert_eq!(locked.state, TenantState::Suspended);
    let assert_refused = async || {
        let refused = ledger
            .put_component_record(&make_component_record(&a, b"late"))
            .await;
        assert!(
            matches!(refused, Err(StorageError::NotFound { .. })),
            "{refused:?}"
        );
        let refused = ledger
            .add_revision_if_changed(&a, "p", &make_revision_spec(&[], &[]), "key", 1)
            .await;
        assert!(
            matches!(refused, Err(StorageError::NotFound { .. })),
            "{refused:?}"
        );
        let activate = RolloutAction::Activate { revision: 1 };
        let refused = ledger
            .change_rollout(&a, "p", None, &activate, "key", None, 1)
            .await;
        assert!(
            matches!(refused, Err(StorageError::NotFound { .. })),
            "{refused:?}"
        );
    };
    assert_refused().await;
    assert!(ledger.remove_tenant(&a).await.unwrap());
    assert!(!ledger.suspend_tenant_and_remove_keys(&a).await.unwrap());
    // The key does not work for a new tenant of the same name either.
    ledger.create_tenant(&fixture::make_tenant(&a)).await.unwrap();
    assert_refused().await;
    assert!(ledger.list_components(&a).await.unwrap().is_empty());
    assert!(ledger.list_pipelines(&a).await.unwrap().is_empty());
}

#[tokio::test]
async fn revisions_are_numbered_and_repeating_a_spec_adds_none() {
    let data = TestData::create().await;
    let (ledger, a) = (&data.storage.ledger, tenant_id("a"));
    let mut numbers = Vec::new();
    for dpi in [100, 100, 200, 100] {
        let added = ledger
            .add_revision_if_changed(&a, "p", &make_revision_spec(&[("dpi", dpi)], &[]), "key", 1)
            .await;
        numbers.push(added.unwrap().unwrap().number);
    }
    assert_eq!(numbers, [1, 1, 2, 3]);
    let listed = ledger.list_revisions(&a, "p", Some(3), 10).await.unwrap();
    assert_eq!(listed.iter().map(|r| r.number).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(
        ledger.list_revisions(&a, "p", None, 1).await.unwrap()[0].number,
        3
    );
}

#[tokio::test]
async fn component_of_a_revision_cannot_be_removed() {
    let data = TestData::create().await;
    let (ledger, a) = (&data.storage.ledger, tenant_id("a"));
    let (used, unused) = (
        make_component_record(&a, b"used"),
        make_component_record(&a, b"unused"),
    );
    for record in [&used, &unused] {
        ledger.put_component_record(record).await.unwrap();
    }
    let with = make_revision_spec(&[], &[(Role::Routing, used.digest)]);
    ledger
        .add_revision_if_changed(&a, "p", &with, "key", 1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        ledger.remove_unused_component(&a, &unused.digest).await.unwrap(),
        Ok(true)
    );
    assert_eq!(
        ledger.remove_unused_component(&a, &unused.digest).await.unwrap(),
        Ok(false)
    );
    let named = ledger.remove_unused_component(&a, &used.digest).await.unwrap();
    assert_eq!(named, Err(("p".into(), 1)));
}

#[tokio::test]
async fn audit_log_has_the_key_time_and_evidence_of_each_change() {
    let data = TestData::create().await;
    let (ledger, a) = (&data.storage.ledger, tenant_id("a"));
    for dpi in [100, 200] {
        ledger
            .add_revision_if_changed(&a, "p", &make_revision_spec(&[("dpi", dpi)], &[]), "pusher", 1)
            .await
            .unwrap()
            .unwrap();
    }
    let change = async |version, change: RolloutAction, evidence, at| {
        ledger
            .change_rollout(&a, "p", version, &change, "changer", evidence, at)
            .await
            .unwrap()
    };
    let canary = RolloutAction::Canary {
        revision: 2,
        percent: 10,
    };
    change(None, RolloutAction::Activate { revision: 1 }, None, 10)
        .await
        .unwrap();
    let rollout = change(Some(1), canary, None, 20).await.unwrap();
    assert_eq!((rollout.version, rollout.canary.unwrap().since_millis), (2, 20));
    // A change for the previous version is refused, and a refused change writes nothing.
    assert_eq!(
        change(Some(1), RolloutAction::Promote, None, 30).await,
        Err(RolloutError::VersionConflict(2))
    );
    let evidence = CanaryEvidence {
        canary: JobMetrics::default(),
        stable: JobMetrics::default(),
        reason: "it was fine".into(),
    };
    change(Some(2), RolloutAction::Promote, Some(evidence.clone()), 40)
        .await
        .unwrap();
    assert_eq!(
        change(None, RolloutAction::Promote, None, 50).await,
        Err(RolloutError::NoCanary)
    );

    let data = data.reopen().await;
    let audit_log = data
        .storage
        .ledger
        .list_audit_log(&a, "p", None, 100)
        .await
        .unwrap();
    let entries: Vec<_> = audit_log
        .iter()
        .map(|e| (e.seq, e.at_millis, &*e.changed_by))
        .collect();
    assert_eq!(
        entries,
        [
            (5, 40, "changer"),
            (4, 20, "changer"),
            (3, 10, "changer"),
            (2, 1, "pusher"),
            (1, 1, "pusher")
        ]
    );
    assert_eq!(audit_log[0].evidence, Some(evidence));
    let PipelineAuditAction::Changed { change, from, to } = &audit_log[0].action else {
        panic!()
    };
    assert_eq!(
        (change, from.stable, to.stable),
        (&RolloutAction::Promote, Some(1), Some(2))
    );
    let page = data
        .storage
        .ledger
        .list_audit_log(&a, "p", Some(3), 1)
        .await
        .unwrap();
    assert_eq!(page.iter().map(|e| e.seq).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn job_keeps_its_assigned_revision() {
    let data = TestData::create().await;
    let (ledger, a, job) = (&data.storage.ledger, tenant_id("a"), JobId::new());
    for dpi in [100, 200] {
        ledger
            .add_revision_if_changed(&a, "p", &make_revision_spec(&[("dpi", dpi)], &[]), "key", 1)
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(ledger.assign_revision_to_job(&a, "p", &job).await.unwrap(), None);
    let activate = |revision| RolloutAction::Activate { revision };
    ledger
        .change_rollout(&a, "p", None, &activate(1), "key", None, 1)
        .await
        .unwrap()
        .unwrap();
    let assignment = ledger
        .assign_revision_to_job(&a, "p", &job)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((assignment.revision, assignment.arm), (1, RolloutArm::Stable));
    ledger
        .change_rollout(&a, "p", None, &activate(2), "key", None, 2)
        .await
        .unwrap()
        .unwrap();
    let data = data.reopen().await;
    let ledger = &data.storage.ledger;
    assert_eq!(
        ledger.assign_revision_to_job(&a, "p", &job).await.unwrap(),
        Some(assignment)
    );
    assert_eq!(
        ledger.find_assigned_revision_of_job(&a, &job).await.unwrap(),
        Some(assignment)
    );
    assert_eq!(
        ledger
            .assign_revision_to_job(&a, "p", &JobId::new())
            .await
            .unwrap()
            .unwrap()
            .revision,
        2
    );
}

#[tokio::test]
async fn job_outcomes_are_stored_once_in_the_order_of_the_ends() {
    let data = TestData::create().await;
    let (ledger, a) = (&data.storage.ledger, tenant_id("a"));
    ledger
        .add_revision_if_changed(&a, "p", &make_revision_spec(&[], &[]), "key", 1)
        .await
        .unwrap()
        .unwrap();
    let activate = RolloutAction::Activate { revision: 1 };
    ledger
        .change_rollout(&a, "p", None, &activate, "key", None, 1)
        .await
        .unwrap()
        .unwrap();
    let mut last = None;
    for at_millis in [100, 200, 300] {
        let outcome = RevisionJobOutcome {
            tenant: a.clone(),
            job: JobId::new(),
            state: JobState::Done,
            ended_at_millis: at_millis,
            metrics: JobMetrics {
                jobs: 1,
                pages: 10,
                millis: at_millis,
                ..JobMetrics::default()
            },
        };
        ledger
            .assign_revision_to_job(&a, "p", &outcome.job)
            .await
            .unwrap();
        ledger.record_job_outcome(&outcome).await.unwrap();
        last = Some(outcome);
    }
    // A second outcome of a job is ignored, and so is the outcome of a job without an assignment.
    let last = last.unwrap();
    ledger.record_job_outcome(&last).await.unwrap();
    ledger
        .record_job_outcome(&RevisionJobOutcome {
            job: JobId::new(),
            ..last
        })
        .await
        .unwrap();
    let sample_jobs = async |revision, within, jobs| {
        let samples = ledger
            .sample_ended_jobs(&a, "p", revision, within, jobs)
            .await
            .unwrap();
        let ends = samples
            .iter()
            .map(|job| (job.ended_at_millis, job.metrics.millis));
        ends.collect::<Vec<_>>()
    };
    assert_eq!(
        sample_jobs(1, 0..=u64::MAX, 100).await,
        [(100, 100), (200, 200), (300, 300)]
    );
    assert_eq!(sample_jobs(1, 200..=300, 100).await, [(200, 200), (300, 300)]);
    // Samples of one and of two of the three jobs.
    assert_eq!(sample_jobs(1, 0..=u64::MAX, 1).await, [(300, 300)]);
    assert_eq!(sample_jobs(1, 0..=u64::MAX, 2).await, [(200, 200), (300, 300)]);
    assert_eq!(sample_jobs(1, 0..=u64::MAX, 0).await, []);
    assert_eq!(sample_jobs(2, 0..=u64::MAX, 100).await, []);
}

#[tokio::test]
async fn removed_tenant_leaves_no_pipeline_rows() {
    let data = TestData::create().await;
    let (ledger, a) = (&data.storage.ledger, tenant_id("a"));
    let record = make_component_record(&a, b"one");
    ledger.put_component_record(&record).await.unwrap();
    ledger
        .add_revision_if_changed(&a, "p", &make_revision_spec(&[], &[]), "key", 1)
        .await
        .unwrap()
        .unwrap();
    let activate = RolloutAction::Activate { revision: 1 };
    ledger
        .change_rollout(&a, "p", None, &activate, "key", None, 1)
        .await
        .unwrap()
        .unwrap();
    let job = JobId::new();
    ledger.assign_revision_to_job(&a, "p", &job).await.unwrap();
    ledger.remove_tenant(&a).await.unwrap();
    assert!(ledger.list_components(&a).await.unwrap().is_empty());
    assert!(ledger.list_pipelines(&a).await.unwrap().is_empty());
    assert!(ledger.list_revisions(&a, "p", None, 10).await.unwrap().is_empty());
    assert!(ledger.list_audit_log(&a, "p", None, 10).await.unwrap().is_empty());
    assert_eq!(
        ledger.find_assigned_revision_of_job(&a, &job).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn shadow_runs_of_the_last_jobs_are_stored() {
    let data = TestData::create().await;
    let ledger = &data.storage.ledger;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let run = |tenant: &TenantId, revision, at_millis, report| ShadowRun {
        tenant: tenant.clone(),
        pipeline: "ours".into(),
        revision,
        job: JobId::new(),
        compared_at_millis: at_millis,
        report,
    };
    let report = ReplayReport {
        decisions: 7,
        differing: 1,
        differences: vec![DecisionDifference {
            function: "routing.page".into(),
            subject: "page 1".into(),
            before: "ocr".into(),
            after: "none".into(),
        }],
        ..ReplayReport::default()
    };
    let early = run(&a, 2, 10, Ok(report.clone()));
    let other = run(&a, 3, 20, Ok(report.clone()));
    let late = run(&a, 2, 30, Err("it is gone".into()));
    let foreign = run(&b, 2, 30, Ok(report.clone()));
    for run in [&early, &other, &late, &late, &foreign] {
        ledger.put_shadow_run(run).await.unwrap();
    }
    let runs = ledger.list_shadow_runs(&a, "ours", 2, 0).await.unwrap();
    assert_eq!(runs, [late.clone(), early]);
    assert_eq!(ledger.list_shadow_runs(&a, "ours", 2, 11).await.unwrap(), [late]);
    assert_eq!(ledger.list_shadow_runs(&a, "theirs", 2, 0).await.unwrap(), []);
    for _ in 0..MAX_SHADOW_RUNS {
        let next = run(&a, 4, 40, Ok(report.clone()));
        ledger.put_shadow_run(&next).await.unwrap();
    }
    let run_count = ledger.list_shadow_runs(&a, "ours", 4, 0).await.unwrap().len();
    assert_eq!(run_count, MAX_SHADOW_RUNS as usize);
    assert_eq!(ledger.list_shadow_runs(&a, "ours", 3, 0).await.unwrap(), []);
    assert_eq!(
        ledger.list_shadow_runs(&b, "ours", 2, 0).await.unwrap(),
        [foreign]
    );
}

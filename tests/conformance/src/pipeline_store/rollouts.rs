//! Conformance checks of rollouts with their audit log, and of the jobs that they assign to revisions.

use weir_core::JobId;
use weir_core::canary_analysis::{CanaryEvidence, JobMetrics};
use weir_core::revision::{PipelineAuditAction, PipelineStore, RevisionJobOutcome};
use weir_core::rollout::{Rollout, RolloutAction, RolloutError};
use weir_core::tenancy::TenantStore;

use super::{ACTIVATE_1, add_revision, change_rollout, create_tenant, make_outcome};

const CANARY_2: RolloutAction = RolloutAction::Canary {
    revision: 2,
    percent: 50,
};

pub(super) async fn check_rollouts(store: &(impl PipelineStore + TenantStore)) {
    check_rollout_changes(store).await;
    check_audit_log(store).await;
    check_assignments(store).await;
    check_job_outcomes(store).await;
}

async fn check_rollout_changes(store: &(impl PipelineStore + TenantStore)) {
    let ((a, key), (b, key_b)) = (create_tenant(store).await, create_tenant(store).await);
    for (tenant, key) in [(&a, &key), (&b, &key_b)] {
        add_revision(store, tenant, "p", key, 100, 1).await;
        add_revision(store, tenant, "p", key, 200, 1).await;
    }
    let change = async |version, action: RolloutAction, at| {
        let changed = store.change_rollout(&a, "p", version, &action, &key, None, at);
        changed.await.unwrap()
    };
    let rollout = async |tenant| {
        let pipeline = store.find_pipeline(tenant, "p").await.unwrap();
        pipeline.unwrap().rollout
    };
    let stable = change(Some(0), ACTIVATE_1, 10).await.unwrap();
    let expected = Rollout::default().apply_action(&ACTIVATE_1, 10).unwrap();
    assert_eq!(stable, expected);
    let canary = change(Some(stable.version), CANARY_2, 20).await.unwrap();
    assert_eq!(canary, expected.apply_action(&CANARY_2, 20).unwrap());
    assert_eq!(rollout(&a).await, canary);

    let conflict = RolloutError::VersionConflict(canary.version);
    let refused = change(Some(stable.version), RolloutAction::Promote, 30).await;
    assert_eq!(refused, Err(conflict.clone()), "the rollout has changed");
    let refused = change(None, RolloutAction::Unshadow, 30).await;
    assert_eq!(refused, Err(RolloutError::NoShadow));
    assert_eq!(rollout(&a).await, canary, "a refused change writes nothing");
    let version = Some(canary.version);
    let (one, two) = tokio::join!(
        change(version, RolloutAction::Promote, 40),
        change(version, RolloutAction::RollBack, 40),
    );
    let (changed, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    let changed = changed.unwrap();
    assert_eq!(
        refused,
        Err(RolloutError::VersionConflict(changed.version)),
        "one of two changes of a version is made"
    );
    assert_eq!(rollout(&a).await, changed);
    assert_eq!(
        rollout(&b).await,
        Rollout::default(),
        "another tenant's pipeline does not change"
    );
}

async fn check_audit_log(store: &(impl PipelineStore + TenantStore)) {
    let ((a, key), (b, key_b)) = (create_tenant(store).await, create_tenant(store).await);
    for (at, dpi) in [(1, 100), (2, 100), (3, 200)] {
        add_revision(store, &a, "p", &key, dpi, at).await;
    }
    add_revision(store, &a, "other", &key, 100, 1).await;
    add_revision(store, &b, "p", &key_b, 100, 1).await;
    let evidence = CanaryEvidence {
        canary: JobMetrics::default(),
        stable: JobMetrics::default(),
        reason: "it was fine".into(),
    };
    let (analysis, by_key) = (Some(evidence.clone()), key.as_str());
    for (action, by, evidence, at) in [
        (ACTIVATE_1, by_key, None, 10),
        (CANARY_2, by_key, None, 20),
        (RolloutAction::Unshadow, by_key, None, 25), // is refused
        (RolloutAction::Promote, "canary-analysis", analysis, 30),
    ] {
        let changed = store.change_rollout(&a, "p", None, &action, by, evidence, at);
        assert_eq!(changed.await.unwrap().is_ok(), at != 25, "at {at}");
    }
    let log = store.list_audit_log(&a, "p", None, 99).await.unwrap();
    let entries = log.iter().map(|e| (e.seq, e.at_millis, e.changed_by.as_str()));
    let entries: Vec<(u64, u64, &str)> = entries.collect();
    let expected = [
        (5, 30, "canary-analysis"),
        (4, 20, by_key),
        (3, 10, by_key),
        (2, 3, by_key),
        (1, 1, by_key),
    ];
    assert_eq!(entries, expected, "newest first, numbered without gaps");
    let [promoted, _, _, pushed, _] = &log[..] else {
        panic!("five entries: {log:?}");
    };
    assert_eq!(promoted.evidence, Some(evidence));
    let PipelineAuditAction::Changed { change, from, to } = &promoted.action else {
        panic!("the change of the rollout: {promoted:?}");
    };
    assert_eq!(
        (change, from.stable, to.stable),
        (&RolloutAction::Promote, Some(1), Some(2))
    );
    assert_eq!(pushed.action, PipelineAuditAction::Pushed { revision: 2 });
    assert_eq!(pushed.evidence, None);

    let list = async |tenant, pipeline, before, limit| {
        let entries = store.list_audit_log(tenant, pipeline, before, limit);
        let entries = entries.await.unwrap().into_iter();
        entries.map(|entry| entry.seq).collect::<Vec<u64>>()
    };
    assert_eq!(list(&a, "p", Some(4), 2).await, [3, 2]);
    assert_eq!(list(&a, "p", Some(1), 9).await, []);
    assert_eq!(list(&a, "p", None, 0).await, []);
    assert_eq!(list(&a, "other", None, 9).await, [1]);
    assert_eq!(list(&b, "p", None, 9).await, [1]);
}

async fn check_assignments(store: &(impl PipelineStore + TenantStore)) {
    let ((a, key), (b, _)) = (create_tenant(store).await, create_tenant(store).await);
    let job = JobId::new();
    let assign = async |tenant, job| store.assign_revision_to_job(tenant, "p", job).await.unwrap();
    let find = async |tenant, job| {
        let found = store.find_assigned_revision_of_job(tenant, job);
        found.await.unwrap()
    };
    assert_eq!(assign(&a, &job).await, None, "there is no such pipeline");
    for dpi in [100, 200, 300] {
        add_revision(store, &a, "p", &key, dpi, 1).await;
    }
    assert_eq!(assign(&a, &job).await, None, "no revision is active");
    assert_eq!(find(&a, &job).await, None);
    change_rollout(store, &a, &key, ACTIVATE_1).await;
    let rollout = change_rollout(store, &a, &key, CANARY_2).await;
    let jobs: Vec<JobId> = (0..20).map(|_| JobId::new()).collect();
    for job in &jobs {
        let (one, two) = tokio::join!(assign(&a, job), assign(&a, job));
        assert_eq!((one, two), (rollout.assign_job(job), rollout.assign_job(job)));
    }
    change_rollout(store, &a, &key, RolloutAction::Activate { revision: 3 }).await;
    for job in &jobs {
        assert_eq!(
            assign(&a, job).await,
            rollout.assign_job(job),
            "a job keeps its revision"
        );
        assert_eq!(find(&a, job).await, rollout.assign_job(job));
        assert_eq!(find(&b, job).await, None);
    }
    assert_eq!(find(&a, &job).await, None, "only an assignment is stored");
    assert_eq!(assign(&a, &job).await.map(|assigned| assigned.revision), Some(3));
}

async fn check_job_outcomes(store: &(impl PipelineStore + TenantStore)) {
    let ((a, key), (b, _)) = (create_tenant(store).await, create_tenant(store).await);
    add_revision(store, &a, "p", &key, 100, 1).await;
    change_rollout(store, &a, &key, ACTIVATE_1).await;
    let sample = async |tenant, pipeline, revision, within, jobs| {
        let samples = store.sample_ended_jobs(tenant, pipeline, revision, within, jobs);
        let samples = samples.await.unwrap().into_iter();
        let ends = samples.map(|job| (job.ended_at_millis, job.metrics.millis));
        ends.collect::<Vec<_>>()
    };
    let unended = JobId::new();
    store.assign_revision_to_job(&a, "p", &unended).await.unwrap();
    assert_eq!(sample(&a, "p", 1, 0..=u64::MAX, 99).await, []);
    for at in [300, 100, 200] {
        let outcome = make_outcome(&a, at);
        store.assign_revision_to_job(&a, "p", &outcome.job).await.unwrap();
        store.record_job_outcome(&outcome).await.unwrap();
        let again = RevisionJobOutcome {
            job: outcome.job,
            ..make_outcome(&a, 150)
        };
        store.record_job_outcome(&again).await.unwrap();
    }
    // These jobs have no assignment.
    for outcome in [
        make_outcome(&a, 250),
        RevisionJobOutcome {
            job: unended,
            ..make_outcome(&b, 250)
        },
    ] {
        store.record_job_outcome(&outcome).await.unwrap();
    }
    let all = [(100, 100), (200, 200), (300, 300)];
    assert_eq!(
        sample(&a, "p", 1, 0..=u64::MAX, 99).await,
        all,
        "the first outcome of each job, in the order of the ends"
    );
    assert_eq!(
        sample(&a, "p", 1, 100..=300, 3).await,
        all,
        "both ends are included"
    );
    assert_eq!(sample(&a, "p", 1, 101..=299, 3).await, [(200, 200)]);
    assert_eq!(
        sample(&a, "p", 1, 0..=u64::MAX, 2).await,
        [(200, 200), (300, 300)]
    );
    assert_eq!(sample(&a, "p", 1, 0..=u64::MAX, 1).await, [(300, 300)]);
    assert_eq!(sample(&a, "p", 1, 0..=u64::MAX, 0).await, []);
    assert_eq!(sample(&a, "p", 2, 0..=u64::MAX, 99).await, []);
    assert_eq!(sample(&a, "other", 1, 0..=u64::MAX, 99).await, []);
    assert_eq!(sample(&b, "p", 1, 0..=u64::MAX, 99).await, []);
}

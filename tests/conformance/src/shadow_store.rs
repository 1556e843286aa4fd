//! Conformance checks of comparisons with shadows: replacement, order, the maximum number and erased documents.

use weir_core::job_request::JobRequestStore;
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger;
use weir_core::replay::{DecisionDifference, ReplayReport};
use weir_core::shadow::{MAX_SHADOW_RUNS, ShadowRun, ShadowStore};
use weir_core::tenancy::TenantStore;
use weir_core::{DocumentId, JobId, TenantId};

use crate::records::{make_job, make_job_request, make_tenant, unique_tenant_id};

/// Checks a store of comparisons with shadows. Panics if the store breaks the contract of its port.
pub async fn check_shadow_store(store: &(impl ShadowStore + JobRequestStore + Ledger + TenantStore)) {
    check_listing(store).await;
    check_maximum_number(store).await;
    check_erased_documents(store).await;
    check_removed_tenants(store).await;
}

async fn check_listing(store: &(impl ShadowStore + Ledger)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let list = async |tenant, pipeline, revision, since| {
        let runs = store.list_shadow_runs(tenant, pipeline, revision, since);
        runs.await.unwrap()
    };
    assert_eq!(list(&a, "ours", 2, 0).await, []);
    let first = make_run(&a, 2, 30);
    let other_revision = make_run(&a, 3, 20);
    let second = ShadowRun {
        report: Err("it is gone".into()),
        ..make_run(&a, 2, 10)
    };
    let other_pipeline = ShadowRun {
        pipeline: "theirs".into(),
        ..second.clone()
    };
    let foreign = make_run(&b, 2, 30);
    // The newer job is compared first.
    for run in [&second, &first, &other_revision, &other_pipeline, &foreign] {
        put_run(store, run).await;
    }
    assert_eq!(
        list(&a, "ours", 2, 0).await,
        [second.clone(), first.clone()],
        "newest job first"
    );
    assert_eq!(
        list(&a, "ours", 2, 30).await,
        std::slice::from_ref(&first),
        "a comparison of exactly this time is included"
    );
    assert_eq!(list(&a, "ours", 2, 31).await, []);
    assert_eq!(list(&a, "ours", 3, 0).await, [other_revision]);
    assert_eq!(list(&a, "theirs", 2, 0).await, [other_pipeline]);
    assert_eq!(list(&b, "ours", 2, 0).await, [foreign]);
    assert_eq!(list(&b, "theirs", 2, 0).await, []);

    let again = ShadowRun {
        report: first.report.clone(),
        compared_at_millis: 50,
        ..second
    };
    put_run(store, &again).await;
    assert_eq!(
        list(&a, "ours", 2, 0).await,
        [again.clone(), first],
        "a job has one comparison with a pipeline"
    );
    let other_shadow = ShadowRun { revision: 4, ..again };
    put_run(store, &other_shadow).await;
    assert_eq!(list(&a, "ours", 2, 0).await.len(), 1);
    assert_eq!(list(&a, "ours", 4, 0).await, [other_shadow]);
}

async fn check_maximum_number(store: &(impl ShadowStore + Ledger)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let (oldest, foreign) = (make_run(&a, 1, 1), make_run(&b, 1, 1));
    let other_pipeline = ShadowRun {
        pipeline: "theirs".into(),
        ..make_run(&a, 1, 1)
    };
    let runs: Vec<ShadowRun> = (0..MAX_SHADOW_RUNS).map(|_| make_run(&a, 2, 1)).collect();
    for run in [&foreign, &other_pipeline].into_iter().chain(&runs) {
        put_run(store, run).await;
    }
    // The comparison of an older job ends last and is not kept.
    put_run(store, &oldest).await;
    let kept = store.list_shadow_runs(&a, "ours", 2, 0).await.unwrap();
    assert!(
        kept.iter().eq(runs.iter().rev()),
        "the newest jobs of a pipeline are kept"
    );
    assert_eq!(store.list_shadow_runs(&a, "ours", 1, 0).await.unwrap(), []);
    let others = store.list_shadow_runs(&a, "theirs", 1, 0).await.unwrap();
    assert_eq!(others, [other_pipeline], "each pipeline has its own maximum");
    let others = store.list_shadow_runs(&b, "ours", 1, 0).await.unwrap();
    assert_eq!(others, [foreign], "each tenant has its own maximum");
}

async fn check_erased_documents(store: &(impl ShadowStore + JobRequestStore + Ledger)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    let [erased, kept] = ["erased", "kept"].map(|name| DocumentId::from_content(name.as_bytes()));
    let mut runs = Vec::new();
    for (tenant, document) in [(&a, erased), (&a, kept), (&b, erased)] {
        let record = make_job(tenant, JobState::Running, 1);
        store
            .create_job_with_request(&record, &make_job_request(&record, document), None)
            .await
            .unwrap();
        let run = ShadowRun {
            job: record.id,
            ..make_run(tenant, 1, 1)
        };
        store.put_shadow_run(&run).await.unwrap();
        runs.push(run);
    }
    let [of_erased, of_kept, foreign] = <[ShadowRun; 3]>::try_from(runs).unwrap();
    store.erase_document(&a, &erased).await.unwrap();
    let found = store.list_shadow_runs(&a, "ours", 1, 0).await.unwrap();
    let kept = std::slice::from_ref(&of_kept);
    assert_eq!(found, kept, "comparisons of jobs with the document are removed");
    store.put_shadow_run(&of_erased).await.unwrap();
    let found = store.list_shadow_runs(&a, "ours", 1, 0).await.unwrap();
    assert_eq!(found, kept, "later comparisons of these jobs are not stored");
    let found = store.list_shadow_runs(&b, "ours", 1, 0).await.unwrap();
    assert_eq!(found, [foreign], "the other tenant's document was not erased");
}

async fn check_removed_tenants(store: &(impl ShadowStore + Ledger + TenantStore)) {
    let (a, b) = (unique_tenant_id("a"), unique_tenant_id("b"));
    for tenant in [&a, &b] {
        store.create_tenant(&make_tenant(tenant)).await.unwrap();
        put_run(store, &make_run(tenant, 1, 1)).await;
    }
    assert!(store.remove_tenant(&a).await.unwrap());
    assert_eq!(store.list_shadow_runs(&a, "ours", 1, 0).await.unwrap(), []);
    assert_eq!(store.list_shadow_runs(&b, "ours", 1, 0).await.unwrap().len(), 1);
}

/// Creates the job of a comparison and stores the comparison.
pub(crate) async fn put_run(store: &(impl ShadowStore + Ledger), run: &ShadowRun) {
    let job = JobRecord {
        id: run.job,
        ..make_job(&run.tenant, JobState::Done, 1)
    };
    store.commit_entries(vec![LedgerEntry::Job(job)]).await.unwrap();
    store.put_shadow_run(run).await.unwrap();
}

/// Returns a comparison of a new job.
pub(crate) fn make_run(tenant: &TenantId, revision: u32, compared_at_millis: u64) -> ShadowRun {
    ShadowRun {
        tenant: tenant.clone(),
        pipeline: "ours".into(),
        revision,
        job: JobId::new(),
        compared_at_millis,
        report: Ok(ReplayReport {
            decisions: 7,
            differing: 1,
            differences: vec![DecisionDifference {
                function: "routing.page".into(),
                subject: "page 1".into(),
                before: "ocr".into(),
                after: "none".into(),
            }],
            ..ReplayReport::default()
        }),
    }
}

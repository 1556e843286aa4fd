//! Components, revisions, rollouts and what jobs showed of them, in a data folder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::collections::BTreeMap;

use tempfile::TempDir;
use weir_core::component::{ComponentDigest, ComponentFacts, ComponentRecord};
use weir_core::judge::{Evidence, Showing};
use weir_core::ledger::JobState;
use weir_core::manifest::{Capability, Manifest, Role};
use weir_core::replay::{Difference, ReplayReport};
use weir_core::revision::{History, JobShowing, PipelineBook as _, Recipe};
use weir_core::rollout::{Arm, Change, ChangeError};
use weir_core::shadow::{SHADOW_RUNS, ShadowBook as _, ShadowRun};
use weir_core::tenancy::{Registry as _, TenantState};
use weir_core::{JobId, StorageError, TenantId};
use weir_storage::Storage;

struct Data {
    folder: TempDir,
    storage: Storage,
}

impl Data {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(folder.path(), 4, "test").await.unwrap();
        let a = tenant("a");
        storage
            .ledger
            .create_tenant(&fixture::tenant_record(&a))
            .await
            .unwrap();
        for id in ["key", "pusher", "changer", "0123456789ab"] {
            let key = fixture::key_record(&a, id, 1);
            storage.ledger.put_key(&key).await.unwrap();
        }
        Self { folder, storage }
    }

    async fn again(self) -> Self {
        self.storage.close().await.unwrap();
        let storage = Storage::open(self.folder.path(), 4, "test").await.unwrap();
        Self {
            folder: self.folder,
            storage,
        }
    }
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn component(tenant: &TenantId, bytes: &[u8]) -> ComponentRecord {
    ComponentRecord {
        tenant: tenant.clone(),
        digest: ComponentDigest::of(bytes),
        name: "ours".into(),
        bytes: bytes.len() as u64,
        facts: ComponentFacts {
            roles: vec![Role::Routing, Role::Progress],
            capabilities: vec![Capability::State],
        },
        created_millis: 5,
        by: "0123456789ab".into(),
    }
}

fn recipe(settings: &[(&str, i64)], components: &[(Role, ComponentDigest)]) -> Recipe {
    let mut manifest = Manifest::embedded();
    for (name, value) in settings {
        manifest.settings.insert((*name).into(), (*value).into());
    }
    Recipe {
        manifest,
        components: components.iter().copied().collect::<BTreeMap<_, _>>(),
    }
}

#[tokio::test]
async fn what_was_pushed_is_there_after_a_restart_and_only_for_its_tenant() {
    let data = Data::new().await;
    let (a, b) = (tenant("a"), tenant("b"));
    let record = component(&a, b"one");
    let book = &data.storage.ledger;
    book.put_component(&record).await.unwrap();
    let with = recipe(&[("dpi", 200)], &[(Role::Routing, record.digest)]);
    let added = book
        .add_revision(&a, "reports", &with, "key", 7)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(added.number, 1);

    let data = data.again().await;
    let book = &data.storage.ledger;
    assert_eq!(
        book.component(&a, &record.digest).await.unwrap().as_ref(),
        Some(&record)
    );
    assert_eq!(book.components(&a).await.unwrap(), std::slice::from_ref(&record));
    assert_eq!(book.revision(&a, "reports", 1).await.unwrap(), Some(added));
    let pipelines = book.pipelines(&a).await.unwrap();
    assert_eq!((pipelines.len(), pipelines[0].revisions), (1, 1));
    assert_eq!(pipelines[0].rollout.stable, None);

    assert_eq!(book.component(&b, &record.digest).await.unwrap(), None);
    assert_eq!(book.revision(&b, "reports", 1).await.unwrap(), None);
    assert!(book.pipelines(&b).await.unwrap().is_empty());
    let foreign = book.add_revision(&b, "reports", &with, "key", 8).await.unwrap();
    assert_eq!(foreign, Err(record.digest));
}

#[tokio::test]
async fn change_by_a_key_of_a_removed_tenant_is_refused() {
    let data = Data::new().await;
    let (book, a) = (&data.storage.ledger, tenant("a"));
    let known = component(&a, b"known");
    book.put_component(&known).await.unwrap();
    assert!(book.lock_out(&a).await.unwrap());
    let locked = book.tenant(&a).await.unwrap().unwrap();
    assert_eq!(locked.state, TenantState::Suspended);
    let assert_refused = async || {
        let refused = book.put_component(&component(&a, b"late")).await;
        assert!(
            matches!(refused, Err(StorageError::Missing { .. })),
            "{refused:?}"
        );
        let refused = book.add_revision(&a, "p", &recipe(&[], &[]), "key", 1).await;
        assert!(
            matches!(refused, Err(StorageError::Missing { .. })),
            "{refused:?}"
        );
        let activate = Change::Activate { revision: 1 };
        let refused = book
            .change_rollout(&a, "p", None, &activate, "key", None, 1)
            .await;
        assert!(
            matches!(refused, Err(StorageError::Missing { .. })),
            "{refused:?}"
        );
    };
    assert_refused().await;
    assert!(book.remove_tenant(&a).await.unwrap());
    assert!(!book.lock_out(&a).await.unwrap());
    // Nor do they reach the next tenant of the name.
    book.create_tenant(&fixture::tenant_record(&a)).await.unwrap();
    assert_refused().await;
    assert!(book.components(&a).await.unwrap().is_empty());
    assert!(book.pipelines(&a).await.unwrap().is_empty());
}

#[tokio::test]
async fn revisions_are_numbered_and_the_same_twice_is_one() {
    let data = Data::new().await;
    let (book, a) = (&data.storage.ledger, tenant("a"));
    let mut numbers = Vec::new();
    for dpi in [100, 100, 200, 100] {
        let added = book
            .add_revision(&a, "p", &recipe(&[("dpi", dpi)], &[]), "key", 1)
            .await;
        numbers.push(added.unwrap().unwrap().number);
    }
    assert_eq!(numbers, [1, 1, 2, 3]);
    let listed = book.revisions(&a, "p", Some(3), 10).await.unwrap();
    assert_eq!(listed.iter().map(|r| r.number).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(book.revisions(&a, "p", None, 1).await.unwrap()[0].number, 3);
}

#[tokio::test]
async fn a_component_goes_only_when_no_revision_names_it() {
    let data = Data::new().await;
    let (book, a) = (&data.storage.ledger, tenant("a"));
    let (used, unused) = (component(&a, b"used"), component(&a, b"unused"));
    for record in [&used, &unused] {
        book.put_component(record).await.unwrap();
    }
    let with = recipe(&[], &[(Role::Routing, used.digest)]);
    book.add_revision(&a, "p", &with, "key", 1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(book.forget_component(&a, &unused.digest).await.unwrap(), Ok(true));
    assert_eq!(
        book.forget_component(&a, &unused.digest).await.unwrap(),
        Ok(false)
    );
    let named = book.forget_component(&a, &used.digest).await.unwrap();
    assert_eq!(named, Err(("p".into(), 1)));
}

#[tokio::test]
async fn each_change_is_in_the_history_with_who_and_when_and_why() {
    let data = Data::new().await;
    let (book, a) = (&data.storage.ledger, tenant("a"));
    for dpi in [100, 200] {
        book.add_revision(&a, "p", &recipe(&[("dpi", dpi)], &[]), "pusher", 1)
            .await
            .unwrap()
            .unwrap();
    }
    let change = async |version, change: Change, evidence, at| {
        book.change_rollout(&a, "p", version, &change, "changer", evidence, at)
            .await
            .unwrap()
    };
    let canary = Change::Canary {
        revision: 2,
        percent: 10,
    };
    change(None, Change::Activate { revision: 1 }, None, 10)
        .await
        .unwrap();
    let rollout = change(Some(1), canary, None, 20).await.unwrap();
    assert_eq!((rollout.version, rollout.canary.unwrap().since_millis), (2, 20));
    // What was decided for the version before is not done to this one, and what is refused leaves nothing.
    assert_eq!(
        change(Some(1), Change::Promote, None, 30).await,
        Err(ChangeError::Moved(2))
    );
    let evidence = Evidence {
        canary: Showing::default(),
        stable: Showing::default(),
        reason: "it was fine".into(),
    };
    change(Some(2), Change::Promote, Some(evidence.clone()), 40)
        .await
        .unwrap();
    assert_eq!(
        change(None, Change::Promote, None, 50).await,
        Err(ChangeError::NoCanary)
    );

    let data = data.again().await;
    let history = data.storage.ledger.history(&a, "p", None, 100).await.unwrap();
    let told: Vec<_> = history.iter().map(|e| (e.seq, e.at_millis, &*e.by)).collect();
    assert_eq!(
        told,
        [
            (5, 40, "changer"),
            (4, 20, "changer"),
            (3, 10, "changer"),
            (2, 1, "pusher"),
            (1, 1, "pusher")
        ]
    );
    assert_eq!(history[0].evidence, Some(evidence));
    let History::Changed { change, from, to } = &history[0].what else {
        panic!()
    };
    assert_eq!(
        (change, from.stable, to.stable),
        (&Change::Promote, Some(1), Some(2))
    );
    let page = data.storage.ledger.history(&a, "p", Some(3), 1).await.unwrap();
    assert_eq!(page.iter().map(|e| e.seq).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_job_keeps_what_it_was_given() {
    let data = Data::new().await;
    let (book, a, job) = (&data.storage.ledger, tenant("a"), JobId::new());
    for dpi in [100, 200] {
        book.add_revision(&a, "p", &recipe(&[("dpi", dpi)], &[]), "key", 1)
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(book.assign(&a, "p", &job).await.unwrap(), None);
    let activate = |revision| Change::Activate { revision };
    book.change_rollout(&a, "p", None, &activate(1), "key", None, 1)
        .await
        .unwrap()
        .unwrap();
    let given = book.assign(&a, "p", &job).await.unwrap().unwrap();
    assert_eq!((given.revision, given.arm), (1, Arm::Stable));
    book.change_rollout(&a, "p", None, &activate(2), "key", None, 2)
        .await
        .unwrap()
        .unwrap();
    let data = data.again().await;
    let book = &data.storage.ledger;
    assert_eq!(book.assign(&a, "p", &job).await.unwrap(), Some(given));
    assert_eq!(book.assignment(&a, &job).await.unwrap(), Some(given));
    assert_eq!(
        book.assign(&a, "p", &JobId::new())
            .await
            .unwrap()
            .unwrap()
            .revision,
        2
    );
}

#[tokio::test]
async fn what_jobs_showed_is_kept_once_each_in_the_order_of_their_ends() {
    let data = Data::new().await;
    let (book, a) = (&data.storage.ledger, tenant("a"));
    book.add_revision(&a, "p", &recipe(&[], &[]), "key", 1)
        .await
        .unwrap()
        .unwrap();
    let activate = Change::Activate { revision: 1 };
    book.change_rollout(&a, "p", None, &activate, "key", None, 1)
        .await
        .unwrap()
        .unwrap();
    let mut last = None;
    for at_millis in [100, 200, 300] {
        let shown = JobShowing {
            tenant: a.clone(),
            job: JobId::new(),
            state: JobState::Done,
            at_millis,
            showing: Showing {
                jobs: 1,
                pages: 10,
                millis: at_millis,
                ..Showing::default()
            },
        };
        book.assign(&a, "p", &shown.job).await.unwrap();
        book.show(&shown).await.unwrap();
        last = Some(shown);
    }
    // Told twice it counts once; a job that was given nothing shows nothing.
    let last = last.unwrap();
    book.show(&last).await.unwrap();
    book.show(&JobShowing {
        job: JobId::new(),
        ..last
    })
    .await
    .unwrap();
    let shown = async |revision, within, jobs| {
        let shown = book.shown(&a, "p", revision, within, jobs).await.unwrap();
        let ends = shown.iter().map(|job| (job.at_millis, job.showing.millis));
        ends.collect::<Vec<_>>()
    };
    assert_eq!(
        shown(1, 0..=u64::MAX, 100).await,
        [(100, 100), (200, 200), (300, 300)]
    );
    assert_eq!(shown(1, 200..=300, 100).await, [(200, 200), (300, 300)]);
    // Of three, one and two.
    assert_eq!(shown(1, 0..=u64::MAX, 1).await, [(300, 300)]);
    assert_eq!(shown(1, 0..=u64::MAX, 2).await, [(200, 200), (300, 300)]);
    assert_eq!(shown(1, 0..=u64::MAX, 0).await, []);
    assert_eq!(shown(2, 0..=u64::MAX, 100).await, []);
}

#[tokio::test]
async fn nothing_of_it_is_left_of_a_tenant_that_was_removed() {
    let data = Data::new().await;
    let (book, a) = (&data.storage.ledger, tenant("a"));
    let record = component(&a, b"one");
    book.put_component(&record).await.unwrap();
    book.add_revision(&a, "p", &recipe(&[], &[]), "key", 1)
        .await
        .unwrap()
        .unwrap();
    let activate = Change::Activate { revision: 1 };
    book.change_rollout(&a, "p", None, &activate, "key", None, 1)
        .await
        .unwrap()
        .unwrap();
    let job = JobId::new();
    book.assign(&a, "p", &job).await.unwrap();
    book.remove_tenant(&a).await.unwrap();
    assert!(book.components(&a).await.unwrap().is_empty());
    assert!(book.pipelines(&a).await.unwrap().is_empty());
    assert!(book.revisions(&a, "p", None, 10).await.unwrap().is_empty());
    assert!(book.history(&a, "p", None, 10).await.unwrap().is_empty());
    assert_eq!(book.assignment(&a, &job).await.unwrap(), None);
}

#[tokio::test]
async fn what_shadows_would_have_decided_is_kept_of_the_last_jobs() {
    let data = Data::new().await;
    let ledger = &data.storage.ledger;
    let (a, b) = (tenant("a"), tenant("b"));
    let run = |tenant: &TenantId, revision, at_millis, report| ShadowRun {
        tenant: tenant.clone(),
        pipeline: "ours".into(),
        revision,
        job: JobId::new(),
        at_millis,
        report,
    };
    let report = ReplayReport {
        decisions: 7,
        differing: 1,
        differences: vec![Difference {
            function: "routing.page".into(),
            about: "page 1".into(),
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
    let runs = ledger.shadow_runs(&a, "ours", 2, 0).await.unwrap();
    assert_eq!(runs, [late.clone(), early]);
    assert_eq!(ledger.shadow_runs(&a, "ours", 2, 11).await.unwrap(), [late]);
    assert_eq!(ledger.shadow_runs(&a, "theirs", 2, 0).await.unwrap(), []);
    for _ in 0..SHADOW_RUNS {
        let next = run(&a, 4, 40, Ok(report.clone()));
        ledger.put_shadow_run(&next).await.unwrap();
    }
    let kept = ledger.shadow_runs(&a, "ours", 4, 0).await.unwrap().len();
    assert_eq!(kept, SHADOW_RUNS as usize);
    assert_eq!(ledger.shadow_runs(&a, "ours", 3, 0).await.unwrap(), []);
    assert_eq!(ledger.shadow_runs(&b, "ours", 2, 0).await.unwrap(), [foreign]);
}

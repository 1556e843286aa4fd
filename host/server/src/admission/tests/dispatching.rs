//! Jobs begin and end on an engine.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use weir_core::ledger::{Entry, JobState};
use weir_core::order::Orders as _;
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::tenancy::Scope;
use weir_core::usage::{Meter as _, Usage};

use super::{waits, written};
use crate::admission::{Standing, dispatch};
use crate::fakes::{Host, eventually, job_record, measured};

fn one_at_a_time() -> Settings {
    Settings {
        server_jobs: 1,
        ..Settings::default()
    }
}

#[tokio::test]
async fn shares_are_those_of_the_tenants_records() {
    let host = Host::with(one_at_a_time());
    let (heavy, _) = host.tenant("heavy", &[]).await;
    let (light, _) = host.tenant("light", &[]).await;
    host.change(&heavy, |tenant| tenant.weight = 3.0).await;
    let mut last = Vec::new();
    for n in 0..16 {
        for tenant in [&heavy, &light] {
            let job = waits(&host, tenant, &format!("1 pages {n}")).await;
            if n == 15 {
                last.push((tenant, job));
            }
        }
    }
    let _dispatching = host.dispatching();
    for (tenant, job) in last {
        host.until(tenant, job, JobState::Done).await;
    }
    let opened = host.works.opened();
    assert_eq!(opened.len(), 32);
    let first = opened.iter().take(20).filter(|job| job.tenant == heavy).count();
    assert!((14..=16).contains(&first), "{first} of the first 20");
}

#[tokio::test]
async fn a_quota_of_jobs_holds_while_they_work() {
    let host = Host::new();
    let (a, _) = host.tenant("a", &[]).await;
    host.quota(&a, "concurrent_jobs", 2).await;
    host.works.hold();
    let mut jobs = Vec::new();
    for n in 0..4 {
        jobs.push(waits(&host, &a, &format!("1 pages {n}")).await);
    }
    let _dispatching = host.dispatching();
    host.until(&a, jobs[0], JobState::Running).await;
    host.until(&a, jobs[1], JobState::Running).await;
    assert_eq!(host.app.admission.counts(&a), (2, 2));
    host.works.let_pages(1);
    host.until_counts(&a, 1, 2).await;
    host.works.let_pages(3);
    for job in jobs {
        host.until(&a, job, JobState::Done).await;
    }
    host.until_counts(&a, 0, 0).await;
}

#[tokio::test]
async fn a_components_memory_is_at_most_what_the_tenant_may_use() {
    let host = Host::with(Settings {
        policy_memory_bytes: 256 << 20,
        ..Settings::default()
    });
    for (name, quota, expected) in [
        ("small", Some(64 << 20), Some(64 << 20)),
        ("large", Some(512 << 20), None),
        ("usual", None, None),
    ] {
        let (tenant, _) = host.tenant(name, &[]).await;
        if let Some(quota) = quota {
            host.quota(&tenant, "guest_memory_bytes", quota).await;
        }
        let job = waits(&host, &tenant, "1 pages").await;
        let _dispatching = host.dispatching();
        host.until(&tenant, job, JobState::Done).await;
        let opened = host.works.opened();
        let opened = opened.last().unwrap();
        assert_eq!(
            (opened.job, opened.memory_bytes),
            (job, expected),
            "of {name} tenants"
        );
    }
}

#[tokio::test]
async fn a_suspended_tenants_jobs_wait_and_go_on_afterwards() {
    let host = Host::with(one_at_a_time());
    let (_, admin) = host.tenant("admin", &[Scope::Admin]).await;
    let (a, _) = host.tenant("a", &[]).await;
    let (b, _) = host.tenant("b", &[]).await;
    let set = async |state: &str| {
        let body = serde_json::json!({ "state": state });
        let answer = host.patch("/v1/tenants/a", &admin, &body).await;
        assert_eq!(answer.status(), 200);
    };
    set("suspended").await;
    let held = waits(&host, &a, "1 pages a").await;
    let other = waits(&host, &b, "1 pages b").await;
    let _dispatching = host.dispatching();
    // It would have been the first one's turn.
    host.until(&b, other, JobState::Done).await;
    assert_eq!(
        host.app.admission.standing(&a, held),
        Some(Standing::Waiting {
            position: 1,
            held: Some("suspended")
        })
    );
    set("active").await;
    host.until(&a, held, JobState::Done).await;
    let opened: Vec<_> = host.works.opened().iter().map(|opened| opened.job).collect();
    assert_eq!(opened, [other, held]);
}

#[tokio::test(start_paused = true)]
async fn jobs_wait_for_the_day_to_end_when_its_share_is_used_up() {
    let host = Host::with(one_at_a_time());
    let (a, _) = host.tenant("a", &[]).await;
    let (b, _) = host.tenant("b", &[]).await;
    host.quota(&a, "pages_per_day", 10).await;
    let used = Usage {
        pages: 10,
        ..Usage::default()
    };
    host.app.metering.used(&a, &used);
    let held = waits(&host, &a, "1 pages a").await;
    let other = waits(&host, &b, "1 pages b").await;
    let _dispatching = host.dispatching();
    host.until(&b, other, JobState::Done).await;
    assert_eq!(
        host.app.admission.standing(&a, held),
        Some(Standing::Waiting {
            position: 1,
            held: Some("pages_per_day")
        })
    );
    // Nobody says that there is more to have; it is looked at again.
    host.quota(&a, "pages_per_day", 20).await;
    host.until(&a, held, JobState::Done).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_the_ledger_will_not_take_waits_again() {
    let host = Host::new();
    let (a, _) = host.tenant("a", &[]).await;
    host.memory.fail(true);
    let job = waits(&host, &a, "1 pages").await;
    let _dispatching = host.dispatching();
    let held = Some(Standing::Waiting {
        position: 1,
        held: Some("storage"),
    });
    let is_held = async || host.app.admission.standing(&a, job) == held;
    eventually(host.app.admission.moves(), is_held).await;
    assert!(host.works.opened().is_empty() && host.memory.reads() > 0);
    host.memory.fail(false);
    host.until(&a, job, JobState::Done).await;
}

#[tokio::test]
async fn what_cannot_be_started_ends_and_says_why() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    let order = written(&host, &a, "1 pages", 1).await;
    let mut record = job_record(&a, order.job, JobState::Queued);
    record.pipeline = "gone".into();
    host.memory.commit(vec![Entry::Job(record)]).await.unwrap();
    host.app.admission.reserve(&a, None).unwrap().fill(&order);
    let _dispatching = host.dispatching();
    host.until(&a, order.job, JobState::Failed).await;
    let view = crate::fakes::json(host.get(&format!("/v1/jobs/{}", order.job), &key).await).await;
    let document = &view["documents"][0];
    assert_eq!(
        (&document["state"], &document["error"]["kind"]),
        (&"failed".into(), &"no-pipeline".into())
    );
    host.until_counts(&a, 0, 0).await;
}

#[tokio::test]
async fn passwords_are_forgotten_with_the_end() {
    let host = Host::new();
    let (a, _) = host.tenant("a", &[]).await;
    let mut order = written(&host, &a, "1 pages a", 1).await;
    order.job = weir_core::JobId::new();
    order.files[0].password = Some("open sesame".into());
    let record = job_record(&a, order.job, JobState::Queued);
    host.memory.put(&record, &order, None).await.unwrap();
    host.app.admission.reserve(&a, None).unwrap().fill(&order);
    let _dispatching = host.dispatching();
    host.until(&a, order.job, JobState::Done).await;
    host.until_counts(&a, 0, 0).await;
    let kept = host.memory.order(&a, &order.job).await.unwrap().unwrap();
    assert_eq!(kept.files[0].password, None);
}

#[tokio::test]
async fn dispatching_ends_when_the_host_stops_and_starts_nothing_more() {
    let host = Host::with(one_at_a_time());
    let (a, _) = host.tenant("a", &[]).await;
    let first = waits(&host, &a, "1 pages a").await;
    let second = waits(&host, &a, "1 pages b").await;
    host.works.hold();
    let stop = host.app.stopping.clone();
    let dispatching = tokio::spawn(dispatch(host.app.clone(), stop.clone()));
    host.until(&a, first, JobState::Running).await;
    stop.cancel();
    host.works.let_pages(1);
    dispatching.await.unwrap();
    let state = async |job| host.memory.job(&a, &job).await.unwrap().unwrap().state;
    assert_eq!(
        (state(first).await, state(second).await),
        (JobState::Done, JobState::Queued)
    );
}

#[tokio::test]
async fn ends_are_counted_by_state() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let cancelled = host.submitted(&key, "1 pages").await;
    host.delete(&format!("/v1/jobs/{cancelled}"), &key).await;
    for content in ["2 pages", "3 pages", "none"] {
        waits(&host, &a, content).await;
    }
    let _dispatching = host.dispatching();
    host.until_counts(&a, 0, 0).await;
    let counts = ["done", "failed", "cancelled"].map(|state| {
        let series = format!(r#"weir_jobs_ended_total{{state="{state}"}}"#);
        measured(&recorder, &series)
    });
    assert_eq!(counts, [2.0, 1.0, 1.0]);
}

#[tokio::test(start_paused = true)]
async fn one_job_fails_for_want_of_room_and_the_others_wait_for_it() {
    let host = Host::with(one_at_a_time());
    let (a, _) = host.tenant("a", &[]).await;
    let (b, _) = host.tenant("b", &[]).await;
    host.works.hold();
    let first = waits(&host, &a, "2 pages").await;
    let others = [
        (&a, waits(&host, &a, "1 pages a").await),
        (&b, waits(&host, &b, "1 pages b").await),
    ];
    let _dispatching = host.dispatching();
    host.until(&a, first, JobState::Running).await;
    host.memory.fill(true);
    host.works.let_pages(10);
    host.until_counts(&a, 1, 0).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    for (tenant, job) in others {
        assert_eq!(host.app.admission.counts(tenant), (1, 0), "no job begins");
        let standing = host.app.admission.standing(tenant, job);
        let held = Some("storage");
        assert_eq!(standing, Some(Standing::Waiting { position: 1, held }));
    }
    assert_eq!(host.works.opened().len(), 1);

    host.memory.fill(false);
    for (tenant, job) in others {
        host.until(tenant, job, JobState::Done).await;
    }
    host.until(&a, first, JobState::Failed).await;
}

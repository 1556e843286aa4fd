//! Jobs that wait for component instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weir_core::PolicyError;
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;
use weir_policy::PolicyHost;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_jobs_share_ten_instances() {
    let mut config = test_config();
    config.max_instances = 10;
    let host = PolicyHost::new(config).unwrap();
    let pipeline = Arc::new(single_component_pipeline(
        &[Role::Routing],
        &built_component("routing"),
    ));
    let (open_jobs, max_open_jobs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let jobs: Vec<_> = (0..200)
        .map(|_| {
            let (host, pipeline) = (Arc::clone(&host), Arc::clone(&pipeline));
            let (now, most) = (Arc::clone(&open_jobs), Arc::clone(&max_open_jobs));
            tokio::spawn(async move {
                let job = open_job(&host, &pipeline, &Arc::new(FakeCapabilities::default()))
                    .await
                    .unwrap();
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for number in 1..=5 {
                    job.route_page(&sample_document_id(), sample_page(number))
                        .await
                        .unwrap();
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                job.stats().calls
            })
        })
        .collect();
    let mut calls = 0;
    for job in jobs {
        calls += job.await.unwrap();
    }
    assert_eq!(calls, 1000);
    assert!(
        (2..=10).contains(&max_open_jobs.load(Ordering::SeqCst)),
        "{max_open_jobs:?}"
    );
    assert_eq!(host.stats().free_instances, 10);
    assert_eq!(host.stats().instances_created, 200);
}

#[tokio::test]
async fn a_job_waits_for_all_its_instances_at_once() {
    let mut config = test_config();
    config.max_instances = 4;
    let host = PolicyHost::new(config).unwrap();
    let port = Arc::new(FakeCapabilities::default());
    // The job needs four instances. If it acquired them one by one, two jobs could each hold a part and block each other.
    let (whole, small) = (
        pipeline_with_components("", &[]),
        single_component_pipeline(&[Role::Routing], &built_component("routing")),
    );
    let first = open_job(&host, &small, &port).await.unwrap();
    {
        let waiting = std::pin::pin!(open_job(&host, &whole, &port));
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(50), waiting)
                .await
                .is_err()
        );
    }
    assert_eq!(host.stats().free_instances, 3);
    drop(first);
    open_job(&host, &whole, &port).await.unwrap();
}

#[tokio::test]
async fn a_job_too_large_for_the_host_is_refused() {
    let mut config = test_config();
    config.max_instances = 3;
    let host = PolicyHost::new(config).unwrap();
    let error = open_job(
        &host,
        &pipeline_with_components("", &[]),
        &Arc::new(FakeCapabilities::default()),
    )
    .await
    .err()
    .unwrap();
    assert!(
        matches!(&error, PolicyError::NoInstanceAvailable { reason } if reason.contains("the job needs 4")),
        "{error}"
    );
}

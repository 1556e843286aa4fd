//! Several nodes that share a ledger, in virtual time.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use weir_core::TenantId;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;

use crate::job_takeover::take_over_jobs_until_stopped;
use crate::testing::TestControl;

const JOBS: usize = 60;
/// Jobs of each tenant whose shares are compared. The order of the nodes is random, so there are many.
const JOBS_OF_EACH: usize = 300;
const PAGES: usize = 4;
/// Virtual time in which a page is read.
const PAGE_TIME: Duration = Duration::from_secs(2);

fn node_settings() -> Settings {
    Settings {
        storage_ledger: "postgres://weir@db/weir".into(),
        server_max_running_jobs: 4,
        ..Settings::default()
    }
}

/// Creates nodes on which pages take virtual time.
fn create_nodes(count: usize) -> Vec<TestControl> {
    let first = TestControl::with_settings(node_settings());
    let others = (1..count).map(|_| first.add_node()).collect::<Vec<_>>();
    let nodes: Vec<TestControl> = std::iter::once(first).chain(others).collect();
    for node in &nodes {
        node.processing.set_page_time(PAGE_TIME);
    }
    nodes
}

/// Runs the jobs of the ledger on all nodes until the returned set is dropped.
fn run_jobs(nodes: &[TestControl]) -> Vec<JoinSet<()>> {
    let run = |node: &TestControl| {
        let mut tasks = node.spawn_dispatcher();
        let control = node.control.clone();
        tasks.spawn(async move { take_over_jobs_until_stopped(&control).await });
        tasks
    };
    nodes.iter().map(run).collect()
}

/// Returns the virtual time in which the nodes run all jobs.
async fn measure_makespan(count: usize) -> Duration {
    let nodes = create_nodes(count);
    let (tenant, _) = nodes[0].create_tenant("acme", &[]).await;
    nodes[0]
        .change_tenant(&tenant, |tenant| tenant.quotas.concurrent_jobs = Some(0))
        .await;
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        jobs.push(
            nodes[0]
                .enqueue_job(&tenant, &format!("{PAGES} pages {number}"))
                .await,
        );
    }
    let began = Instant::now();
    let _running = run_jobs(&nodes);
    while !nodes[0].store.list_unfinished_jobs().await.unwrap().is_empty() {
        sleep(Duration::from_millis(20)).await;
    }
    let took = began.elapsed();
    for job in jobs {
        let record = nodes[0].store.find_job(&tenant, &job).await.unwrap().unwrap();
        assert_eq!(record.state, JobState::Done);
    }
    took
}

#[tokio::test(start_paused = true)]
async fn throughput_grows_with_the_number_of_nodes() {
    let [one, two, three] = [
        measure_makespan(1).await,
        measure_makespan(2).await,
        measure_makespan(3).await,
    ];
    println!("{JOBS} jobs on 1, 2 and 3 nodes: {one:?}, {two:?}, {three:?}");
    let speedup = |took: Duration| one.as_secs_f64() / took.as_secs_f64();
    assert!((1.8..2.1).contains(&speedup(two)), "{}", speedup(two));
    assert!((2.6..3.1).contains(&speedup(three)), "{}", speedup(three));
}

#[tokio::test(start_paused = true)]
async fn shares_of_tenants_hold_on_all_nodes_together() {
    let nodes = create_nodes(3);
    let (heavy, _) = nodes[0].create_tenant("heavy", &[]).await;
    let (light, _) = nodes[0].create_tenant("light", &[]).await;
    for (tenant, weight) in [(&heavy, 3.0), (&light, 1.0)] {
        nodes[0]
            .change_tenant(tenant, |tenant| {
                tenant.weight = weight;
                tenant.quotas.concurrent_jobs = Some(0);
            })
            .await;
        for number in 0..JOBS_OF_EACH {
            nodes[0]
                .enqueue_job(tenant, &format!("{PAGES} pages {weight} {number}"))
                .await;
        }
    }
    let _running = run_jobs(&nodes);
    let count = async || {
        let unfinished = nodes[0].store.list_unfinished_jobs().await.unwrap();
        let count = |tenant: &TenantId| unfinished.iter().filter(|job| job.tenant == *tenant).count();
        [&heavy, &light].map(|tenant| JOBS_OF_EACH - count(tenant))
    };
    let mut done = count().await;
    // Until few jobs of the tenant with the larger share wait.
    while done[0] < JOBS_OF_EACH - 20 {
        sleep(Duration::from_millis(100)).await;
        done = count().await;
    }
    let share = done[0] as f64 / (done[0] + done[1]) as f64;
    println!("jobs done: {done:?}, share {share:.3}");
    assert!((share / 0.75 - 1.0).abs() <= 0.05, "{done:?}");
}

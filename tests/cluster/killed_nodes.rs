//! Nodes that are killed again and again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use weir_test_services::RoundRobin;
use weir_tests::cluster::{
    BookJob, BookJobs, ClaimLog, Cluster, Node, NodeSettings, assert_events_are_complete, database_time,
    read_events_across_interruptions,
};
use weir_tests::wait_until_within;

use crate::settings;

const NODES: usize = 3;
const TENANTS: usize = 4;
/// Claims that a job may lose: it fails with the next one, because it may be what stops the nodes.
const MAX_LOST_CLAIMS: u64 = 2;
/// Time after the end of a lease in which another node claims the job.
const MAX_TAKEOVER_DELAY: Duration = Duration::from_secs(10);
/// Jobs that run or wait on the living nodes.
const UNFINISHED_JOBS: usize = 3 * NODES;
/// More than the unfinished jobs of all nodes. So a node that goes on with the jobs of another has free slots, also while others start.
const MAX_RUNNING_JOBS: u32 = 32;
/// Time in which a node must get a job that can be killed.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// The kill of a node that ran jobs.
struct Kill {
    /// The node's process in the ledger.
    owner: String,
    killed_at: Duration,
    jobs: Vec<String>,
}

/// A job that a node runs.
struct RunningJob {
    id: String,
    /// The node's process in the ledger.
    owner: String,
    lost_claims: u64,
}

/// Returns the jobs that the process of a node runs if a page of one of them was committed. Claims of its killed processes do not count.
fn list_jobs_in_progress(cluster: &Cluster, node: &Node, kills: &[Kill]) -> Vec<RunningJob> {
    let rows = cluster.postgres.query(&format!(
        "SELECT id, owner, lost_claims, EXISTS (SELECT 1 FROM pages WHERE pages.tenant = jobs.tenant AND pages.job = jobs.id)
         FROM jobs WHERE owner LIKE '{}/%'",
        node.name()
    ));
    let (mut jobs, mut has_page) = (Vec::new(), false);
    for row in rows.lines() {
        let columns: Vec<&str> = row.split('|').collect();
        if kills.iter().all(|kill| kill.owner != columns[1]) {
            has_page |= columns[3] == "t";
            jobs.push(RunningJob {
                id: columns[0].to_owned(),
                owner: columns[1].to_owned(),
                lost_claims: columns[2].parse().unwrap(),
            });
        }
    }
    if has_page { jobs } else { Vec::new() }
}

/// Returns the number of unfinished jobs, without those that a killed process had claimed.
fn count_jobs_of_living_nodes(cluster: &Cluster, kills: &[Kill]) -> usize {
    let owners = cluster
        .postgres
        .query("SELECT coalesce(owner, 'none') FROM jobs WHERE state IN ('queued', 'running')");
    let is_living = |owner: &&str| kills.iter().all(|kill| kill.owner != *owner);
    owners.lines().filter(is_living).count()
}

/// Kills the node in the middle of its jobs, unless it runs none or one that fails when it loses another claim.
fn kill_if_possible(cluster: &Cluster, node: &mut Node, kills: &[Kill]) -> Option<Kill> {
    if list_jobs_in_progress(cluster, node, kills).is_empty() {
        return None;
    }
    // Frozen, it claims no other job until it is killed.
    node.freeze();
    let running = list_jobs_in_progress(cluster, node, kills);
    if running.is_empty() || running.iter().any(|job| job.lost_claims >= MAX_LOST_CLAIMS) {
        node.unfreeze();
        return None;
    }
    let killed_at = database_time(&cluster.postgres);
    node.kill();
    Some(Kill {
        owner: running[0].owner.clone(),
        killed_at,
        jobs: running.into_iter().map(|job| job.id).collect(),
    })
}

/// Prints the times until other processes claimed the jobs of killed nodes, and checks them.
fn check_takeover_times(cluster: &Cluster, log: &ClaimLog, kills: &[Kill]) {
    let claims = log.read(&cluster.postgres);
    let limit = Duration::from_secs(cluster.lease_seconds().into()) + MAX_TAKEOVER_DELAY;
    let mut takeovers = Vec::new();
    for kill in kills {
        for job in &kill.jobs {
            let of_job = &claims[job];
            let lost = of_job.iter().position(|claim| claim.owner == kill.owner);
            let next = &of_job[lost.unwrap() + 1];
            assert_ne!(next.owner, kill.owner);
            takeovers.push(next.claimed_at - kill.killed_at);
            if takeovers.last() > Some(&limit) {
                eprintln!("late takeover of {job} from {}: claims {of_job:#?}", kill.owner);
            }
        }
    }
    takeovers.sort();
    let at = |share: f64| takeovers[((takeovers.len() - 1) as f64 * share) as usize];
    eprintln!(
        "takeover of {} jobs of {} killed nodes: min {:.1?}, median {:.1?}, p90 {:.1?}, max {:.1?}",
        takeovers.len(),
        kills.len(),
        at(0.0),
        at(0.5),
        at(0.9),
        at(1.0)
    );
    assert!(at(1.0) <= limit, "{takeovers:?}");
}

/// Reads the events of a job through the load balancer while nodes are killed, and checks them. Returns the number of connections.
fn spawn_reader(balancer: SocketAddr, job: BookJob) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let (events, connections) = read_events_across_interruptions(balancer, &job.key, &job.id);
        assert_events_are_complete(&events, &job.id, settings::pages());
        connections
    })
}

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn killed_nodes_lose_no_job_and_double_no_page() {
    let mut random = fastrand::Rng::with_seed(settings::seed());
    let cluster = Cluster::start_with_redis(NodeSettings {
        max_running_jobs: MAX_RUNNING_JOBS,
        ..settings::nodes()
    });
    let mut nodes = cluster.start_nodes(NODES);
    let log = ClaimLog::install(&cluster.postgres);
    let balancer = RoundRobin::start(nodes.iter().map(Node::address).collect());
    let mut books = BookJobs::create_tenants(&nodes[0], TENANTS, settings::pages());
    let (jobs, wanted_kills) = (settings::jobs(), settings::kills());
    let (mut kills, mut readers) = (Vec::new(), Vec::new());

    while kills.len() < wanted_kills {
        // The jobs are spread over the kills.
        let share = (jobs * (kills.len() + 1) / wanted_kills).max(UNFINISHED_JOBS);
        let mut killed = None;
        wait_until_within(MAX_WAIT, || {
            let on_living_nodes = count_jobs_of_living_nodes(&cluster, &kills);
            let limit = if on_living_nodes == 0 {
                jobs
            } else {
                jobs.min(share)
            };
            if on_living_nodes < UNFINISHED_JOBS && books.jobs().len() < limit {
                let job = books.submit(&nodes[random.usize(..NODES)]);
                readers.push(spawn_reader(balancer.address(), job));
            }
            let number = random.usize(..NODES);
            killed = kill_if_possible(&cluster, &mut nodes[number], &kills).map(|kill| (number, kill));
            killed.as_ref().map(drop).ok_or_else(|| {
                let jobs = cluster
                    .postgres
                    .query("SELECT state, owner, lost_claims FROM jobs WHERE state IN ('queued', 'running')");
                format!("no node can be killed in the middle of a job; unfinished jobs:\n{jobs}")
            })
        });
        let (number, kill) = killed.unwrap();
        eprintln!(
            "kill {}: {} with {} jobs",
            kills.len() + 1,
            nodes[number].name(),
            kill.jobs.len()
        );
        kills.push(kill);
        nodes[number].start_again();
    }
    while books.jobs().len() < jobs {
        let job = books.submit(&nodes[random.usize(..NODES)]);
        readers.push(spawn_reader(balancer.address(), job));
    }
    books.wait_until_all_have_ended(&cluster);
    check_takeover_times(&cluster, &log, &kills);

    let connections: Vec<usize> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    let claims = log.read(&cluster.postgres);
    let dead: BTreeSet<&str> = kills.iter().map(|kill| kill.owner.as_str()).collect();
    // A process that has not run the job, if there is one.
    let other_node = |job: &BookJob| {
        let runs_it = |node: &&Node| {
            let of_node = claims[&job.id]
                .iter()
                .filter(|claim| claim.owner.split('/').next() == Some(node.name()));
            of_node.clone().any(|claim| !dead.contains(claim.owner.as_str()))
        };
        nodes.iter().find(|node| !runs_it(node))
    };
    let read_elsewhere = books
        .jobs()
        .iter()
        .filter(|job| other_node(job).is_some())
        .count();
    assert_eq!(read_elsewhere, jobs, "each job has a node that did not run it");
    books.assert_all_are_complete(&cluster, |job| other_node(job).unwrap().client_with_key(&job.key));
    let several: usize = claims.values().filter(|claims| claims.len() > 1).count();
    eprintln!(
        "{jobs} jobs with {} pages each are complete; {several} ran on several processes, at most {}; their readers connected {} times",
        settings::pages(),
        claims.values().map(Vec::len).max().unwrap(),
        connections.iter().sum::<usize>()
    );
}

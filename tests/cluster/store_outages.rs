//! Stores that stop or fail while jobs run.

use std::cell::Cell;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use weir_s3_server::Fault;
use weir_test_services::RedisServer;
use weir_tests::cluster::{
    BookJobs, Cluster, Node, assert_events_are_complete, read_events_across_interruptions,
};
use weir_tests::wait_until;

use crate::settings;

const NODES: usize = 3;
const TENANTS: usize = 2;
/// Jobs that run or wait when a store fails.
const JOBS: usize = 6;
/// Time that each call of a slow S3 server takes.
const SLOW_CALL: Duration = Duration::from_secs(2);

/// How nodes answer submissions during an outage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Submissions {
    Refused,
    Accepted,
}

/// Whether jobs have to wait for the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Jobs {
    Wait,
    GoOn,
}

/// Nodes with jobs.
struct LoadedCluster {
    cluster: Cluster,
    nodes: Vec<Node>,
    books: BookJobs,
}

impl LoadedCluster {
    fn start(cluster: Cluster) -> Self {
        let nodes = cluster.start_nodes(NODES);
        let books = BookJobs::create_tenants(&nodes[0], TENANTS, settings::pages());
        Self {
            cluster,
            nodes,
            books,
        }
    }

    /// Returns how often the nodes have repeated a call of a store.
    fn count_retries(&self) -> f64 {
        let metric = |node: &Node| node.admin_client().metric_value("weir_store_retries_total");
        self.nodes.iter().map(metric).sum()
    }

    fn last_event(&self) -> String {
        self.cluster.postgres.query("SELECT max(position) FROM events")
    }

    /// Submits a book to each node. Returns the longest time of an answer.
    fn submit_to_each_node(&mut self, expected: Submissions) -> Duration {
        let mut longest = Duration::ZERO;
        for node in &self.nodes {
            let began = Instant::now();
            let response = self.books.try_submit(node);
            longest = longest.max(began.elapsed());
            match expected {
                Submissions::Accepted => assert_eq!(response.status, 202, "{}", response.body),
                Submissions::Refused => {
                    assert_eq!(
                        (response.status, response.problem_type()),
                        (503, "storage-unavailable"),
                        "{}: {}",
                        node.name(),
                        response.body
                    );
                    assert!(response.headers.get("retry-after").is_some());
                }
            }
        }
        longest
    }

    /// Follows the events of all jobs after the first `count`, each on a node that may not run it, and checks them.
    fn spawn_readers(&self, count: usize) -> Vec<JoinHandle<usize>> {
        let jobs = self.books.jobs().iter().enumerate().skip(count);
        jobs.map(|(number, job)| {
            let (address, job) = (self.nodes[(number + 1) % NODES].address(), job.clone());
            std::thread::spawn(move || {
                let (events, connections) = read_events_across_interruptions(address, &job.key, &job.id);
                assert_events_are_complete(&events, &job.id, settings::pages());
                connections
            })
        })
        .collect()
    }

    /// Lets a store fail for some time in the middle of jobs, and checks that all jobs end by themselves.
    fn check_outage(
        &mut self,
        name: &str,
        duration: Duration,
        (submissions, jobs): (Submissions, Jobs),
        begin: impl FnOnce(&mut Cluster),
        end: impl FnOnce(&mut Cluster),
    ) {
        let before = self.last_event();
        let submitted = self.books.jobs().len();
        self.books.submit_many(&self.nodes, JOBS);
        wait_until(|| match self.cluster.owners().len() {
            NODES => Ok(()),
            running => Err(format!("{running} nodes run jobs")),
        });
        self.cluster
            .wait_until_page_is_done(&self.books.jobs()[submitted].id.clone());
        assert_ne!(self.last_event(), before);
        let retries = self.count_retries();
        let readers = self.spawn_readers(submitted);

        begin(&mut self.cluster);
        let began = Instant::now();
        let mut longest_answer = self.submit_to_each_node(submissions);
        sleep((duration / 2).saturating_sub(began.elapsed()));
        if duration > Duration::ZERO {
            longest_answer = longest_answer.max(self.submit_to_each_node(submissions));
        }
        sleep(duration.saturating_sub(began.elapsed()));
        if jobs == Jobs::Wait {
            let repeated = self.count_retries() - retries;
            assert!(repeated > 0.0, "{name}: no call of a store was repeated");
        }
        end(&mut self.cluster);
        let ended = Instant::now();

        // With a store that jobs do not need, all jobs may have ended.
        if jobs == Jobs::GoOn {
            self.books.submit(&self.nodes[0]);
        }
        let at_end = self.last_event();
        wait_until(|| match self.last_event() != at_end {
            true => Ok(()),
            false => Err(format!("{name}: no job goes on")),
        });
        let first_event = ended.elapsed();
        self.books.wait_until_all_have_ended(&self.cluster);
        let all_ended = ended.elapsed();
        let connections: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        let turn = Cell::new(0);
        self.books.assert_all_are_complete(&self.cluster, |job| {
            turn.set(turn.get() + 1);
            self.nodes[turn.get() % NODES].client_with_key(&job.key)
        });
        let claims = self
            .cluster
            .postgres
            .query("SELECT format('%s claims, %s of them lost', sum(epoch), sum(lost_claims)) FROM jobs");
        eprintln!(
            "{name} for {:.1?}: slowest answer to a submission {longest_answer:.1?}, first event {first_event:.1?} after the end, \
             all {} jobs complete {all_ended:.1?} after the end, so far {claims}, {connections} connections of {JOBS} readers",
            ended - began,
            self.books.jobs().len()
        );
    }
}

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn jobs_survive_outages_of_postgres() {
    let mut loaded = LoadedCluster::start(Cluster::start_with_redis(settings::nodes()));
    loaded.check_outage(
        "PostgreSQL restarted",
        Duration::ZERO,
        (Submissions::Accepted, Jobs::GoOn),
        |cluster| {
            cluster.postgres.stop();
            cluster.postgres.start_again();
        },
        |_| (),
    );
    loaded.check_outage(
        "PostgreSQL stopped",
        settings::outage(),
        (Submissions::Refused, Jobs::Wait),
        |cluster| cluster.postgres.stop(),
        |cluster| cluster.postgres.start_again(),
    );
}

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn jobs_survive_outages_of_s3() {
    let mut loaded = LoadedCluster::start(Cluster::start_with_redis(settings::nodes()));
    loaded.check_outage(
        "S3 stopped",
        settings::outage(),
        (Submissions::Refused, Jobs::Wait),
        |cluster| cluster.s3.stop(),
        |cluster| cluster.s3.start_again(),
    );
    for (name, fault, submissions, jobs) in [
        (
            "S3 answers 500",
            Fault::InternalError,
            Submissions::Refused,
            Jobs::Wait,
        ),
        (
            "S3 answers SlowDown",
            Fault::SlowDown,
            Submissions::Refused,
            Jobs::Wait,
        ),
        (
            "S3 slow",
            Fault::Delay(SLOW_CALL),
            Submissions::Accepted,
            Jobs::GoOn,
        ),
    ] {
        loaded.check_outage(
            name,
            settings::outage(),
            (submissions, jobs),
            |cluster| cluster.s3.fail_with(Some(fault)),
            |cluster| cluster.s3.fail_with(None),
        );
    }
}

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn jobs_survive_an_outage_of_the_vector_server() {
    let mut loaded = LoadedCluster::start(Cluster::start_with_redis(settings::nodes()));
    loaded.check_outage(
        "vector server stopped",
        settings::outage(),
        (Submissions::Accepted, Jobs::Wait),
        |cluster| cluster.qdrant.stop(),
        |cluster| cluster.qdrant.start_again(),
    );
}

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn jobs_and_streams_survive_outages_of_redis() {
    let mut loaded = LoadedCluster::start(Cluster::start_with_redis(settings::nodes()));
    loaded.check_outage(
        "Redis flushed",
        Duration::ZERO,
        (Submissions::Accepted, Jobs::GoOn),
        |cluster| {
            redis(cluster).command(&["FLUSHALL"]);
        },
        |_| (),
    );
    loaded.check_outage(
        "Redis stopped",
        settings::outage(),
        (Submissions::Accepted, Jobs::GoOn),
        |cluster| redis(cluster).stop(),
        |cluster| redis(cluster).start_again(),
    );
    loaded.check_outage(
        "Redis frozen",
        settings::outage(),
        (Submissions::Accepted, Jobs::GoOn),
        |cluster| redis(cluster).freeze(),
        |cluster| redis(cluster).unfreeze(),
    );
}

fn redis(cluster: &mut Cluster) -> &mut RedisServer {
    cluster.redis.as_mut().expect("the cluster has Redis")
}

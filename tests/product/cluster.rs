//! Several nodes on one PostgreSQL server, one S3 server and one server of Qdrant's protocol, with the real binary.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use weir_qdrant_protocol::QdrantProtocolServer;
use weir_s3_server::{ACCESS_KEY, BUCKET, S3TestServer, SECRET_KEY};
use weir_test_services::PostgresServer;
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::{WeirFixture, wait_until};

const LEASE_SECONDS: u32 = 3;

/// The stores that the nodes share.
struct Cluster {
    postgres: PostgresServer,
    s3: S3TestServer,
    qdrant: QdrantProtocolServer,
}

/// A node with a data folder of its own.
struct Node {
    server: TestServer,
    _weir: WeirFixture,
}

impl Cluster {
    fn start() -> Self {
        Self {
            postgres: PostgresServer::start(),
            s3: S3TestServer::start(),
            qdrant: QdrantProtocolServer::start(),
        }
    }

    fn start_node(&self, name: &str) -> Node {
        let mut weir = WeirFixture::new();
        weir.set_variable("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        weir.set_variable("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        let settings = format!(
            "[storage]\nledger = \"{}\"\nvectors = \"{}\"\nblobs = \"s3://{BUCKET}/weir\"\ns3_endpoint = \"{}\"\n\
             s3_region = \"eu-central-1\"\ns3_path_style = true\n\
             [cluster]\nnode = \"{name}\"\nlease_seconds = {LEASE_SECONDS}\n\
             [server]\nmax_running_jobs = 2\nmetrics_access = \"open\"\n[raster]\nworker_processes = 1\n",
            self.postgres.url(),
            self.qdrant.url(),
            self.s3.url()
        );
        weir.write_file("weir.toml", settings.as_bytes());
        let server = TestServer::start(&weir, &[]);
        Node { server, _weir: weir }
    }

    /// Checks that each page of each document is in the ledger, in S3 and in the index once.
    fn assert_each_page_is_stored_once(&self, documents: usize, pages: usize) {
        let all = documents * pages;
        let recorded = self.postgres.query(
            "SELECT count(*), count(DISTINCT (tenant, document, page)), count(*) FILTER (WHERE state LIKE '%\"done\"%') FROM pages",
        );
        assert_eq!(recorded, format!("{all}|{all}|{all}"));
        let expected: i64 = self
            .postgres
            .query("SELECT sum((state::json ->> 'passages')::bigint) FROM pages")
            .parse()
            .unwrap();
        let indexed: usize = self
            .qdrant
            .collections()
            .iter()
            .map(|(_, points, _)| points)
            .sum();
        assert_eq!(i64::try_from(indexed).unwrap(), expected);
        let keys = self.s3.keys();
        let images: BTreeSet<&String> = keys.iter().filter(|key| key.contains("/image/")).collect();
        assert_eq!(images.len(), all);
        assert!(keys.iter().all(|key| !key.contains("/staged/")), "{keys:?}");
    }

    fn owners(&self) -> Vec<String> {
        let owners = self
            .postgres
            .query("SELECT DISTINCT owner FROM jobs WHERE owner IS NOT NULL ORDER BY 1");
        owners
            .lines()
            .map(|owner| owner.split('/').next().unwrap().to_owned())
            .collect()
    }

    fn owner_of(&self, job: &str) -> String {
        let owner = self
            .postgres
            .query(&format!("SELECT owner FROM jobs WHERE id = '{job}'"));
        owner.split('/').next().unwrap().to_owned()
    }
}

/// Waits for the end of a job and checks its events: numbers without a gap, each page once, one end.
fn assert_job_is_complete(client: &ApiClient, job: &str, pages: usize) {
    let events = client.wait_for_job(job);
    let numbers: Vec<u64> = events
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "{job}");
    let of_type = |kind: &str| {
        events
            .iter()
            .filter(|event| event["type"] == kind)
            .collect::<Vec<_>>()
    };
    let ends = of_type("job-ended");
    assert_eq!(
        (ends.len(), &ends[0]["state"]),
        (1, &json!("done")),
        "{job}: {events:#?}"
    );
    let mut done = BTreeMap::<u64, usize>::new();
    for event in of_type("page-done") {
        *done.entry(event["page"].as_u64().unwrap()).or_default() += 1;
    }
    assert_eq!(done.len(), pages, "{job}");
    assert!(done.values().all(|&times| times == 1), "{job}: {done:?}");
}

fn submit_books(clients: &[&ApiClient], jobs: u64, pages: usize) -> Vec<String> {
    (0..jobs)
        .map(|number| {
            let client = clients[usize::try_from(number).unwrap() % clients.len()];
            client.submit_file(
                &format!("{number}.pdf"),
                &weir_samples::generate_book(pages, number),
            )
        })
        .collect()
}

fn wait_until_page_is_done(cluster: &Cluster, job: &str) {
    wait_until(|| {
        let sql = format!("SELECT count(*) FROM events WHERE job = '{job}' AND event LIKE '%page-done%'");
        match cluster.postgres.query(&sql).as_str() {
            "0" => Err(format!("no page of {job} is done")),
            _ => Ok(()),
        }
    });
}

#[test]
fn jobs_of_a_killed_node_are_finished_by_the_other() {
    let cluster = Cluster::start();
    let (a, b) = (cluster.start_node("a"), cluster.start_node("b"));
    let on_a = a.server.create_tenant("acme", json!({}));
    let on_b = b.server.client_with_key(on_a.key());
    let jobs = submit_books(&[&on_a, &on_b], 8, 20);
    wait_until(|| match cluster.owners().as_slice() {
        [first, second] if first == "a" && second == "b" => Ok(()),
        owners => Err(format!("{owners:?} run jobs")),
    });
    let of_a = jobs.iter().find(|job| cluster.owner_of(job) == "a").unwrap();
    wait_until_page_is_done(&cluster, of_a);
    a.server.kill();
    for job in &jobs {
        assert_job_is_complete(&on_b, job, 20);
    }
    assert!(on_b.metric_value("weir_jobs_reclaimed_total") >= 1.0);
    cluster.assert_each_page_is_stored_once(8, 20);
    let found = on_b.post("/v1/search", &json!({ "query": "chapter", "top_k": 100 }));
    assert_eq!(found.status, 200, "{}", found.body);
    b.server.stop();
}

#[test]
fn frozen_node_writes_nothing_after_its_lease() {
    let cluster = Cluster::start();
    let (a, b) = (cluster.start_node("a"), cluster.start_node("b"));
    let on_a = a.server.create_tenant("acme", json!({}));
    let on_b = b.server.client_with_key(on_a.key());
    let jobs = submit_books(&[&on_a], 4, 30);
    wait_until(|| match jobs.iter().any(|job| cluster.owner_of(job) == "a") {
        true => Ok(()),
        false => Err("node a runs no job".into()),
    });
    let of_a = jobs.iter().find(|job| cluster.owner_of(job) == "a").unwrap();
    wait_until_page_is_done(&cluster, of_a);
    let frozen = Pid::from_raw(i32::try_from(a.server.pid()).unwrap()).unwrap();
    kill_process(frozen, Signal::STOP).unwrap();
    for job in &jobs {
        assert_job_is_complete(&on_b, job, 30);
    }
    let events = || {
        cluster
            .postgres
            .query("SELECT count(*), max(position) FROM events")
    };
    let before = events();
    kill_process(frozen, Signal::CONT).unwrap();
    // The woken node notices that its claims are gone, and goes on with new work.
    let late = submit_books(&[&on_a], 1, 2);
    wait_until(|| match on_a.metric_value("weir_jobs_running") {
        0.0 => Ok(()),
        running => Err(format!("{running} jobs run on node a")),
    });
    assert_job_is_complete(&on_a, &late[0], 2);
    let of_late = cluster
        .postgres
        .query(&format!("SELECT count(*) FROM events WHERE job = '{}'", late[0]));
    let count = |text: &str| text.split('|').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(count(&events()), count(&before) + count(&of_late));
    for job in &jobs {
        assert_job_is_complete(&on_a, job, 30);
    }
    for node in [a, b] {
        node.server.stop();
    }
}

#[test]
fn any_node_shows_and_cancels_the_jobs_of_another() {
    let cluster = Cluster::start();
    let (a, b) = (cluster.start_node("a"), cluster.start_node("b"));
    let on_a = a
        .server
        .create_tenant("acme", json!({ "quotas": { "concurrent_jobs": 1 } }));
    let on_b = b.server.client_with_key(on_a.key());
    let jobs = submit_books(&[&on_a], 3, 100);
    wait_until(|| match cluster.owners().len() {
        1 => Ok(()),
        owners => Err(format!("{owners} nodes run jobs")),
    });
    let running = jobs
        .iter()
        .find(|job| !cluster.owner_of(job).is_empty())
        .unwrap()
        .clone();
    let other = if cluster.owner_of(&running) == "a" {
        &on_b
    } else {
        &on_a
    };
    // Events of the other node arrive while they are written.
    let seen = other
        .follow_events(&running, 0)
        .find(|(_, event)| event["type"] == "page-done");
    assert!(seen.is_some());
    let canceled = other.delete(&format!("/v1/jobs/{running}"));
    assert!(canceled.status < 300, "{}: {}", canceled.status, canceled.body);
    let events = other.wait_for_job(&running);
    assert_eq!(events.last().unwrap()["state"], "cancelled");
    // The quota of one running job holds on both nodes together.
    wait_until(|| {
        let claimed = cluster
            .postgres
            .query("SELECT count(*) FROM jobs WHERE owner IS NOT NULL");
        assert!(claimed == "0" || claimed == "1", "{claimed} jobs run at once");
        let started = cluster
            .postgres
            .query("SELECT count(*) FROM jobs WHERE epoch > 0");
        (started.parse::<u32>().unwrap() >= 2)
            .then_some(())
            .ok_or_else(|| "no further job has started".into())
    });
    for job in jobs.iter().filter(|job| **job != running) {
        wait_until(|| match on_b.delete(&format!("/v1/jobs/{job}")) {
            response if response.status < 300 => Ok(()),
            response => Err(response.body.to_string()),
        });
        let end: Value = on_b.wait_for_job(job).pop().unwrap();
        assert!(
            ["cancelled", "done"].contains(&end["state"].as_str().unwrap()),
            "{end}"
        );
    }
    // A node that stops gives its jobs back at once.
    let last = submit_books(&[&on_a], 1, 60);
    wait_until(|| match cluster.owner_of(&last[0]).is_empty() {
        false => Ok(()),
        true => Err("the job does not run".into()),
    });
    let (stopped, rest) = if cluster.owner_of(&last[0]) == "a" {
        (a, b)
    } else {
        (b, a)
    };
    stopped.server.stop();
    let client = rest.server.client_with_key(on_a.key());
    assert_job_is_complete(&client, &last[0], 60);
    assert_eq!(client.metric_value("weir_jobs_reclaimed_total"), 0.0);
    rest.server.stop();
}

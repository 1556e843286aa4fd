//! Jobs with generated books, for several tenants.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Cluster, Node, assert_job_is_complete};
use crate::server::{ApiClient, ApiResponse};

/// Time without a new event after which waiting for jobs fails.
const MAX_STANDSTILL: Duration = Duration::from_secs(180);

/// A job with one book.
#[derive(Debug, Clone)]
pub struct BookJob {
    pub id: String,
    /// The key of the job's tenant.
    pub key: String,
}

/// Jobs with books of the same length. The tenants take turns.
pub struct BookJobs {
    pages: usize,
    keys: Vec<String>,
    jobs: Vec<BookJob>,
    next_seed: u64,
}

impl BookJobs {
    /// Creates tenants over HTTP. Their running jobs are not limited: the jobs of a killed node count until its lease ends.
    pub fn create_tenants(node: &Node, tenants: usize, pages: usize) -> Self {
        let new_key = |number| {
            let quotas = json!({ "quotas": { "concurrent_jobs": 0 } });
            let client = node.create_tenant(&format!("tenant-{number}"), quotas);
            client.key().to_owned()
        };
        Self {
            pages,
            keys: (1..=tenants).map(new_key).collect(),
            jobs: Vec::new(),
            next_seed: 1,
        }
    }

    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    pub fn jobs(&self) -> &[BookJob] {
        &self.jobs
    }

    /// Submits a new book as a job of the next tenant, and remembers the job if it is accepted.
    pub fn try_submit(&mut self, node: &Node) -> ApiResponse {
        let key = self.keys[self.jobs.len() % self.keys.len()].clone();
        let book = weir_samples::generate_book(self.pages, self.next_seed);
        self.next_seed += 1;
        let name = format!("{}.pdf", self.next_seed);
        let response = node
            .client_with_key(&key)
            .submit_files(&[(&name, &book)], &json!({}), &[]);
        if response.status == 202 {
            let id = response.body["id"].as_str().unwrap().to_owned();
            self.jobs.push(BookJob { id, key });
        }
        response
    }

    /// Submits a new book, which must be accepted.
    pub fn submit(&mut self, node: &Node) -> BookJob {
        let response = self.try_submit(node);
        assert_eq!(response.status, 202, "{}", response.body);
        self.jobs.last().unwrap().clone()
    }

    /// Submits as many books to each node in turn.
    pub fn submit_many(&mut self, nodes: &[Node], count: usize) {
        for number in 0..count {
            self.submit(&nodes[number % nodes.len()]);
        }
    }

    /// Waits until no job is unfinished. Fails if no event is written for three minutes.
    pub fn wait_until_all_have_ended(&self, cluster: &Cluster) {
        let mut last = (String::new(), Instant::now());
        loop {
            let unfinished = cluster
                .postgres
                .query("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')");
            if unfinished == "0" {
                return;
            }
            let position = cluster.postgres.query("SELECT max(position) FROM events");
            if position != last.0 {
                last = (position, Instant::now());
            }
            assert!(
                last.1.elapsed() < MAX_STANDSTILL,
                "{unfinished} jobs are unfinished and do not go on:\n{}",
                cluster.postgres.query(
                    "SELECT id, state, owner, epoch, lost_claims FROM jobs WHERE state IN ('queued', 'running')"
                )
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Checks the events of all jobs, with the client that `client_of` returns for each, and that the stores have each page once.
    pub fn assert_all_are_complete(&self, cluster: &Cluster, client_of: impl Fn(&BookJob) -> ApiClient) {
        for job in &self.jobs {
            assert_job_is_complete(&client_of(job), &job.id, self.pages);
        }
        let states = cluster
            .postgres
            .query("SELECT state, count(*) FROM jobs GROUP BY state");
        assert_eq!(states, format!("done|{}", self.jobs.len()));
        cluster.assert_each_page_is_stored_once(self.jobs.len() * self.pages);
    }
}

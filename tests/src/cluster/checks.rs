//! Checks of the jobs and the stores of a cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Cluster;
use crate::server::ApiClient;
use crate::wait_until;

/// Waits for the end of a job and checks its events.
pub fn assert_job_is_complete(client: &ApiClient, job: &str, pages: usize) {
    assert_events_are_complete(&client.wait_for_job(job), job, pages);
}

/// Checks all events of a job: numbers without a gap, each page once, and one end with the state `done`.
pub fn assert_events_are_complete(events: &[Value], job: &str, pages: usize) {
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

impl Cluster {
    /// Checks that each page is in the ledger, in S3 and in the index once, and nothing else is.
    pub fn assert_each_page_is_stored_once(&self, pages: usize) {
        let recorded = self.postgres.query(
            "SELECT count(*), count(DISTINCT (tenant, document, page)), count(*) FILTER (WHERE state LIKE '%\"done\"%') FROM pages",
        );
        assert_eq!(recorded, format!("{pages}|{pages}|{pages}"));
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
        assert_eq!(images.len(), pages);
        assert!(keys.iter().all(|key| !key.contains("/staged/")), "{keys:?}");
    }

    /// Returns the names of the nodes that run jobs, sorted.
    pub fn owners(&self) -> Vec<String> {
        let owners = self
            .postgres
            .query("SELECT DISTINCT split_part(owner, '/', 1) FROM jobs WHERE owner IS NOT NULL ORDER BY 1");
        owners.lines().map(str::to_owned).collect()
    }

    /// Returns the name of the node that runs a job; empty if none does.
    pub fn owner_of(&self, job: &str) -> String {
        self.postgres.query(&format!(
            "SELECT split_part(owner, '/', 1) FROM jobs WHERE id = '{job}'"
        ))
    }

    pub fn wait_until_page_is_done(&self, job: &str) {
        wait_until(|| {
            let sql = format!("SELECT count(*) FROM events WHERE job = '{job}' AND event LIKE '%page-done%'");
            match self.postgres.query(&sql).as_str() {
                "0" => Err(format!("no page of {job} is done")),
                _ => Ok(()),
            }
        });
    }
}

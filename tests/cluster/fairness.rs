//! Shares of tenants, and the start of a small job, on several nodes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::cluster::{Cluster, Node, NodeSettings};
use weir_tests::server::ApiClient;
use weir_tests::wait_until;

use crate::settings;

const NODES: usize = 3;
/// Pages of each job.
const PAGES: usize = 4;
/// Jobs of the tenant with the larger share. The other has half as many, and a third of the share.
const HEAVY_JOBS: usize = 500;
/// Unfinished jobs of each tenant until the end of the measurement: more than run at once.
const MIN_BACKLOG: usize = 20;
const POLL_INTERVAL: Duration = Duration::from_millis(250);

fn node_settings() -> NodeSettings {
    NodeSettings {
        // A quarter of the slots is for tenants without a running job.
        max_running_jobs: 4,
        ..settings::nodes()
    }
}

fn with_role(role: &str) -> NodeSettings {
    let mut settings = node_settings();
    settings
        .environment
        .push(("WEIR_CLUSTER_ROLE".into(), role.into()));
    settings
}

/// A tenant with jobs that are submitted to each node in turn.
struct BusyTenant {
    name: &'static str,
    clients: Vec<ApiClient>,
    submitted: usize,
    seed: u64,
}

impl BusyTenant {
    fn create(nodes: &[Node], name: &'static str, weight: f64, seed: u64) -> Self {
        let created = json!({ "weight": weight, "quotas": { "concurrent_jobs": 0, "queued_jobs": 0, "requests_per_second": 0 } });
        let key = nodes[0].create_tenant(name, created).key().to_owned();
        Self {
            name,
            clients: nodes.iter().map(|node| node.client_with_key(&key)).collect(),
            submitted: 0,
            seed,
        }
    }

    fn submit(&mut self, jobs: usize) {
        for _ in 0..jobs {
            let book = weir_samples::generate_book(PAGES, self.seed + self.submitted as u64);
            let client = &self.clients[self.submitted % self.clients.len()];
            client.submit_file("book.pdf", &book);
            self.submitted += 1;
        }
    }

    fn count_unfinished(&self, cluster: &Cluster) -> usize {
        let sql = format!(
            "SELECT count(*) FROM jobs WHERE tenant = '{}' AND state IN ('queued', 'running')",
            self.name
        );
        cluster.postgres.query(&sql).parse().unwrap()
    }

    fn count_pages(&self, cluster: &Cluster) -> f64 {
        let sql = format!("SELECT count(*) FROM pages WHERE tenant = '{}'", self.name);
        cluster.postgres.query(&sql).parse().unwrap()
    }
}

#[test]
#[ignore = "takes more than a minute"]
fn tenants_get_their_shares_on_all_nodes_together() {
    let cluster = Cluster::start_with_redis(node_settings());
    // All jobs wait before the first starts, so that submissions take no time from them.
    let front = [cluster.start_node_with_settings("front", &with_role("api"))];
    let mut tenants = [
        BusyTenant::create(&front, "heavy", 3.0, 1_000_000),
        BusyTenant::create(&front, "light", 1.0, 2_000_000),
    ];
    tenants[0].submit(HEAVY_JOBS);
    tenants[1].submit(HEAVY_JOBS / 2);
    let workers: Vec<Node> = (1..=NODES)
        .map(|number| cluster.start_node_with_settings(&format!("worker-{number}"), &with_role("worker")))
        .collect();
    let count = |tenants: &[BusyTenant; 2]| [0, 1].map(|at| tenants[at].count_pages(&cluster));
    wait_until(|| match count(&tenants) {
        [heavy, light] if heavy >= 90.0 && light >= 30.0 => Ok(()),
        counts => Err(format!("{counts:?} pages")),
    });
    let (before, began) = (count(&tenants), Instant::now());
    let has_backlog = || {
        tenants
            .iter()
            .all(|tenant| tenant.count_unfinished(&cluster) > MIN_BACKLOG)
    };
    while began.elapsed() < settings::outage() && has_backlog() {
        sleep(POLL_INTERVAL);
    }
    let after = count(&tenants);
    let [heavy, light] = [0, 1].map(|at| after[at] - before[at]);
    let share = heavy / (heavy + light);
    eprintln!(
        "{heavy} and {light} pages in {:.0} s: share {share:.3}",
        began.elapsed().as_secs_f64()
    );
    assert!(heavy + light >= 400.0, "{heavy} and {light} pages");
    assert!((share / 0.75 - 1.0).abs() <= 0.05, "{heavy} and {light} pages");
    drop((front, workers));
}

#[test]
#[ignore = "takes a minute"]
fn small_job_starts_within_a_second_beside_waiting_ones() {
    for redis in [true, false] {
        let cluster = match redis {
            true => Cluster::start_with_redis(node_settings()),
            false => Cluster::start(node_settings()),
        };
        // All jobs of the flood wait before the first starts.
        let front = [cluster.start_node_with_settings("front", &with_role("api"))];
        let mut flood = BusyTenant::create(&front, "flood", 1.0, 1_000_000);
        flood.submit(250);
        let nodes = cluster.start_nodes(NODES);
        let running = "SELECT count(*) FROM jobs WHERE owner IS NOT NULL";
        wait_until(
            || match cluster.postgres.query(running).parse::<usize>().unwrap() {
                // All slots that one tenant may have.
                jobs if jobs >= 3 * NODES => Ok(()),
                jobs => Err(format!(
                    "{jobs} jobs run, {} wait",
                    flood.count_unfinished(&cluster)
                )),
            },
        );
        let mut delays = Vec::new();
        for round in 0..10 {
            let key = nodes[0]
                .create_tenant(&format!("small-{round}"), json!({}))
                .key()
                .to_owned();
            let client = nodes[round % NODES].client_with_key(&key);
            let letter = weir_samples::generate_text_document(2, round as u64);
            let job = client.submit_file("letter.pdf", &letter);
            let accepted = Instant::now();
            let claimed = format!("SELECT count(*) FROM jobs WHERE id = '{job}' AND epoch > 0");
            wait_until(|| match cluster.postgres.query(&claimed).as_str() {
                "1" => Ok(()),
                _ => Err("the small job waits".into()),
            });
            delays.push(accepted.elapsed().as_millis());
            client.wait_for_job(&job);
        }
        delays.sort_unstable();
        eprintln!("milliseconds until the claim of a small job, Redis {redis}: {delays:?}");
        assert!(delays[delays.len() - 1] <= 1000, "{delays:?}");
        assert!(flood.count_unfinished(&cluster) > 100);
        drop((front, nodes));
    }
}

//! `make cluster`: starts PostgreSQL, Redis, SeaweedFS, a server of Qdrant's protocol and three nodes with a load balancer in front of
//! them, ingests the samples through it and answers a question. All of it runs on loopback and is removed at the end.
//!
//!     cluster [--stay] [QUESTION]

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a demonstration on the command line; a service that does not start ends it"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use weir_qdrant_protocol::QdrantProtocolServer;
use weir_test_services::{PostgresServer, RedisServer, RoundRobin, SeaweedFsServer};
use weir_tests::cluster::{Node, NodeSettings, SharedStores};
use weir_tests::server::ApiClient;

const NODES: usize = 3;
const TENANT: &str = "demo";
const DEFAULT_QUESTION: &str = "Which of the three roller gates is opened first?";

/// The stores that the nodes share.
struct Stores {
    postgres: PostgresServer,
    redis: RedisServer,
    s3: SeaweedFsServer,
    vectors: QdrantProtocolServer,
}

impl Stores {
    fn start() -> Self {
        std::thread::scope(|scope| {
            let postgres = scope.spawn(PostgresServer::start);
            let s3 = scope.spawn(SeaweedFsServer::start);
            Self {
                redis: RedisServer::start(),
                vectors: QdrantProtocolServer::start(),
                postgres: postgres.join().expect("PostgreSQL starts"),
                s3: s3.join().expect("SeaweedFS starts"),
            }
        })
    }

    fn addresses(&self) -> SharedStores {
        SharedStores {
            ledger: self.postgres.url(),
            vectors: self.vectors.url(),
            bucket: SeaweedFsServer::BUCKET.to_owned(),
            s3_endpoint: self.s3.url(),
            s3_access_key: SeaweedFsServer::ACCESS_KEY.to_owned(),
            s3_secret_key: SeaweedFsServer::SECRET_KEY.to_owned(),
            redis: Some(self.redis.url()),
        }
    }
}

/// SIGINT and SIGTERM, which would otherwise end this process without stopping the services.
struct StopSignals {
    is_received: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl StopSignals {
    fn listen() -> Self {
        let is_received = Arc::<AtomicBool>::default();
        let received = Arc::clone(&is_received);
        let (report_ready, ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut interrupt = signal(SignalKind::interrupt()).unwrap();
                let mut terminate = signal(SignalKind::terminate()).unwrap();
                report_ready.send(()).unwrap();
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                received.store(true, Ordering::SeqCst);
            });
        });
        ready.recv().unwrap();
        Self { is_received, thread }
    }

    fn is_received(&self) -> bool {
        self.is_received.load(Ordering::SeqCst)
    }

    fn wait(self) {
        self.thread.join().unwrap();
    }
}

fn start_nodes(stores: &SharedStores) -> Vec<Node> {
    let (settings, admin_key) = (NodeSettings::default(), Arc::<OnceLock<String>>::default());
    std::thread::scope(|scope| {
        let start = |number| Node::start(&format!("node-{number}"), stores, &settings, &admin_key);
        let starting: Vec<_> = (1..=NODES)
            .map(|number| scope.spawn(move || start(number)))
            .collect();
        starting
            .into_iter()
            .map(|node| node.join().expect("the node starts"))
            .collect()
    })
}

/// Ingests a sample and returns a line about it. Each request is a new connection, which the load balancer gives to the next node.
fn ingest_sample(balancer: &RoundRobin, key: &str, name: &str, bytes: &[u8]) -> String {
    let new_client = || ApiClient::new(balancer.address(), key);
    let began = Instant::now();
    let job = new_client().submit_file(name, bytes);
    let events = new_client().wait_for_job(&job);
    let done = events.iter().find(|event| event["type"] == "document-done");
    let searchable = done.map_or(&Value::Null, |event| &event["searchable"]);
    format!(
        "{name}: {searchable} pages searchable after {:.1} s",
        began.elapsed().as_secs_f64()
    )
}

fn run(question: &str, stay: bool) {
    let signals = StopSignals::listen();
    let began = Instant::now();
    let stores = Stores::start();
    if signals.is_received() {
        return;
    }
    let addresses = stores.addresses();
    let nodes = start_nodes(&addresses);
    let balancer = RoundRobin::start(nodes.iter().map(Node::address).collect());
    println!("{NODES} nodes after {:.1} s", began.elapsed().as_secs_f64());
    let scopes = ["ingest", "read", "components"];
    let key = nodes[0].admin_client().create_tenant(TENANT, json!({}), &scopes);

    std::thread::scope(|scope| {
        for (name, bytes) in weir_samples::sample_files() {
            let (balancer, key) = (&balancer, &key);
            scope.spawn(move || println!("{}", ingest_sample(balancer, key, name, &bytes)));
        }
    });
    for node in &nodes {
        let claims = node.admin_client().metric_value("weir_job_claims_total");
        println!("{} at {} ran {claims} jobs", node.name(), node.address());
    }
    let query = json!({ "query": question, "top_k": 3 });
    let response = ApiClient::new(balancer.address(), &key).post("/v1/search", &query);
    assert_eq!(response.status, 200, "{}", response.body);
    println!("\n{question}\n");
    for (number, hit) in (1..).zip(response.body["hits"].as_array().unwrap()) {
        let (name, text) = (hit["name"].as_str().unwrap(), hit["text"].as_str().unwrap());
        println!(
            "{number}. {name}, page {}: {}\n",
            hit["page"],
            text.replace('\n', " ")
        );
    }
    println!(
        "http://{} leads to the nodes; the key of the tenant '{TENANT}': {key}",
        balancer.address()
    );
    println!(
        "ledger {}\nblobs {}\nvectors {}\nredis {}",
        addresses.ledger,
        addresses.s3_endpoint,
        addresses.vectors,
        stores.redis.url()
    );
    if stay && !signals.is_received() {
        println!("\nCtrl-C stops and removes all of it");
        signals.wait();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let question = arguments
        .iter()
        .find(|argument| !argument.is_empty() && *argument != "--stay");
    let stay = arguments.iter().any(|argument| argument == "--stay");
    run(question.map_or(DEFAULT_QUESTION, String::as_str), stay);
}

//! Revisions of a pipeline that are pushed and activated while several nodes run its jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::cluster::{ClaimLog, Cluster, NodeSettings, assert_events_are_complete, database_time};
use weir_tests::server::ApiClient;
use weir_tests::test_component_path;

use crate::settings;

const NODES: usize = 3;
/// Together the nodes get a job every 100 ms.
const SUBMISSION_INTERVAL_OF_A_NODE: Duration = Duration::from_millis(300);
/// Pages of each job.
const PAGES: usize = 2;
/// Width of the pages of the generated documents, in points (1/72 inch).
const PAGE_WIDTH: f64 = 595.0;

/// Returns a component that decides the same, with another digest: with a custom section, which has no effect.
fn add_custom_section(component: &[u8], content: u64) -> Vec<u8> {
    let name = b"weir-test";
    let content = content.to_le_bytes();
    let mut changed = component.to_vec();
    changed.push(0);
    changed.push(u8::try_from(1 + name.len() + content.len()).unwrap());
    changed.push(u8::try_from(name.len()).unwrap());
    changed.extend_from_slice(name);
    changed.extend_from_slice(&content);
    changed
}

/// Returns the resolution of the page images of a revision.
fn dpi_of_revision(number: u64) -> u64 {
    72 + number % 120
}

/// Returns the width of a JPEG image, from its first frame header.
fn jpeg_width(bytes: &[u8]) -> u16 {
    let mut at = 2;
    loop {
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        match (bytes[at], bytes[at + 1]) {
            (0xff, 0xc0..=0xc2) => return u16::from_be_bytes([bytes[at + 7], bytes[at + 8]]),
            (0xff, _) => at += 2 + length,
            marker => panic!("no JPEG marker: {marker:?}"),
        }
    }
}

/// Pushes a new component and a new revision with it and activates the revision, each on another node. Returns its number.
fn swap_revision(clients: &[ApiClient], component: &[u8], swap: u64) -> u64 {
    let client = |step: u64| &clients[usize::try_from(swap + step).unwrap() % clients.len()];
    let pushed = client(0).push_component("ours", &add_custom_section(component, swap));
    assert_eq!(pushed.status, 201, "{}", pushed.body);
    let digest = pushed.body["digest"].as_str().unwrap();
    let new = json!({ "settings": { "dpi": dpi_of_revision(swap) }, "components": { "routing": digest } });
    let revision = client(1).post("/v1/pipelines/ours/revisions", &new);
    assert_eq!(revision.status, 201, "{}", revision.body);
    let number = revision.body["number"].as_u64().unwrap();
    assert_eq!(number, swap);
    let change = json!({ "action": "activate", "revision": number });
    let activated = client(2).post("/v1/pipelines/ours/rollout", &change);
    assert_eq!(activated.status, 200, "{}", activated.body);
    number
}

/// A job and the newest revision whose activation was answered before the job was submitted.
struct SubmittedJob {
    id: String,
    min_revision: u64,
}

/// Submits a document to a node every 300 ms until `stop` is set.
fn submit_until_stopped(
    client: &ApiClient,
    node: usize,
    active: &AtomicU64,
    stop: &AtomicBool,
) -> Vec<SubmittedJob> {
    let (mut jobs, began) = (Vec::new(), Instant::now());
    while !stop.load(Ordering::SeqCst) {
        let document = weir_samples::generate_text_document(PAGES, (jobs.len() * NODES + node) as u64);
        let min_revision = active.load(Ordering::SeqCst);
        let response = client.submit_files(&[("a.pdf", &document)], &json!({ "pipeline": "ours" }), &[]);
        assert_eq!(response.status, 202, "{}", response.body);
        let id = response.body["id"].as_str().unwrap().to_owned();
        jobs.push(SubmittedJob { id, min_revision });
        let next = SUBMISSION_INTERVAL_OF_A_NODE * u32::try_from(jobs.len()).unwrap();
        sleep(next.saturating_sub(began.elapsed()));
    }
    jobs
}

/// Checks that all decisions of a job are those of its revision, and returns the number and the hash of the revision.
fn check_revision_of_job(client: &ApiClient, job: &SubmittedJob) -> (u64, String) {
    let events = client.wait_for_job(&job.id);
    assert_events_are_complete(&events, &job.id, PAGES);
    let view = client.get(&format!("/v1/jobs/{}", job.id)).body;
    let number = view["pipeline_revision"].as_u64().unwrap();
    assert!(
        number >= job.min_revision,
        "job {} ran revision {number}, but {} was active when it was submitted",
        job.id,
        job.min_revision
    );
    let done = events.iter().find(|event| event["type"] == "document-done");
    let document = done.unwrap()["document"].as_str().unwrap();
    let expected = PAGE_WIDTH * dpi_of_revision(number) as f64 / 72.0;
    for page in 1..=PAGES {
        let (status, image) = client.get_bytes(&format!("/v1/documents/{document}/pages/{page}/image"));
        assert_eq!(status, 200);
        let width = f64::from(jpeg_width(&image));
        assert!(
            (width - expected).abs() < 2.0,
            "page {page} of job {} with revision {number} has the width {width}, {expected} expected",
            job.id
        );
    }
    (number, view["revision"].as_str().unwrap().to_owned())
}

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn swaps_on_any_node_lose_no_job_and_mix_no_revision() {
    let cluster = Cluster::start_with_redis(NodeSettings {
        max_running_jobs: 3,
        ..settings::nodes()
    });
    let nodes = cluster.start_nodes(NODES);
    let log = ClaimLog::install(&cluster.postgres);
    let quotas = json!({ "quotas": { "concurrent_jobs": 9, "queued_jobs": 10_000 } });
    let owner = nodes[0].create_tenant_with_scopes("ours", quotas, &["ingest", "read", "components"]);
    let clients: Vec<ApiClient> = nodes
        .iter()
        .map(|node| node.client_with_key(owner.key()))
        .collect();
    let component = std::fs::read(test_component_path("text-only")).unwrap();
    let swaps = u64::try_from(settings::swaps()).unwrap();

    let (active, stop) = (
        AtomicU64::new(swap_revision(&clients, &component, 1)),
        AtomicBool::new(false),
    );
    let mut answers = Vec::new();
    let jobs = std::thread::scope(|scope| {
        let began = Instant::now();
        let submitting: Vec<_> = (0..)
            .zip(&clients)
            .map(|(node, client)| {
                let (active, stop) = (&active, &stop);
                scope.spawn(move || submit_until_stopped(client, node, active, stop))
            })
            .collect();
        let mut swap_times = Vec::new();
        for swap in 2..=swaps + 1 {
            let began = Instant::now();
            let number = swap_revision(&clients, &component, swap);
            swap_times.push(began.elapsed());
            active.store(number, Ordering::SeqCst);
            answers.push((database_time(&cluster.postgres), number));
        }
        stop.store(true, Ordering::SeqCst);
        swap_times.sort();
        eprintln!(
            "{swaps} swaps: median {:.1?}, max {:.1?}",
            swap_times[swap_times.len() / 2],
            swap_times.last().unwrap()
        );
        let jobs: Vec<SubmittedJob> = submitting
            .into_iter()
            .flat_map(|node| node.join().unwrap())
            .collect();
        eprintln!("{} jobs in {:.1?}", jobs.len(), began.elapsed());
        jobs
    });

    let mut revisions = BTreeMap::<&str, u64>::new();
    let mut hashes = BTreeMap::<u64, BTreeSet<String>>::new();
    for (number, job) in jobs.iter().enumerate() {
        let (revision, hash) = check_revision_of_job(&clients[number % NODES], job);
        revisions.insert(&job.id, revision);
        hashes.entry(revision).or_default().insert(hash);
    }
    assert!(hashes.values().all(|hashes| hashes.len() == 1), "{hashes:?}");
    let states = cluster
        .postgres
        .query("SELECT state, count(*) FROM jobs GROUP BY state");
    assert_eq!(states, format!("done|{}", jobs.len()));
    let mixed = cluster.postgres.query(
        "SELECT count(*) FROM pages JOIN jobs ON jobs.id = pages.job WHERE pages.revision <> jobs.revision",
    );
    assert_eq!(mixed, "0", "pages have another revision than their job");
    cluster.assert_each_page_is_stored_once(jobs.len() * PAGES);

    // Jobs that started after the answer to an activation, by the clock of the database.
    let (mut owners, mut first_jobs) = (BTreeMap::<String, usize>::new(), 0);
    for claim in log.read(&cluster.postgres).values().map(|claims| &claims[0]) {
        let node = claim.owner.split('/').next().unwrap();
        *owners.entry(node.to_owned()).or_default() += 1;
        let answered = answers.iter().rev().find(|(at, _)| *at < claim.claimed_at);
        if let Some((at, number)) = answered {
            let revision = revisions[claim.job.as_str()];
            assert!(
                revision >= *number,
                "job {} started on {node} {:.3?} after revision {number} was active, and ran {revision}",
                claim.job,
                claim.claimed_at - *at
            );
            first_jobs += 1;
        }
    }
    assert_eq!(owners.len(), NODES, "{owners:?}");
    eprintln!(
        "{first_jobs} jobs started after an activation; {} revisions ran; jobs of nodes: {owners:?}",
        hashes.len()
    );
}

//! The limits of a language model provider hold for several nodes together, with the real binary.

use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::cluster::{Cluster, Node, NodeSettings};
use weir_tests::model_server::{ModelReply, ModelRequest, ModelServer};
use weir_tests::wait_until;

const MAX_CONCURRENT: usize = 4;
const PER_MINUTE: usize = 40;
/// Time for which a call counts in the limit per minute.
const WINDOW_MILLIS: u32 = 62_000;

/// Returns the largest number of requests that were in flight at once.
fn peak_in_flight(requests: &[ModelRequest]) -> usize {
    let in_flight_at = |at: Instant| {
        let in_flight = requests.iter().filter(|request| {
            request.received_at <= at && request.responded_at.is_none_or(|responded| at < responded)
        });
        in_flight.count()
    };
    let peaks = requests.iter().map(|request| in_flight_at(request.received_at));
    peaks.max().unwrap_or(0)
}

fn admissions(node: &Node, outcome: &str) -> f64 {
    let series = format!("weir_llm_call_admissions_total{{provider=\"model\",outcome=\"{outcome}\"}}");
    node.admin_client().metric_value(&series)
}

/// Returns the largest number of requests that arrived in any minute.
fn peak_per_minute(requests: &[ModelRequest]) -> usize {
    let minutes = requests.iter().enumerate().map(|(index, first)| {
        let in_minute = |request: &&ModelRequest| {
            request.received_at.duration_since(first.received_at) <= Duration::from_secs(60)
        };
        requests[index..].iter().take_while(in_minute).count()
    });
    minutes.max().unwrap_or(0)
}

#[test]
fn three_nodes_never_exceed_the_limits_of_a_provider_together() {
    let model = ModelServer::start(|text| {
        let words: Vec<&str> = text.split_whitespace().rev().take(12).collect();
        ModelReply::Text(
            Duration::from_millis(200),
            format!("In short: {}.", words.join(" ")),
        )
    });
    let limits = format!("max_concurrent_requests = {MAX_CONCURRENT}\nrequests_per_minute = {PER_MINUTE}");
    let mut cluster = Cluster::start_with_redis(NodeSettings {
        more: model.settings_toml("", &limits),
        ..NodeSettings::default()
    });
    let mut nodes = cluster.start_nodes(3);
    // Without a limit, each node runs as many jobs as it has slots, two. So all nodes call the provider.
    let client = nodes[0].create_tenant("acme", json!({ "quotas": { "concurrent_jobs": 0 } }));
    let jobs: Vec<String> = (6..12)
        .map(|chapters| {
            let client = nodes[chapters % 3].client_with_key(client.key());
            let name = format!("{chapters}.pdf");
            let book = weir_samples::generate_chapters(chapters);
            let response = client.submit_files(&[(&name, &book)], &json!({ "summarize": true }), &[]);
            assert_eq!(response.status, 202, "{}", response.body);
            response.body["id"].as_str().unwrap().to_owned()
        })
        .collect();

    let received = |count: usize| match model.requests().len() {
        received if received >= count => Ok(()),
        received => Err(format!("{received} requests")),
    };
    wait_until(|| received(PER_MINUTE / 4));
    cluster.redis.as_mut().unwrap().stop();
    wait_until(|| received(PER_MINUTE));
    wait_until(
        || match nodes.iter().any(|node| admissions(node, "rate-limited") > 0.0) {
            true => Ok(()),
            false => Err(format!("{} requests, and no node waits", model.requests().len())),
        },
    );
    // The share of each node is below the limit: they wait because of the calls of all.
    let shares: Vec<f64> = nodes.iter().map(|node| admissions(node, "started")).collect();
    assert!(
        shares.iter().all(|calls| (1.0..30.0).contains(calls)),
        "{shares:?}"
    );
    let first = model.requests();
    assert!(
        peak_per_minute(&first) <= PER_MINUTE,
        "{}",
        peak_per_minute(&first)
    );

    // A node is killed, Redis comes back, and the minute ends.
    nodes[2].kill();
    cluster.redis.as_mut().unwrap().start_again();
    cluster.postgres.query(&format!(
        "UPDATE provider_calls SET started_millis = started_millis - {WINDOW_MILLIS}"
    ));
    let on_other_node = nodes[0].client_with_key(client.key());
    for job in &jobs {
        let end = on_other_node.wait_for_job(job).pop().unwrap();
        assert_eq!(end["state"], "done", "{end}");
    }
    let requests = model.requests();
    let later = &requests[first.len()..];
    assert!(later.len() > 5, "{} requests", later.len());
    assert!(peak_per_minute(later) <= PER_MINUTE, "{}", peak_per_minute(later));
    assert_eq!(peak_in_flight(&requests), MAX_CONCURRENT);
    for node in &mut nodes[..2] {
        node.stop();
    }
    let left = cluster
        .postgres
        .query("SELECT count(*) FROM provider_calls WHERE in_flight AND node NOT LIKE 'node-3/%'");
    assert_eq!(
        left, "0",
        "a node that has stopped has recorded the end of each call"
    );
}

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

/// Waits until each node waits for the limit of calls per minute.
fn wait_until_rate_limited(nodes: &[Node], model: &ModelServer) {
    let before: Vec<f64> = nodes
        .iter()
        .map(|node| admissions(node, "rate-limited"))
        .collect();
    wait_until(|| {
        let waits = |(node, before): (&Node, &f64)| admissions(node, "rate-limited") > *before;
        match nodes.iter().zip(&before).all(waits) {
            true => Ok(()),
            false => Err(format!(
                "{} requests, and a node does not wait",
                model.requests().len()
            )),
        }
    });
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
    let client = nodes[0].create_tenant("acme", json!({}));
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
    wait_until_rate_limited(&nodes, &model);
    // The share of each node is below the limit: they wait because of the calls of all.
    let shares: Vec<f64> = nodes.iter().map(|node| admissions(node, "started")).collect();
    assert!(
        shares.iter().all(|calls| (5.0..30.0).contains(calls)),
        "{shares:?}"
    );
    let first_minute = model.requests();
    assert_eq!(first_minute.len(), PER_MINUTE);

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
    assert!(requests.len() > PER_MINUTE + 5, "{} requests", requests.len());
    assert!(requests.len() <= 2 * PER_MINUTE, "{} requests", requests.len());
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

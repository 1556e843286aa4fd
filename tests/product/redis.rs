//! Nodes with different roles, which share a Redis server, with the real binary.

use std::time::Instant;

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, Node, NodeSettings, assert_job_is_complete};
use weir_tests::server::ApiClient;
use weir_tests::wait_until;

/// Requests per second of a tenant.
const RATE: u32 = 5;
/// Streams of a tenant.
const STREAMS: u32 = 2;

fn settings() -> NodeSettings {
    NodeSettings {
        environment: vec![(
            "WEIR_SERVER_MAX_EVENT_STREAMS_PER_TENANT".into(),
            STREAMS.to_string(),
        )],
        ..NodeSettings::default()
    }
}

fn start_node_with_role(cluster: &Cluster, name: &str, role: &str) -> Node {
    let mut settings = settings();
    settings
        .environment
        .push(("WEIR_CLUSTER_ROLE".into(), role.into()));
    cluster.start_node_with_settings(name, &settings)
}

/// Sends requests to the nodes in turn until one is refused. Returns how many passed, and how many could at most for a limit per second.
fn send_requests_until_refused(clients: &[ApiClient], per_second: u32) -> (u32, u32) {
    let began = Instant::now();
    for passed in 0.. {
        let response = clients[passed as usize % clients.len()].get("/v1/key");
        if response.status == 429 {
            let refilled = (began.elapsed().as_secs_f64() * f64::from(per_second)).ceil() as u32;
            return (passed, 2 * per_second + refilled);
        }
        assert_eq!(response.status, 200, "{}", response.body);
    }
    unreachable!()
}

fn wait_for_nodes(admin: &ApiClient, count: usize) -> Vec<Value> {
    let mut nodes = Vec::new();
    wait_until(|| {
        let list = admin.get("/v1/nodes");
        nodes = list.body["nodes"].as_array().cloned().unwrap_or_default();
        match nodes.len() {
            found if found == count => Ok(()),
            _ => Err(list.body.to_string()),
        }
    });
    nodes
}

#[test]
fn nodes_with_roles_share_the_work_and_show_it() {
    let cluster = Cluster::start_with_redis(settings());
    let api = start_node_with_role(&cluster, "front", "api");
    let worker = start_node_with_role(&cluster, "back", "worker");
    let admin = api.admin_client();
    let nodes = wait_for_nodes(&admin, 2);
    let roles: Vec<_> = nodes
        .iter()
        .map(|node| (node["name"].as_str().unwrap(), node["role"].as_str().unwrap()))
        .collect();
    assert_eq!(roles, [("back", "worker"), ("front", "api")]);
    let client = api.create_tenant("acme", json!({}));
    let job = client.submit_file("book.pdf", &weir_samples::generate_book(40, 1));
    // The job is shown at the node that runs it.
    wait_until(|| {
        let list = admin.get("/v1/nodes").body;
        let jobs = &list["nodes"][0]["jobs"];
        match jobs[0]["job"] == json!(job) && jobs[0]["tenant"] == "acme" {
            true => Ok(()),
            false => Err(list.to_string()),
        }
    });
    assert_job_is_complete(&client, &job, 40);
    let on_worker = worker.client_with_key(client.key());
    assert_eq!(client.metric_value("weir_job_claims_total"), 0.0);
    assert!(on_worker.metric_value("weir_job_claims_total") >= 1.0);
    assert_eq!(on_worker.get("/v1/jobs").status, 404);
    assert_eq!(client.metric_value("weir_cluster_nodes{role=\"worker\"}"), 1.0);
    let redis_calls = "weir_store_request_duration_seconds_count{store=\"redis\"}";
    assert!(on_worker.metric_value(redis_calls) > 0.0, "events are announced");
    let ready = worker.client_with_key("").get("/readyz");
    let stores = ready.body["stores"].as_array().unwrap();
    let states: Vec<_> = stores
        .iter()
        .map(|store| (store["store"].as_str().unwrap(), store["available"] == true))
        .collect();
    assert_eq!(
        states,
        [
            ("ledger", true),
            ("blobs", true),
            ("vectors", true),
            ("redis", true)
        ]
    );
    let table = api.run_command(&["nodes"]);
    assert_eq!(table.exit_code, 0, "{}", table.stderr);
    let rows: Vec<_> = table
        .stdout_lines
        .iter()
        .map(|row| row.as_str().unwrap())
        .collect();
    assert!(
        rows.len() == 3 && rows[1].starts_with("back ") && rows[2].contains(" api "),
        "{rows:?}"
    );
    let json = api.run_command(&["nodes", "--json"]);
    assert_eq!(json.stdout_lines[0]["nodes"][1]["alive"], true);
}

#[test]
fn limits_of_a_tenant_hold_on_all_nodes_also_without_redis() {
    let mut cluster = Cluster::start_with_redis(settings());
    let nodes = cluster.start_nodes(2);
    let admin = nodes[0].admin_client();
    wait_for_nodes(&admin, 2);
    let new_tenant = |name: &str, rate: u32| -> Vec<ApiClient> {
        let created = json!({ "quotas": { "requests_per_second": rate } });
        let key = nodes[0].create_tenant(name, created).key().to_owned();
        nodes.iter().map(|node| node.client_with_key(&key)).collect()
    };
    let (passed, most) = send_requests_until_refused(&new_tenant("a", RATE), RATE);
    assert!((2 * RATE..=most).contains(&passed), "{passed} of at most {most}");

    // Streams: one on each node, and no third on any.
    let clients = new_tenant("streams", 0);
    let job = clients[0].submit_file("letter.pdf", &weir_samples::generate_text_document(1, 1));
    clients[0].wait_for_job(&job);
    let running = clients[0].submit_file("book.pdf", &weir_samples::generate_book(200, 2));
    let open = clients.iter().map(|client| client.follow_events(&running, 0));
    let open: Vec<_> = open.collect();
    assert!(open.iter().all(|stream| stream.status == 200));
    for client in &clients {
        assert_eq!(client.follow_events(&running, 0).status, 429);
    }
    drop(open);
    wait_until(|| match clients[1].follow_events(&running, 0).status {
        200 => Ok(()),
        status => Err(format!("status {status}")),
    });

    // Without Redis each node applies its share, once its count of the nodes is current.
    cluster.redis.as_mut().unwrap().stop();
    let share = RATE / 2;
    let mut tenants = 0;
    wait_until(|| {
        tenants += 1;
        let clients = new_tenant(&format!("b{tenants}"), RATE);
        let (passed, most) = send_requests_until_refused(&clients[..1], share);
        match passed <= most {
            true => Ok(()),
            false => Err(format!("{passed} of at most {most}")),
        }
    });
    let late = clients[1].submit_file("letter.pdf", &weir_samples::generate_text_document(1, 3));
    assert_job_is_complete(&clients[0], &late, 1);
    let ready = admin.get("/readyz");
    assert_eq!(ready.status, 200);
    assert_eq!(ready.body["stores"][3]["available"], false, "{}", ready.body);
    cluster.redis.as_mut().unwrap().start_again();
    wait_until(|| {
        tenants += 1;
        let (passed, most) = send_requests_until_refused(&new_tenant(&format!("c{tenants}"), RATE), RATE);
        match (2 * RATE..=most).contains(&passed) {
            true => Ok(()),
            false => Err(format!("{passed} of at most {most}")),
        }
    });
}

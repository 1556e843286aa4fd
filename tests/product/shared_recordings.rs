//! Recordings of several nodes on one S3 server, with the real binary.

use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, NodeSettings, assert_job_is_complete};
use weir_tests::server::ApiClient;
use weir_tests::wait_until;

fn replay(client: &ApiClient, job: &str) -> Value {
    let replayed = client.post(&format!("/v1/jobs/{job}/replay"), &json!({}));
    assert_eq!(replayed.status, 200, "{}", replayed.body);
    replayed.body
}

/// Waits until the end of the recording is stored, which can be after the end of the job.
fn replay_complete_recording(client: &ApiClient, job: &str) -> Value {
    let mut report = Value::Null;
    wait_until(|| {
        report = replay(client, job);
        match report["incomplete"].is_null() {
            true => Ok(()),
            false => Err(report.to_string()),
        }
    });
    report
}

fn recording_keys(cluster: &Cluster, part: &str) -> Vec<String> {
    let mut keys = cluster.s3.keys();
    keys.retain(|key| key.contains("/recordings/") && key.contains(part));
    keys
}

#[test]
fn recording_is_replayed_and_removed_without_the_node_of_its_job() {
    let cluster = Cluster::start(NodeSettings::default());
    let mut a = cluster.start_node("a");
    let on_a = a.create_tenant_with_scopes("acme", json!({}), &["read", "ingest", "components"]);
    on_a.push_and_activate_pipeline();
    let [(job, document), (other_job, _)] = [7, 8].map(|seed| {
        let book = weir_samples::generate_book(4, seed);
        let submitted = on_a.submit_files(&[("a.pdf", &book[..])], &json!({ "pipeline": "ours" }), &[]);
        assert_eq!(submitted.status, 202, "{}", submitted.body);
        let job = submitted.body["id"].as_str().unwrap().to_owned();
        assert_job_is_complete(&on_a, &job, 4);
        let events = on_a.wait_for_job(&job);
        let done = events.iter().find(|event| event["type"] == "document-done");
        (job, done.unwrap()["document"].as_str().unwrap().to_owned())
    });
    let report = replay_complete_recording(&on_a, &job);
    assert!(
        report["decisions"].as_u64() > Some(8) && report["differing"] == 0,
        "{report}"
    );

    let mut b = cluster.start_node("b");
    let on_b = b.client_with_key(on_a.key());
    assert_eq!(replay(&on_b, &job), report);
    // The command reads the recording without a server.
    let command = b.run_command(&["replay", &job, "--tenant", "acme", "--json"]);
    assert_eq!(command.exit_code, 0, "{}", command.stderr);
    assert_eq!(command.stdout_lines[0]["decisions"], report["decisions"]);
    a.stop();
    // Its data folder is removed.
    drop(a);
    assert_eq!(replay(&on_b, &job), report);

    let other = b.create_tenant_with_scopes("other", json!({}), &["read", "ingest", "components"]);
    assert_eq!(
        other.post(&format!("/v1/jobs/{job}/replay"), &json!({})).status,
        404
    );
    assert!(!recording_keys(&cluster, &job).is_empty());
    let deleted = on_b.delete(&format!("/v1/documents/{document}"));
    assert!(deleted.status < 300, "{}: {}", deleted.status, deleted.body);
    assert_eq!(recording_keys(&cluster, &job), Vec::<String>::new());
    assert_eq!(
        on_b.post(&format!("/v1/jobs/{job}/replay"), &json!({})).status,
        404
    );
    assert_eq!(replay_complete_recording(&on_b, &other_job)["differing"], 0);
    let deleted = b.admin_client().delete("/v1/tenants/acme");
    assert!(deleted.status < 300, "{}: {}", deleted.status, deleted.body);
    assert_eq!(recording_keys(&cluster, ""), Vec::<String>::new());
    b.stop();
}

#[test]
fn recording_of_a_job_that_two_nodes_ran_says_that_it_is_incomplete() {
    let cluster = Cluster::start(NodeSettings::default());
    let mut a = cluster.start_node("a");
    let on_a = a.create_tenant_with_scopes("acme", json!({}), &["read", "ingest", "components"]);
    let job = on_a.submit_file("a.pdf", &weir_samples::generate_book(40, 7));
    cluster.wait_until_page_is_done(&job);
    wait_until(|| match recording_keys(&cluster, &job).is_empty() {
        true => Err("nothing is recorded".into()),
        false => Ok(()),
    });
    a.kill();
    drop(a);
    let mut b = cluster.start_node("b");
    let on_b = b.client_with_key(on_a.key());
    assert_job_is_complete(&on_b, &job, 40);
    let report = replay(&on_b, &job);
    assert!(
        report["incomplete"]
            .as_str()
            .is_some_and(|why| why.contains("cut short")),
        "{report}"
    );
    assert!(
        report["decisions"].as_u64() > Some(40) && report["differing"] == 0,
        "{report}"
    );
    b.stop();
    assert!(!recording_keys(&cluster, &job).is_empty());
    // Each start removes the expired recordings of all nodes.
    cluster.s3.age_objects(Duration::from_secs(31 * 86_400));
    b.start_again();
    wait_until(|| match recording_keys(&cluster, &job).as_slice() {
        [] => Ok(()),
        keys => Err(format!("{keys:?}")),
    });
    b.stop();
}

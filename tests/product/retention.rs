//! Expired records, with the real binary.

use serde_json::json;
use weir_tests::cluster::{Cluster, NodeSettings, assert_job_is_complete};

#[test]
fn expired_job_is_removed_from_all_stores_and_its_document_stays() {
    let cluster = Cluster::start(NodeSettings::default());
    let mut node = cluster.start_node("a");
    let retention = json!({ "retention": { "ended_jobs_days": 7 } });
    let client = node.create_tenant_with_scopes("acme", retention, &["read", "ingest"]);
    let [old, recent] = [1, 2].map(|seed| {
        let job = client.submit_file("a.pdf", &weir_samples::generate_book(3, seed));
        assert_job_is_complete(&client, &job, 3);
        job
    });
    // The removal of a recording is known to all nodes for a day.
    let content_keys = || {
        let mut keys = cluster.s3.keys();
        keys.retain(|key| !key.contains("/removed-recordings/"));
        keys
    };
    let keys_of = |job: &str| content_keys().iter().filter(|key| key.contains(job)).count();
    let refused = node.run_command(&["retention", "run"]);
    assert!(
        refused.exit_code == 1 && refused.stderr.contains("in use"),
        "{}",
        refused.stderr
    );
    node.stop();
    assert!(keys_of(&old) > 0 && keys_of(&recent) > 0, "both are recorded");
    let (objects, recorded) = (content_keys().len(), keys_of(&old));
    cluster.postgres.query(&format!(
        "UPDATE jobs SET ended_millis = ended_millis - 8 * 86400000::bigint WHERE id = '{old}'"
    ));

    let shown = node.run_command(&["retention", "show", "--json"]);
    let records = shown.stdout_lines[0]["records"].as_array().unwrap().clone();
    let jobs_of_acme = json!({ "tenant": "acme", "kind": "ended-jobs", "days": 7, "expired": 1 });
    assert!(records.contains(&jobs_of_acme), "{records:?}");
    let jobs_of_default = json!({ "tenant": "default", "kind": "ended-jobs", "days": 30, "expired": 0 });
    assert!(records.contains(&jobs_of_default), "{records:?}");
    let counted = node.run_command(&["retention", "run", "--dry-run", "--json"]);
    assert_eq!(counted.stdout_lines[0]["removed"]["ended-jobs"], 1);
    assert_eq!(content_keys().len(), objects, "nothing was removed");
    for expected in [1, 0] {
        let removed = node.run_command(&["retention", "run", "--json"]);
        assert_eq!(removed.exit_code, 0, "{}", removed.stderr);
        assert_eq!(removed.stdout_lines[0]["removed"]["ended-jobs"], expected);
    }
    for table in ["events", "job_documents", "job_requests"] {
        let rows = cluster
            .postgres
            .query(&format!("SELECT count(*) FROM {table} WHERE job = '{old}'"));
        assert_eq!(rows, "0", "{table}");
    }
    assert_eq!(keys_of(&old), 0);
    assert_eq!(
        content_keys().len(),
        objects - recorded,
        "only the recording was removed"
    );

    node.start_again();
    let client = node.client_with_key(client.key());
    assert_eq!(client.get(&format!("/v1/jobs/{old}")).status, 404);
    assert_job_is_complete(&client, &recent, 3);
    let documents = client.get("/v1/documents").body["documents"].clone();
    assert_eq!(documents.as_array().map(Vec::len), Some(2), "{documents}");
    let found = client.post("/v1/search", &json!({ "query": "chapter", "top_k": 20 }));
    let hits = found.body["hits"].as_array().unwrap();
    let documents_found: std::collections::BTreeSet<_> =
        hits.iter().map(|hit| hit["document"].to_string()).collect();
    assert_eq!(documents_found.len(), 2, "{hits:?}");
    let removed = client.delete(&format!("/v1/jobs/{recent}/history"));
    assert_eq!(removed.status, 204, "{}", removed.body);
    assert_eq!(client.get(&format!("/v1/jobs/{recent}")).status, 404);
    assert_eq!(keys_of(&recent), 0);
    node.stop();
}

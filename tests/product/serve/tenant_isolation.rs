//! A tenant cannot read, change or find the data of another tenant.

use serde_json::json;
use weir_tests::WeirFixture;
use weir_tests::server::TestServer;

#[test]
fn tenant_cannot_read_change_or_find_data_of_another() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let (owner, other) = (
        server.create_tenant("owner", json!({})),
        server.create_tenant("other", json!({})),
    );
    let file = weir_samples::sample_files()[0].1.clone();
    let job = owner.submit_file("handbook.pdf", &file);
    let events = owner.wait_for_job(&job);
    let document = events.iter().find(|e| e["type"] == "document-done").unwrap()["document"]
        .as_str()
        .unwrap()
        .to_owned();

    let reads = [
        format!("/v1/jobs/{job}"),
        format!("/v1/jobs/{job}/events"),
        format!("/v1/jobs/{job}/pages/1"),
        format!("/v1/jobs/{job}/diagnosis"),
        format!("/v1/documents/{document}"),
        format!("/v1/documents/{document}/markdown"),
        format!("/v1/documents/{document}/pages/1"),
        format!("/v1/documents/{document}/pages/1/image"),
        format!("/v1/documents/{document}/pages/1/text"),
    ];
    for path in &reads {
        assert_eq!(owner.get(path).status, 200, "{path}");
        let response = other.get(path);
        assert_eq!(
            (response.status, response.problem_type()),
            (404, "not-found"),
            "{path}"
        );
    }
    for path in [format!("/v1/jobs/{job}"), format!("/v1/documents/{document}")] {
        assert_eq!(other.delete(&path).status, 404, "{path}");
    }
    assert_eq!(
        other.post(&format!("/v1/jobs/{job}/retry"), &json!({})).status,
        404
    );
    let known = json!({ "documents": [{ "document": document }] });
    assert_ne!(
        other.post("/v1/jobs", &known).status,
        202,
        "a document of another tenant does not exist for this one"
    );

    let everything = json!({ "query": "gate", "top_k": 100 });
    let filtered = json!({ "query": "gate", "top_k": 100, "filter": { "documents": [document] } });
    for query in [&everything, &filtered] {
        assert!(
            !owner.post("/v1/search", query).body["hits"]
                .as_array()
                .unwrap()
                .is_empty()
        );
        assert_eq!(other.post("/v1/search", query).body["hits"], json!([]));
    }
    assert_eq!(other.get("/v1/jobs").body["jobs"], json!([]));
    assert_eq!(other.get("/v1/documents").body["documents"], json!([]));

    for (method, path) in [
        ("GET", "/v1/tenants"),
        ("GET", "/v1/tenants/owner"),
        ("DELETE", "/v1/tenants/owner"),
    ] {
        let response = other.send_json(method, path, &json!({}));
        assert_eq!(
            (response.status, response.problem_type()),
            (403, "forbidden"),
            "{path}"
        );
    }

    // Each tenant has its own copy of the same bytes.
    let job = other.submit_file("mine.pdf", &file);
    other.wait_for_job(&job);
    assert_eq!(other.delete(&format!("/v1/documents/{document}")).status, 204);
    assert_eq!(owner.get(&format!("/v1/documents/{document}")).status, 200);
    assert!(
        !owner.post("/v1/search", &everything).body["hits"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    server.stop();
}

#[test]
fn suspended_tenants_and_rotated_keys_are_refused_at_once() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant("acme", json!({}));
    assert_eq!(client.get("/v1/jobs").status, 200);
    let stranger = server.client_with_key("weir_0123456789ab_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(
        (
            stranger.get("/v1/jobs").status,
            stranger.get("/v1/jobs").problem_type().to_owned()
        ),
        (401, "unauthorized".into())
    );

    // The command line changes tenants while the server runs, and the next request sees the change.
    let suspended = weir.run_command(&["tenant", "suspend", "acme"]);
    assert_eq!(suspended.exit_code, 0, "{}", suspended.stderr);
    assert_eq!(client.get("/v1/jobs").problem_type(), "tenant-suspended");
    assert_eq!(weir.run_command(&["tenant", "resume", "acme"]).exit_code, 0);
    assert_eq!(client.get("/v1/jobs").status, 200);
    let rotated = weir.run_command(&["tenant", "rotate-keys", "acme", "--json"]);
    assert_eq!(rotated.exit_code, 0, "{}", rotated.stderr);
    assert_eq!(client.get("/v1/jobs").status, 401);
    let fresh = server.client_with_key(rotated.stdout_lines[0]["secret"].as_str().unwrap());
    assert_eq!(fresh.get("/v1/jobs").status, 200);
    server.stop();
}

//! A shadow revision on the real server: its decisions are compared with the stable ones and have no effect.

use serde_json::{Value, json};
use weir_tests::WeirFixture;
use weir_tests::server::{ApiClient, TestServer};

fn change_rollout(client: &ApiClient, change: &Value) {
    let response = client.post("/v1/pipelines/ours/rollout", change);
    assert_eq!(response.status, 200, "{}", response.body);
}

fn run_job(client: &ApiClient, name: &str, bytes: &[u8]) -> Value {
    let options = json!({ "pipeline": "ours" });
    let response = client.submit_files(&[(name, bytes)], &options, &[]);
    assert_eq!(response.status, 202, "{}", response.body);
    let events = client.wait_for_job(response.body["id"].as_str().unwrap());
    let mut events = events.into_iter();
    events.find(|e| e["type"] == "document-done").unwrap()
}

/// Waits until the shadow has compared this many jobs, and returns its results.
fn wait_for_shadow_results(client: &ApiClient, jobs: u64) -> Value {
    let mut shadow = Value::Null;
    for _ in 0..600 {
        shadow = client.get("/v1/pipelines/ours/rollout").body["shadow"].clone();
        if shadow["jobs"] == jobs {
            return shadow;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{jobs} jobs were not compared: {shadow}");
}

#[test]
fn shadow_reports_differences_and_changes_nothing() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &["ingest", "read", "components"]);
    let text_only = std::fs::read(weir_tests::test_component_path("text-only")).unwrap();
    assert_eq!(client.push_component("text-only", &text_only).status, 201);
    for new in [json!({}), json!({ "components": { "routing": "text-only" } })] {
        let pushed = client.post("/v1/pipelines/ours/revisions", &new);
        assert_eq!(pushed.status, 201, "{}", pushed.body);
    }
    change_rollout(&client, &json!({ "action": "activate", "revision": 1 }));
    change_rollout(&client, &json!({ "action": "shadow", "revision": 2 }));

    // Both read the text layer of pages that have one.
    assert_eq!(
        run_job(&client, "text.pdf", &weir_samples::generate_text_document(3, 7))["searchable"],
        3
    );
    let same = wait_for_shadow_results(&client, 1);
    assert_eq!(same["before"]["text_layer"], 3, "{same}");
    assert_eq!(same["after"], same["before"], "{same}");
    assert!(same["decisions"].as_u64().unwrap() > 10, "{same}");

    // The stable revision runs OCR on a scan; the shadow would not.
    assert_eq!(
        run_job(&client, "scan.pdf", &weir_samples::generate_scanned_book(1))["searchable"],
        1
    );
    let other = wait_for_shadow_results(&client, 2);
    assert_eq!(
        (&other["before"]["ocr"], &other["after"]["ocr"]),
        (&json!(1), &json!(0)),
        "{other}"
    );
    let examples = other["examples"].as_array().unwrap();
    let mut functions = examples.iter().map(|e| &e["difference"]["function"]);
    assert!(functions.any(|function| function == "routing.page"), "{other}");
    assert_eq!(server.stop().exit_code, 0);
}

//! A revision that decides beside the real one, without effect, on the real server.

use serde_json::{Value, json};
use weir_tests::Weir;
use weir_tests::server::{Client, Server};

fn change(client: &Client, change: &Value) {
    let answer = client.post("/v1/pipelines/ours/rollout", change);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

fn run(client: &Client, name: &str, bytes: &[u8]) -> Value {
    let options = json!({ "pipeline": "ours" });
    let answer = client.submit(&[(name, bytes)], &options, &[]);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let events = client.wait(answer.body["id"].as_str().unwrap());
    let mut events = events.into_iter();
    events.find(|e| e["type"] == "document-done").unwrap()
}

/// What the shadow showed, once so many jobs have been compared.
fn shown(client: &Client, jobs: u64) -> Value {
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
fn a_shadow_tells_what_would_change_and_changes_nothing() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.tenant_with("ours", json!({}), &["ingest", "read", "components"]);
    let text_only = std::fs::read(weir_tests::component("text-only")).unwrap();
    assert_eq!(client.push("text-only", &text_only).status, 201);
    for new in [json!({}), json!({ "components": { "routing": "text-only" } })] {
        let pushed = client.post("/v1/pipelines/ours/revisions", &new);
        assert_eq!(pushed.status, 201, "{}", pushed.body);
    }
    change(&client, &json!({ "action": "activate", "revision": 1 }));
    change(&client, &json!({ "action": "shadow", "revision": 2 }));

    // Both read the text layer of pages that have one.
    assert_eq!(
        run(&client, "text.pdf", &weir_samples::text_document(3, 7))["searchable"],
        3
    );
    let same = shown(&client, 1);
    assert_eq!(same["before"]["text_layer"], 3, "{same}");
    assert_eq!(same["after"], same["before"], "{same}");
    assert!(same["decisions"].as_u64().unwrap() > 10, "{same}");

    // A scan is recognized by the real one, and would not be by its shadow.
    assert_eq!(
        run(&client, "scan.pdf", &weir_samples::scanned_book(1))["searchable"],
        1
    );
    let other = shown(&client, 2);
    assert_eq!(
        (&other["before"]["ocr"], &other["after"]["ocr"]),
        (&json!(1), &json!(0)),
        "{other}"
    );
    let examples = other["examples"].as_array().unwrap();
    let mut functions = examples.iter().map(|e| &e["difference"]["function"]);
    assert!(functions.any(|function| function == "routing.page"), "{other}");
    assert_eq!(server.stop().code, 0);
}

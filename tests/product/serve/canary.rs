//! Canaries on a running server are promoted or rolled back automatically, from the jobs that a tenant submits.

use serde_json::{Value, json};
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::{WeirFixture, test_component_path};

/// Jobs that run at once between two checks for the result of the canary.
const JOBS_PER_ROUND: u64 = 4;

/// Allowed slowdown of the canary. Noise on a test machine stays below 50 % for an equal canary. A canary that takes nearly
/// twice as long is always measured as more than 20 % slower.
const WIDE_SLOWDOWN_LIMIT: f64 = 0.5;
const NARROW_SLOWDOWN_LIMIT: f64 = 0.2;

/// Creates a pipeline with a stable revision and a canary for half of the jobs.
fn start_canary(client: &ApiClient, stable: &Value, canary: &Value) {
    for (name, new) in [("stable", stable), ("canary", canary)] {
        for (_, named) in new["components"].as_object().unwrap() {
            let bytes = std::fs::read(test_component_path(named.as_str().unwrap())).unwrap();
            let pushed = client.push_component(named.as_str().unwrap(), &bytes);
            assert!([200, 201].contains(&pushed.status), "{}", pushed.body);
        }
        let pushed = client.post("/v1/pipelines/ours/revisions", new);
        assert_eq!(pushed.status, 201, "{name}: {}", pushed.body);
    }
    for action in [
        json!({ "action": "activate", "revision": 1 }),
        json!({ "action": "canary", "revision": 2, "percent": 50 }),
    ] {
        let changed = client.post("/v1/pipelines/ours/rollout", &action);
        assert_eq!(changed.status, 200, "{}", changed.body);
    }
}

fn submit_job(client: &ApiClient, document: &[u8]) -> String {
    let response = client.submit_files(&[("a.pdf", document)], &json!({ "pipeline": "ours" }), &[]);
    assert_eq!(response.status, 202, "{}", response.body);
    response.body["id"].as_str().unwrap().to_owned()
}

/// Runs jobs until the canary is promoted or rolled back. Returns the entry of the pipeline's history.
fn run_jobs_until_canary_ends(client: &ApiClient) -> Value {
    let mut trial = Value::Null;
    // Twice the jobs that a canary with a minimum of twenty jobs needs at most.
    for round in 0..320 {
        let jobs: Vec<_> = (0..JOBS_PER_ROUND)
            .map(|n| {
                submit_job(
                    client,
                    &weir_samples::generate_text_document(4, round * JOBS_PER_ROUND + n),
                )
            })
            .collect();
        for job in &jobs {
            let events = client.wait_for_job(job);
            assert_eq!(events.last().unwrap()["state"], "done", "{events:?}");
        }
        let history = client.get("/v1/pipelines/ours/history?limit=1").body;
        let newest = &history["entries"][0];
        if newest["by"] == "canary-analysis" {
            return newest.clone();
        }
        trial = client.get("/v1/pipelines/ours/rollout").body["trial"].clone();
        // The canary may have ended since the history was read.
        assert!(trial.is_null() || trial["reason"].is_string(), "{trial}");
    }
    panic!("the canary was neither promoted nor rolled back: {trial}");
}

/// Runs a canary to its end. Returns the action and the evidence.
fn run_canary(new: &Value) -> (Value, Value) {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &["--set", "default_quota.requests_per_second=1000"]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &["ingest", "read", "components"]);
    // Pages are rasterized and stored but not embedded, so that the component's decisions determine most of the work.
    let stable = json!({
        "components": { "routing": "trial-fine" },
        "settings": { "embed": false, "dpi": 72, "name": "stable" },
    });
    start_canary(&client, &stable, new);
    let entry = run_jobs_until_canary_ends(&client);
    let (evidence, after) = (
        entry["evidence"].clone(),
        client.get("/v1/pipelines/ours/rollout").body,
    );
    assert_eq!(after["trial"], Value::Null, "{after}");
    assert_eq!(after["rollout"]["canary"], Value::Null, "{after}");
    assert_eq!(after["rollout"], entry["to"]);
    // The canary ends at one of the scheduled evaluations, against stable jobs of the same time.
    let evaluation_job_counts = [5, 10, 20, 40, 80, 160, 320];
    assert!(
        evaluation_job_counts.contains(&evidence["canary"]["jobs"].as_u64().unwrap()),
        "{entry}"
    );
    assert!(evidence["stable"]["jobs"].as_u64().unwrap() >= 5, "{entry}");
    // The next job runs the resulting stable revision.
    let job = submit_job(&client, &weir_samples::generate_text_document(1, 1_000_000));
    client.wait_for_job(&job);
    let got = client.get(&format!("/v1/jobs/{job}")).body;
    assert_eq!(got["pipeline_revision"], after["rollout"]["stable"]);
    assert_eq!(server.stop().exit_code, 0);
    eprintln!("{evidence}");
    (entry["action"].clone(), evidence)
}

#[test]
fn canary_that_traps_on_one_page_of_twenty_is_rolled_back() {
    let (action, evidence) = run_canary(&json!({
        "components": { "routing": "trial-traps" },
        "settings": { "embed": false, "dpi": 72 },
        "canary_analysis": { "max_slowdown": WIDE_SLOWDOWN_LIMIT },
    }));
    assert_eq!(action, "rollback", "{evidence}");
    let reason = evidence["reason"].as_str().unwrap();
    assert!(reason.starts_with("traps for a page: "), "{reason}");
    let (canary, stable) = (&evidence["canary"], &evidence["stable"]);
    let share = canary["traps"].as_f64().unwrap() / canary["pages"].as_f64().unwrap();
    assert!((0.02..0.2).contains(&share), "{evidence}");
    // The default component decided instead, so nothing else failed.
    let rest = (&stable["traps"], &canary["failed_jobs"], &canary["failed_pages"]);
    assert_eq!(rest, (&json!(0), &json!(0), &json!(0)), "{evidence}");
}

#[test]
fn canary_that_takes_longer_per_page_is_rolled_back() {
    let (action, evidence) = run_canary(&json!({
        "components": { "routing": "trial-slower", "batching": "trial-slower" },
        "settings": { "embed": false, "dpi": 600 },
        "canary_analysis": { "max_slowdown": NARROW_SLOWDOWN_LIMIT },
    }));
    assert_eq!(action, "rollback", "{evidence}");
    let reason = evidence["reason"].as_str().unwrap();
    assert!(reason.starts_with("a page takes +"), "{reason}");
    let millis_per_page = |arm: &Value| arm["millis"].as_f64().unwrap() / arm["pages"].as_f64().unwrap();
    let slowdown = millis_per_page(&evidence["canary"]) / millis_per_page(&evidence["stable"]);
    assert!(slowdown > 1.2, "{slowdown}: {evidence}");
}

#[test]
fn canary_as_good_as_the_stable_revision_is_promoted() {
    let (action, evidence) = run_canary(&json!({
        "components": { "routing": "trial-fine" },
        "settings": { "embed": false, "dpi": 72, "name": "canary" },
        "canary_analysis": { "max_slowdown": WIDE_SLOWDOWN_LIMIT },
    }));
    assert_eq!(action, "promote", "{evidence}");
    let reason = evidence["reason"].as_str().unwrap();
    assert!(reason.contains("nothing was worse"), "{reason}");
    for arm in ["canary", "stable"] {
        let went_wrong =
            ["failed_jobs", "failed_pages", "traps"].map(|metric| evidence[arm][metric].as_u64());
        assert_eq!(went_wrong, [Some(0); 3], "{evidence}");
    }
}

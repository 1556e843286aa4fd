//! Canaries on a running server, judged by the jobs that its tenant hands in: nobody looks on.

use serde_json::{Value, json};
use weir_tests::server::{Client, Server};
use weir_tests::{Weir, component};

/// Jobs handed in before it is asked whether the canary has been judged.
const AT_ONCE: u64 = 4;

/// A test machine's noise makes nothing that is as quick half as slow again, and nothing that takes nearly twice as long so quick.
const AS_QUICK: f64 = 0.5;
const SLOWER: f64 = 0.2;

/// A pipeline with a stable revision, and a canary beside it for half of the jobs.
fn on_trial(client: &Client, stable: &Value, canary: &Value) {
    for (name, new) in [("stable", stable), ("canary", canary)] {
        for (_, named) in new["components"].as_object().unwrap() {
            let bytes = std::fs::read(component(named.as_str().unwrap())).unwrap();
            let pushed = client.push(named.as_str().unwrap(), &bytes);
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

fn hand_in(client: &Client, document: &[u8]) -> String {
    let answer = client.submit(&[("a.pdf", document)], &json!({ "pipeline": "ours" }), &[]);
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

/// Hands in jobs, some at once, until the canary has been judged: the entry of the history.
fn judged(client: &Client) -> Value {
    let mut seen = Value::Null;
    // Twice as many as a trial of twenty jobs takes at most.
    for round in 0..320 {
        let jobs: Vec<_> = (0..AT_ONCE)
            .map(|n| hand_in(client, &weir_samples::text_document(4, round * AT_ONCE + n)))
            .collect();
        for job in &jobs {
            let events = client.wait(job);
            assert_eq!(events.last().unwrap()["state"], "done", "{events:?}");
        }
        let history = client.get("/v1/pipelines/ours/history?limit=1").body;
        let newest = &history["entries"][0];
        if newest["by"] == "judge" {
            return newest.clone();
        }
        seen = client.get("/v1/pipelines/ours/rollout").body["trial"].clone();
        // It may have been judged since the history was read.
        assert!(seen.is_null() || seen["reason"].is_string(), "{seen}");
    }
    panic!("it was never judged: {seen}");
}

/// What became of it, with the evidence.
fn outcome(new: &Value) -> (Value, Value) {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "quota.requests_per_second=1000"]);
    let client = server.tenant_with("ours", json!({}), &["ingest", "read", "components"]);
    // Pages are drawn and kept and not embedded, so that what a component decides is most of the work.
    let stable = json!({
        "components": { "routing": "trial-fine" },
        "settings": { "embed": false, "dpi": 72, "name": "stable" },
    });
    on_trial(&client, &stable, new);
    let entry = judged(&client);
    let (evidence, after) = (
        entry["evidence"].clone(),
        client.get("/v1/pipelines/ours/rollout").body,
    );
    assert_eq!(after["trial"], Value::Null, "{after}");
    assert_eq!(after["rollout"]["canary"], Value::Null, "{after}");
    assert_eq!(after["rollout"], entry["to"]);
    // Judged at one of its looks, beside jobs of the same time.
    let looks = [5, 10, 20, 40, 80, 160, 320];
    assert!(
        looks.contains(&evidence["canary"]["jobs"].as_u64().unwrap()),
        "{entry}"
    );
    assert!(evidence["stable"]["jobs"].as_u64().unwrap() >= 5, "{entry}");
    // The next job gets what was decided.
    let job = hand_in(&client, &weir_samples::text_document(1, 1_000_000));
    client.wait(&job);
    let got = client.get(&format!("/v1/jobs/{job}")).body;
    assert_eq!(got["pipeline_revision"], after["rollout"]["stable"]);
    assert_eq!(server.stop().code, 0);
    eprintln!("{evidence}");
    (entry["action"].clone(), evidence)
}

#[test]
fn a_canary_that_traps_on_one_page_of_twenty_is_rolled_back() {
    let (action, evidence) = outcome(&json!({
        "components": { "routing": "trial-traps" },
        "settings": { "embed": false, "dpi": 72 },
        "judge": { "slower": AS_QUICK },
    }));
    assert_eq!(action, "rollback", "{evidence}");
    let reason = evidence["reason"].as_str().unwrap();
    assert!(reason.starts_with("traps for a page: "), "{reason}");
    let (canary, stable) = (&evidence["canary"], &evidence["stable"]);
    let share = canary["traps"].as_f64().unwrap() / canary["pages"].as_f64().unwrap();
    assert!((0.02..0.2).contains(&share), "{evidence}");
    // The default component decided in its place: nothing else went wrong.
    let rest = (&stable["traps"], &canary["failed_jobs"], &canary["failed_pages"]);
    assert_eq!(rest, (&json!(0), &json!(0), &json!(0)), "{evidence}");
}

#[test]
fn a_canary_that_takes_longer_for_a_page_is_rolled_back() {
    let (action, evidence) = outcome(&json!({
        "components": { "routing": "trial-slower", "batching": "trial-slower" },
        "settings": { "embed": false, "dpi": 600 },
        "judge": { "slower": SLOWER },
    }));
    assert_eq!(action, "rollback", "{evidence}");
    let reason = evidence["reason"].as_str().unwrap();
    assert!(reason.starts_with("a page takes +"), "{reason}");
    let pace = |arm: &Value| arm["millis"].as_f64().unwrap() / arm["pages"].as_f64().unwrap();
    let times = pace(&evidence["canary"]) / pace(&evidence["stable"]);
    assert!(times > 1.2, "{times}: {evidence}");
}

#[test]
fn a_canary_that_is_fine_is_promoted() {
    let (action, evidence) = outcome(&json!({
        "components": { "routing": "trial-fine" },
        "settings": { "embed": false, "dpi": 72, "name": "canary" },
        "judge": { "slower": AS_QUICK },
    }));
    assert_eq!(action, "promote", "{evidence}");
    let reason = evidence["reason"].as_str().unwrap();
    assert!(reason.contains("nothing was worse"), "{reason}");
    for arm in ["canary", "stable"] {
        let went_wrong = ["failed_jobs", "failed_pages", "traps"].map(|what| evidence[arm][what].as_u64());
        assert_eq!(went_wrong, [Some(0); 3], "{evidence}");
    }
}

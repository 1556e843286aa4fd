//! Everything a component can do to a host, at once, beside a tenant who does nothing of the kind.

use serde_json::{Value, json};
use weir_tests::server::{Client, Server};
use weir_tests::{Weir, component};

#[path = "../../../host/policy/tests/policy/bomb.rs"]
mod bomb;

/// What a component does on the second page of a job, and the error that names what stopped it.
const ATTACKS: [(&str, &str, &str); 12] = [
    ("loop", "component-deadline", "within 50 ms"),
    ("copy", "component-deadline", "within 50 ms"),
    ("log", "component-deadline", "within 50 ms"),
    ("sleep", "component-deadline", "within 50 ms"),
    ("memory", "component-limit", "33554432 bytes of memory"),
    ("stack", "component-limit", "stack"),
    ("answer", "component-limit", "1048576 bytes of output"),
    (
        "questions",
        "component-limit",
        "1000 questions to the host in a call",
    ),
    ("handles", "component-limit", "1024 handles"),
    ("state", "component-trap", "1048576 bytes: delete some"),
    ("trap", "component-trap", "the weir is broken"),
    ("nonsense", "component-nonsense", "embed"),
];

/// A pipeline for each attack.
fn arm(client: &Client, on_trap: &str) {
    let bytes = std::fs::read(component("hostile-later")).unwrap();
    let pushed = client.push("later", &bytes);
    assert_eq!(pushed.status, 201, "{}", pushed.body);
    for (attack, ..) in ATTACKS {
        let revision = json!({
            "components": { "routing": "later" },
            "settings": { "attack": attack },
            "capabilities": ["state", "inference"],
            "on_trap": on_trap,
        });
        let pushed = client.post(&format!("/v1/pipelines/{attack}/revisions"), &revision);
        assert_eq!(pushed.status, 201, "{attack}: {}", pushed.body);
        let active = json!({ "action": "activate", "revision": 1 });
        let answer = client.post(&format!("/v1/pipelines/{attack}/rollout"), &active);
        assert_eq!(answer.status, 200, "{attack}: {}", answer.body);
    }
}

/// A job for each attack, each with a document of its own.
fn attack(client: &Client, seed: u64) -> Vec<String> {
    (seed..)
        .zip(ATTACKS)
        .map(|(seed, (attack, ..))| {
            let document = weir_samples::text_document(4, seed);
            let options = json!({ "pipeline": attack });
            let answer = client.submit(&[("a.pdf", &document)], &options, &[]);
            assert_eq!(answer.status, 202, "{attack}: {}", answer.body);
            answer.body["id"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn errors<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["type"] == kind)
        .map(|event| &event["error"])
        .collect()
}

fn assert_names(error: &Value, (attack, kind, part): (&str, &str, &str)) {
    assert_eq!(error["kind"], kind, "{attack}: {error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(part), "{attack}: {message}");
}

fn used(client: &Client, what: &str) -> u64 {
    let usage = client.get("/v1/usage").body;
    let days = usage["days"].as_array().unwrap();
    days.iter().map(|day| day[what].as_u64().unwrap()).sum()
}

#[test]
fn every_attack_at_once_ends_at_its_own_limit_and_costs_its_own_tenant() {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "policy.compile_seconds=2"]);
    let scopes = ["ingest", "read", "components"];
    let fails = server.tenant_with("fails", json!({}), &scopes);
    let goes_on = server.tenant_with("goes-on", json!({}), &scopes);
    let bombs = server.tenant_with("bombs", json!({}), &scopes);
    let good = server.tenant("good", json!({}));
    arm(&fails, "fail");
    arm(&goes_on, "default");

    let (failing, going_on, ours) = std::thread::scope(|scope| {
        let bombing = scope.spawn(|| bombs.push("bomb", &bomb::bomb()));
        let failing = attack(&fails, 100);
        let going_on = attack(&goes_on, 200);
        let ours: Vec<_> = (300..308)
            .map(|seed| good.job("good.pdf", &weir_samples::text_document(4, seed)))
            .collect();
        let refused = bombing.join().unwrap();
        assert_eq!(refused.status, 422, "{}", refused.body);
        let said = refused.body["detail"].as_str().unwrap();
        assert!(said.contains("more than the 2 s of CPU"), "{said}");
        (failing, going_on, ours)
    });
    for (job, expected) in failing.iter().zip(ATTACKS) {
        let events = fails.wait(job);
        assert_eq!(events.last().unwrap()["state"], "failed", "{expected:?}");
        let told = errors(&events, "document-failed");
        assert_eq!(told.len(), 1, "{events:?}");
        assert_names(told[0], expected);
    }
    for (job, expected) in going_on.iter().zip(ATTACKS) {
        let events = goes_on.wait(job);
        assert_eq!(
            events.last().unwrap()["state"],
            "done",
            "{expected:?}: {events:?}"
        );
        let told = errors(&events, "policy-failed");
        assert!(!told.is_empty(), "{expected:?}");
        for error in told {
            assert_names(error, expected);
        }
    }
    for job in &ours {
        let events = good.wait(job);
        assert_eq!(events.last().unwrap()["state"], "done", "{events:?}");
        assert!(errors(&events, "policy-failed").is_empty(), "{events:?}");
        assert_eq!(events.iter().filter(|e| e["type"] == "page-done").count(), 4);
    }
    // Four attacks run into the deadline of 50 ms, with each tenant once or more; a bomb compiles for 2 s.
    let spent = |client| used(client, "guest_millis");
    assert!(spent(&fails) >= 200, "{}", spent(&fails));
    assert!(spent(&goes_on) >= 400, "{}", spent(&goes_on));
    assert!(spent(&bombs) >= 1900, "{}", spent(&bombs));
    assert!(spent(&good) < 100, "{}", spent(&good));
    assert_eq!(server.stop().code, 0);
}

//! All attacks that a component can make on a host, at once, while another tenant's jobs run normally.

use serde_json::{Value, json};
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::{WeirFixture, test_component_path};

#[path = "../../../host/policy/tests/policy/compile_bomb.rs"]
mod compile_bomb;

/// The attack that a component makes on the second page of a job, and the kind and part of the message of the resulting error.
const ATTACKS: [(&str, &str, &str); 12] = [
    ("loop", "component-timeout", "within 50 ms"),
    ("copy", "component-timeout", "within 50 ms"),
    ("log", "component-timeout", "within 50 ms"),
    ("sleep", "component-timeout", "within 50 ms"),
    ("memory", "component-limit", "33554432 bytes of memory"),
    ("stack", "component-limit", "stack"),
    ("huge-decision", "component-limit", "1048576 bytes of output"),
    (
        "host-calls",
        "component-limit",
        "1000 host calls in a policy call",
    ),
    ("handles", "component-limit", "1024 handles"),
    ("state", "component-trap", "1048576 bytes: delete some"),
    ("trap", "component-trap", "the weir is broken"),
    ("invalid-decision", "component-invalid-decision", "embed"),
];

/// Pushes and activates a pipeline for each attack.
fn push_attack_pipelines(client: &ApiClient, on_failure: &str) {
    let bytes = std::fs::read(test_component_path("hostile-second-page")).unwrap();
    let pushed = client.push_component("later", &bytes);
    assert_eq!(pushed.status, 201, "{}", pushed.body);
    for (attack, ..) in ATTACKS {
        let revision = json!({
            "components": { "routing": "later" },
            "settings": { "attack": attack },
            "capabilities": ["state", "inference"],
            "on_component_failure": on_failure,
        });
        let pushed = client.post(&format!("/v1/pipelines/{attack}/revisions"), &revision);
        assert_eq!(pushed.status, 201, "{attack}: {}", pushed.body);
        let active = json!({ "action": "activate", "revision": 1 });
        let response = client.post(&format!("/v1/pipelines/{attack}/rollout"), &active);
        assert_eq!(response.status, 200, "{attack}: {}", response.body);
    }
}

/// Submits a job with its own document for each attack. Returns the ids.
fn submit_attack_jobs(client: &ApiClient, seed: u64) -> Vec<String> {
    (seed..)
        .zip(ATTACKS)
        .map(|(seed, (attack, ..))| {
            let document = weir_samples::generate_text_document(4, seed);
            let options = json!({ "pipeline": attack });
            let response = client.submit_files(&[("a.pdf", &document)], &options, &[]);
            assert_eq!(response.status, 202, "{attack}: {}", response.body);
            response.body["id"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn errors_of_events<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["type"] == kind)
        .map(|event| &event["error"])
        .collect()
}

fn assert_error_names_limit(error: &Value, (attack, kind, part): (&str, &str, &str)) {
    assert_eq!(error["kind"], kind, "{attack}: {error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(part), "{attack}: {message}");
}

fn usage_total(client: &ApiClient, what: &str) -> u64 {
    let usage = client.get("/v1/usage").body;
    let days = usage["days"].as_array().unwrap();
    days.iter().map(|day| day[what].as_u64().unwrap()).sum()
}

#[test]
fn attacks_end_at_their_limits_and_are_charged_to_their_tenants() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &["--set", "policy.max_compile_cpu_seconds=2"]);
    let scopes = ["ingest", "read", "components"];
    let fails = server.create_tenant_with_scopes("fails", json!({}), &scopes);
    let defaulting_client = server.create_tenant_with_scopes("goes-on", json!({}), &scopes);
    let bombs = server.create_tenant_with_scopes("bombs", json!({}), &scopes);
    let good = server.create_tenant("good", json!({}));
    push_attack_pipelines(&fails, "fail");
    push_attack_pipelines(&defaulting_client, "default");

    let (failing_jobs, defaulted_jobs, good_jobs) = std::thread::scope(|scope| {
        let bombing = scope.spawn(|| bombs.push_component("bomb", &compile_bomb::compile_bomb_component()));
        let failing_jobs = submit_attack_jobs(&fails, 100);
        let defaulted_jobs = submit_attack_jobs(&defaulting_client, 200);
        let good_jobs: Vec<_> = (300..308)
            .map(|seed| good.submit_file("good.pdf", &weir_samples::generate_text_document(4, seed)))
            .collect();
        let refused = bombing.join().unwrap();
        assert_eq!(refused.status, 422, "{}", refused.body);
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("more than the 2 s of CPU"), "{detail}");
        (failing_jobs, defaulted_jobs, good_jobs)
    });
    for (job, expected) in failing_jobs.iter().zip(ATTACKS) {
        let events = fails.wait_for_job(job);
        assert_eq!(events.last().unwrap()["state"], "failed", "{expected:?}");
        let errors = errors_of_events(&events, "document-failed");
        assert_eq!(errors.len(), 1, "{events:?}");
        assert_error_names_limit(errors[0], expected);
    }
    for (job, expected) in defaulted_jobs.iter().zip(ATTACKS) {
        let events = defaulting_client.wait_for_job(job);
        assert_eq!(
            events.last().unwrap()["state"],
            "done",
            "{expected:?}: {events:?}"
        );
        let errors = errors_of_events(&events, "policy-failed");
        assert!(!errors.is_empty(), "{expected:?}");
        for error in errors {
            assert_error_names_limit(error, expected);
        }
    }
    for job in &good_jobs {
        let events = good.wait_for_job(job);
        assert_eq!(events.last().unwrap()["state"], "done", "{events:?}");
        assert!(
            errors_of_events(&events, "policy-failed").is_empty(),
            "{events:?}"
        );
        assert_eq!(events.iter().filter(|e| e["type"] == "page-done").count(), 4);
    }
    // Four attacks reach the deadline of 50 ms, at least once for each tenant. The compile bomb takes 2 s as the kernel counts
    // them for a limit, in whole clock ticks; the time that is charged is measured exactly, and can be less on a busy machine.
    let spent = |client| usage_total(client, "guest_millis");
    assert!(spent(&fails) >= 200, "{}", spent(&fails));
    assert!(spent(&defaulting_client) >= 400, "{}", spent(&defaulting_client));
    assert!(spent(&bombs) >= 1500, "{}", spent(&bombs));
    assert!(spent(&good) < 100, "{}", spent(&good));
    assert_eq!(server.stop().exit_code, 0);
}

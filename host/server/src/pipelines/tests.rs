//! A tenant's logic from push to roll-back, as its owner sees it.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::{Response, header};
use serde_json::{Value, json};
use weir_core::component::ComponentDigest;
use weir_core::ledger::JobState;
use weir_core::settings::Settings;
use weir_core::tenancy::Scope;
use weir_core::{JobId, RevisionId, TenantId};

use crate::fakes::{Host, form, job_of, json as body, refusal};

const ALL: [Scope; 3] = [Scope::Ingest, Scope::Read, Scope::Components];

async fn push(host: &Host, key: &str, name: &str, component: &str) -> Response<Body> {
    let path = format!("/v1/components?name={name}");
    let mut request = Host::request("POST", &path, key, Body::from(component.to_owned()));
    let kind = "application/wasm".parse().unwrap();
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    host.send(request).await
}

async fn expect(status: u16, answer: Response<Body>) -> Value {
    let was = answer.status();
    let body = body(answer).await;
    assert_eq!(was, status, "{body}");
    body
}

/// A revision with this setting; its number.
async fn revision(host: &Host, key: &str, settings: Value) -> u64 {
    let new = json!({ "settings": settings, "judge": { "jobs": 5 } });
    let answer = expect(201, host.post("/v1/pipelines/ours/revisions", key, &new).await).await;
    answer["number"].as_u64().unwrap()
}

async fn change(host: &Host, key: &str, change: Value) -> Value {
    expect(200, host.post("/v1/pipelines/ours/rollout", key, &change).await).await
}

/// A job of this pipeline, run to its end; the revision it ran.
async fn run(host: &Host, tenant: &TenantId, key: &str, number: usize) -> (JobId, RevisionId) {
    let options = json!({ "pipeline": "ours" }).to_string();
    let content = format!("2 pages {number}");
    let parts = [("file", Some("a.pdf"), &*content), ("options", None, &*options)];
    let job = job_of(host.send(Host::submission(key, form(&parts))).await).await;
    host.until(tenant, job, JobState::Done).await;
    let opened = host.works.opened();
    let mut of_job = opened.iter().filter(|opened| opened.job == job);
    (job, of_job.next().unwrap().revision)
}

#[tokio::test]
async fn a_component_is_looked_at_kept_listed_and_removed() {
    let host = Host::new();
    let (_, key) = host.tenant("a", &ALL).await;
    let pushed = expect(201, push(&host, &key, "ours", "routing progress").await).await;
    let digest = ComponentDigest::of(b"routing progress").to_string();
    assert_eq!(
        (&pushed["digest"], &pushed["roles"], &pushed["bytes"]),
        (&json!(digest), &json!(["routing", "progress"]), &json!(16))
    );
    // The same bytes again are the same component, under the name they have now.
    let again = expect(200, push(&host, &key, "renamed", "routing progress").await).await;
    assert_eq!(
        (&again["digest"], &again["name"]),
        (&pushed["digest"], &json!("renamed"))
    );
    let listed = expect(200, host.get("/v1/components", &key).await).await;
    assert_eq!(listed["components"], json!([again]));
    let path = format!("/v1/components/{digest}");
    assert_eq!(expect(200, host.get(&path, &key).await).await, again);
    assert_eq!(host.delete(&path, &key).await.status(), 204);
    assert_eq!(refusal(host.get(&path, &key).await).await.status, 404);
    assert_eq!(refusal(host.delete(&path, &key).await).await.status, 404);
    assert!(host.components.names().is_empty());
}

#[tokio::test]
async fn what_cannot_be_let_in_leaves_nothing() {
    let host = Host::new();
    let (_, key) = host.tenant("a", &ALL).await;
    let none = refusal(push(&host, &key, "ours", "what").await).await;
    assert_eq!(none.status, 422);
    assert!(none.detail.contains("it has no role"), "{}", none.detail);
    assert_eq!(
        refusal(push(&host, &key, "Ours!", "routing").await).await.status,
        400
    );
    assert!(host.components.names().is_empty());

    expect(201, push(&host, &key, "bad", "routing traps").await).await;
    let new = json!({ "components": { "routing": "bad" } });
    let refused = refusal(host.post("/v1/pipelines/ours/revisions", &key, &new).await).await;
    assert_eq!(refused.status, 422);
    let missing = json!({ "components": { "routing": "nobody" } });
    let refused = refusal(host.post("/v1/pipelines/ours/revisions", &key, &missing).await).await;
    assert_eq!(refused.status, 404);
    for wrong in [
        json!({ "judge": { "jobs": 0 } }),
        json!({ "limits": { "call_millis": 0 } }),
        json!({ "components": { "drawing": "bad" } }),
        json!({ "settings": { "x": [1] } }),
        json!({ "colour": 1 }),
    ] {
        let refused = refusal(host.post("/v1/pipelines/ours/revisions", &key, &wrong).await).await;
        assert_eq!(refused.status, 422, "{wrong}");
    }
    assert_eq!(
        refusal(host.get("/v1/pipelines/ours", &key).await).await.status,
        404
    );
}

#[tokio::test]
async fn new_jobs_get_what_is_active_and_a_component_in_use_stays() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &ALL).await;
    let _dispatching = host.dispatching();
    let options = form(&[
        ("file", Some("a.pdf"), "1 pages"),
        ("options", None, r#"{"pipeline":"ours"}"#),
    ]);
    let unknown = refusal(host.send(Host::submission(&key, options.clone())).await).await;
    assert_eq!(unknown.status, 404);
    let pushed = expect(201, push(&host, &key, "ours", "routing").await).await;
    let new = json!({ "components": { "routing": "ours" }, "settings": { "dpi": 100 } });
    let first = expect(201, host.post("/v1/pipelines/ours/revisions", &key, &new).await).await;
    assert_eq!(first["components"]["routing"], pushed["digest"]);
    let again = expect(200, host.post("/v1/pipelines/ours/revisions", &key, &new).await).await;
    assert_eq!(again, first);
    let second = revision(&host, &key, json!({ "dpi": 200 })).await;
    assert_eq!(second, 2);
    // Pushed is not active.
    let inactive = refusal(host.send(Host::submission(&key, options)).await).await;
    assert_eq!(inactive.status, 409, "{}", inactive.detail);

    change(&host, &key, json!({ "action": "activate", "revision": 1 })).await;
    let (job, one) = run(&host, &a, &key, 1).await;
    change(&host, &key, json!({ "action": "activate", "revision": 2 })).await;
    let (_, two) = run(&host, &a, &key, 2).await;
    let back = change(&host, &key, json!({ "action": "rollback" })).await;
    assert_eq!((&back["stable"], &back["version"]), (&json!(1), &json!(3)));
    let (_, three) = run(&host, &a, &key, 3).await;
    assert_ne!(one, two);
    assert_eq!(one, three);
    let view = expect(200, host.get(&format!("/v1/jobs/{job}"), &key).await).await;
    assert_eq!(
        (&view["revision"], &view["pipeline_revision"]),
        (&json!(one.to_string()), &json!(1))
    );

    let path = format!("/v1/components/{}", pushed["digest"].as_str().unwrap());
    let used = refusal(host.delete(&path, &key).await).await;
    assert_eq!(used.status, 409);
    let history = expect(200, host.get("/v1/pipelines/ours/history", &key).await).await;
    let actions: Vec<_> = history["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["action"])
        .collect();
    assert_eq!(actions, ["rollback", "activate", "activate", "push", "push"]);
}

#[tokio::test]
async fn a_job_begun_before_a_swap_goes_on_with_what_it_had() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &ALL).await;
    for dpi in [100, 200] {
        revision(&host, &key, json!({ "dpi": dpi })).await;
    }
    change(&host, &key, json!({ "action": "activate", "revision": 1 })).await;
    let dispatching = host.dispatching();
    host.works.hold();
    let parts = [
        ("file", Some("a.pdf"), "2 pages"),
        ("options", None, r#"{"pipeline":"ours"}"#),
    ];
    let job = job_of(host.send(Host::submission(&key, form(&parts))).await).await;
    host.until(&a, job, JobState::Running).await;
    let first = host.works.opened().last().unwrap().revision;
    change(&host, &key, json!({ "action": "activate", "revision": 2 })).await;
    // The process dies; the next one takes the job up.
    drop(dispatching);
    let next = host.again();
    crate::admission::restore(&next.app).await.unwrap();
    let _dispatching = next.dispatching();
    next.until(&a, job, JobState::Done).await;
    assert_eq!(next.works.opened().last().unwrap().revision, first);
}

/// Runs jobs until the canary has been judged; what jobs of each revision there were.
async fn until_judged(host: &Host, tenant: &TenantId, key: &str) -> (Value, HashMap<RevisionId, usize>) {
    let mut of_revision: HashMap<RevisionId, usize> = HashMap::new();
    for number in 0..400 {
        let (_, ran) = run(host, tenant, key, number).await;
        *of_revision.entry(ran).or_default() += 1;
        let history = expect(200, host.get("/v1/pipelines/ours/history", key).await).await;
        let newest = &history["entries"][0];
        if newest["by"] == "judge" {
            return (newest.clone(), of_revision);
        }
    }
    panic!("it was never judged");
}

#[tokio::test]
async fn a_canary_is_judged_by_its_jobs() {
    for (traps, verdict, stable) in [(0, "promote", 2), (1, "rollback", 1)] {
        let host = Host::with(Settings::default());
        let (a, key) = host.tenant("a", &ALL).await;
        let _dispatching = host.dispatching();
        revision(&host, &key, json!({ "traps": 0 })).await;
        // The pace of jobs that do nothing is noise.
        let new =
            json!({ "settings": { "traps": traps, "new": true }, "judge": { "jobs": 5, "slower": 10 } });
        expect(201, host.post("/v1/pipelines/ours/revisions", &key, &new).await).await;
        change(&host, &key, json!({ "action": "activate", "revision": 1 })).await;
        change(
            &host,
            &key,
            json!({ "action": "canary", "revision": 2, "percent": 50 }),
        )
        .await;
        let (judged, ran) = until_judged(&host, &a, &key).await;
        assert_eq!(judged["action"], verdict, "{judged}");
        // One that traps is sent back without waiting for a job of the other revision, if chance gave it the first five.
        let both = ran.len() == 2;
        assert!(both || verdict == "rollback", "{judged}");
        let evidence = &judged["evidence"];
        assert!(evidence["canary"]["jobs"].as_u64() >= Some(5), "{judged}");
        assert!(
            evidence["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty())
        );
        let state = expect(200, host.get("/v1/pipelines/ours/rollout", &key).await).await;
        assert_eq!(
            (&state["rollout"]["stable"], &state["trial"]),
            (&json!(stable), &Value::Null)
        );
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_is_refused_and_changes_nothing() {
    let host = Host::new();
    let (_, key) = host.tenant("a", &ALL).await;
    revision(&host, &key, json!({})).await;
    revision(&host, &key, json!({ "x": 1 })).await;
    let path = "/v1/pipelines/ours/rollout";
    for (status, wrong) in [
        (404, json!({ "action": "activate", "revision": 9 })),
        (409, json!({ "action": "canary", "revision": 1, "percent": 10 })),
        (409, json!({ "action": "promote" })),
        (409, json!({ "action": "rollback" })),
        (409, json!({ "action": "activate", "revision": 1, "version": 7 })),
        (422, json!({ "action": "activate" })),
        (422, json!({ "action": "promote", "revision": 1 })),
        (422, json!({ "action": "activate", "revision": 1, "percent": 10 })),
        (422, json!({ "action": "destroy" })),
    ] {
        let refused = refusal(host.post(path, &key, &wrong).await).await;
        assert_eq!(refused.status, status, "{wrong}: {}", refused.detail);
    }
    let pinned = change(
        &host,
        &key,
        json!({ "action": "pin", "revision": 1, "version": 0 }),
    )
    .await;
    assert_eq!((&pinned["stable"], &pinned["pinned"]), (&json!(1), &json!(true)));
    let moved = refusal(
        host.post(path, &key, &json!({ "action": "activate", "revision": 2 }))
            .await,
    )
    .await;
    assert_eq!(moved.status, 409);
    change(&host, &key, json!({ "action": "unpin" })).await;
    change(&host, &key, json!({ "action": "activate", "revision": 2 })).await;
}

#[tokio::test]
async fn it_takes_the_right_key_and_other_tenants_have_nothing() {
    let host = Host::new();
    let (_, key) = host.tenant("a", &ALL).await;
    let (_, other) = host.tenant("b", &ALL).await;
    let (_, reader) = host
        .tenant("c", &[Scope::Ingest, Scope::Read, Scope::Admin])
        .await;
    let pushed = expect(201, push(&host, &key, "ours", "routing").await).await;
    revision(&host, &key, json!({})).await;
    let component = format!("/v1/components/{}", pushed["digest"].as_str().unwrap());
    let gets = [
        component.as_str(),
        "/v1/pipelines/ours",
        "/v1/pipelines/ours/revisions",
        "/v1/pipelines/ours/revisions/1",
        "/v1/pipelines/ours/rollout",
        "/v1/pipelines/ours/history",
    ];
    for path in gets {
        assert_eq!(host.get(path, &key).await.status(), 200, "{path}");
        assert_eq!(host.get(path, &other).await.status(), 404, "{path}");
        assert_eq!(host.get(path, &reader).await.status(), 403, "{path}");
    }
    for list in ["/v1/components", "/v1/pipelines"] {
        let listed = expect(200, host.get(list, &other).await).await;
        assert!(
            listed.as_object().unwrap().values().all(|v| v == &json!([])),
            "{listed}"
        );
        assert_eq!(host.get(list, &reader).await.status(), 403);
    }
    let activate = json!({ "action": "activate", "revision": 1 });
    let foreign = host.post("/v1/pipelines/ours/rollout", &other, &activate).await;
    assert_eq!(foreign.status(), 404);
    assert_eq!(push(&host, &reader, "ours", "routing").await.status(), 403);
    let new = json!({ "components": { "routing": pushed["digest"] } });
    let stolen = host.post("/v1/pipelines/theirs/revisions", &other, &new).await;
    assert_eq!(stolen.status(), 404);
    assert_eq!(host.delete(&component, &other).await.status(), 404);
}

#[tokio::test]
async fn a_job_is_replayed_with_its_own_revision_or_another() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &ALL).await;
    let (_, other) = host.tenant("b", &ALL).await;
    let _dispatching = host.dispatching();
    for dpi in [100, 200] {
        revision(&host, &key, json!({ "dpi": dpi })).await;
    }
    change(&host, &key, json!({ "action": "activate", "revision": 1 })).await;
    let (job, _) = run(&host, &a, &key, 1).await;
    // What is active by then is of no concern.
    change(&host, &key, json!({ "action": "activate", "revision": 2 })).await;
    let path = format!("/v1/jobs/{job}/replay");
    let differing = async |with: Value| {
        let report = expect(200, host.post(&path, &key, &with).await).await;
        assert_eq!(report["decisions"], 1);
        report["differing"].clone()
    };
    assert_eq!(differing(json!({})).await, 0);
    assert_eq!(differing(json!({ "revision": 1 })).await, 0);
    assert_eq!(differing(json!({ "revision": 2 })).await, 1);
    host.quota(&a, "guest_memory_bytes", 16 << 20).await;
    assert_eq!(differing(json!({})).await, 0);
    assert_eq!(host.works.again(), [None, None, None, Some(16 << 20)]);
    let missing = host.post(&path, &key, &json!({ "revision": 3 })).await;
    assert_eq!(refusal(missing).await.status, 404);
    assert_eq!(
        refusal(host.post(&path, &other, &json!({})).await).await.status,
        404
    );
    let waits = host.job(&a).await;
    let path = format!("/v1/jobs/{waits}/replay");
    assert_eq!(
        refusal(host.post(&path, &key, &json!({})).await).await.status,
        404
    );
}

#[tokio::test]
async fn a_shadow_says_what_it_would_have_decided_and_decides_nothing() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &ALL).await;
    for dpi in [100, 120] {
        revision(&host, &key, json!({ "dpi": dpi })).await;
    }
    let shadow = json!({ "action": "shadow", "revision": 2 });
    let early = host.post("/v1/pipelines/ours/rollout", &key, &shadow).await;
    assert_eq!(refusal(early).await.status, 409, "nothing is active");
    change(&host, &key, json!({ "action": "activate", "revision": 1 })).await;
    let _dispatching = host.dispatching();
    let (_, real) = run(&host, &a, &key, 0).await;
    host.quota(&a, "guest_memory_bytes", 16 << 20).await;
    let changed = change(&host, &key, shadow).await;
    assert_eq!((&changed["stable"], &changed["shadow"]), (&json!(1), &json!(2)));
    let shown = async || {
        let rollout = host.get("/v1/pipelines/ours/rollout", &key).await;
        expect(200, rollout).await["shadow"].clone()
    };
    assert_eq!(shown().await["jobs"], 0, "jobs before it are not its");
    for number in 1..=3 {
        let (_, ran) = run(&host, &a, &key, number).await;
        assert_eq!(ran, real);
        // It is asked when the job has ended.
        while shown().await["jobs"] != number {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(host.works.again(), [Some(16 << 20); 3]);
    let showing = shown().await;
    assert_eq!(
        (
            &showing["revision"],
            &showing["differing_jobs"],
            &showing["differing"]
        ),
        (&json!(2), &json!(3), &json!(3)),
        "{showing}"
    );
    let changed = change(&host, &key, json!({ "action": "unshadow" })).await;
    assert_eq!(changed["shadow"], json!(null));
    run(&host, &a, &key, 4).await;
    assert_eq!(shown().await, json!(null));
    let history = expect(200, host.get("/v1/pipelines/ours/history", &key).await).await;
    assert_eq!(history["entries"][1]["action"], "shadow", "{history}");
}

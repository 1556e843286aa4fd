//! Tests of a tenant's pipeline over the API, from the push to the rollback.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::{Response, header};
use serde_json::{Value, json};
use weir_core::component::ComponentDigest;
use weir_core::ledger::JobState;
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;
use weir_core::{JobId, RevisionId, TenantId};

use crate::fakes::{TestHost, accepted_job_id, multipart_form, parse_json as body, parse_problem};

const ALL_SCOPES: [KeyScope; 3] = [KeyScope::Ingest, KeyScope::Read, KeyScope::Components];

async fn push_component(host: &TestHost, key: &str, name: &str, component: &str) -> Response<Body> {
    let path = format!("/v1/components?name={name}");
    let mut request = TestHost::build_request("POST", &path, key, Body::from(component.to_owned()));
    let kind = "application/wasm".parse().unwrap();
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    host.send(request).await
}

async fn expect_status(status: u16, response: Response<Body>) -> Value {
    let actual_status = response.status();
    let body = body(response).await;
    assert_eq!(actual_status, status, "{body}");
    body
}

/// Pushes a revision with these settings and returns its number.
async fn push_revision(host: &TestHost, key: &str, settings: Value) -> u64 {
    let new = json!({ "settings": settings, "canary_analysis": { "min_jobs": 5 } });
    let revision = expect_status(
        201,
        host.send_post("/v1/pipelines/ours/revisions", key, &new).await,
    )
    .await;
    revision["number"].as_u64().unwrap()
}

async fn change_rollout(host: &TestHost, key: &str, change: Value) -> Value {
    expect_status(
        200,
        host.send_post("/v1/pipelines/ours/rollout", key, &change).await,
    )
    .await
}

/// Runs a job of the pipeline `ours` to its end, and returns the job and its revision.
async fn run_job(host: &TestHost, tenant: &TenantId, key: &str, number: usize) -> (JobId, RevisionId) {
    let options = json!({ "pipeline": "ours" }).to_string();
    let content = format!("2 pages {number}");
    let parts = [("file", Some("a.pdf"), &*content), ("options", None, &*options)];
    let job = accepted_job_id(
        host.send(TestHost::build_submission(key, multipart_form(&parts)))
            .await,
    )
    .await;
    host.wait_for_job_state(tenant, job, JobState::Done).await;
    let opened = host.processing.opened_jobs();
    let mut of_job = opened.iter().filter(|opened| opened.job == job);
    (job, of_job.next().unwrap().revision)
}

#[tokio::test]
async fn component_is_validated_stored_listed_and_removed() {
    let host = TestHost::new();
    let (_, key) = host.create_tenant("a", &ALL_SCOPES).await;
    let pushed = expect_status(201, push_component(&host, &key, "ours", "routing progress").await).await;
    let digest = ComponentDigest::from_content(b"routing progress").to_string();
    assert_eq!(
        (&pushed["digest"], &pushed["roles"], &pushed["bytes"]),
        (&json!(digest), &json!(["routing", "progress"]), &json!(16))
    );
    // The same bytes are the same component, which takes the new name.
    let again = expect_status(
        200,
        push_component(&host, &key, "renamed", "routing progress").await,
    )
    .await;
    assert_eq!(
        (&again["digest"], &again["name"]),
        (&pushed["digest"], &json!("renamed"))
    );
    let listed = expect_status(200, host.send_get("/v1/components", &key).await).await;
    assert_eq!(listed["components"], json!([again]));
    let path = format!("/v1/components/{digest}");
    assert_eq!(expect_status(200, host.send_get(&path, &key).await).await, again);
    assert_eq!(host.send_delete(&path, &key).await.status(), 204);
    assert_eq!(parse_problem(host.send_get(&path, &key).await).await.status, 404);
    assert_eq!(
        parse_problem(host.send_delete(&path, &key).await).await.status,
        404
    );
    assert!(host.components.file_names().is_empty());
}

#[tokio::test]
async fn invalid_component_leaves_nothing() {
    let host = TestHost::new();
    let (_, key) = host.create_tenant("a", &ALL_SCOPES).await;
    let none = parse_problem(push_component(&host, &key, "ours", "what").await).await;
    assert_eq!(none.status, 422);
    assert!(none.detail.contains("it has no role"), "{}", none.detail);
    assert_eq!(
        parse_problem(push_component(&host, &key, "Ours!", "routing").await)
            .await
            .status,
        400
    );
    assert!(host.components.file_names().is_empty());

    expect_status(201, push_component(&host, &key, "bad", "routing traps").await).await;
    let new = json!({ "components": { "routing": "bad" } });
    let refused = parse_problem(host.send_post("/v1/pipelines/ours/revisions", &key, &new).await).await;
    assert_eq!(refused.status, 422);
    let missing = json!({ "components": { "routing": "nobody" } });
    let refused = parse_problem(
        host.send_post("/v1/pipelines/ours/revisions", &key, &missing)
            .await,
    )
    .await;
    assert_eq!(refused.status, 404);
    for wrong in [
        json!({ "canary_analysis": { "min_jobs": 0 } }),
        json!({ "limits": { "call_timeout_millis": 0 } }),
        json!({ "components": { "drawing": "bad" } }),
        json!({ "settings": { "x": [1] } }),
        json!({ "colour": 1 }),
    ] {
        let refused = parse_problem(host.send_post("/v1/pipelines/ours/revisions", &key, &wrong).await).await;
        assert_eq!(refused.status, 422, "{wrong}");
    }
    assert_eq!(
        parse_problem(host.send_get("/v1/pipelines/ours", &key).await)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn former_field_name_is_refused_with_its_new_name() {
    let host = TestHost::new();
    let (_, key) = host.create_tenant("a", &ALL_SCOPES).await;
    for (body, former, new) in [
        (json!({ "judge": {} }), "judge", "canary_analysis"),
        (json!({ "on_trap": "fail" }), "on_trap", "on_component_failure"),
        (
            json!({ "limits": { "call_millis": 5 } }),
            "call_millis",
            "call_timeout_millis",
        ),
        (
            json!({ "limits": { "memory_bytes": 5 } }),
            "memory_bytes",
            "max_memory_bytes",
        ),
        (json!({ "canary_analysis": { "jobs": 5 } }), "jobs", "min_jobs"),
        (
            json!({ "canary_analysis": { "slower": 5 } }),
            "slower",
            "max_slowdown",
        ),
        (
            json!({ "canary_analysis": { "failures": 5 } }),
            "failures",
            "max_failure_increase",
        ),
        (
            json!({ "canary_analysis": { "timeouts": 5 } }),
            "timeouts",
            "max_timeout_increase",
        ),
        (
            json!({ "canary_analysis": { "traps": 5 } }),
            "traps",
            "max_trap_increase",
        ),
        (
            json!({ "canary_analysis": { "skipped": 5 } }),
            "skipped",
            "max_skipped_increase",
        ),
    ] {
        let refused = parse_problem(host.send_post("/v1/pipelines/ours/revisions", &key, &body).await).await;
        let expected = format!("field `{former}` was renamed to `{new}`");
        assert_eq!((refused.status, refused.detail), (422, expected));
    }
    // The name means something else at another place.
    let other = json!({ "jobs": 5 });
    let refused = parse_problem(host.send_post("/v1/pipelines/ours/revisions", &key, &other).await).await;
    assert!(
        refused.detail.contains("unknown field `jobs`"),
        "{}",
        refused.detail
    );
}

#[tokio::test]
async fn new_jobs_get_the_active_revision_and_used_component_stays() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &ALL_SCOPES).await;
    let _dispatching = host.spawn_dispatcher();
    let options = multipart_form(&[
        ("file", Some("a.pdf"), "1 pages"),
        ("options", None, r#"{"pipeline":"ours"}"#),
    ]);
    let unknown = parse_problem(host.send(TestHost::build_submission(&key, options.clone())).await).await;
    assert_eq!(unknown.status, 404);
    let pushed = expect_status(201, push_component(&host, &key, "ours", "routing").await).await;
    let new = json!({ "components": { "routing": "ours" }, "settings": { "dpi": 100 } });
    let first = expect_status(
        201,
        host.send_post("/v1/pipelines/ours/revisions", &key, &new).await,
    )
    .await;
    assert_eq!(first["components"]["routing"], pushed["digest"]);
    let again = expect_status(
        200,
        host.send_post("/v1/pipelines/ours/revisions", &key, &new).await,
    )
    .await;
    assert_eq!(again, first);
    let second = push_revision(&host, &key, json!({ "dpi": 200 })).await;
    assert_eq!(second, 2);
    // A pushed revision is not active.
    let inactive = parse_problem(host.send(TestHost::build_submission(&key, options)).await).await;
    assert_eq!(inactive.status, 409, "{}", inactive.detail);

    change_rollout(&host, &key, json!({ "action": "activate", "revision": 1 })).await;
    let (job, one) = run_job(&host, &a, &key, 1).await;
    change_rollout(&host, &key, json!({ "action": "activate", "revision": 2 })).await;
    let (_, two) = run_job(&host, &a, &key, 2).await;
    let back = change_rollout(&host, &key, json!({ "action": "rollback" })).await;
    assert_eq!((&back["stable"], &back["version"]), (&json!(1), &json!(3)));
    let (_, three) = run_job(&host, &a, &key, 3).await;
    assert_ne!(one, two);
    assert_eq!(one, three);
    let view = expect_status(200, host.send_get(&format!("/v1/jobs/{job}"), &key).await).await;
    assert_eq!(
        (&view["revision"], &view["pipeline_revision"]),
        (&json!(one.to_string()), &json!(1))
    );

    let path = format!("/v1/components/{}", pushed["digest"].as_str().unwrap());
    let used = parse_problem(host.send_delete(&path, &key).await).await;
    assert_eq!(used.status, 409);
    let history = expect_status(200, host.send_get("/v1/pipelines/ours/history", &key).await).await;
    let actions: Vec<_> = history["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["action"])
        .collect();
    assert_eq!(actions, ["rollback", "activate", "activate", "push", "push"]);
}

#[tokio::test]
async fn running_job_keeps_its_revision_after_an_activation() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &ALL_SCOPES).await;
    for dpi in [100, 200] {
        push_revision(&host, &key, json!({ "dpi": dpi })).await;
    }
    change_rollout(&host, &key, json!({ "action": "activate", "revision": 1 })).await;
    let dispatching = host.spawn_dispatcher();
    host.processing.hold_pages();
    let parts = [
        ("file", Some("a.pdf"), "2 pages"),
        ("options", None, r#"{"pipeline":"ours"}"#),
    ];
    let job = accepted_job_id(
        host.send(TestHost::build_submission(&key, multipart_form(&parts)))
            .await,
    )
    .await;
    host.wait_for_job_state(&a, job, JobState::Running).await;
    let first = host.processing.opened_jobs().last().unwrap().revision;
    change_rollout(&host, &key, json!({ "action": "activate", "revision": 2 })).await;
    // The process ends; the next one resumes the job.
    drop(dispatching);
    let next = host.restart();
    weir_control::recover_state_of_previous_process(&next.control)
        .await
        .unwrap();
    let _dispatching = next.spawn_dispatcher();
    next.wait_for_job_state(&a, job, JobState::Done).await;
    assert_eq!(next.processing.opened_jobs().last().unwrap().revision, first);
}

/// Runs jobs until the canary analysis changes the rollout. Returns its audit log entry and the number of jobs of each revision.
async fn run_until_canary_decided(
    host: &TestHost,
    tenant: &TenantId,
    key: &str,
) -> (Value, HashMap<RevisionId, usize>) {
    let mut of_revision: HashMap<RevisionId, usize> = HashMap::new();
    for number in 0..400 {
        let (_, ran) = run_job(host, tenant, key, number).await;
        *of_revision.entry(ran).or_default() += 1;
        let history = expect_status(200, host.send_get("/v1/pipelines/ours/history", key).await).await;
        let newest = &history["entries"][0];
        if newest["by"] == "canary-analysis" {
            return (newest.clone(), of_revision);
        }
    }
    panic!("the canary analysis did not finish within 400 jobs");
}

#[tokio::test]
async fn canary_is_promoted_or_rolled_back_by_its_jobs() {
    for (traps, verdict, stable) in [(0, "promote", 2), (1, "rollback", 1)] {
        let host = TestHost::with_settings(Settings::default());
        let (a, key) = host.create_tenant("a", &ALL_SCOPES).await;
        let _dispatching = host.spawn_dispatcher();
        push_revision(&host, &key, json!({ "traps": 0 })).await;
        // The duration of jobs that do nothing is noise.
        let new = json!({
            "settings": { "traps": traps, "new": true },
            "canary_analysis": { "min_jobs": 5, "max_slowdown": 10 },
        });
        expect_status(
            201,
            host.send_post("/v1/pipelines/ours/revisions", &key, &new).await,
        )
        .await;
        change_rollout(&host, &key, json!({ "action": "activate", "revision": 1 })).await;
        change_rollout(
            &host,
            &key,
            json!({ "action": "canary", "revision": 2, "percent": 50 }),
        )
        .await;
        let (judged, ran) = run_until_canary_decided(&host, &a, &key).await;
        assert_eq!(judged["action"], verdict, "{judged}");
        // A canary that traps is rolled back even if the first five jobs all ran the canary by chance.
        let both = ran.len() == 2;
        assert!(both || verdict == "rollback", "{judged}");
        let evidence = &judged["evidence"];
        assert!(evidence["canary"]["jobs"].as_u64() >= Some(5), "{judged}");
        assert!(
            evidence["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty())
        );
        let state = expect_status(200, host.send_get("/v1/pipelines/ours/rollout", &key).await).await;
        assert_eq!(
            (&state["rollout"]["stable"], &state["trial"]),
            (&json!(stable), &Value::Null)
        );
    }
}

#[tokio::test]
async fn invalid_rollout_change_is_refused_and_changes_nothing() {
    let host = TestHost::new();
    let (_, key) = host.create_tenant("a", &ALL_SCOPES).await;
    push_revision(&host, &key, json!({})).await;
    push_revision(&host, &key, json!({ "x": 1 })).await;
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
        let refused = parse_problem(host.send_post(path, &key, &wrong).await).await;
        assert_eq!(refused.status, status, "{wrong}: {}", refused.detail);
    }
    let pinned = change_rollout(
        &host,
        &key,
        json!({ "action": "pin", "revision": 1, "version": 0 }),
    )
    .await;
    assert_eq!((&pinned["stable"], &pinned["pinned"]), (&json!(1), &json!(true)));
    let conflict = parse_problem(
        host.send_post(path, &key, &json!({ "action": "activate", "revision": 2 }))
            .await,
    )
    .await;
    assert_eq!(conflict.status, 409);
    change_rollout(&host, &key, json!({ "action": "unpin" })).await;
    change_rollout(&host, &key, json!({ "action": "activate", "revision": 2 })).await;
}

#[tokio::test]
async fn pipelines_need_the_components_scope_and_are_private() {
    let host = TestHost::new();
    let (_, key) = host.create_tenant("a", &ALL_SCOPES).await;
    let (_, other) = host.create_tenant("b", &ALL_SCOPES).await;
    let (_, reader) = host
        .create_tenant("c", &[KeyScope::Ingest, KeyScope::Read, KeyScope::Admin])
        .await;
    let pushed = expect_status(201, push_component(&host, &key, "ours", "routing").await).await;
    push_revision(&host, &key, json!({})).await;
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
        assert_eq!(host.send_get(path, &key).await.status(), 200, "{path}");
        assert_eq!(host.send_get(path, &other).await.status(), 404, "{path}");
        assert_eq!(host.send_get(path, &reader).await.status(), 403, "{path}");
    }
    for list in ["/v1/components", "/v1/pipelines"] {
        let listed = expect_status(200, host.send_get(list, &other).await).await;
        assert!(
            listed.as_object().unwrap().values().all(|v| v == &json!([])),
            "{listed}"
        );
        assert_eq!(host.send_get(list, &reader).await.status(), 403);
    }
    let activate = json!({ "action": "activate", "revision": 1 });
    let foreign = host
        .send_post("/v1/pipelines/ours/rollout", &other, &activate)
        .await;
    assert_eq!(foreign.status(), 404);
    assert_eq!(
        push_component(&host, &reader, "ours", "routing").await.status(),
        403
    );
    let new = json!({ "components": { "routing": pushed["digest"] } });
    let stolen = host
        .send_post("/v1/pipelines/theirs/revisions", &other, &new)
        .await;
    assert_eq!(stolen.status(), 404);
    assert_eq!(host.send_delete(&component, &other).await.status(), 404);
}

#[tokio::test]
async fn a_job_is_replayed_with_its_own_revision_or_another() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &ALL_SCOPES).await;
    let (_, other) = host.create_tenant("b", &ALL_SCOPES).await;
    let _dispatching = host.spawn_dispatcher();
    for dpi in [100, 200] {
        push_revision(&host, &key, json!({ "dpi": dpi })).await;
    }
    change_rollout(&host, &key, json!({ "action": "activate", "revision": 1 })).await;
    let (job, _) = run_job(&host, &a, &key, 1).await;
    // A later activation does not affect the replay.
    change_rollout(&host, &key, json!({ "action": "activate", "revision": 2 })).await;
    let path = format!("/v1/jobs/{job}/replay");
    let differing = async |with: Value| {
        let report = expect_status(200, host.send_post(&path, &key, &with).await).await;
        assert_eq!(report["decisions"], 1);
        report["differing"].clone()
    };
    assert_eq!(differing(json!({})).await, 0);
    assert_eq!(differing(json!({ "revision": 1 })).await, 0);
    assert_eq!(differing(json!({ "revision": 2 })).await, 1);
    host.set_quota(&a, "guest_memory_bytes", 16 << 20).await;
    assert_eq!(differing(json!({})).await, 0);
    assert_eq!(
        host.processing.replay_memory_limits(),
        [None, None, None, Some(16 << 20)]
    );
    let missing = host.send_post(&path, &key, &json!({ "revision": 3 })).await;
    assert_eq!(parse_problem(missing).await.status, 404);
    assert_eq!(
        parse_problem(host.send_post(&path, &other, &json!({})).await)
            .await
            .status,
        404
    );
    let waits = host.create_running_job(&a).await;
    let path = format!("/v1/jobs/{waits}/replay");
    assert_eq!(
        parse_problem(host.send_post(&path, &key, &json!({})).await)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn shadow_reports_differences_and_has_no_effect() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &ALL_SCOPES).await;
    for dpi in [100, 120] {
        push_revision(&host, &key, json!({ "dpi": dpi })).await;
    }
    let shadow = json!({ "action": "shadow", "revision": 2 });
    let early = host.send_post("/v1/pipelines/ours/rollout", &key, &shadow).await;
    assert_eq!(parse_problem(early).await.status, 409, "nothing is active");
    change_rollout(&host, &key, json!({ "action": "activate", "revision": 1 })).await;
    let _dispatching = host.spawn_dispatcher();
    let (_, real) = run_job(&host, &a, &key, 0).await;
    host.set_quota(&a, "guest_memory_bytes", 16 << 20).await;
    let changed = change_rollout(&host, &key, shadow).await;
    assert_eq!((&changed["stable"], &changed["shadow"]), (&json!(1), &json!(2)));
    let fetch_shadow_view = async || {
        let rollout = host.send_get("/v1/pipelines/ours/rollout", &key).await;
        expect_status(200, rollout).await["shadow"].clone()
    };
    assert_eq!(
        fetch_shadow_view().await["jobs"],
        0,
        "jobs before the shadow do not count"
    );
    for number in 1..=3 {
        let (_, ran) = run_job(&host, &a, &key, number).await;
        assert_eq!(ran, real);
        // The comparison happens after the end of the job.
        while fetch_shadow_view().await["jobs"] != number {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(host.processing.replay_memory_limits(), [Some(16 << 20); 3]);
    let shadow_view = fetch_shadow_view().await;
    assert_eq!(
        (
            &shadow_view["revision"],
            &shadow_view["differing_jobs"],
            &shadow_view["differing"]
        ),
        (&json!(2), &json!(3), &json!(3)),
        "{shadow_view}"
    );
    let changed = change_rollout(&host, &key, json!({ "action": "unshadow" })).await;
    assert_eq!(changed["shadow"], json!(null));
    run_job(&host, &a, &key, 4).await;
    assert_eq!(fetch_shadow_view().await, json!(null));
    let history = expect_status(200, host.send_get("/v1/pipelines/ours/history", &key).await).await;
    assert_eq!(history["entries"][1]["action"], "shadow", "{history}");
}

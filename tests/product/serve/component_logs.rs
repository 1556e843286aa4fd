//! The component log: lines and failure reports of a tenant's components, which only that tenant can read.

use serde_json::{Value, json};
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::{WeirFixture, WeirProcess, test_component_path};

/// Pushes a pipeline and activates it.
fn push_and_activate(client: &ApiClient, weir: &WeirFixture, server: &TestServer, manifest: &str) {
    for name in ["hostile-log", "hostile-second-page"] {
        let bytes = std::fs::read(test_component_path(name)).unwrap();
        weir.write_file(&format!("ours/{name}.wasm"), &bytes);
    }
    let path = weir.write_file("ours/pipeline.toml", manifest.as_bytes());
    let mut command = weir.weir_command(&["pipeline", "push", path.to_str().unwrap(), "--activate"]);
    command
        .env("WEIR_SERVER", format!("http://{}", server.address))
        .env("WEIR_KEY", client.key());
    let pushed = WeirProcess::start(command).wait_for_exit();
    assert_eq!(pushed.exit_code, 0, "{}", pushed.stderr);
}

fn read_job_log(client: &ApiClient, job: &str) -> Vec<Value> {
    let (mut entries, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let response = client.get(&format!("/v1/jobs/{job}/log?after={after}"));
        assert_eq!(response.status, 200, "{}", response.body);
        entries.extend(response.body["entries"].as_array().unwrap().clone());
        after = response.body["next"].clone();
    }
    entries
}

#[test]
fn component_log_and_failures_are_shown_to_their_tenant_only() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &["--set", "policy.call_timeout_millis=1000"]);
    let all = ["ingest", "read", "components"];
    let owner = server.create_tenant_with_scopes("ours", json!({}), &all);
    let other = server.create_tenant_with_scopes("other", json!({}), &all);
    push_and_activate(
        &owner,
        &weir,
        &server,
        "name = \"ours\"\n[components]\nrouting = \"hostile-second-page.wasm\"\nprogress = \"hostile-log.wasm\"\n\
         [settings]\nattack = \"trap\"\n[capabilities]\ngrant = [\"state\", \"inference\", \"rasterizer\"]\n",
    );
    let document = weir_samples::generate_text_document(2, 5);
    let response = owner.submit_files(&[("a.pdf", &document)], &json!({ "pipeline": "ours" }), &[]);
    let job = response.body["id"].as_str().unwrap().to_owned();
    owner.wait_for_job(&job);
    let view = owner.get(&format!("/v1/jobs/{job}")).body;
    assert_eq!(
        view["state"], "done",
        "the default components decide instead: {view}"
    );

    let entries = read_job_log(&owner, &job);
    for (seq, entry) in (1..).zip(&entries) {
        assert_eq!(entry["seq"], seq);
    }
    let lines: Vec<_> = entries.iter().filter(|e| e["failure"].is_null()).collect();
    assert_eq!(
        lines.len(),
        1001,
        "a thousand lines, and one about the dropped ones"
    );
    assert_eq!(
        (&lines[0]["component"], &lines[0]["level"]),
        (&json!("hostile-log"), &json!("info"))
    );
    let failure = entries.iter().find(|e| !e["failure"].is_null()).unwrap();
    assert_eq!(failure["function"], "routing.page", "{failure}");
    let report = &failure["failure"];
    assert!(
        report["guest_message"]
            .as_str()
            .unwrap()
            .contains("the weir is broken"),
        "{report}"
    );
    assert!(report["backtrace"][0]["line"].as_u64().unwrap() > 1, "{report}");

    let foreign = other.get(&format!("/v1/jobs/{job}/log"));
    assert_eq!(foreign.status, 404, "{}", foreign.body);

    let read_log_by_command = |remote: bool| {
        let mut command = weir.weir_command(&["log", &job, "--json"]);
        match remote {
            true => command
                .env("WEIR_SERVER", format!("http://{}", server.address))
                .env("WEIR_KEY", owner.key()),
            false => command.args(["--tenant", "ours"]),
        };
        let ended = WeirProcess::start(command).wait_for_exit();
        assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
        ended.stdout_lines
    };
    assert_eq!(read_log_by_command(true), entries);
    assert_eq!(read_log_by_command(false), entries);
    assert_eq!(server.stop().exit_code, 0);
}

//! What a tenant's components said and how they failed, read by their tenant.

use serde_json::{Value, json};
use weir_tests::server::{Client, Server};
use weir_tests::{Running, Weir, component};

/// Pushes a pipeline and makes it the one that new jobs get.
fn push(client: &Client, weir: &Weir, server: &Server, manifest: &str) {
    for name in ["hostile-log", "hostile-later"] {
        let bytes = std::fs::read(component(name)).unwrap();
        weir.file(&format!("ours/{name}.wasm"), &bytes);
    }
    let path = weir.file("ours/pipeline.toml", manifest.as_bytes());
    let mut command = weir.command(&["pipeline", "push", path.to_str().unwrap(), "--activate"]);
    command
        .env("WEIR_SERVER", format!("http://{}", server.address))
        .env("WEIR_KEY", client.key());
    let pushed = Running::start(command).wait();
    assert_eq!(pushed.code, 0, "{}", pushed.errors);
}

fn log(client: &Client, job: &str) -> Vec<Value> {
    let (mut entries, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let answer = client.get(&format!("/v1/jobs/{job}/log?after={after}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        entries.extend(answer.body["entries"].as_array().unwrap().clone());
        after = answer.body["next"].clone();
    }
    entries
}

#[test]
fn lines_and_failures_are_read_by_the_tenant_who_wrote_the_component() {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "policy.call_millis=1000"]);
    let all = ["ingest", "read", "components"];
    let ours = server.tenant_with("ours", json!({}), &all);
    let other = server.tenant_with("other", json!({}), &all);
    push(
        &ours,
        &weir,
        &server,
        "name = \"ours\"\n[components]\nrouting = \"hostile-later.wasm\"\nprogress = \"hostile-log.wasm\"\n\
         [settings]\nattack = \"trap\"\n[capabilities]\ngrant = [\"state\", \"inference\", \"rasterizer\"]\n",
    );
    let document = weir_samples::text_document(2, 5);
    let answer = ours.submit(&[("a.pdf", &document)], &json!({ "pipeline": "ours" }), &[]);
    let job = answer.body["id"].as_str().unwrap().to_owned();
    ours.wait(&job);
    let view = ours.get(&format!("/v1/jobs/{job}")).body;
    assert_eq!(view["state"], "done", "the defaults stand in: {view}");

    let entries = log(&ours, &job);
    for (place, entry) in (1..).zip(&entries) {
        assert_eq!(entry["seq"], place);
    }
    let lines: Vec<_> = entries.iter().filter(|e| e["failure"].is_null()).collect();
    assert_eq!(lines.len(), 1001, "a thousand, and a word about the rest");
    assert_eq!(
        (&lines[0]["component"], &lines[0]["level"]),
        (&json!("hostile-log"), &json!("info"))
    );
    let failure = entries.iter().find(|e| !e["failure"].is_null()).unwrap();
    assert_eq!(failure["function"], "routing.page", "{failure}");
    let report = &failure["failure"];
    assert!(
        report["said"].as_str().unwrap().contains("the weir is broken"),
        "{report}"
    );
    assert!(report["backtrace"][0]["line"].as_u64().unwrap() > 1, "{report}");

    let foreign = other.get(&format!("/v1/jobs/{job}/log"));
    assert_eq!(foreign.status, 404, "{}", foreign.body);

    let told = |remote: bool| {
        let mut command = weir.command(&["log", &job, "--json"]);
        match remote {
            true => command
                .env("WEIR_SERVER", format!("http://{}", server.address))
                .env("WEIR_KEY", ours.key()),
            false => command.args(["--tenant", "ours"]),
        };
        let ended = Running::start(command).wait();
        assert_eq!(ended.code, 0, "{}", ended.errors);
        ended.lines
    };
    assert_eq!(told(true), entries);
    assert_eq!(told(false), entries);
    assert_eq!(server.stop().code, 0);
}

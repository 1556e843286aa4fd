//! Components in an OCI registry: the command line pulls them when it pushes a pipeline, and the server stores the bytes.

use serde_json::json;
use weir_tests::oci_registry::OciRegistry;
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::{CommandOutput, WeirFixture, WeirProcess, test_component_path};

/// Runs `weir …` with the tenant's server and key.
fn run_on_server(weir: &WeirFixture, server: &TestServer, client: &ApiClient, all: &[&str]) -> CommandOutput {
    let mut command = weir.weir_command(all);
    command
        .env("WEIR_SERVER", format!("http://{}", server.address))
        .env("WEIR_KEY", client.key());
    WeirProcess::start(command).wait_for_exit()
}

#[test]
fn registry_component_is_pulled_on_push_and_never_by_a_job() {
    let weir = WeirFixture::new();
    let registry = OciRegistry::start(|_, bytes| bytes);
    let repository = format!("{}/team/router", registry.address);
    let file = test_component_path("text-only");
    let published = weir.run_command(&[
        "component",
        "publish",
        file.to_str().unwrap(),
        &format!("{repository}:1"),
        "--json",
    ]);
    assert_eq!(published.exit_code, 0, "{}", published.stderr);
    let pinned = published.stdout_lines[0]["reference"].as_str().unwrap();
    let digest = published.stdout_lines[0]["digest"].as_str().unwrap();
    assert_eq!(pinned, format!("{repository}:1@{digest}"));
    let out = weir.folder().join("pulled.wasm");
    let pulled = weir.run_command(&["component", "pull", pinned, "-o", out.to_str().unwrap()]);
    assert_eq!(pulled.exit_code, 0, "{}", pulled.stderr);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&file).unwrap());

    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &["ingest", "read", "components"]);
    let text = format!("name = \"ours\"\n[components]\nrouting = \"oci://{repository}@{digest}\"\n");
    let manifest = weir.write_file("pipeline.toml", text.as_bytes());
    let manifest = manifest.to_str().unwrap();
    let pushed = run_on_server(
        &weir,
        &server,
        &client,
        &["pipeline", "push", manifest, "--activate", "--json"],
    );
    assert_eq!(pushed.exit_code, 0, "{}", pushed.stderr);
    // The stored pipeline names the component by the digest of its bytes.
    let components = client.get("/v1/components").body;
    assert_eq!(
        pushed.stdout_lines[0]["components"]["routing"],
        components["components"][0]["digest"]
    );
    assert_eq!(components["components"][0]["name"], "router");
    let before = registry.request_count();
    let options = json!({ "pipeline": "ours" });
    let response = client.submit_files(
        &[("a.pdf", &weir_samples::generate_text_document(1, 1))],
        &options,
        &[],
    );
    let events = client.wait_for_job(response.body["id"].as_str().unwrap());
    assert_eq!(events.last().unwrap()["state"], "done");
    assert_eq!(registry.request_count(), before);

    // A local run accepts only component files, not registry references.
    let ran = weir.ingest_files(&["--pipeline", manifest, "missing.pdf"]);
    assert_eq!(ran.exit_code, 1);
    assert!(ran.stderr.contains("weir component pull"), "{}", ran.stderr);
    assert_eq!(server.stop().exit_code, 0);
}

#[test]
fn component_with_wrong_digest_is_neither_saved_nor_pushed() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &["components"]);
    // The registry changes one byte of the component.
    let registry = OciRegistry::start(|path, mut bytes| {
        if path.contains("/blobs/") {
            bytes[100] ^= 1;
        }
        bytes
    });
    let reference = format!("{}/team/router:1", registry.address);
    let file = test_component_path("text-only");
    let published = weir.run_command(&["component", "publish", file.to_str().unwrap(), &reference]);
    assert_eq!(published.exit_code, 0, "{}", published.stderr);
    let out = weir.folder().join("pulled.wasm");
    let pulled = weir.run_command(&["component", "pull", &reference, "-o", out.to_str().unwrap()]);
    let scheme = format!("oci://{reference}");
    let pushed = run_on_server(&weir, &server, &client, &["component", "push", &scheme]);
    for ended in [pulled, pushed] {
        assert_eq!(
            (ended.exit_code, ended.stderr.lines().count()),
            (1, 1),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains("other bytes than sha256:"),
            "{}",
            ended.stderr
        );
    }
    assert!(!out.exists());
    assert_eq!(client.get("/v1/components").body["components"], json!([]));
    assert_eq!(server.stop().exit_code, 0);
}

//! Components named by a registry's reference: pulled by whoever pushes, kept by the server as bytes.

use serde_json::json;
use weir_tests::registry::Registry;
use weir_tests::server::{Client, Server};
use weir_tests::{Ended, Running, Weir, component};

/// `weir …` with the tenant's server and key.
fn at(weir: &Weir, server: &Server, client: &Client, all: &[&str]) -> Ended {
    let mut command = weir.command(all);
    command
        .env("WEIR_SERVER", format!("http://{}", server.address))
        .env("WEIR_KEY", client.key());
    Running::start(command).wait()
}

#[test]
fn a_pipeline_names_a_component_in_a_registry_which_no_job_needs() {
    let weir = Weir::new();
    let registry = Registry::start(|_, bytes| bytes);
    let place = format!("{}/team/router", registry.address);
    let file = component("text-only");
    let published = weir.run(&[
        "component",
        "publish",
        file.to_str().unwrap(),
        &format!("{place}:1"),
        "--json",
    ]);
    assert_eq!(published.code, 0, "{}", published.errors);
    let pinned = published.lines[0]["reference"].as_str().unwrap();
    let digest = published.lines[0]["digest"].as_str().unwrap();
    assert_eq!(pinned, format!("{place}:1@{digest}"));
    let out = weir.folder().join("pulled.wasm");
    let pulled = weir.run(&["component", "pull", pinned, "-o", out.to_str().unwrap()]);
    assert_eq!(pulled.code, 0, "{}", pulled.errors);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&file).unwrap());

    let server = Server::start(&weir, &[]);
    let client = server.tenant_with("ours", json!({}), &["ingest", "read", "components"]);
    let text = format!("name = \"ours\"\n[components]\nrouting = \"oci://{place}@{digest}\"\n");
    let manifest = weir.file("pipeline.toml", text.as_bytes());
    let manifest = manifest.to_str().unwrap();
    let pushed = at(
        &weir,
        &server,
        &client,
        &["pipeline", "push", manifest, "--activate", "--json"],
    );
    assert_eq!(pushed.code, 0, "{}", pushed.errors);
    // Named by the digest of its bytes from here on.
    let components = client.get("/v1/components").body;
    assert_eq!(
        pushed.lines[0]["components"]["routing"],
        components["components"][0]["digest"]
    );
    assert_eq!(components["components"][0]["name"], "router");
    let before = registry.asked();
    let options = json!({ "pipeline": "ours" });
    let answer = client.submit(&[("a.pdf", &weir_samples::text_document(1, 1))], &options, &[]);
    let events = client.wait(answer.body["id"].as_str().unwrap());
    assert_eq!(events.last().unwrap()["state"], "done");
    assert_eq!(registry.asked(), before);

    // What runs here takes files.
    let ran = weir.ingest(&["--pipeline", manifest, "missing.pdf"]);
    assert_eq!(ran.code, 1);
    assert!(ran.errors.contains("weir component pull"), "{}", ran.errors);
    assert_eq!(server.stop().code, 0);
}

#[test]
fn what_is_not_what_its_digest_says_reaches_neither_a_file_nor_a_server() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.tenant_with("ours", json!({}), &["components"]);
    // One byte of the component is another.
    let registry = Registry::start(|path, mut bytes| {
        if path.contains("/blobs/") {
            bytes[100] ^= 1;
        }
        bytes
    });
    let reference = format!("{}/team/router:1", registry.address);
    let file = component("text-only");
    let published = weir.run(&["component", "publish", file.to_str().unwrap(), &reference]);
    assert_eq!(published.code, 0, "{}", published.errors);
    let out = weir.folder().join("pulled.wasm");
    let pulled = weir.run(&["component", "pull", &reference, "-o", out.to_str().unwrap()]);
    let scheme = format!("oci://{reference}");
    let pushed = at(&weir, &server, &client, &["component", "push", &scheme]);
    for ended in [pulled, pushed] {
        assert_eq!(
            (ended.code, ended.errors.lines().count()),
            (1, 1),
            "{}",
            ended.errors
        );
        assert!(
            ended.errors.contains("other bytes than sha256:"),
            "{}",
            ended.errors
        );
    }
    assert!(!out.exists());
    assert_eq!(client.get("/v1/components").body["components"], json!([]));
    assert_eq!(server.stop().code, 0);
}

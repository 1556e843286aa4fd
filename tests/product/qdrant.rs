//! Passages on a server of Qdrant's protocol instead of the data folder, with the real binary.

use serde_json::{Value, json};
use tonic::Code;
use weir_qdrant_protocol::QdrantProtocolServer;
use weir_tests::WeirFixture;
use weir_tests::server::TestServer;

fn passages_of(qdrant: &QdrantProtocolServer) -> usize {
    qdrant.collections().iter().map(|(_, points, _)| points).sum()
}

#[test]
fn passages_are_on_the_qdrant_server_and_not_in_the_data_folder() {
    let (weir, qdrant) = (WeirFixture::new(), QdrantProtocolServer::start());
    qdrant.require_api_key("secret-key");
    let settings = format!(
        "[storage]\nvectors = \"{}\"\nqdrant_key_env = \"A_KEY\"\nqdrant_replication_factor = 2\n",
        qdrant.url()
    );
    weir.write_file("weir.toml", settings.as_bytes());
    let run = |arguments: &[&str]| {
        let mut command = weir.weir_command(arguments);
        command.env("A_KEY", "secret-key");
        weir_tests::WeirProcess::start(command).wait_for_exit()
    };
    let book = weir.write_file("book.pdf", &weir_samples::generate_book(3, 7));
    let ended = run(&["run", book.to_str().unwrap(), "--json"]);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    let [(_, passages, replication_factor)] = &qdrant.collections()[..] else {
        panic!("one collection for the embedding model");
    };
    assert!(*passages >= 3 && *replication_factor == 2);
    assert!(!weir.data_folder().join("vectors").exists());

    let found = run(&["search", "chapter", "--json"]);
    assert_eq!(found.exit_code, 0, "{}", found.stderr);
    assert!(!found.stdout_lines[0]["hits"].as_array().unwrap().is_empty());
    let doctor = run(&["doctor", "--json"]);
    let findings = doctor.stdout_lines[0]["findings"].as_array().unwrap().clone();
    let index = findings
        .iter()
        .find(|finding| finding["check"] == "index")
        .unwrap();
    assert_eq!(
        (&index["state"], &index["detail"]),
        (&json!("ok"), &json!(qdrant.url()))
    );

    // Without the key, the error names the setting, and nothing is written.
    let refused = weir.run_command(&["search", "chapter"]);
    assert_ne!(refused.exit_code, 0);
    assert!(
        refused.stderr.contains("storage.qdrant_key_env"),
        "{}",
        refused.stderr
    );
    assert_eq!(passages_of(&qdrant), *passages);
    let url = qdrant.url();
    drop(qdrant);
    let refused = run(&["run", book.to_str().unwrap()]);
    assert_ne!(refused.exit_code, 0);
    assert!(
        refused.stderr.contains(&url) && refused.stderr.contains("storage.vectors"),
        "{}",
        refused.stderr
    );
}

#[test]
fn job_waits_for_qdrant_and_goes_on_by_itself() {
    let (weir, qdrant) = (WeirFixture::new(), QdrantProtocolServer::start());
    let settings = format!("[storage]\nvectors = \"{}\"\n", qdrant.url());
    weir.write_file("weir.toml", settings.as_bytes());
    let server = TestServer::start(&weir, &[]);
    let (owner, other) = (
        server.create_tenant("owner", json!({})),
        server.create_tenant("other", json!({})),
    );
    let book = weir_samples::generate_book(3, 7);
    let kept = other.submit_file("book.pdf", &book);
    other.wait_for_job(&kept);
    let kept_passages = passages_of(&qdrant);
    assert!(kept_passages >= 3);

    qdrant.fail_with(Some(Code::Unavailable));
    let job = owner.submit_file("book.pdf", &book);
    let retries = || server.admin_client().metric_value("weir_store_retries_total");
    weir_tests::wait_until(|| match retries() {
        retries if retries >= 3.0 => Ok(()),
        retries => Err(format!("{retries} calls were repeated")),
    });
    assert_eq!(owner.get(&format!("/v1/jobs/{job}")).body["state"], "running");
    let search = |client: &weir_tests::server::ApiClient| {
        client.post("/v1/search", &json!({ "query": "chapter", "top_k": 100 }))
    };
    let refused = search(&owner);
    assert_eq!(
        (refused.status, refused.problem_type()),
        (503, "storage-unavailable")
    );
    assert!(refused.headers.get("retry-after").is_some());

    qdrant.fail_with(None);
    owner.wait_for_job(&job);
    assert_eq!(owner.get(&format!("/v1/jobs/{job}")).body["state"], "done");
    let hits = |response: &Value| response["hits"].as_array().unwrap().len();
    assert_eq!(hits(&search(&owner).body), hits(&search(&other).body));
    assert_eq!(passages_of(&qdrant), 2 * kept_passages);

    // Removing a tenant removes its passages only.
    let removed = server.admin_client().delete("/v1/tenants/owner");
    assert!(removed.status < 300, "{:?}", removed.body);
    weir_tests::wait_until(|| match passages_of(&qdrant) {
        passages if passages == kept_passages => Ok(()),
        passages => Err(format!("{passages} passages, {kept_passages} expected")),
    });
    assert!(hits(&search(&other).body) > 0);
}

//! Uploads, components, blobs and recordings on an S3 server instead of the data folder, with the real binary.

use serde_json::{Value, json};
use weir_s3_server::{ACCESS_KEY, BUCKET, Fault, S3TestServer, SECRET_KEY};
use weir_tests::WeirFixture;
use weir_tests::server::{ApiClient, TestServer};

/// Returns a data folder whose uploads, components, blobs and recordings are on the server.
fn fixture_on(s3: &S3TestServer, more_settings: &str) -> WeirFixture {
    let mut weir = WeirFixture::new();
    weir.set_variable("AWS_ACCESS_KEY_ID", ACCESS_KEY);
    weir.set_variable("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    let settings = format!(
        "[storage]\nblobs = \"s3://{BUCKET}/weir\"\ns3_endpoint = \"{}\"\ns3_region = \"eu-central-1\"\ns3_path_style = true\n{more_settings}",
        s3.url()
    );
    weir.write_file("weir.toml", settings.as_bytes());
    weir
}

fn count_keys(s3: &S3TestServer, prefix: &str) -> usize {
    s3.keys().iter().filter(|key| key.starts_with(prefix)).count()
}

fn blobs_finding(weir: &WeirFixture) -> Value {
    let doctor = weir.run_command(&["doctor", "--json"]);
    let findings = doctor.stdout_lines[0]["findings"].as_array().unwrap().clone();
    let found = findings.into_iter().find(|finding| finding["check"] == "blobs");
    found.expect("a finding for the S3 bucket")
}

fn document_of(events: &[Value]) -> String {
    let done = events.iter().find(|event| event["type"] == "document-done");
    let done = done.unwrap_or_else(|| panic!("no document is done: {events:?}"));
    done["document"].as_str().unwrap().to_owned()
}

fn assert_page_is_served(client: &ApiClient, document: &str) {
    let (status, image) = client.get_bytes(&format!("/v1/documents/{document}/pages/1/image"));
    assert_eq!(
        (status, image.get(..2)),
        (200, Some(&b"\xff\xd8"[..])),
        "a JPEG image"
    );
    let text = client.get(&format!("/v1/documents/{document}/pages/1/text"));
    assert_eq!(text.status, 200, "{}", text.body);
}

#[test]
fn objects_are_on_the_s3_server_and_not_in_the_data_folder() {
    let s3 = S3TestServer::start();
    let weir = fixture_on(&s3, "s3_server_side_encryption = \"AES256\"\n");
    let book = weir_samples::generate_book(3, 7);
    let path = weir.write_file("book.pdf", &book);
    let ran = weir.ingest_files(&[path.to_str().unwrap(), "--out", "out"]);
    assert_eq!(ran.exit_code, 0, "{}", ran.stderr);
    assert!(count_keys(&s3, "weir/blobs/default/") >= 3, "{:?}", s3.keys());
    assert!(
        s3.encryption_by_key()
            .values()
            .all(|used| used.as_deref() == Some("AES256"))
    );
    assert!(!weir.search("chapter", &[]).is_empty());
    assert_eq!(
        (&blobs_finding(&weir)["state"], count_keys(&s3, "weir/probe/")),
        (&json!("ok"), 0)
    );

    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &["read", "ingest", "components"]);
    client.push_and_activate_pipeline();
    let submitted = client.submit_files(&[("a.pdf", &book[..])], &json!({ "pipeline": "ours" }), &[]);
    assert_eq!(submitted.status, 202, "{}", submitted.body);
    let job = submitted.body["id"].as_str().unwrap().to_owned();
    let document = document_of(&client.wait_for_job(&job));
    assert_page_is_served(&client, &document);
    for (kind, count) in [("uploads", 1), ("components", 1), ("staged", 0)] {
        assert_eq!(
            count_keys(&s3, &format!("weir/{kind}/")),
            count,
            "{kind}: {:?}",
            s3.keys()
        );
    }
    assert!(count_keys(&s3, &format!("weir/recordings/ours/{job}/")) >= 1);
    for folder in ["blobs/ours", "uploads/ours", "components/ours", "recordings"] {
        assert!(!weir.data_folder().join(folder).exists(), "{folder}");
    }
    server.stop();

    // The component and the recording are read from the server, also without the cache.
    std::fs::remove_dir_all(weir.data_folder().join("cache")).unwrap();
    let replayed = weir.run_command(&["replay", &job, "--tenant", "ours", "--json"]);
    assert_eq!(replayed.exit_code, 0, "{}", replayed.stderr);
    let removed = weir.run_command(&["tenant", "delete", "ours"]);
    assert_eq!(removed.exit_code, 0, "{}", removed.stderr);
    let is_expected = |key: &String| {
        let prefixes = ["weir/blobs/default/", "weir/recordings/default/"];
        // Tells other nodes for a day that the recordings of the tenant were removed.
        key == "weir/removed-recordings/ours" || prefixes.iter().any(|prefix| key.starts_with(prefix))
    };
    assert!(s3.keys().iter().all(is_expected), "{:?}", s3.keys());
}

#[test]
fn upload_of_another_data_folder_is_stored_again() {
    let s3 = S3TestServer::start();
    let book = weir_samples::generate_book(2, 7);
    let mut keys = Vec::new();
    for _ in 0..2 {
        let weir = fixture_on(&s3, "");
        let server = TestServer::start(&weir, &[]);
        let client = server.create_tenant("ours", json!({}));
        let events = client.wait_for_job(&client.submit_file("book.pdf", &book));
        assert_page_is_served(&client, &document_of(&events));
        server.stop();
        let mut stored = s3.keys();
        stored.retain(|key| !key.starts_with("weir/recordings/"));
        keys.push(stored);
    }
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn jobs_survive_an_unavailable_s3_server() {
    let s3 = S3TestServer::start();
    let weir = fixture_on(&s3, "");
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant("ours", json!({}));
    let book = weir_samples::generate_book(3, 7);

    s3.fail_with(Some(Fault::SlowDown));
    let refused = client.submit_files(&[("book.pdf", &book[..])], &json!({}), &[]);
    assert_eq!(
        (refused.status, refused.problem_type()),
        (503, "storage-unavailable"),
        "{}",
        refused.body
    );
    assert!(refused.headers.get("retry-after").is_some());

    // The upload is accepted, and its pages cannot be stored.
    s3.fail_requests(Fault::SlowDown, "/blobs/", u32::MAX);
    let job = client.submit_file("book.pdf", &book);
    let admin = server.admin_client();
    weir_tests::wait_until(|| match admin.metric_value("weir_store_retries_total") {
        retries if retries >= 2.0 => Ok(()),
        retries => Err(format!("{retries} calls were repeated")),
    });
    assert_eq!(client.get(&format!("/v1/jobs/{job}")).body["state"], "running");

    s3.fail_with(None);
    let document = document_of(&client.wait_for_job(&job));
    assert_eq!(client.get(&format!("/v1/jobs/{job}")).body["state"], "done");
    assert_page_is_served(&client, &document);
    assert_eq!(count_keys(&s3, "weir/staged/"), 0);

    // A killed server finds its uploads again.
    server.kill();
    let server = TestServer::start(&weir, &[]);
    let client = server.client_with_key(client.key());
    assert_page_is_served(&client, &document);
    server.stop();
    drop(s3);
    let finding = blobs_finding(&weir);
    assert_eq!(finding["state"], "missing", "{finding}");
    assert!(
        finding["detail"].as_str().unwrap().contains("storage.blobs"),
        "{finding}"
    );
    let refused = weir.run_command(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(
        refused.exit_code != 0 && refused.stderr.contains("storage.blobs"),
        "{}",
        refused.stderr
    );
}

#[test]
fn job_waits_while_its_component_cannot_be_read() {
    let s3 = S3TestServer::start();
    let weir = fixture_on(&s3, "");
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &["read", "ingest", "components"]);
    client.push_and_activate_pipeline();
    let book = weir_samples::generate_book(40, 7);
    let submitted = client.submit_files(&[("a.pdf", &book[..])], &json!({ "pipeline": "ours" }), &[]);
    assert_eq!(submitted.status, 202, "{}", submitted.body);
    let path = format!("/v1/jobs/{}", submitted.body["id"].as_str().unwrap());
    server.kill();
    std::fs::remove_dir_all(weir.data_folder().join("cache")).unwrap();
    s3.fail_requests(Fault::SlowDown, "/components/", u32::MAX);

    let server = TestServer::start(&weir, &[]);
    let client = server.client_with_key(client.key());
    weir_tests::wait_until(|| match client.get(&path).body {
        view if view["held"] == "storage" => Ok(()),
        view => Err(format!("the job is not held: {view}")),
    });
    s3.fail_with(None);
    weir_tests::wait_until(|| match client.get(&path).body {
        view if view["state"] == "done" => Ok(()),
        view => Err(format!("the job is not done: {view}")),
    });
}

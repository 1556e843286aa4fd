//! Request bodies that stall, end early or have a wrong length: each gets a clear error, and no data of them stays.

use serde_json::json;
use weir_tests::abusive_requests::{RawUpload, encode_chunk};
use weir_tests::raw_connection::RawResponse;
use weir_tests::server::{ApiClient, TestServer, encode_multipart_form};
use weir_tests::{WeirFixture, wait_until};

const FILE_PAGES: usize = 3;

/// Starts a server with a short body read timeout and a small upload limit. Returns a client and a raw upload too.
fn start_server_with_short_limits(weir: &WeirFixture) -> (TestServer, ApiClient, RawUpload) {
    let settings = [
        "--set",
        "server.transfer_idle_timeout_seconds=1",
        "--set",
        "server.max_upload_bytes=1048576",
    ];
    let server = TestServer::start(weir, &settings);
    let client = server.admin_client();
    let file = weir_samples::generate_text_document(FILE_PAGES, 1);
    let upload = RawUpload::new(server.address, client.key(), &file);
    (server, client, upload)
}

#[track_caller]
fn assert_refused(response: &RawResponse, status: u16, problem: &str) {
    assert_eq!(
        (response.status(), response.problem_type().as_str()),
        (Some(status), problem),
        "{response:?}"
    );
}

/// Checks that refused submissions left no job and no file, and that a correct submission is accepted.
fn assert_nothing_left(weir: &WeirFixture, client: &ApiClient) {
    wait_until(|| {
        let left = list_files_below(&weir.data_folder().join("uploads"));
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{left:?} are left"))
    });
    assert_eq!(client.get("/v1/jobs").body["jobs"], json!([]));
    let job = client.submit_file("good.pdf", &weir_samples::generate_text_document(FILE_PAGES, 2));
    client.wait_for_job(&job);
}

fn list_files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                list_files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn body_shorter_than_its_length_gets_408() {
    let weir = WeirFixture::new();
    let (server, client, upload) = start_server_with_short_limits(&weir);
    assert_refused(&upload.stall_midway(), 408, "incomplete-body");
    assert_refused(&upload.end_body_early(), 408, "incomplete-body");
    upload.disconnect_midway();
    // A chunked body has no length, but it is incomplete without its last chunk.
    let mut wire = upload.begin_chunked();
    wire.send(&encode_chunk(upload.first_half()));
    assert_refused(&wire.read_response(), 408, "incomplete-body");
    let mut wire = upload.begin_chunked();
    wire.send(&encode_chunk(upload.first_half()));
    wire.shutdown_write();
    assert_refused(&wire.read_response(), 408, "incomplete-body");
    assert_nothing_left(&weir, &client);
    server.stop();
}

#[test]
fn body_longer_than_its_length_gets_400() {
    let weir = WeirFixture::new();
    let (server, client, upload) = start_server_with_short_limits(&weir);
    // The announced length covers half a form; the other bytes are no valid request.
    assert_refused(&upload.send_beyond_length(), 400, "invalid-request");
    // Both length headers at once are used to smuggle requests past proxies. The server must use the chunks or refuse.
    let mut wire = upload.send_headers(&["Content-Length: 10", "Transfer-Encoding: chunked"]);
    wire.send_until_closed(&encode_chunk(&[b'x'; 1 << 16]), 1 << 20);
    let response = wire.read_response();
    assert!(
        response.status().is_none_or(|status| status == 400),
        "{response:?}"
    );
    let mut wire = upload.begin_chunked();
    wire.send(b"ffffffffffffffffff\r\n");
    wire.send(&upload.body);
    let response = wire.read_response();
    assert!([400, 408].map(Some).contains(&response.status()), "{response:?}");
    assert_nothing_left(&weir, &client);
    server.stop();
}

#[test]
fn body_over_the_size_limit_gets_413() {
    let weir = WeirFixture::new();
    let (server, client, upload) = start_server_with_short_limits(&weir);
    // A body with an announced length over the limit is refused before it is sent.
    let response = upload.begin_with_length(1 << 40).read_response();
    assert_refused(&response, 413, "too-large");
    let (sent, response) = upload.send_endless_chunks();
    assert_refused(&response, 413, "too-large");
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    // A tenant's quota applies before the server's limit.
    let small = server.create_tenant("small", json!({ "quotas": { "upload_bytes": 10_000 } }));
    let response = small.submit_files(&[("big.pdf", &[b'x'; 20_000])], &json!({}), &[]);
    assert_eq!(
        (response.status, &response.body["quota"]),
        (413, &"upload_bytes".into()),
        "{}",
        response.body
    );
    assert_nothing_left(&weir, &client);
    server.stop();
}

#[test]
fn malformed_multipart_form_is_refused() {
    let weir = WeirFixture::new();
    let (server, client, upload) = start_server_with_short_limits(&weir);
    let send = |body: &[u8]| {
        let mut wire = upload.begin_with_length(body.len());
        wire.send(body);
        wire.read_response()
    };
    let text = |length: usize| "x".repeat(length);
    let border = "--weir-test-border\r\n";
    let file = format!("{border}Content-Disposition: form-data; name=\"file\"\r\n");
    for (what, body) in [
        ("a part that never ends", format!("{file}\r\n{}", text(100_000))),
        (
            "headers of a part that never end",
            format!("{file}X: {}", text(100_000)),
        ),
        ("a boundary that is never sent", text(100_000)),
        (
            "a part without a name",
            format!("{border}X: y\r\n\r\n{}", text(100)),
        ),
        ("nothing", String::new()),
    ] {
        assert_refused(&send(body.as_bytes()), 400, "invalid-request");
        eprintln!("refused: {what}");
    }
    let (_, long) = encode_multipart_form(&[], &json!({ "pipeline": text(100_000) }));
    assert_refused(&send(&long), 413, "too-large");

    // The Content-Length of a form's part is ignored (RFC 7578, 4.8).
    let content = weir_samples::generate_text_document(FILE_PAGES, 5);
    let part = format!("{file}Content-Length: 1000000\r\n\r\n");
    let body = [part.as_bytes(), &content, b"\r\n--weir-test-border--\r\n"].concat();
    let response = send(&body);
    assert_eq!(response.status(), Some(202), "{response:?}");
    let listed = client.get("/v1/jobs");
    let job = listed.body["jobs"][0]["id"].as_str().expect("a job is listed");
    let events = client.wait_for_job(job);
    let done = events
        .iter()
        .find(|e| e["type"] == "document-done")
        .expect("the document is done");
    assert_eq!(done["searchable"], FILE_PAGES);
    server.stop();
}

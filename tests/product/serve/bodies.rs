//! Bodies that stall, break off or are not what they say: each gets a clear answer, and nothing of them stays.

use serde_json::json;
use weir_tests::misuse::{Upload, chunk};
use weir_tests::server::{Client, Server, form};
use weir_tests::wire::Said;
use weir_tests::{Weir, eventually};

const FILE_PAGES: usize = 3;

/// A server that soon loses patience and takes little, and a submission to it.
fn set_up(weir: &Weir) -> (Server, Client, Upload) {
    let settings = [
        "--set",
        "server.stall_seconds=1",
        "--set",
        "server.upload_bytes=1048576",
    ];
    let server = Server::start(weir, &settings);
    let client = server.admin();
    let file = weir_samples::text_document(FILE_PAGES, 1);
    let upload = Upload::of(server.address, client.key(), &file);
    (server, client, upload)
}

#[track_caller]
fn refused(said: &Said, status: u16, problem: &str) {
    assert_eq!(
        (said.status(), said.problem().as_str()),
        (Some(status), problem),
        "{said:?}"
    );
}

/// No job, no file and no place in the queue is left of what was refused, and a good submission is taken.
fn nothing_is_left(weir: &Weir, client: &Client) {
    eventually(|| {
        let left = files_below(&weir.data().join("originals"));
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{left:?} are left"))
    });
    assert_eq!(client.get("/v1/jobs").body["jobs"], json!([]));
    let job = client.job("good.pdf", &weir_samples::text_document(FILE_PAGES, 2));
    client.wait(&job);
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn a_body_that_is_shorter_than_it_says() {
    let weir = Weir::new();
    let (server, client, upload) = set_up(&weir);
    refused(&upload.stalls(), 408, "incomplete-body");
    refused(&upload.ends_early(), 408, "incomplete-body");
    upload.breaks_off();
    // In chunks it does not say how long it is, but that there is more.
    let mut wire = upload.chunked();
    wire.send(&chunk(upload.half()));
    refused(&wire.answer(), 408, "incomplete-body");
    let mut wire = upload.chunked();
    wire.send(&chunk(upload.half()));
    wire.finish();
    refused(&wire.answer(), 408, "incomplete-body");
    nothing_is_left(&weir, &client);
    server.stop();
}

#[test]
fn a_body_that_is_longer_than_it_says() {
    let weir = Weir::new();
    let (server, client, upload) = set_up(&weir);
    // What was said is half a form; the rest is no request.
    refused(&upload.is_longer_than_said(), 400, "invalid-request");
    // Both lengths at once is how requests are smuggled past proxies. Chunks count, or nothing does.
    let mut wire = upload.begin(&["Content-Length: 10", "Transfer-Encoding: chunked"]);
    wire.flood(&chunk(&[b'x'; 1 << 16]), 1 << 20);
    let said = wire.answer();
    assert!(said.status().is_none_or(|status| status == 400), "{said:?}");
    let mut wire = upload.chunked();
    wire.send(b"ffffffffffffffffff\r\n");
    wire.send(&upload.body);
    let said = wire.answer();
    assert!([400, 408].map(Some).contains(&said.status()), "{said:?}");
    nothing_is_left(&weir, &client);
    server.stop();
}

#[test]
fn a_body_that_is_larger_than_it_may_be() {
    let weir = Weir::new();
    let (server, client, upload) = set_up(&weir);
    // Told beforehand it is refused before it comes.
    let said = upload.saying(1 << 40).answer();
    refused(&said, 413, "too-large");
    let (sent, said) = upload.never_ends();
    refused(&said, 413, "too-large");
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    // A tenant's own quota comes first.
    let small = server.tenant("small", json!({ "quotas": { "upload_bytes": 10_000 } }));
    let answer = small.submit(&[("big.pdf", &[b'x'; 20_000])], &json!({}), &[]);
    assert_eq!(
        (answer.status, &answer.body["quota"]),
        (413, &"upload_bytes".into()),
        "{}",
        answer.body
    );
    nothing_is_left(&weir, &client);
    server.stop();
}

#[test]
fn a_form_whose_parts_lie() {
    let weir = Weir::new();
    let (server, client, upload) = set_up(&weir);
    let send = |body: &[u8]| {
        let mut wire = upload.saying(body.len());
        wire.send(body);
        wire.answer()
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
        ("a border that never comes", text(100_000)),
        (
            "a part without a name",
            format!("{border}X: y\r\n\r\n{}", text(100)),
        ),
        ("nothing", String::new()),
    ] {
        refused(&send(body.as_bytes()), 400, "invalid-request");
        eprintln!("refused: {what}");
    }
    let (_, long) = form(&[], &json!({ "pipeline": text(100_000) }));
    refused(&send(&long), 413, "too-large");

    // A part's own length means nothing in a form (RFC 7578, 4.8): what came is what counts.
    let content = weir_samples::text_document(FILE_PAGES, 5);
    let part = format!("{file}Content-Length: 1000000\r\n\r\n");
    let body = [part.as_bytes(), &content, b"\r\n--weir-test-border--\r\n"].concat();
    let said = send(&body);
    assert_eq!(said.status(), Some(202), "{said:?}");
    let listed = client.get("/v1/jobs");
    let job = listed.body["jobs"][0]["id"].as_str().expect("a job");
    let events = client.wait(job);
    let done = events
        .iter()
        .find(|e| e["type"] == "document-done")
        .expect("done");
    assert_eq!(done["searchable"], FILE_PAGES);
    server.stop();
}

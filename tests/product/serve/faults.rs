//! Clients that break off, stall, lie about sizes or flood: each gets a clear end, and nothing is left behind.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use weir_tests::Weir;
use weir_tests::server::{Server, form};

/// Sends raw bytes and reads what comes back until the host closes or nothing comes for some seconds.
fn raw(server: &Server, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for piece in pieces {
        // The host may have hung up already; what it said is read all the same.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn files_below(folder: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| {
            if entry.path().is_dir() {
                files_below(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

#[test]
fn headers_without_end_and_headers_that_never_come() {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "server.header_seconds=1"]);
    let before = open_files(server.pid());
    let line = [b"X-Filler: ".as_slice(), &[b'a'; 1 << 16], b"\r\n"].concat();
    let mut flood: Vec<&[u8]> = vec![b"GET /v1/jobs HTTP/1.1\r\nHost: weir\r\n"];
    flood.extend(std::iter::repeat_n(line.as_slice(), 64));
    let answer = raw(&server, &flood);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let slow = raw(&server, &[b"GET /v1/jobs HTTP/1.1\r\nHost: we"]);
    assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408"), "{slow}");
    assert_eq!(server.admin().get("/v1/jobs").status, 200);
    assert!(open_files(server.pid()) <= before + 8, "descriptors stay open");
    server.stop();
}

#[test]
fn uploads_that_stall_or_end_early_leave_nothing_behind() {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "server.stall_seconds=1"]);
    let key = server.admin().key().to_owned();
    let (kind, body) = form(&[("a.pdf", &weir_samples::text_document(3, 1))], &json!({}));
    let half = &body[..body.len() / 2];
    let head = |length: usize| {
        format!(
            "POST /v1/jobs HTTP/1.1\r\nHost: weir\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    // The connection stays open and nothing more comes.
    let stalled = raw(&server, &[head(body.len()).as_bytes(), half]);
    assert!(stalled.starts_with("HTTP/1.1 408"), "{stalled}");
    assert!(stalled.contains("/problems/incomplete-body"), "{stalled}");
    // The form ends in the middle of a file.
    let cut = raw(&server, &[head(half.len()).as_bytes(), half]);
    assert!(cut.starts_with("HTTP/1.1 4"), "{cut}");
    // The client hangs up.
    drop({
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(head(body.len()).as_bytes()).unwrap();
        stream.write_all(half).unwrap();
        stream
    });
    let client = server.admin();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while files_below(&weir.data().join("originals")) > 0 {
        assert!(
            std::time::Instant::now() < deadline,
            "an upload that broke off left a file"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.get("/v1/jobs").body["jobs"], json!([]));
    let job = client.job("a.pdf", &weir_samples::text_document(3, 1));
    client.wait(&job);
    server.stop();
}

#[test]
fn more_bytes_than_allowed_are_refused_by_the_quota() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.tenant("small", json!({ "quotas": { "upload_bytes": 10_000 } }));
    let answer = client.submit(&[("big.pdf", &vec![b'x'; 200_000])], &json!({}), &[]);
    assert!(
        [413, 429].contains(&answer.status),
        "{} {}",
        answer.status,
        answer.body
    );
    assert_eq!(files_below(&weir.data().join("originals")), 0);
    assert_eq!(client.get("/v1/jobs").body["jobs"], json!([]));
    server.stop();
}

#[test]
fn killed_in_mid_load_nothing_is_lost_and_nobody_stays_behind() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.admin();
    let key = client.key().to_owned();
    let jobs: Vec<String> = (0..6)
        .map(|n| client.job(&format!("{n}.pdf"), &weir_samples::book(30, n)))
        .collect();
    client
        .events(&jobs[0], 0)
        .find(|(_, e)| e["type"] == "page-done")
        .expect("a page");
    let family = weir_tests::processes::family(server.pid());
    server.kill();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while family.iter().any(|pid| weir_tests::processes::alive(*pid)) {
        assert!(
            std::time::Instant::now() < deadline,
            "a process outlived its host"
        );
        std::thread::sleep(Duration::from_millis(10));
    }

    let server = Server::start(&weir, &[]);
    let client = server.client(&key);
    for job in &jobs {
        let events = client.wait(job);
        let done: Vec<_> = events.iter().filter(|e| e["type"] == "document-done").collect();
        assert_eq!((done.len(), &done[0]["searchable"]), (1, &30.into()), "{job}");
    }
    let documents = client.get("/v1/documents");
    assert_eq!(documents.body["documents"].as_array().unwrap().len(), 6);
    server.stop();
}

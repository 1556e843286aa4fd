//! A tenant reads what failed and on which document; where files lie on the host is in the log alone.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;
use weir_tests::server::Server;
use weir_tests::{Weir, assert_no_host_path};

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn errors_name_documents_and_only_the_log_has_paths() {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "server.jobs=1"]);
    let client = server.tenant("acme", json!({}));
    let long = client.job("long.pdf", &weir_samples::book(12, 5));
    let lost = client.job("lost.pdf", &weir_samples::text_document(2, 6));
    let view = client.get(&format!("/v1/jobs/{lost}")).body;
    assert_eq!(view["state"], "queued", "{view}");
    let originals = weir.data().join("originals/acme");
    let newest = |path: &PathBuf| path.metadata().unwrap().modified().unwrap();
    let original = files(&originals).into_iter().max_by_key(newest).unwrap();
    std::fs::remove_file(&original).unwrap();

    let before = client.wait(&long);
    let events = client.wait(&lost);
    let failed = events
        .iter()
        .find(|event| event["type"] == "document-failed")
        .unwrap();
    assert_eq!(failed["name"], "lost.pdf");
    assert_eq!(failed["error"]["kind"], "file", "{failed}");
    let view = client.get(&format!("/v1/jobs/{lost}"));
    assert!(
        view.body.to_string().contains("the file cannot be read"),
        "{}",
        view.body
    );

    // A blob that cannot be read, whoever asks.
    let done = before.iter().find(|event| event["type"] == "document-done");
    let document = done.unwrap()["document"].as_str().unwrap().to_owned();
    let image = format!("/v1/documents/{document}/pages/1/image");
    assert_eq!(client.bytes(&image).0, 200);
    for blob in files(&weir.data().join("blobs/acme")) {
        std::fs::remove_file(&blob).unwrap();
        symlink(&blob, &blob).unwrap();
    }
    let unread = client.get(&image);
    assert_eq!(unread.status, 500, "{}", unread.body);
    assert!(
        unread.body["detail"].as_str().unwrap().contains(&document),
        "{}",
        unread.body
    );

    let ended = server.stop();
    for path in [original, weir.data().join("blobs/acme")] {
        assert!(ended.errors.contains(path.to_str().unwrap()), "{}", ended.errors);
    }
}

#[test]
#[should_panic(expected = "is in")]
fn a_path_of_the_host_is_noticed() {
    let weir = Weir::new();
    assert_no_host_path(&format!("cannot read {}", weir.data().display()));
}

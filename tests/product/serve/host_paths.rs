//! Errors that a tenant sees name the document; paths of the host appear only in the server's log.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;
use weir_tests::server::TestServer;
use weir_tests::{WeirFixture, assert_no_host_path};

/// Returns all files below a folder.
fn list_files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(list_files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn errors_name_documents_and_only_the_log_has_paths() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &["--set", "server.max_running_jobs=1"]);
    let client = server.create_tenant("acme", json!({}));
    let long = client.submit_file("long.pdf", &weir_samples::generate_book(12, 5));
    let lost = client.submit_file("lost.pdf", &weir_samples::generate_text_document(2, 6));
    let view = client.get(&format!("/v1/jobs/{lost}")).body;
    assert_eq!(view["state"], "queued", "{view}");
    let uploads = weir.data_folder().join("uploads/acme");
    let newest = |path: &PathBuf| path.metadata().unwrap().modified().unwrap();
    let original = list_files_below(&uploads).into_iter().max_by_key(newest).unwrap();
    std::fs::remove_file(&original).unwrap();

    let before = client.wait_for_job(&long);
    let events = client.wait_for_job(&lost);
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

    // A symbolic link to itself makes the blob unreadable for every user.
    let done = before.iter().find(|event| event["type"] == "document-done");
    let document = done.unwrap()["document"].as_str().unwrap().to_owned();
    let image = format!("/v1/documents/{document}/pages/1/image");
    assert_eq!(client.get_bytes(&image).0, 200);
    for blob in list_files_below(&weir.data_folder().join("blobs/acme")) {
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
    for path in [original, weir.data_folder().join("blobs/acme")] {
        assert!(ended.stderr.contains(path.to_str().unwrap()), "{}", ended.stderr);
    }
}

#[test]
#[should_panic(expected = "is in")]
fn assert_no_host_path_panics_on_a_host_path() {
    let weir = WeirFixture::new();
    assert_no_host_path(&format!("cannot read {}", weir.data_folder().display()));
}

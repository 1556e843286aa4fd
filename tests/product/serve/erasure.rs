//! A deleted document or tenant leaves no text in the data folder.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use weir_conformance::list_files_containing;
use weir_samples::fonts::Typeface;
use weir_samples::pdf_document::{A4_POINTS, Bookmark, Document, Page};
use weir_tests::model_server::{ModelReply, ModelServer};
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::{WeirFixture, wait_until};

/// Three pages with the marker in each line, in the outline and in the title.
fn pdf_with_marker(marker: &str) -> Vec<u8> {
    let mut document = Document {
        title: format!("About {marker}"),
        ..Document::default()
    };
    for number in 0..3_usize {
        let mut page = Page::new(A4_POINTS);
        let title = format!("Chapter {number} of {marker}");
        page.draw_text(Typeface::SansBold, 16.0, 72.0, 760.0, &title);
        for line in 0..8_u8 {
            let text =
                format!("Line {line} of page {number} tells what {marker} does when the river is high.");
            page.draw_text(Typeface::Serif, 11.0, 72.0, 720.0 - 16.0 * f32::from(line), &text);
        }
        document.pages.push(page);
        document.outline.push(Bookmark {
            title,
            level: 1,
            page: number,
        });
    }
    document.to_pdf_bytes()
}

fn submit_and_wait(client: &ApiClient, markers: &[&str]) -> (String, Vec<String>) {
    let files: Vec<(String, Vec<u8>)> = (0..)
        .zip(markers)
        .map(|(number, marker)| (format!("{number}.pdf"), pdf_with_marker(marker)))
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    let response = client.submit_files(&files, &json!({ "summarize": true }), &[]);
    assert_eq!(response.status, 202, "{}", response.body);
    let job = response.body["id"].as_str().unwrap().to_owned();
    let events = client.wait_for_job(&job);
    assert_eq!(events.last().unwrap()["state"], "done", "{events:?}");
    let documents = response.body["documents"].as_array().unwrap().iter();
    let documents = documents.map(|document| document["document"].as_str().unwrap().to_owned());
    (job, documents.collect())
}

fn search_hits(client: &ApiClient, marker: &str) -> Vec<Value> {
    let query = json!({ "query": format!("what {marker} does"), "top_k": 50 });
    let response = client.post("/v1/search", &query);
    assert_eq!(response.status, 200, "{}", response.body);
    let hits = response.body["hits"].as_array().unwrap();
    let hit_key = |hit: &Value| json!([hit["document"], hit["page"], hit["text"]]);
    let matching_hits = hits
        .iter()
        .filter(|hit| hit["text"].as_str().unwrap().contains(marker));
    let mut found: Vec<Value> = matching_hits.map(hit_key).collect();
    found.sort_by_key(ToString::to_string);
    found
}

/// Waits at most the documented minute until no file contains the marker.
fn assert_erased(data: &Path, marker: &str) {
    wait_until(|| match list_files_containing(data, marker) {
        files if files.is_empty() => Ok(()),
        files => Err(format!("{marker} is still in {files:?}")),
    });
}

fn assert_found_in(data: &Path, marker: &str, path_parts: &[&str]) {
    let files = list_files_containing(data, marker);
    for path_part in path_parts {
        assert!(
            files.iter().any(|file| file.contains(path_part)),
            "the test does not cover {path_part}, which lacks the marker: {files:?}"
        );
    }
}

#[test]
fn deleted_documents_and_tenants_leave_no_text() {
    let model = ModelServer::start(|text| {
        // The response contains the document's marker.
        let marker = text.split_whitespace().find(|word| word.starts_with("zq"));
        ModelReply::Text(
            Duration::ZERO,
            format!("It tells of {} and of rivers.", marker.unwrap_or("it")),
        )
    });
    let weir = WeirFixture::new();
    let config = weir.write_file("weir.toml", model.settings_toml("", "").as_bytes());
    let arguments = ["--config", config.to_str().unwrap()];
    let server = TestServer::start(&weir, &arguments);
    let (admin, data) = (server.admin_client(), weir.data_folder());
    let [erased, kept, of_tenant, of_other] = ["zqerasedx", "zqkeptvy", "zqtenantw", "zqotherj"];
    let everywhere = [
        "uploads/",
        "blobs.db",
        "vectors/",
        "recordings/",
        "ledger.db",
        "responses.db",
    ];

    let (job, documents) = submit_and_wait(&admin, &[erased, kept]);
    submit_and_wait(&admin, &[erased]);
    assert_found_in(&data, erased, &everywhere);
    let before = search_hits(&admin, kept);
    assert!(!before.is_empty());
    let path = format!("/v1/documents/{}", documents[0]);
    assert_eq!(admin.delete(&path).status, 204);
    assert_erased(&data, erased);
    assert_eq!(search_hits(&admin, kept), before);
    assert!(search_hits(&admin, erased).is_empty());
    assert_found_in(&data, kept, &["uploads/", "blobs.db", "vectors/", "ledger.db"]);
    let events = admin.wait_for_job(&job);
    assert!((1..).zip(&events).all(|(place, event)| event["seq"] == place));
    assert_eq!(admin.get(&format!("/v1/jobs/{job}/log")).status, 200);

    // Delete a tenant over HTTP.
    let client = server.create_tenant("a", json!({}));
    submit_and_wait(&client, &[of_tenant]);
    let other = server.create_tenant("b", json!({}));
    submit_and_wait(&other, &[of_other]);
    assert_found_in(&data, of_tenant, &everywhere);
    assert_eq!(admin.delete("/v1/tenants/a").status, 204);
    assert_erased(&data, of_tenant);
    assert!(!data.join("recordings/a").exists());
    assert_eq!(search_hits(&admin, kept), before);

    // While the server runs, the command line refuses to delete a tenant and changes nothing.
    let refused = weir.run_command(&["tenant", "delete", "b"]);
    assert_ne!(refused.exit_code, 0);
    assert_found_in(&data, of_other, &everywhere);
    let ended = server.stop();
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    for marker in [erased, of_tenant] {
        assert_eq!(list_files_containing(&data, marker), Vec::<String>::new());
    }
    let ended = weir.run_command(&["tenant", "delete", "b"]);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    assert_eq!(list_files_containing(&data, of_other), Vec::<String>::new());

    let server = TestServer::start(&weir, &arguments);
    let admin = server.client_with_key(admin.key());
    assert_eq!(search_hits(&admin, kept), before);
    for marker in [erased, of_tenant, of_other] {
        assert_eq!(list_files_containing(&data, marker), Vec::<String>::new());
    }
    // A stop immediately after a deletion erases the text too.
    assert_eq!(
        admin.delete(&format!("/v1/documents/{}", documents[1])).status,
        204
    );
    assert_eq!(server.stop().exit_code, 0);
    assert_eq!(list_files_containing(&data, kept), Vec::<String>::new());
}

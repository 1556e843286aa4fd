//! A deleted document, or a deleted tenant, leaves no text in the data folder.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use weir_samples::fonts::Face;
use weir_samples::pdf::{A4, Bookmark, Document, Page};
use weir_tests::model::{Model, Said};
use weir_tests::server::{Client, Server};
use weir_tests::{Weir, eventually};

/// Three pages of which each line, the outline and the title have a word of their own.
fn marked(marker: &str) -> Vec<u8> {
    let mut document = Document {
        title: format!("About {marker}"),
        ..Document::default()
    };
    for number in 0..3_usize {
        let mut page = Page::new(A4);
        let title = format!("Chapter {number} of {marker}");
        page.text(Face::SansBold, 16.0, 72.0, 760.0, &title);
        for line in 0..8_u8 {
            let text =
                format!("Line {line} of page {number} tells what {marker} does when the river is high.");
            page.text(Face::Serif, 11.0, 72.0, 720.0 - 16.0 * f32::from(line), &text);
        }
        document.pages.push(page);
        document.outline.push(Bookmark {
            title,
            level: 1,
            page: number,
        });
    }
    document.write()
}

/// Files of a folder that have a word, below the folder, without what changes while they are read.
fn files_with(folder: &Path, marker: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, marker));
        } else if let Ok(bytes) = fs::read(&path)
            && bytes
                .windows(marker.len())
                .any(|window| window == marker.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

fn ingest(client: &Client, markers: &[&str]) -> (String, Vec<String>) {
    let files: Vec<(String, Vec<u8>)> = (0..)
        .zip(markers)
        .map(|(number, marker)| (format!("{number}.pdf"), marked(marker)))
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    let answer = client.submit(&files, &json!({ "summarize": true }), &[]);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let job = answer.body["id"].as_str().unwrap().to_owned();
    let events = client.wait(&job);
    assert_eq!(events.last().unwrap()["state"], "done", "{events:?}");
    let documents = answer.body["documents"].as_array().unwrap().iter();
    let documents = documents.map(|document| document["document"].as_str().unwrap().to_owned());
    (job, documents.collect())
}

fn hits(client: &Client, marker: &str) -> Vec<Value> {
    let query = json!({ "query": format!("what {marker} does"), "top_k": 50 });
    let answer = client.post("/v1/search", &query);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let hits = answer.body["hits"].as_array().unwrap();
    let of = |hit: &Value| json!([hit["document"], hit["page"], hit["text"]]);
    let of_it = hits
        .iter()
        .filter(|hit| hit["text"].as_str().unwrap().contains(marker));
    let mut found: Vec<Value> = of_it.map(of).collect();
    found.sort_by_key(ToString::to_string);
    found
}

/// Within the minute that is promised.
fn assert_erased(data: &Path, marker: &str) {
    eventually(|| match files_with(data, marker) {
        files if files.is_empty() => Ok(()),
        files => Err(format!("{marker} is still in {files:?}")),
    });
}

fn assert_kept_in(data: &Path, marker: &str, places: &[&str]) {
    let files = files_with(data, marker);
    for place in places {
        assert!(
            files.iter().any(|file| file.contains(place)),
            "{place} is not tried: {files:?}"
        );
    }
}

#[test]
fn deleted_documents_and_tenants_leave_no_text() {
    let model = Model::start(|text| {
        // An answer that has the document's word.
        let marker = text.split_whitespace().find(|word| word.starts_with("zq"));
        Said::Text(
            Duration::ZERO,
            format!("It tells of {} and of rivers.", marker.unwrap_or("it")),
        )
    });
    let weir = Weir::new();
    let config = weir.file("weir.toml", model.settings("", "").as_bytes());
    let arguments = ["--config", config.to_str().unwrap()];
    let server = Server::start(&weir, &arguments);
    let (admin, data) = (server.admin(), weir.data());
    let [erased, kept, of_tenant, of_other] = ["zqerasedx", "zqkeptvy", "zqtenantw", "zqotherj"];
    let everywhere = [
        "originals/",
        "blobs/",
        "vectors/",
        "recordings/",
        "ledger.db",
        "answers.db",
    ];

    let (job, documents) = ingest(&admin, &[erased, kept]);
    ingest(&admin, &[erased]);
    assert_kept_in(&data, erased, &everywhere);
    let before = hits(&admin, kept);
    assert!(!before.is_empty());
    let path = format!("/v1/documents/{}", documents[0]);
    assert_eq!(admin.delete(&path).status, 204);
    assert_erased(&data, erased);
    assert_eq!(hits(&admin, kept), before);
    assert!(hits(&admin, erased).is_empty());
    assert_kept_in(&data, kept, &["originals/", "blobs/", "vectors/", "ledger.db"]);
    let events = admin.wait(&job);
    assert!((1..).zip(&events).all(|(place, event)| event["seq"] == place));
    assert_eq!(admin.get(&format!("/v1/jobs/{job}/log")).status, 200);

    // A tenant, over HTTP.
    let client = server.tenant("a", json!({}));
    ingest(&client, &[of_tenant]);
    let other = server.tenant("b", json!({}));
    ingest(&other, &[of_other]);
    assert_kept_in(&data, of_tenant, &everywhere);
    assert_eq!(admin.delete("/v1/tenants/a").status, 204);
    assert_erased(&data, of_tenant);
    assert!(!data.join("recordings/a").exists());
    assert_eq!(hits(&admin, kept), before);

    // Beside a server the command line refuses, and changes nothing.
    let refused = weir.run(&["tenant", "delete", "b"]);
    assert_ne!(refused.code, 0);
    assert_kept_in(&data, of_other, &everywhere);
    let ended = server.stop();
    assert_eq!(ended.code, 0, "{}", ended.errors);
    for marker in [erased, of_tenant] {
        assert_eq!(files_with(&data, marker), Vec::<String>::new());
    }
    let ended = weir.run(&["tenant", "delete", "b"]);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert_eq!(files_with(&data, of_other), Vec::<String>::new());

    let server = Server::start(&weir, &arguments);
    let admin = server.client(admin.key());
    assert_eq!(hits(&admin, kept), before);
    for marker in [erased, of_tenant, of_other] {
        assert_eq!(files_with(&data, marker), Vec::<String>::new());
    }
    // Deleted and stopped at once: also then.
    assert_eq!(
        admin.delete(&format!("/v1/documents/{}", documents[1])).status,
        204
    );
    assert_eq!(server.stop().code, 0);
    assert_eq!(files_with(&data, kept), Vec::<String>::new());
}

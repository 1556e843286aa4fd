//! Labels and collections of uploads, and searches that filter by them.

use serde_json::json;
use weir_tests::WeirFixture;
use weir_tests::server::{ApiClient, TestServer};

fn run_job(client: &ApiClient, options: &serde_json::Value) -> String {
    let file = weir_samples::generate_book(2, 7);
    let response = client.submit_files(&[("book.pdf", &file)], options, &[]);
    assert_eq!(response.status, 202, "{:?}", response.body);
    let job = response.body["id"].as_str().unwrap().to_owned();
    client.wait_for_job(&job);
    job
}

fn search_hits(client: &ApiClient, filter: &serde_json::Value) -> Vec<serde_json::Value> {
    let query = json!({ "query": "chapter", "top_k": 100, "filter": filter });
    let response = client.post("/v1/search", &query);
    response.body["hits"].as_array().unwrap().clone()
}

#[test]
fn documents_are_found_by_the_labels_of_their_upload() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let (owner, other) = (
        server.create_tenant("owner", json!({})),
        server.create_tenant("other", json!({})),
    );
    let north = json!({ "team": "north", "tenant other": "x" });
    run_job(
        &owner,
        &json!({ "labels": north, "collection": "minutes", "summarize": true }),
    );
    run_job(&other, &json!({}));

    let found = search_hits(
        &owner,
        &json!({ "labels": { "team": "north" }, "collection": "minutes" }),
    );
    assert!(found.iter().any(|hit| hit["summary"] == true));
    assert!(found.iter().any(|hit| hit["summary"] == false));
    assert!(found.iter().all(|hit| hit["labels"] == north), "{found:?}");
    assert!(search_hits(&owner, &json!({ "labels": { "team": "south" } })).is_empty());
    assert!(search_hits(&owner, &json!({ "collection": "default" })).is_empty());
    let documents = owner.get("/v1/documents").body;
    let document = &documents["documents"][0];
    assert_eq!(
        (&document["labels"], &document["collection"]),
        (&north, &json!("minutes"))
    );
    // A label filter does not find documents of another tenant.
    assert!(search_hits(&other, &json!({ "labels": { "team": "north" } })).is_empty());
    assert!(
        search_hits(&other, &json!({}))
            .iter()
            .all(|hit| hit["labels"] == json!({}))
    );

    // The labels of a later upload replace the earlier ones.
    let south = json!({ "team": "south" });
    run_job(&owner, &json!({ "labels": south }));
    assert!(search_hits(&owner, &json!({ "labels": { "team": "north" } })).is_empty());
    let found = search_hits(&owner, &json!({ "labels": south, "collection": "minutes" }));
    assert!(!found.is_empty());

    for wrong in [
        json!({ "collection": "../other" }),
        json!({ "labels": { "": "x" } }),
        json!({ "labels": { "a": "x".repeat(1025) } }),
        json!({ "labels": ["a"] }),
    ] {
        let file = weir_samples::generate_book(1, 7);
        let response = owner.submit_files(&[("book.pdf", &file)], &wrong, &[]);
        assert!(
            (400..500).contains(&response.status),
            "{wrong}: {}",
            response.status
        );
    }
}

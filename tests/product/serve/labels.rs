//! Labels and the collection that a client gives its documents.

use serde_json::json;
use weir_tests::Weir;
use weir_tests::server::{Client, Server};

fn job(client: &Client, options: &serde_json::Value) -> String {
    let file = weir_samples::book(2, 7);
    let answer = client.submit(&[("book.pdf", &file)], options, &[]);
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let job = answer.body["id"].as_str().unwrap().to_owned();
    client.wait(&job);
    job
}

fn hits(client: &Client, filter: &serde_json::Value) -> Vec<serde_json::Value> {
    let query = json!({ "query": "chapter", "top_k": 100, "filter": filter });
    let answer = client.post("/v1/search", &query);
    answer.body["hits"].as_array().unwrap().clone()
}

#[test]
fn documents_are_found_by_the_labels_of_their_upload() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let (owner, other) = (
        server.tenant("owner", json!({})),
        server.tenant("other", json!({})),
    );
    let north = json!({ "team": "north", "tenant other": "x" });
    job(
        &owner,
        &json!({ "labels": north, "collection": "minutes", "summarize": true }),
    );
    job(&other, &json!({}));

    let found = hits(
        &owner,
        &json!({ "labels": { "team": "north" }, "collection": "minutes" }),
    );
    assert!(found.iter().any(|hit| hit["summary"] == true));
    assert!(found.iter().any(|hit| hit["summary"] == false));
    assert!(found.iter().all(|hit| hit["labels"] == north), "{found:?}");
    assert!(hits(&owner, &json!({ "labels": { "team": "south" } })).is_empty());
    assert!(hits(&owner, &json!({ "collection": "default" })).is_empty());
    let documents = owner.get("/v1/documents").body;
    let document = &documents["documents"][0];
    assert_eq!(
        (&document["labels"], &document["collection"]),
        (&north, &json!("minutes"))
    );
    // No label leads to another tenant.
    assert!(hits(&other, &json!({ "labels": { "team": "north" } })).is_empty());
    assert!(
        hits(&other, &json!({}))
            .iter()
            .all(|hit| hit["labels"] == json!({}))
    );

    // Other labels replace them.
    let south = json!({ "team": "south" });
    job(&owner, &json!({ "labels": south }));
    assert!(hits(&owner, &json!({ "labels": { "team": "north" } })).is_empty());
    let found = hits(&owner, &json!({ "labels": south, "collection": "minutes" }));
    assert!(!found.is_empty());

    for wrong in [
        json!({ "collection": "../other" }),
        json!({ "labels": { "": "x" } }),
        json!({ "labels": { "a": "x".repeat(1025) } }),
        json!({ "labels": ["a"] }),
    ] {
        let file = weir_samples::book(1, 7);
        let answer = owner.submit(&[("book.pdf", &file)], &wrong, &[]);
        assert!((400..500).contains(&answer.status), "{wrong}: {}", answer.status);
    }
}

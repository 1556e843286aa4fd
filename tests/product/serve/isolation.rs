//! One tenant cannot see, change or find what another has.

use serde_json::json;
use weir_tests::Weir;
use weir_tests::server::Server;

#[test]
fn nothing_of_a_tenant_is_there_for_another() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let (owner, other) = (
        server.tenant("owner", json!({})),
        server.tenant("other", json!({})),
    );
    let file = weir_samples::all()[0].1.clone();
    let job = owner.job("handbook.pdf", &file);
    let events = owner.wait(&job);
    let document = events.iter().find(|e| e["type"] == "document-done").unwrap()["document"]
        .as_str()
        .unwrap()
        .to_owned();

    let reads = [
        format!("/v1/jobs/{job}"),
        format!("/v1/jobs/{job}/events"),
        format!("/v1/jobs/{job}/pages/1"),
        format!("/v1/jobs/{job}/diagnosis"),
        format!("/v1/documents/{document}"),
        format!("/v1/documents/{document}/markdown"),
        format!("/v1/documents/{document}/pages/1"),
        format!("/v1/documents/{document}/pages/1/image"),
        format!("/v1/documents/{document}/pages/1/text"),
    ];
    for path in &reads {
        assert_eq!(owner.get(path).status, 200, "{path}");
        let answer = other.get(path);
        assert_eq!((answer.status, answer.problem()), (404, "not-found"), "{path}");
    }
    for path in [format!("/v1/jobs/{job}"), format!("/v1/documents/{document}")] {
        assert_eq!(other.delete(&path).status, 404, "{path}");
    }
    assert_eq!(
        other.post(&format!("/v1/jobs/{job}/retry"), &json!({})).status,
        404
    );
    let known = json!({ "documents": [{ "document": document }] });
    assert_ne!(
        other.post("/v1/jobs", &known).status,
        202,
        "a foreign document is no document"
    );

    let everything = json!({ "query": "gate", "top_k": 100 });
    let filtered = json!({ "query": "gate", "top_k": 100, "filter": { "documents": [document] } });
    for query in [&everything, &filtered] {
        assert!(
            !owner.post("/v1/search", query).body["hits"]
                .as_array()
                .unwrap()
                .is_empty()
        );
        assert_eq!(other.post("/v1/search", query).body["hits"], json!([]));
    }
    assert_eq!(other.get("/v1/jobs").body["jobs"], json!([]));
    assert_eq!(other.get("/v1/documents").body["documents"], json!([]));

    for (method, path) in [
        ("GET", "/v1/tenants"),
        ("GET", "/v1/tenants/owner"),
        ("DELETE", "/v1/tenants/owner"),
    ] {
        let answer = other.send(method, path, &json!({}));
        assert_eq!((answer.status, answer.problem()), (403, "forbidden"), "{path}");
    }

    // The same bytes belong to each tenant by themselves.
    let job = other.job("mine.pdf", &file);
    other.wait(&job);
    assert_eq!(other.delete(&format!("/v1/documents/{document}")).status, 204);
    assert_eq!(owner.get(&format!("/v1/documents/{document}")).status, 200);
    assert!(
        !owner.post("/v1/search", &everything).body["hits"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    server.stop();
}

#[test]
fn keys_end_when_they_are_told_to() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.tenant("acme", json!({}));
    assert_eq!(client.get("/v1/jobs").status, 200);
    let stranger = server.client("weir_0123456789ab_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(
        (
            stranger.get("/v1/jobs").status,
            stranger.get("/v1/jobs").problem().to_owned()
        ),
        (401, "unauthorized".into())
    );

    // The command line works beside the server, and the next request sees what it did.
    let suspended = weir.run(&["tenant", "suspend", "acme"]);
    assert_eq!(suspended.code, 0, "{}", suspended.errors);
    assert_eq!(client.get("/v1/jobs").problem(), "tenant-suspended");
    assert_eq!(weir.run(&["tenant", "resume", "acme"]).code, 0);
    assert_eq!(client.get("/v1/jobs").status, 200);
    let rotated = weir.run(&["tenant", "rotate", "acme", "--json"]);
    assert_eq!(rotated.code, 0, "{}", rotated.errors);
    assert_eq!(client.get("/v1/jobs").status, 401);
    let fresh = server.client(rotated.lines[0]["secret"].as_str().unwrap());
    assert_eq!(fresh.get("/v1/jobs").status, 200);
    server.stop();
}

//! `weir migrate` with the real binary: a data folder on servers, and back in a data folder.

use rustix::process::Signal;
use serde_json::{Value, json};
use weir_qdrant_protocol::QdrantProtocolServer;
use weir_s3_server::{ACCESS_KEY, BUCKET, Fault, S3TestServer, SECRET_KEY};
use weir_test_services::PostgresServer;
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::{CommandOutput, WeirFixture, WeirProcess, wait_until};

struct Servers {
    postgres: PostgresServer,
    s3: S3TestServer,
    qdrant: QdrantProtocolServer,
}

impl Servers {
    fn start() -> Self {
        Self {
            postgres: PostgresServer::start(),
            s3: S3TestServer::start(),
            qdrant: QdrantProtocolServer::start(),
        }
    }

    /// Writes settings with the servers.
    fn configure(&self, weir: &mut WeirFixture) {
        weir.set_variable("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        weir.set_variable("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        let settings = format!(
            "[storage]\nledger = \"{}\"\nvectors = \"{}\"\nblobs = \"s3://{BUCKET}/weir\"\ns3_endpoint = \"{}\"\n\
             s3_region = \"eu-central-1\"\ns3_path_style = true\n",
            self.postgres.url(),
            self.qdrant.url(),
            self.s3.url()
        );
        weir.write_file("weir.toml", settings.as_bytes());
    }
}

/// What a client sees of its documents and jobs.
#[derive(Debug, PartialEq)]
struct ClientView {
    document: Value,
    hits: Vec<(Value, Value)>,
    events: Vec<(u64, Value)>,
    images: Vec<Vec<u8>>,
    components: Value,
    replay: Value,
}

impl ClientView {
    fn read(client: &ApiClient, job: &str, document: &str) -> Self {
        let get = |path: &str| {
            let response = client.get(path);
            assert_eq!(response.status, 200, "{path}: {}", response.body);
            response.body
        };
        let query = json!({ "query": "chapter", "top_k": 20, "filter": { "documents": [document] } });
        let found = client.post("/v1/search", &query);
        assert_eq!(found.status, 200, "{}", found.body);
        let hits = found.body["hits"].as_array().unwrap().iter();
        let images = (1..=3).map(|page| {
            let (status, image) = client.get_bytes(&format!("/v1/documents/{document}/pages/{page}/image"));
            assert_eq!((status, image.get(..2)), (200, Some(&b"\xff\xd8"[..])));
            image
        });
        Self {
            document: get(&format!("/v1/documents/{document}")),
            hits: hits
                .map(|hit| (hit["page"].clone(), hit["text"].clone()))
                .collect(),
            events: client.follow_events(job, 0).collect(),
            images: images.collect(),
            components: get("/v1/components"),
            replay: client.post(&format!("/v1/jobs/{job}/replay"), &json!({})).body,
        }
    }
}

fn assert_succeeded(ended: &CommandOutput) {
    assert_eq!(ended.exit_code, 0, "{}\n{:?}", ended.stderr, ended.stdout_lines);
}

fn copied_count(ended: &CommandOutput, name: &str) -> u64 {
    let copied = ended.stdout_lines[0]["copied"].as_array().unwrap();
    let part = copied.iter().find(|part| part["name"] == name).unwrap();
    part["count"].as_u64().unwrap()
}

#[test]
fn documents_and_queued_jobs_move_to_servers_and_back() {
    let (servers, mut weir) = (Servers::start(), WeirFixture::new());
    weir.write_file("weir.toml", b"[server]\nshutdown_grace_seconds = 1\n");
    let server = TestServer::start(&weir, &[]);
    let quotas = json!({ "quotas": { "concurrent_jobs": 1 } });
    let client = server.create_tenant_with_scopes("ours", quotas, &["read", "ingest", "components"]);
    client.push_and_activate_pipeline();
    let book = weir_samples::generate_book(3, 7);
    let submitted = client.submit_files(&[("a.pdf", &book[..])], &json!({ "pipeline": "ours" }), &[]);
    assert_eq!(submitted.status, 202, "{}", submitted.body);
    let job = submitted.body["id"].as_str().unwrap().to_owned();
    let events = client.wait_for_job(&job);
    let done = events
        .iter()
        .find(|event| event["type"] == "document-done")
        .unwrap();
    let document = done["document"].as_str().unwrap().to_owned();
    let view = ClientView::read(&client, &job, &document);
    assert!(view.hits.len() >= 3 && view.events.len() >= 5, "{view:?}");
    assert!(view.replay["decisions"].as_u64() > Some(6), "{view:?}");
    // One job is interrupted, and one waits for it.
    let interrupted = client.submit_file("long.pdf", &weir_samples::generate_book(80, 9));
    let mut seen = client.follow_events(&interrupted, 0);
    assert!(seen.any(|(_, event)| event["type"] == "page-done"));
    let waiting = client.submit_file("b.pdf", &weir_samples::generate_book(4, 8));
    drop(seen);
    server.stop();

    servers.configure(&mut weir);
    let counted = weir.run_command(&["migrate", "to-servers", "--dry-run", "--json"]);
    assert_succeeded(&counted);
    assert_eq!(
        (
            copied_count(&counted, "documents"),
            copied_count(&counted, "jobs")
        ),
        (2, 3)
    );
    assert_eq!(servers.s3.keys(), Vec::<String>::new());
    let moved = weir.run_command(&["migrate", "to-servers"]);
    assert_succeeded(&moved);
    let printed = format!("{:?}", moved.stdout_lines);
    assert!(printed.contains("s3://documents/weir"), "{printed}");
    assert!(
        moved.stderr.contains("weir: comparing table events"),
        "{}",
        moved.stderr
    );
    let unfinished = servers
        .postgres
        .query("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')");
    assert_eq!(unfinished, "2");
    let again = weir.run_command(&["migrate", "to-servers"]);
    assert!(
        again.exit_code == 1 && again.stderr.contains("is not empty"),
        "{}",
        again.stderr
    );

    let mut node = WeirFixture::new();
    servers.configure(&mut node);
    let server = TestServer::start(&node, &["--role", "api"]);
    let on_node = server.client_with_key(client.key());
    assert_eq!(ClientView::read(&on_node, &job, &document), view);
    let running = node.run_command(&["migrate", "to-folder"]);
    assert_ne!(running.exit_code, 0, "{:?}", running.stdout_lines);
    server.stop();

    // Back, before the waiting job has run anywhere.
    let mut back = WeirFixture::new();
    servers.configure(&mut back);
    let moved = back.run_command(&["migrate", "to-folder", "--json"]);
    assert_succeeded(&moved);
    assert_eq!(
        (copied_count(&moved, "documents"), copied_count(&moved, "jobs")),
        (2, 3)
    );
    std::fs::remove_file(back.folder().join("weir.toml")).unwrap();
    for weir in [&node, &back] {
        let server = TestServer::start(weir, &[]);
        let client = server.client_with_key(client.key());
        for (job, pages) in [(&interrupted, 80), (&waiting, 4)] {
            let events = client.wait_for_job(job);
            assert_eq!(events.last().unwrap()["state"], "done", "{events:#?}");
            let numbers: Vec<&Value> = events.iter().map(|event| &event["seq"]).collect();
            assert_eq!(numbers, (1..=events.len()).collect::<Vec<_>>());
            let mut done: Vec<u64> = events
                .iter()
                .filter(|event| event["type"] == "page-done")
                .map(|event| event["page"].as_u64().unwrap())
                .collect();
            done.sort_unstable();
            assert_eq!(done, (1..=pages).collect::<Vec<_>>());
        }
        // The pushed component still runs, and its pages are stored.
        let again = json!({ "pipeline": "ours", "force": true });
        let submitted = client.submit_files(&[("a.pdf", &book[..])], &again, &[]);
        assert_eq!(submitted.status, 202, "{}", submitted.body);
        let events = client.wait_for_job(submitted.body["id"].as_str().unwrap());
        assert_eq!(events.last().unwrap()["state"], "done", "{events:#?}");
        let after = ClientView::read(&client, &job, &document);
        assert_eq!(
            (&after.events, &after.images, &after.components, &after.replay),
            (&view.events, &view.images, &view.components, &view.replay)
        );
        server.stop();
    }
}

#[test]
fn killed_migration_is_finished_by_the_next() {
    let (servers, mut weir) = (Servers::start(), WeirFixture::new());
    let book = weir.write_file("book.pdf", &weir_samples::generate_book(6, 7));
    assert_succeeded(&weir.ingest_files(&[book.to_str().unwrap()]));
    let hits = weir.search("chapter", &[]);
    servers.configure(&mut weir);
    servers
        .s3
        .fail_requests(Fault::Hang, "PUT /documents/weir/blobs", u32::MAX);
    let migration = WeirProcess::start(weir.weir_command(&["migrate", "to-servers"]));
    wait_until(|| match weir.data_folder().join("migration.json").exists() {
        true => Ok(()),
        false => Err("the migration has not begun".into()),
    });
    migration.send_signal(Signal::KILL);
    migration.wait_for_exit();
    servers.s3.fail_with(None);

    let refused = weir.run_command(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(
        refused.exit_code == 1 && refused.stderr.contains("a migration of it is not finished"),
        "{}",
        refused.stderr
    );
    assert_succeeded(&weir.run_command(&["migrate", "to-servers"]));
    assert!(!weir.data_folder().join("migration.json").exists());
    let mut node = WeirFixture::new();
    servers.configure(&mut node);
    let text = |hits: &[Value]| -> Vec<Value> { hits.iter().map(|hit| hit["text"].clone()).collect() };
    assert_eq!(text(&node.search("chapter", &[])), text(&hits));
    assert_eq!(node.list_documents().len(), 1);
}

//! Pipelines on a running server: revisions are pushed, activated and rolled back while jobs run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::{CommandOutput, WeirFixture, test_component_path};

/// All scopes of a tenant's API key, without `admin`.
const ALL_SCOPES: [&str; 3] = ["ingest", "read", "components"];

/// Runs `weir pipeline …` with the tenant's server and key.
fn run_pipeline_command(
    weir: &WeirFixture,
    server: &TestServer,
    client: &ApiClient,
    arguments: &[&str],
) -> CommandOutput {
    let mut all = vec!["pipeline"];
    all.extend(arguments);
    run_on_server(weir, server, client, &all)
}

/// Runs `weir …` with the tenant's server and key.
fn run_on_server(weir: &WeirFixture, server: &TestServer, client: &ApiClient, all: &[&str]) -> CommandOutput {
    let mut command = weir.weir_command(all);
    command
        .env("WEIR_SERVER", format!("http://{}", server.address))
        .env("WEIR_KEY", client.key());
    weir_tests::WeirProcess::start(command).wait_for_exit()
}

/// Writes a manifest next to a copy of the component it names. Returns the manifest's path.
fn write_manifest(weir: &WeirFixture, name: &str, routing: &str, settings: &str) -> String {
    let bytes = std::fs::read(test_component_path(routing)).unwrap();
    weir.write_file(&format!("{name}/{routing}.wasm"), &bytes);
    let text = format!(
        "name = \"{name}\"\non-component-failure = \"fail\"\n[components]\nrouting = \"{routing}.wasm\"\n[settings]\n{settings}"
    );
    let path = weir.write_file(&format!("{name}/pipeline.toml"), text.as_bytes());
    path.to_str().unwrap().to_owned()
}

fn submit_job(client: &ApiClient, pipeline: &str, bytes: &[u8]) -> String {
    let options = json!({ "pipeline": pipeline });
    let response = client.submit_files(&[("a.pdf", bytes)], &options, &[]);
    assert_eq!(response.status, 202, "{}", response.body);
    response.body["id"].as_str().unwrap().to_owned()
}

fn change_rollout(client: &ApiClient, pipeline: &str, change: &Value) -> Value {
    let response = client.post(&format!("/v1/pipelines/{pipeline}/rollout"), change);
    assert_eq!(response.status, 200, "{}", response.body);
    response.body
}

#[test]
fn command_line_pushes_activates_and_rolls_back_a_pipeline() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &ALL_SCOPES);
    let scan = weir_samples::generate_scanned_book(1);
    // The default pipeline runs OCR on a scanned page, the tenant's does not.
    let before = client.wait_for_job(&client.submit_file("scan.pdf", &scan));
    let done = |events: &[Value]| {
        events
            .iter()
            .find(|e| e["type"] == "document-done")
            .unwrap()
            .clone()
    };
    assert_eq!(done(&before)["searchable"], 1);

    let path = write_manifest(&weir, "reports", "text-only", "dpi = 100\n");
    let pushed = run_pipeline_command(&weir, &server, &client, &["push", &path, "--activate", "--json"]);
    assert_eq!(pushed.exit_code, 0, "{}", pushed.stderr);
    assert_eq!(pushed.stdout_lines[0]["number"], 1, "{}", pushed.stdout_lines[0]);
    let job = submit_job(&client, "reports", &scan);
    assert_eq!(done(&client.wait_for_job(&job))["searchable"], 0);
    let view = client.get(&format!("/v1/jobs/{job}")).body;
    assert_eq!(
        (&view["pipeline"], &view["pipeline_revision"]),
        (&json!("reports"), &json!(1))
    );

    // The same manifest is the same revision; another setting creates another revision, which is not active.
    let again = run_pipeline_command(&weir, &server, &client, &["push", &path, "--json"]);
    assert_eq!(again.stdout_lines[0]["number"], 1);
    let path = write_manifest(&weir, "reports", "text-only", "dpi = 120\n");
    let second = run_pipeline_command(&weir, &server, &client, &["push", &path, "--json"]);
    assert_eq!(second.stdout_lines[0]["number"], 2);
    assert_eq!(
        run_pipeline_command(&weir, &server, &client, &["activate", "reports", "2"]).exit_code,
        0
    );
    assert_eq!(
        run_pipeline_command(&weir, &server, &client, &["rollback", "reports"]).exit_code,
        0
    );
    let rollout = run_pipeline_command(&weir, &server, &client, &["show", "reports", "--json"]);
    assert_eq!(
        rollout.stdout_lines[0]["rollout"]["stable"], 1,
        "{}",
        rollout.stdout_lines[0]
    );
    let history = run_pipeline_command(&weir, &server, &client, &["history", "reports", "--json"]);
    let actions: Vec<_> = history.stdout_lines[0]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["action"])
        .collect();
    assert_eq!(actions, ["rollback", "activate", "push", "activate", "push"]);

    let refused = run_pipeline_command(&weir, &server, &client, &["rollback", "nothing"]);
    assert_eq!(refused.exit_code, 1);
    assert!(
        refused.stderr.contains("pipeline 'nothing' does not exist"),
        "{}",
        refused.stderr
    );
    assert_eq!(server.stop().exit_code, 0);
}

#[test]
fn unusable_component_is_refused_on_push_with_a_reason() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &ALL_SCOPES);
    let folder = weir.folder().join("gate");
    let push = |name: &str, bytes: &[u8]| {
        let path = weir.write_file(&format!("{name}.wasm"), bytes);
        let text = format!("name = \"gate\"\n[components]\nrouting = {path:?}\n");
        let manifest = weir.write_file("gate/pipeline.toml", text.as_bytes());
        let ended = run_pipeline_command(&weir, &server, &client, &["push", manifest.to_str().unwrap()]);
        assert_eq!(
            (ended.exit_code, ended.stderr.lines().count()),
            (1, 1),
            "{}",
            ended.stderr
        );
        ended.stderr
    };
    let read = |name: &str| std::fs::read(test_component_path(name)).unwrap();
    for (name, bytes, part) in [
        ("text", b"not a component".to_vec(), "text.wasm: "),
        (
            "other-role",
            read("chunking"),
            "does not export weir:pipeline/routing@0.1.0",
        ),
        (
            "wants-state",
            read("hostile-state"),
            "add \"state\" to [capabilities] grant",
        ),
        ("loops", read("hostile-loop"), "50 ms"),
        ("traps", read("hostile-trap"), "trap"),
    ] {
        let error = push(name, &bytes);
        assert!(error.contains(part), "{name}: {error}");
        assert!(name != "text" || error.contains("cannot push "), "{error}");
    }
    assert!(folder.exists());
    assert_eq!(client.get("/v1/pipelines").body["pipelines"], json!([]));
    assert_eq!(server.stop().exit_code, 0);
}

/// The finished jobs of a tenant, and the revision hashes by revision number that they ran.
#[derive(Default)]
struct FinishedJobs {
    job_count: usize,
    hashes_by_revision: BTreeMap<u64, BTreeSet<String>>,
}

/// Submits a job every 400 ms until `stop` is set. Then checks all of them.
fn submit_jobs_until_stopped(client: &ApiClient, seed: u64, stop: &AtomicBool) -> FinishedJobs {
    let mut jobs = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let document = weir_samples::generate_text_document(1, seed * 10_000 + jobs.len() as u64);
        jobs.push(submit_job(client, "ours", &document));
        std::thread::sleep(Duration::from_millis(400));
    }
    let mut finished = FinishedJobs::default();
    for job in &jobs {
        let events = client.wait_for_job(job);
        assert_eq!(events.last().unwrap()["state"], "done", "{events:?}");
        let pages: Vec<_> = events.iter().filter(|e| e["type"] == "page-done").collect();
        assert_eq!(pages.len(), 1, "{events:?}");
        let view = client.get(&format!("/v1/jobs/{job}")).body;
        let number = view["pipeline_revision"]
            .as_u64()
            .expect("the job has a revision number");
        let hash = view["revision"].as_str().unwrap().to_owned();
        finished
            .hashes_by_revision
            .entry(number)
            .or_default()
            .insert(hash);
        // The page belongs to the revision that the job ran.
        assert_eq!(client.get(&format!("/v1/jobs/{job}/pages/1")).status, 200);
    }
    finished.job_count = jobs.len();
    finished
}

#[test]
fn hundred_rollouts_under_load_lose_no_job_and_mix_no_revision() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let clients: Vec<_> = (0..4)
        .map(|n| server.create_tenant_with_scopes(&format!("tenant-{n}"), json!({}), &ALL_SCOPES))
        .collect();
    for client in &clients {
        let routing = std::fs::read(test_component_path("text-only")).unwrap();
        assert_eq!(client.push_component("ours", &routing).status, 201);
        for new in [
            json!({ "settings": { "dpi": 72 } }),
            json!({ "settings": { "dpi": 80 } }),
            json!({ "settings": { "dpi": 72 }, "components": { "routing": "ours" } }),
        ] {
            let pushed = client.post("/v1/pipelines/ours/revisions", &new);
            assert_eq!(pushed.status, 201, "{}", pushed.body);
        }
        change_rollout(client, "ours", &json!({ "action": "activate", "revision": 1 }));
    }
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let all: Vec<FinishedJobs> = std::thread::scope(|scope| {
        let working: Vec<_> = (0..)
            .zip(&clients)
            .map(|(seed, client)| {
                scope.spawn({
                    let stop = &stop;
                    move || submit_jobs_until_stopped(client, seed, stop)
                })
            })
            .collect();
        // A hundred activations and twenty rollbacks, spread over the tenants.
        for n in 0..100_usize {
            let client = &clients[n % 4];
            let revision = 1 + (n / 4 + 1) % 3;
            let active = change_rollout(
                client,
                "ours",
                &json!({ "action": "activate", "revision": revision }),
            );
            assert_eq!(active["stable"], revision);
            if n % 5 == 4 {
                change_rollout(client, "ours", &json!({ "action": "rollback" }));
            }
            swaps.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(60));
        }
        stop.store(true, Ordering::Relaxed);
        working.into_iter().map(|tenant| tenant.join().unwrap()).collect()
    });
    let mut seen = BTreeMap::<u64, BTreeSet<String>>::new();
    for finished in &all {
        assert!(finished.job_count > 5, "{}", finished.job_count);
        for (number, hashes) in &finished.hashes_by_revision {
            seen.entry(*number).or_default().extend(hashes.iter().cloned());
        }
    }
    // Each number is one revision for all tenants, and jobs ran all three.
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.values().all(|hashes| hashes.len() == 1), "{seen:?}");
    assert_eq!(server.stop().exit_code, 0);
}

#[test]
fn activation_applies_to_new_jobs_only_also_after_a_kill() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &ALL_SCOPES);
    for dpi in [72, 80] {
        let new = json!({ "settings": { "dpi": dpi } });
        assert_eq!(client.post("/v1/pipelines/ours/revisions", &new).status, 201);
    }
    change_rollout(&client, "ours", &json!({ "action": "activate", "revision": 1 }));
    let long = submit_job(&client, "ours", &weir_samples::generate_text_document(150, 1));
    let first = client
        .follow_events(&long, 0)
        .find(|(_, e)| e["type"] == "page-done");
    assert!(first.is_some());
    change_rollout(&client, "ours", &json!({ "action": "activate", "revision": 2 }));
    let next = submit_job(&client, "ours", &weir_samples::generate_text_document(1, 2));
    client.wait_for_job(&next);
    let number = |client: &ApiClient, job: &str| {
        client.get(&format!("/v1/jobs/{job}")).body["pipeline_revision"].clone()
    };
    assert_eq!(number(&client, &next), 2);
    server.kill();

    let server = TestServer::start(&weir, &[]);
    let client = server.client_with_key(client.key());
    let events = client.wait_for_job(&long);
    let done = events.iter().find(|e| e["type"] == "document-done").unwrap();
    assert_eq!((&done["pages"], &done["failed"]), (&json!(150), &json!([])));
    assert_eq!(number(&client, &long), 1);
    for page in [1, 75, 150] {
        assert_eq!(
            client.get(&format!("/v1/jobs/{long}/pages/{page}")).status,
            200,
            "page {page}"
        );
    }
    assert_eq!(server.stop().exit_code, 0);
}

/// Returns the number of files in a folder.
fn count_files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| {
        entries.flatten().filter(|e| e.path().is_file()).count()
    })
}

#[test]
fn component_is_stored_once_and_deleted_with_its_tenant() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &ALL_SCOPES);
    let path = test_component_path("text-only");
    let bytes = std::fs::read(&path).unwrap();
    let run = |arguments: &[&str]| {
        let ended = run_on_server(&weir, &server, &client, arguments);
        assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
        ended.stdout_lines
    };
    let pushed = run(&["component", "push", path.to_str().unwrap(), "--json"]);
    let digest = pushed[0]["digest"].as_str().unwrap();
    assert_eq!(pushed[0]["name"], "text-only");
    assert_eq!(
        run(&["component", "list", "--json"])[0]["components"],
        json!([pushed[0]])
    );
    run(&["component", "remove", digest]);
    assert_eq!(run(&["component", "list", "--json"])[0]["components"], json!([]));

    let pushed = client.push_component("one", &bytes);
    assert_eq!(pushed.status, 201, "{}", pushed.body);
    assert_eq!(pushed.body["roles"], json!(["routing"]));
    assert_eq!(client.push_component("two", &bytes).status, 200);
    let folder = weir.data_folder().join("components/ours");
    assert_eq!(count_files(&folder), 1);
    assert_eq!(count_files(&weir.data_folder().join("components/.unfinished")), 0);
    let deleted = server.admin_client().delete("/v1/tenants/ours");
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    assert_eq!(count_files(&folder), 0);
    assert_eq!(server.stop().exit_code, 0);
}

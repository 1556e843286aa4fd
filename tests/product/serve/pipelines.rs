//! A tenant's own logic on a running server: pushed, swapped, taken back, while jobs run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::server::{Client, Server};
use weir_tests::{Ended, Weir, component};

/// Two roles of a key that does everything a tenant does.
const ALL: [&str; 3] = ["ingest", "read", "components"];

/// `weir pipeline …` as a tenant would run it.
fn command(weir: &Weir, server: &Server, client: &Client, arguments: &[&str]) -> Ended {
    let mut all = vec!["pipeline"];
    all.extend(arguments);
    at(weir, server, client, &all)
}

/// `weir …` with the tenant's server and key.
fn at(weir: &Weir, server: &Server, client: &Client, all: &[&str]) -> Ended {
    let mut command = weir.command(all);
    command
        .env("WEIR_SERVER", format!("http://{}", server.address))
        .env("WEIR_KEY", client.key());
    weir_tests::Running::start(command).wait()
}

/// A manifest beside a copy of the component it names.
fn manifest(weir: &Weir, name: &str, routing: &str, settings: &str) -> String {
    let bytes = std::fs::read(component(routing)).unwrap();
    weir.file(&format!("{name}/{routing}.wasm"), &bytes);
    let text = format!(
        "name = \"{name}\"\non-trap = \"fail\"\n[components]\nrouting = \"{routing}.wasm\"\n[settings]\n{settings}"
    );
    let path = weir.file(&format!("{name}/pipeline.toml"), text.as_bytes());
    path.to_str().unwrap().to_owned()
}

fn submitted(client: &Client, pipeline: &str, bytes: &[u8]) -> String {
    let options = json!({ "pipeline": pipeline });
    let answer = client.submit(&[("a.pdf", bytes)], &options, &[]);
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

fn change(client: &Client, pipeline: &str, change: &Value) -> Value {
    let answer = client.post(&format!("/v1/pipelines/{pipeline}/rollout"), change);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

#[test]
fn a_pipeline_is_pushed_activated_and_taken_back_on_the_command_line() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.tenant_with("ours", json!({}), &ALL);
    let scan = weir_samples::scanned_book(1);
    // The default pipeline recognizes the text of a scanned page, the tenant's does without.
    let before = client.wait(&client.job("scan.pdf", &scan));
    let done = |events: &[Value]| {
        events
            .iter()
            .find(|e| e["type"] == "document-done")
            .unwrap()
            .clone()
    };
    assert_eq!(done(&before)["searchable"], 1);

    let path = manifest(&weir, "reports", "text-only", "dpi = 100\n");
    let pushed = command(&weir, &server, &client, &["push", &path, "--activate", "--json"]);
    assert_eq!(pushed.code, 0, "{}", pushed.errors);
    assert_eq!(pushed.lines[0]["number"], 1, "{}", pushed.lines[0]);
    let job = submitted(&client, "reports", &scan);
    assert_eq!(done(&client.wait(&job))["searchable"], 0);
    let view = client.get(&format!("/v1/jobs/{job}")).body;
    assert_eq!(
        (&view["pipeline"], &view["pipeline_revision"]),
        (&json!("reports"), &json!(1))
    );

    // The same again is the same; another setting is another revision, which is not active.
    let again = command(&weir, &server, &client, &["push", &path, "--json"]);
    assert_eq!(again.lines[0]["number"], 1);
    let path = manifest(&weir, "reports", "text-only", "dpi = 120\n");
    let second = command(&weir, &server, &client, &["push", &path, "--json"]);
    assert_eq!(second.lines[0]["number"], 2);
    assert_eq!(
        command(&weir, &server, &client, &["activate", "reports", "2"]).code,
        0
    );
    assert_eq!(command(&weir, &server, &client, &["rollback", "reports"]).code, 0);
    let shown = command(&weir, &server, &client, &["show", "reports", "--json"]);
    assert_eq!(shown.lines[0]["rollout"]["stable"], 1, "{}", shown.lines[0]);
    let history = command(&weir, &server, &client, &["history", "reports", "--json"]);
    let actions: Vec<_> = history.lines[0]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["action"])
        .collect();
    assert_eq!(actions, ["rollback", "activate", "push", "activate", "push"]);

    let refused = command(&weir, &server, &client, &["rollback", "nothing"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.errors.contains("there is no pipeline 'nothing'"),
        "{}",
        refused.errors
    );
    assert_eq!(server.stop().code, 0);
}

#[test]
fn what_cannot_be_used_is_refused_at_the_gate_with_a_reason() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.tenant_with("ours", json!({}), &ALL);
    let folder = weir.folder().join("gate");
    let push = |name: &str, bytes: &[u8]| {
        let path = weir.file(&format!("{name}.wasm"), bytes);
        let text = format!("name = \"gate\"\n[components]\nrouting = {path:?}\n");
        let manifest = weir.file("gate/pipeline.toml", text.as_bytes());
        let ended = command(&weir, &server, &client, &["push", manifest.to_str().unwrap()]);
        assert_eq!(
            (ended.code, ended.errors.lines().count()),
            (1, 1),
            "{}",
            ended.errors
        );
        ended.errors
    };
    let read = |name: &str| std::fs::read(component(name)).unwrap();
    for (name, bytes, part) in [
        ("text", b"not a component".to_vec(), "text.wasm is not let in"),
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
        let said = push(name, &bytes);
        assert!(said.contains(part), "{name}: {said}");
    }
    assert!(folder.exists());
    assert_eq!(client.get("/v1/pipelines").body["pipelines"], json!([]));
    assert_eq!(server.stop().code, 0);
}

/// What a tenant's jobs ran, by number.
#[derive(Default)]
struct Ran {
    jobs: usize,
    revisions: BTreeMap<u64, BTreeSet<String>>,
}

/// Hands in a job now and then until it is told to stop, and looks at all of them in the end.
fn tenant_at_work(client: &Client, seed: u64, stop: &AtomicBool) -> Ran {
    let mut jobs = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let document = weir_samples::text_document(1, seed * 10_000 + jobs.len() as u64);
        jobs.push(submitted(client, "ours", &document));
        std::thread::sleep(Duration::from_millis(400));
    }
    let mut ran = Ran::default();
    for job in &jobs {
        let events = client.wait(job);
        assert_eq!(events.last().unwrap()["state"], "done", "{events:?}");
        let pages: Vec<_> = events.iter().filter(|e| e["type"] == "page-done").collect();
        assert_eq!(pages.len(), 1, "{events:?}");
        let view = client.get(&format!("/v1/jobs/{job}")).body;
        let number = view["pipeline_revision"].as_u64().expect("a revision");
        let hash = view["revision"].as_str().unwrap().to_owned();
        ran.revisions.entry(number).or_default().insert(hash);
        // The page was made by the revision that the job says it ran.
        assert_eq!(client.get(&format!("/v1/jobs/{job}/pages/1")).status, 200);
    }
    ran.jobs = jobs.len();
    ran
}

#[test]
fn a_hundred_swaps_under_load_lose_fail_and_mix_nothing() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let clients: Vec<_> = (0..4)
        .map(|n| server.tenant_with(&format!("tenant-{n}"), json!({}), &ALL))
        .collect();
    for client in &clients {
        let routing = std::fs::read(component("text-only")).unwrap();
        assert_eq!(client.push("ours", &routing).status, 201);
        for new in [
            json!({ "settings": { "dpi": 72 } }),
            json!({ "settings": { "dpi": 80 } }),
            json!({ "settings": { "dpi": 72 }, "components": { "routing": "ours" } }),
        ] {
            let pushed = client.post("/v1/pipelines/ours/revisions", &new);
            assert_eq!(pushed.status, 201, "{}", pushed.body);
        }
        change(client, "ours", &json!({ "action": "activate", "revision": 1 }));
    }
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let all: Vec<Ran> = std::thread::scope(|scope| {
        let working: Vec<_> = (0..)
            .zip(&clients)
            .map(|(seed, client)| {
                scope.spawn({
                    let stop = &stop;
                    move || tenant_at_work(client, seed, stop)
                })
            })
            .collect();
        // A hundred swaps and twenty roll-backs, spread over the tenants.
        for n in 0..100_usize {
            let client = &clients[n % 4];
            let revision = 1 + (n / 4 + 1) % 3;
            let active = change(
                client,
                "ours",
                &json!({ "action": "activate", "revision": revision }),
            );
            assert_eq!(active["stable"], revision);
            if n % 5 == 4 {
                change(client, "ours", &json!({ "action": "rollback" }));
            }
            swaps.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(60));
        }
        stop.store(true, Ordering::Relaxed);
        working.into_iter().map(|tenant| tenant.join().unwrap()).collect()
    });
    let mut seen = BTreeMap::<u64, BTreeSet<String>>::new();
    for ran in &all {
        assert!(ran.jobs > 5, "{}", ran.jobs);
        for (number, hashes) in &ran.revisions {
            seen.entry(*number).or_default().extend(hashes.iter().cloned());
        }
    }
    // Each number is one revision, whoever ran it, and all three were in work.
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.values().all(|hashes| hashes.len() == 1), "{seen:?}");
    assert_eq!(server.stop().code, 0);
}

#[test]
fn a_swap_counts_for_the_next_job_and_not_for_the_one_in_work_also_over_a_kill() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.tenant_with("ours", json!({}), &ALL);
    for dpi in [72, 80] {
        let new = json!({ "settings": { "dpi": dpi } });
        assert_eq!(client.post("/v1/pipelines/ours/revisions", &new).status, 201);
    }
    change(&client, "ours", &json!({ "action": "activate", "revision": 1 }));
    let long = submitted(&client, "ours", &weir_samples::text_document(150, 1));
    let first = client.events(&long, 0).find(|(_, e)| e["type"] == "page-done");
    assert!(first.is_some());
    change(&client, "ours", &json!({ "action": "activate", "revision": 2 }));
    let next = submitted(&client, "ours", &weir_samples::text_document(1, 2));
    client.wait(&next);
    let number =
        |client: &Client, job: &str| client.get(&format!("/v1/jobs/{job}")).body["pipeline_revision"].clone();
    assert_eq!(number(&client, &next), 2);
    server.kill();

    let server = Server::start(&weir, &[]);
    let client = server.client(client.key());
    let events = client.wait(&long);
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
    assert_eq!(server.stop().code, 0);
}

/// What a folder of components holds.
fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| {
        entries.flatten().filter(|e| e.path().is_file()).count()
    })
}

#[test]
fn components_are_kept_once_and_go_with_their_tenant() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.tenant_with("ours", json!({}), &ALL);
    let path = component("text-only");
    let bytes = std::fs::read(&path).unwrap();
    let run = |arguments: &[&str]| {
        let ended = at(&weir, &server, &client, arguments);
        assert_eq!(ended.code, 0, "{}", ended.errors);
        ended.lines
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

    let pushed = client.push("one", &bytes);
    assert_eq!(pushed.status, 201, "{}", pushed.body);
    assert_eq!(pushed.body["roles"], json!(["routing"]));
    assert_eq!(client.push("two", &bytes).status, 200);
    let folder = weir.data().join("components/ours");
    assert_eq!(files(&folder), 1);
    assert_eq!(files(&weir.data().join("components/.unfinished")), 0);
    let deleted = server.admin().delete("/v1/tenants/ours");
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    assert_eq!(files(&folder), 0);
    assert_eq!(server.stop().code, 0);
}

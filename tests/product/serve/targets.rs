//! Commands work on the server that is named, and otherwise on the data folder.

use serde_json::{Value, json};
use weir_tests::server::Server;
use weir_tests::{Ended, Running, Weir};

#[test]
fn commands_work_on_the_named_server_and_else_on_the_folder() {
    let weir = Weir::new();
    let elsewhere = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.tenant_with("ours", json!({}), &["ingest", "read", "components"]);
    let (name, handbook) = weir_samples::all().into_iter().next().unwrap();
    let sent = client.submit(&[(name, &handbook)], &json!({}), &[]);
    let job = sent.body["id"].as_str().unwrap().to_owned();
    client.wait(&job);

    let url = format!("http://{}", server.address);
    let on_server = |arguments: &[&str], flag: bool| -> Ended {
        let mut command = elsewhere.command(arguments);
        command.env("WEIR_KEY", client.key());
        match flag {
            true => command.args(["--server", &url]),
            false => command.env("WEIR_SERVER", &url),
        };
        Running::start(command).wait()
    };
    for flag in [false, true] {
        let found = on_server(&["search", "roller gate", "--json", "--top-k", "2"], flag);
        assert_eq!(found.code, 0, "{}", found.errors);
        let asked = client
            .post("/v1/search", &json!({ "query": "roller gate", "top_k": 2 }))
            .body;
        let passages = |answer: &Value| -> Vec<Value> {
            let hits = answer["hits"].as_array().unwrap();
            hits.iter().map(|hit| hit["text"].clone()).collect()
        };
        assert_eq!(passages(&found.lines[0]), passages(&asked));
        let listed = on_server(&["documents", "--json"], flag);
        assert_eq!(listed.lines[0]["documents"][0]["name"], name, "{}", listed.errors);
        let replayed = on_server(&["replay", &job, "--json"], flag);
        assert_eq!(
            (replayed.code, &replayed.lines[0]["differing"]),
            (0, &json!(0)),
            "{}",
            replayed.errors
        );
        let logged = on_server(&["log", &job], flag);
        assert_eq!(logged.code, 0, "{}", logged.errors);
    }
    let id = elsewhere_id(&on_server(&["documents", "--json"], false));
    let within = on_server(&["search", "roller gate", "--document", &id[..8]], false);
    assert!(
        within.lines[0]
            .as_str()
            .unwrap()
            .starts_with("1. handbook.pdf, page "),
        "{}",
        within.errors
    );

    // The folder of this machine is another place, and has none of it.
    assert!(elsewhere.documents().is_empty());
    assert_eq!(elsewhere.run(&["log", &job]).code, 1);

    for (arguments, part) in [
        (
            &["run", "a.pdf"][..],
            "works on the data folder of this machine only",
        ),
        (
            &["tenant", "list"],
            "works on the data folder of this machine only",
        ),
        (&["log", &job, "--remote"], "--remote is gone"),
        (
            &["replay", &job, "--with", "a.wasm"],
            "--with is for the data folder only",
        ),
    ] {
        let refused = on_server(arguments, false);
        assert_eq!(refused.code, 2, "{arguments:?}: {}", refused.errors);
        assert!(refused.errors.contains(part), "{arguments:?}: {}", refused.errors);
        assert_eq!(refused.errors.lines().count(), 1, "{}", refused.errors);
    }
    let refused = elsewhere.run(&["pipeline", "list"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.errors.contains("works on a server only"),
        "{}",
        refused.errors
    );
    assert_eq!(server.stop().code, 0);
}

fn elsewhere_id(listed: &Ended) -> String {
    listed.lines[0]["documents"][0]["document"]
        .as_str()
        .unwrap()
        .to_owned()
}

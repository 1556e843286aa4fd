//! Commands use the server that the flag or environment names, and otherwise the data folder.

use serde_json::{Value, json};
use weir_tests::server::TestServer;
use weir_tests::{CommandOutput, WeirFixture, WeirProcess};

#[test]
fn commands_use_the_named_server_or_else_the_data_folder() {
    let weir = WeirFixture::new();
    let elsewhere = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant_with_scopes("ours", json!({}), &["ingest", "read", "components"]);
    let (name, handbook) = weir_samples::sample_files().into_iter().next().unwrap();
    let sent = client.submit_files(&[(name, &handbook)], &json!({}), &[]);
    let job = sent.body["id"].as_str().unwrap().to_owned();
    client.wait_for_job(&job);

    let url = format!("http://{}", server.address);
    let on_server = |arguments: &[&str], flag: bool| -> CommandOutput {
        let mut command = elsewhere.weir_command(arguments);
        command.env("WEIR_KEY", client.key());
        match flag {
            true => command.args(["--server", &url]),
            false => command.env("WEIR_SERVER", &url),
        };
        WeirProcess::start(command).wait_for_exit()
    };
    for flag in [false, true] {
        let found = on_server(&["search", "roller gate", "--json", "--top-k", "2"], flag);
        assert_eq!(found.exit_code, 0, "{}", found.stderr);
        let api_result = client
            .post("/v1/search", &json!({ "query": "roller gate", "top_k": 2 }))
            .body;
        let passages = |result: &Value| -> Vec<Value> {
            let hits = result["hits"].as_array().unwrap();
            hits.iter().map(|hit| hit["text"].clone()).collect()
        };
        assert_eq!(passages(&found.stdout_lines[0]), passages(&api_result));
        let listed = on_server(&["documents", "--json"], flag);
        assert_eq!(
            listed.stdout_lines[0]["documents"][0]["name"], name,
            "{}",
            listed.stderr
        );
        let replayed = on_server(&["replay", &job, "--json"], flag);
        assert_eq!(
            (replayed.exit_code, &replayed.stdout_lines[0]["differing"]),
            (0, &json!(0)),
            "{}",
            replayed.stderr
        );
        let logged = on_server(&["log", &job], flag);
        assert_eq!(logged.exit_code, 0, "{}", logged.stderr);
    }
    let id = first_document_id(&on_server(&["documents", "--json"], false));
    let within = on_server(&["search", "roller gate", "--document", &id[..8]], false);
    assert!(
        within.stdout_lines[0]
            .as_str()
            .unwrap()
            .starts_with("1. handbook.pdf, page "),
        "{}",
        within.stderr
    );

    // The data folder of this fixture has none of the server's data.
    assert!(elsewhere.list_documents().is_empty());
    assert_eq!(elsewhere.run_command(&["log", &job]).exit_code, 1);

    for (arguments, part) in [
        (
            &["run", "a.pdf"][..],
            "works on the data folder of this machine only",
        ),
        (
            &["tenant", "list"],
            "works on the data folder of this machine only",
        ),
        (&["log", &job, "--remote"], "--remote was removed"),
        (
            &["replay", &job, "--with", "a.wasm"],
            "--with is for the data folder only",
        ),
    ] {
        let refused = on_server(arguments, false);
        assert_eq!(refused.exit_code, 2, "{arguments:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(part), "{arguments:?}: {}", refused.stderr);
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    }
    let refused = elsewhere.run_command(&["pipeline", "list"]);
    assert_eq!(refused.exit_code, 2);
    assert!(
        refused.stderr.contains("works on a server only"),
        "{}",
        refused.stderr
    );
    assert_eq!(server.stop().exit_code, 0);
}

fn first_document_id(listed: &CommandOutput) -> String {
    listed.stdout_lines[0]["documents"][0]["document"]
        .as_str()
        .unwrap()
        .to_owned()
}

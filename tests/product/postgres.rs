//! The ledger on a PostgreSQL server instead of the data folder, with the real binary.

use serde_json::{Value, json};
use weir_test_services::PostgresServer;
use weir_tests::cluster::assert_job_is_complete;
use weir_tests::server::TestServer;
use weir_tests::tls::{FIRST_CERTIFICATE, SECOND_CERTIFICATE};
use weir_tests::{WeirFixture, WeirProcess, wait_until};

fn write_settings(weir: &WeirFixture, postgres: &PostgresServer) {
    let settings = format!(
        "[storage]\nledger = \"{}\"\n[cluster]\nlease_seconds = 3\n[server]\nmetrics_access = \"open\"\n",
        postgres.url()
    );
    weir.write_file("weir.toml", settings.as_bytes());
}

#[test]
fn commands_use_the_ledger_on_the_postgres_server() {
    let (weir, postgres) = (WeirFixture::new(), PostgresServer::start());
    let url = postgres.url();
    weir.write_file(
        "weir.toml",
        format!("[storage]\nledger = \"{url}\"\npostgres_password_env = \"A_PASSWORD\"\n").as_bytes(),
    );
    let run = |arguments: &[&str]| {
        let mut command = weir.weir_command(arguments);
        command.env("A_PASSWORD", "secret-password");
        let ended = WeirProcess::start(command).wait_for_exit();
        assert!(!ended.stderr.contains("secret-password"), "{}", ended.stderr);
        ended
    };
    let book = weir.write_file("book.pdf", &weir_samples::generate_book(3, 7));
    let ended = run(&["run", book.to_str().unwrap(), "--json"]);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    assert!(!weir.data_folder().join("ledger.db").exists());
    assert_eq!(postgres.query("SELECT name, pages FROM documents"), "book.pdf|3");
    assert_eq!(
        postgres.query("SELECT state, count(*) FROM jobs GROUP BY state"),
        "done|1"
    );

    // The second run finds the finished pages.
    let again = run(&["run", book.to_str().unwrap(), "--json"]);
    assert_eq!(
        again.single_event("document-done")["skipped"],
        3,
        "{}",
        again.stderr
    );
    let listed = run(&["documents", "--json"]);
    assert_eq!(listed.stdout_lines[0]["documents"][0]["done"], 3);
    let document = listed.stdout_lines[0]["documents"][0]["document"]
        .as_str()
        .unwrap()
        .to_owned();
    let found = run(&["search", "chapter", "--document", &document[..8], "--json"]);
    assert!(!found.stdout_lines[0]["hits"].as_array().unwrap().is_empty());

    assert_eq!(run(&["tenant", "create", "acme"]).exit_code, 0);
    assert_eq!(run(&["key", "create", "acme"]).exit_code, 0);
    assert_eq!(postgres.query("SELECT DISTINCT tenant FROM api_keys"), "acme");
    assert_eq!(run(&["tenant", "delete", "acme"]).exit_code, 0);
    assert_eq!(postgres.query("SELECT count(*) FROM tenants"), "0");

    let finding = |output: &weir_tests::CommandOutput| {
        let findings = output.stdout_lines[0]["findings"].as_array().unwrap().clone();
        findings
            .into_iter()
            .find(|finding| finding["check"] == "ledger")
            .unwrap()
    };
    let doctor = finding(&run(&["doctor", "--json"]));
    assert_eq!((&doctor["state"], &doctor["detail"]), (&json!("ok"), &json!(url)));
    drop(postgres);
    let doctor = finding(&run(&["doctor", "--json"]));
    assert_eq!(doctor["state"], "missing");
    let refused = run(&["run", book.to_str().unwrap()]);
    assert_ne!(refused.exit_code, 0);
    assert!(
        refused.stderr.contains(&url) && refused.stderr.contains("storage.ledger"),
        "{}",
        refused.stderr
    );
    let refused = weir.run_command(&["documents"]);
    assert!(
        refused.stderr.contains("storage.postgres_password_env"),
        "{}",
        refused.stderr
    );
}

#[test]
fn jobs_go_on_by_themselves_after_postgres_was_down() {
    let (weir, mut postgres) = (WeirFixture::new(), PostgresServer::start());
    write_settings(&weir, &postgres);
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant("acme", json!({}));
    let jobs: Vec<String> = (0..4)
        .map(|number| client.submit_file(&format!("{number}.pdf"), &weir_samples::generate_book(30, number)))
        .collect();
    client
        .follow_events(&jobs[0], 0)
        .find(|(_, event)| event["type"] == "page-done")
        .expect("a page is done");

    postgres.stop();
    let late = weir_samples::generate_book(2, 99);
    let refused = client.submit_files(&[("late.pdf", &late)], &json!({}), &[]);
    assert_eq!(
        (refused.status, refused.problem_type()),
        (503, "storage-unavailable"),
        "{:?}",
        refused.body
    );
    assert!(refused.headers.get("retry-after").is_some());
    let not_ready = client.get("/readyz");
    assert_eq!(
        (not_ready.status, not_ready.problem_type()),
        (503, "storage-unavailable")
    );
    wait_until(|| match client.metric_value("weir_store_retries_total") {
        retries if retries >= 2.0 => Ok(()),
        retries => Err(format!("{retries} calls of the ledger were repeated")),
    });
    postgres.start_again();
    let ready = client.get_bytes("/readyz");
    assert_eq!(ready.0, 200);
    for job in &jobs {
        assert_job_is_complete(&client, job, 30);
    }
    let late = client.submit_file("late.pdf", &late);
    assert_job_is_complete(&client, &late, 2);
    assert_eq!(
        postgres.query("SELECT count(*) FROM documents WHERE tenant = 'acme'"),
        "5"
    );
    server.stop();
}

#[test]
fn killed_server_resumes_its_jobs_from_postgres() {
    let (weir, postgres) = (WeirFixture::new(), PostgresServer::start());
    write_settings(&weir, &postgres);
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant("acme", json!({}));
    let key = client.key().to_owned();
    let jobs: Vec<String> = (0..3)
        .map(|number| client.submit_file(&format!("{number}.pdf"), &weir_samples::generate_book(20, number)))
        .collect();
    client
        .follow_events(&jobs[0], 0)
        .find(|(_, event)| event["type"] == "page-done")
        .expect("a page is done");
    server.kill();
    let server = TestServer::start(&weir, &[]);
    let client = server.client_with_key(&key);
    for job in &jobs {
        assert_job_is_complete(&client, job, 20);
    }
    let pages = postgres.query("SELECT count(*), count(DISTINCT (document, page)) FROM pages");
    assert_eq!(pages, "60|60");
    let documents: Value = client.get("/v1/documents").body;
    assert_eq!(documents["documents"].as_array().unwrap().len(), 3);
    server.stop();
}

#[test]
fn certificate_of_the_postgres_server_is_verified() {
    let (mut weir, postgres) = (WeirFixture::new(), PostgresServer::start());
    postgres.require_tls(FIRST_CERTIFICATE.chain, FIRST_CERTIFICATE.key);
    let ledger_finding = |weir: &WeirFixture, mode: &str| {
        let settings = format!("[storage]\nledger = \"{}?sslmode={mode}\"\n", postgres.url());
        weir.write_file("weir.toml", settings.as_bytes());
        let report = weir.run_command(&["doctor", "--json"]).stdout_lines[0].clone();
        let findings = report["findings"].as_array().unwrap();
        findings
            .iter()
            .find(|finding| finding["check"] == "ledger")
            .unwrap()
            .clone()
    };
    let unencrypted = ledger_finding(&weir, "disable");
    assert_eq!(unencrypted["state"], "missing", "{unencrypted}");
    let unknown = ledger_finding(&weir, "require");
    assert_eq!(unknown["state"], "missing", "{unknown}");
    assert!(
        unknown["detail"].as_str().unwrap().contains("certificate"),
        "{unknown}"
    );
    for (certificate, state) in [(SECOND_CERTIFICATE, "missing"), (FIRST_CERTIFICATE, "ok")] {
        let trusted = weir.write_file("trusted.pem", certificate.chain.as_bytes());
        weir.set_variable("SSL_CERT_FILE", trusted.to_str().unwrap());
        let finding = ledger_finding(&weir, "require");
        assert_eq!(finding["state"], state, "{finding}");
    }
    assert_eq!(weir.run_command(&["tenant", "create", "acme"]).exit_code, 0);
    assert_eq!(postgres.query("SELECT id FROM tenants"), "acme");
}

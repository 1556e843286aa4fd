//! Summaries by a language model at an HTTP endpoint that answers, fails or receives an API key.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use weir_conformance::list_files_containing;
use weir_tests::model_server::{ModelReply, ModelServer};
use weir_tests::{WeirFixture, WeirProcess, wait_until};

fn fake_summary(text: &str) -> String {
    // Twelve words, however long the prompt is.
    let words: Vec<&str> = text.split_whitespace().rev().take(12).collect();
    format!("In short: {}.", words.join(" "))
}

/// Creates a fixture with a configuration file. Returns the file's path too.
fn fixture_with_settings(settings: &str) -> (WeirFixture, String) {
    let weir = WeirFixture::new();
    let file = weir.write_file("weir.toml", settings.as_bytes());
    (weir, file.to_str().unwrap().to_owned())
}

fn summarize_arguments<'a>(config: &'a str, file: &'a Path) -> [&'a str; 6] {
    let file = file.to_str().unwrap();
    ["run", "--json", "--summarize", "--config", config, file]
}

#[test]
fn killed_summary_run_repeats_no_recorded_model_request() {
    let model = ModelServer::start(|text| ModelReply::Text(Duration::from_millis(20), fake_summary(text)));
    let (weir, config) = fixture_with_settings(&model.settings_toml("", ""));
    let file = weir.write_file("book.pdf", &weir_samples::generate_chapters(385));
    let arguments = summarize_arguments(&config, &file);
    let running = WeirProcess::start(weir.weir_command(&arguments));
    wait_until(|| match model.requests().len() {
        count if count >= 150 => Ok(()),
        count => Err(format!("{count} requests")),
    });
    running.send_signal(Signal::KILL);
    running.wait_for_exit();
    let killed = Instant::now();
    let before = model.requests();
    assert!(before.len() < 385, "all requests were sent before the kill");

    let ended = weir.run_command(&arguments);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    assert_eq!(ended.events_of_type("section-summarized").len(), 385);
    let summary = ended.single_event("document-summarized");
    assert_eq!(summary["sections"], 385);
    let mut times: HashMap<String, Vec<Instant>> = HashMap::new();
    for request in model.requests() {
        let ended_at = request.responded_at.unwrap_or(killed);
        times.entry(request.prompt).or_default().push(ended_at);
    }
    // At most four requests are in flight at once, and a few responses had not been committed.
    let twice = times.values().filter(|times| times.len() > 1);
    let lately = |at: &Instant| killed.saturating_duration_since(*at) < Duration::from_secs(2);
    let (lately, long_ago): (Vec<_>, Vec<_>) = twice.partition(|times| lately(&times[0]));
    assert!(
        long_ago.is_empty(),
        "{} recorded requests were repeated",
        long_ago.len()
    );
    assert!(
        lately.len() <= 8,
        "{} recent requests were repeated",
        lately.len()
    );
}

#[test]
fn job_fails_or_waits_as_set_when_all_providers_are_down() {
    let document = weir_samples::generate_chapters(3);
    let model = ModelServer::start(|_| ModelReply::ErrorStatus(503, "gone fishing".into()));
    let (one, config) = fixture_with_settings(&model.settings_toml(
        "[llm]\nwhen_all_providers_fail = \"fail\"\ninitial_backoff_millis = 1",
        "",
    ));
    let file = one.write_file("book.pdf", &document);
    let arguments = summarize_arguments(&config, &file);
    let ended = one.run_command(&arguments);
    let failed = ended.single_event("document-failed");
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(message.contains("model") && message.contains("503"), "{message}");
    assert_ne!(ended.exit_code, 0);
    assert_eq!(
        ended.events_of_type("page-done").len(),
        1,
        "the page is still done"
    );

    // This model works again while the job waits for it.
    let began = Instant::now();
    let model = ModelServer::start(move |text| match began.elapsed() < Duration::from_secs(4) {
        true => ModelReply::ErrorStatus(503, "gone fishing".into()),
        false => ModelReply::Text(Duration::ZERO, fake_summary(text)),
    });
    let settings = "[llm]\nwhen_all_providers_fail = \"wait\"\ninitial_backoff_millis = 50\nmax_backoff_seconds = 1\nbreaker_min_open_seconds = 1";
    let (other, config) = fixture_with_settings(&model.settings_toml(settings, ""));
    let file = other.write_file("book.pdf", &document);
    let arguments = summarize_arguments(&config, &file);
    let ended = other.run_command(&arguments);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    assert_eq!(ended.events_of_type("section-summarized").len(), 3);
    let refused = model.requests().len();
    assert!(refused > 4, "the model was down for a while: {refused} requests");
}

#[test]
fn api_key_is_sent_to_its_provider_and_nowhere_else() {
    const KEY: &str = "sk-7f3a-which-nobody-else-may-see";
    // This model repeats the key in its error message, as some real ones do.
    let model = ModelServer::start(|text| match text.contains("Chapter 2") {
        true => ModelReply::ErrorStatus(400, format!("invalid request by {KEY}")),
        false => ModelReply::Text(Duration::ZERO, fake_summary(text)),
    });
    let (weir, config) = fixture_with_settings(&model.settings_toml("", "key_env = \"MODEL_KEY\""));
    let file = weir.write_file("book.pdf", &weir_samples::generate_chapters(3));
    let arguments = summarize_arguments(&config, &file);
    let mut command = weir.weir_command(&arguments);
    command
        .env("MODEL_KEY", KEY)
        .env("WEIR_LOG", "weir=trace,hyper=debug,info");
    let ended = WeirProcess::start(command).wait_for_exit();
    let requests = model.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.authorization == Some(format!("Bearer {KEY}")))
    );
    let failed = ended.single_event("document-failed");
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(message.contains("invalid request by"), "{message}");
    let leaking_lines: Vec<&Value> = ended
        .stdout_lines
        .iter()
        .filter(|line| line.to_string().contains(KEY))
        .collect();
    assert!(leaking_lines.is_empty(), "{leaking_lines:?}");
    assert!(!ended.stderr.contains(KEY), "{}", ended.stderr);
    let found = list_files_containing(weir.folder(), KEY);
    assert!(found.is_empty(), "{found:?}");
}

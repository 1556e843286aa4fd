//! Summaries by a language model at an endpoint: a real HTTP server that answers, fails, or is told a secret.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use weir_tests::model::{Model, Said};
use weir_tests::{Running, Weir, eventually};

fn short(text: &str) -> String {
    // What a model says has nothing to do with the length of what it is asked.
    let words: Vec<&str> = text.split_whitespace().rev().take(12).collect();
    format!("In short: {}.", words.join(" "))
}

/// A weir whose only language model is this one.
fn weir(settings: &str) -> (Weir, String) {
    let weir = Weir::new();
    let file = weir.file("weir.toml", settings.as_bytes());
    (weir, file.to_str().unwrap().to_owned())
}

fn summarize<'a>(config: &'a str, file: &'a Path) -> [&'a str; 6] {
    let file = file.to_str().unwrap();
    ["run", "--json", "--summarize", "--config", config, file]
}

#[test]
fn killed_in_the_middle_of_385_chapters_nothing_that_was_answered_is_asked_again() {
    let model = Model::start(|text| Said::Text(Duration::from_millis(20), short(text)));
    let (weir, config) = weir(&model.settings("", ""));
    let file = weir.file("book.pdf", &weir_samples::chapters(385));
    let arguments = summarize(&config, &file);
    let running = Running::start(weir.command(&arguments));
    eventually(|| match model.asked().len() {
        asked if asked >= 150 => Ok(()),
        asked => Err(format!("{asked} questions")),
    });
    running.signal(Signal::KILL);
    running.wait();
    let killed = Instant::now();
    let before = model.asked();
    assert!(before.len() < 385, "all was asked before it was killed");

    let ended = weir.run(&arguments);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert_eq!(ended.events("section-summarized").len(), 385);
    let summary = ended.event("document-summarized");
    assert_eq!(summary["sections"], 385);
    let mut times: HashMap<String, Vec<Instant>> = HashMap::new();
    for asked in model.asked() {
        let answered = asked.answered.unwrap_or(killed);
        times.entry(asked.text).or_default().push(answered);
    }
    // The four that may be under way at once, and what had been answered but not yet written down.
    let twice = times.values().filter(|times| times.len() > 1);
    let lately = |at: &Instant| killed.saturating_duration_since(*at) < Duration::from_secs(2);
    let (lately, long_ago): (Vec<_>, Vec<_>) = twice.partition(|times| lately(&times[0]));
    assert!(long_ago.is_empty(), "{} paid twice", long_ago.len());
    assert!(lately.len() <= 8, "{} asked again", lately.len());
}

#[test]
fn with_every_provider_down_a_job_fails_by_name_or_waits_as_is_set() {
    let document = weir_samples::chapters(3);
    let model = Model::start(|_| Said::Refusal(503, "gone fishing".into()));
    let (one, config) = weir(&model.settings("[llm]\nwhen_down = \"fail\"\npause_millis = 1", ""));
    let file = one.file("book.pdf", &document);
    let arguments = summarize(&config, &file);
    let ended = one.run(&arguments);
    let failed = ended.event("document-failed");
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(message.contains("model") && message.contains("503"), "{message}");
    assert_ne!(ended.code, 0);
    assert_eq!(
        ended.events("page-done").len(),
        1,
        "the page is done all the same"
    );

    // This one comes back while it is waited for.
    let began = Instant::now();
    let model = Model::start(move |text| match began.elapsed() < Duration::from_secs(4) {
        true => Said::Refusal(503, "gone fishing".into()),
        false => Said::Text(Duration::ZERO, short(text)),
    });
    let settings =
        "[llm]\nwhen_down = \"wait\"\npause_millis = 50\nmax_pause_seconds = 1\nbreaker_open_seconds = 1";
    let (other, config) = weir(&model.settings(settings, ""));
    let file = other.file("book.pdf", &document);
    let arguments = summarize(&config, &file);
    let ended = other.run(&arguments);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert_eq!(ended.events("section-summarized").len(), 3);
    let refused = model.asked().len();
    assert!(refused > 4, "it was down for a while: {refused} questions");
}

/// Everything below a folder that holds these bytes.
fn holding(folder: &Path, secret: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            holding(&path, secret, found);
        } else if let Ok(bytes) = fs::read(&path)
            && bytes.windows(secret.len()).any(|part| part == secret.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn a_key_goes_to_its_provider_and_nowhere_else() {
    const KEY: &str = "sk-7f3a-which-nobody-else-may-see";
    // It repeats what it was told, as some do, where it refuses and where it answers.
    let model = Model::start(|text| match text.contains("Chapter 2") {
        true => Said::Refusal(400, format!("invalid request by {KEY}")),
        false => Said::Text(Duration::ZERO, short(text)),
    });
    let (weir, config) = weir(&model.settings("", "key_env = \"MODEL_KEY\""));
    let file = weir.file("book.pdf", &weir_samples::chapters(3));
    let arguments = summarize(&config, &file);
    let mut command = weir.command(&arguments);
    command
        .env("MODEL_KEY", KEY)
        .env("WEIR_LOG", "weir=trace,hyper=debug,info");
    let ended = Running::start(command).wait();
    let asked = model.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.authorization == Some(format!("Bearer {KEY}")))
    );
    let failed = ended.event("document-failed");
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(message.contains("invalid request by"), "{message}");
    let told: Vec<&Value> = ended
        .lines
        .iter()
        .filter(|line| line.to_string().contains(KEY))
        .collect();
    assert!(told.is_empty(), "{told:?}");
    assert!(!ended.errors.contains(KEY), "{}", ended.errors);
    let mut found = Vec::new();
    holding(weir.folder(), KEY, &mut found);
    assert!(found.is_empty(), "{found:?}");
}

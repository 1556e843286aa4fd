//! Jobs of a server whose language model denies requests or fails for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::model::{Model, Said};
use weir_tests::server::{Client, Server};
use weir_tests::{Weir, eventually};

/// A server whose only language model answers like this.
fn serve(weir: &Weir, settings: &str, answer: impl Fn() -> Said + Send + Sync + 'static) -> Server {
    let model = Model::start(move |_| answer());
    let file = weir.file("weir.toml", model.settings(settings, "").as_bytes());
    Server::start(weir, &["--config", file.to_str().unwrap()])
}

fn summarize(client: &Client) -> String {
    let answer = client.submit(
        &[("book.pdf", &weir_samples::chapters(3))],
        &json!({ "summarize": true }),
        &[],
    );
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

fn text() -> Said {
    Said::Text(Duration::ZERO, "It says what it says, and no more.".into())
}

#[test]
fn denied_summaries_fail_at_once_and_work_once_the_key_does() {
    let lifted = Arc::new(AtomicBool::new(false));
    let weir = Weir::new();
    let server = {
        let lifted = Arc::clone(&lifted);
        serve(&weir, "[llm]\ndenied_seconds = 1", move || {
            match lifted.load(Ordering::SeqCst) {
                true => text(),
                false => Said::Refusal(401, r#"{"error": {"message": "no such key"}}"#.into()),
            }
        })
    };
    let client = server.tenant("one", json!({}));
    let began = Instant::now();
    let job = summarize(&client);
    let events = client.wait(&job);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let failed = events
        .iter()
        .find(|event| event["type"] == "document-failed")
        .unwrap();
    assert_eq!(failed["error"]["kind"], "language-denied");
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(
        message.ends_with(
            "model: authentication failed (401): no such key; check llm.provider.model.key_env or key_file"
        ),
        "{message}"
    );
    let view = client.get(&format!("/v1/jobs/{job}")).body;
    assert_eq!(
        view["documents"][0]["done"], view["documents"][0]["pages"],
        "{view}"
    );
    assert_eq!(
        server.admin().measured(r#"weir_llm_denied{provider="model"}"#),
        1.0
    );

    lifted.store(true, Ordering::SeqCst);
    eventually(|| {
        let again = client.post(&format!("/v1/jobs/{job}/retry"), &json!({}));
        assert_eq!(again.status, 202, "{}", again.body);
        let id = again.body["id"].as_str().unwrap().to_owned();
        client.wait(&id);
        match &client.get(&format!("/v1/jobs/{id}")).body {
            done if done["state"] == "done" => Ok(()),
            failed => Err(failed.to_string()),
        }
    });
}

#[test]
fn job_that_waits_for_a_provider_says_which_and_why() {
    let answers = Arc::new(AtomicBool::new(false));
    let weir = Weir::new();
    let settings = "[llm]\npause_millis = 50\nmax_pause_seconds = 1\nbreaker_open_seconds = 1";
    let server = {
        let answers = Arc::clone(&answers);
        serve(&weir, settings, move || match answers.load(Ordering::SeqCst) {
            true => text(),
            false => Said::Refusal(503, "gone fishing".into()),
        })
    };
    let client = server.tenant("one", json!({}));
    let job = summarize(&client);
    let path = format!("/v1/jobs/{job}");
    let mut view = Value::Null;
    eventually(|| {
        view = client.get(&path).body;
        match view["held"] == "language-model" {
            true => Ok(()),
            false => Err(view.to_string()),
        }
    });
    let waits = &view["waits_for"][0];
    assert_eq!(waits["provider"], "model");
    assert!(waits["since_millis"].as_u64().unwrap() >= view["created_millis"].as_u64().unwrap());
    assert_eq!(waits["error"]["message"], "failed with status 503: gone fishing");
    let diagnosis = client.get(&format!("{path}/diagnosis")).body;
    assert_eq!(diagnosis["bottleneck"], Value::Null, "{diagnosis}");
    let sentence = diagnosis["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("the job waits for language models: model has failed for")
            && sentence.contains("503"),
        "{sentence}"
    );

    answers.store(true, Ordering::SeqCst);
    let events = client.wait(&job);
    assert!(
        events.iter().any(|event| event["type"] == "model-wait-started"),
        "{events:?}"
    );
    let view = client.get(&path).body;
    assert_eq!((&view["state"], &view["held"]), (&json!("done"), &Value::Null));
}

//! Jobs of a server whose language model denies requests or fails for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::model_server::{ModelReply, ModelServer};
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::{WeirFixture, wait_until};

/// Starts a server whose only language model responds with the result of `reply`.
fn start_server_with_model(
    weir: &WeirFixture,
    settings: &str,
    reply: impl Fn() -> ModelReply + Send + Sync + 'static,
) -> TestServer {
    let model = ModelServer::start(move |_| reply());
    let file = weir.write_file("weir.toml", model.settings_toml(settings, "").as_bytes());
    TestServer::start(weir, &["--config", file.to_str().unwrap()])
}

fn submit_summary_job(client: &ApiClient) -> String {
    let response = client.submit_files(
        &[("book.pdf", &weir_samples::generate_chapters(3))],
        &json!({ "summarize": true }),
        &[],
    );
    assert_eq!(response.status, 202, "{}", response.body);
    response.body["id"].as_str().unwrap().to_owned()
}

fn text_reply() -> ModelReply {
    ModelReply::Text(Duration::ZERO, "It says what it says, and no more.".into())
}

#[test]
fn job_with_denied_key_fails_at_once_and_works_when_retried() {
    let lifted = Arc::new(AtomicBool::new(false));
    let weir = WeirFixture::new();
    let server = {
        let lifted = Arc::clone(&lifted);
        start_server_with_model(&weir, "[llm]\ndenied_cooldown_seconds = 1", move || match lifted
            .load(Ordering::SeqCst)
        {
            true => text_reply(),
            false => ModelReply::ErrorStatus(401, r#"{"error": {"message": "no such key"}}"#.into()),
        })
    };
    let client = server.create_tenant("one", json!({}));
    let began = Instant::now();
    let job = submit_summary_job(&client);
    let events = client.wait_for_job(&job);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let failed = events
        .iter()
        .find(|event| event["type"] == "document-failed")
        .unwrap();
    assert_eq!(failed["error"]["kind"], "llm-denied");
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
        server
            .admin_client()
            .metric_value(r#"weir_llm_provider_denied{provider="model"}"#),
        1.0
    );

    lifted.store(true, Ordering::SeqCst);
    wait_until(|| {
        let again = client.post(&format!("/v1/jobs/{job}/retry"), &json!({}));
        assert_eq!(again.status, 202, "{}", again.body);
        let id = again.body["id"].as_str().unwrap().to_owned();
        client.wait_for_job(&id);
        match &client.get(&format!("/v1/jobs/{id}")).body {
            done if done["state"] == "done" => Ok(()),
            failed => Err(failed.to_string()),
        }
    });
}

#[test]
fn job_waiting_for_a_provider_names_the_provider_and_its_error() {
    let is_available = Arc::new(AtomicBool::new(false));
    let weir = WeirFixture::new();
    let settings =
        "[llm]\ninitial_backoff_millis = 50\nmax_backoff_seconds = 1\nbreaker_min_open_seconds = 1";
    let server = {
        let is_available = Arc::clone(&is_available);
        start_server_with_model(&weir, settings, move || {
            match is_available.load(Ordering::SeqCst) {
                true => text_reply(),
                false => ModelReply::ErrorStatus(503, "gone fishing".into()),
            }
        })
    };
    let client = server.create_tenant("one", json!({}));
    let job = submit_summary_job(&client);
    let path = format!("/v1/jobs/{job}");
    let mut view = Value::Null;
    wait_until(|| {
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

    is_available.store(true, Ordering::SeqCst);
    let events = client.wait_for_job(&job);
    assert!(
        events.iter().any(|event| event["type"] == "model-wait-started"),
        "{events:?}"
    );
    let view = client.get(&path).body;
    assert_eq!((&view["state"], &view["held"]), (&json!("done"), &Value::Null));
}

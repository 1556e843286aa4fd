//! Quotas of tenants, enforced while their jobs run.

use serde_json::{Value, json};
use weir_tests::model_server::{ModelReply, ModelServer};
use weir_tests::server::TestServer;
use weir_tests::{WeirFixture, wait_until};

#[test]
fn job_pauses_at_the_daily_page_quota_and_resumes_when_raised() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.create_tenant("one", json!({ "quotas": { "pages_per_day": 5 } }));
    let job = client.submit_file("book.pdf", &weir_samples::generate_book(40, 1));
    let path = format!("/v1/jobs/{job}");
    let mut view = Value::Null;
    wait_until(|| {
        view = client.get(&path).body;
        match view["held"] == "pages_per_day" {
            true => Ok(()),
            false => Err(view.to_string()),
        }
    });
    assert_eq!(view["documents"][0]["done"], 5, "{view}");
    let used = client.get("/v1/usage").body;
    assert_eq!(used["days"][0]["pages"], 5, "{used}");
    let refused = client.submit_files(&[("a.pdf", &weir_samples::generate_chapters(1))], &json!({}), &[]);
    assert_eq!(
        (refused.status, &refused.body["quota"]),
        (429, &json!("pages_per_day"))
    );

    let changed = server.admin_client().send_json(
        "PATCH",
        "/v1/tenants/one",
        &json!({ "quotas": { "pages_per_day": 0 } }),
    );
    assert_eq!(changed.status, 200, "{}", changed.body);
    let events = client.wait_for_job(&job);
    assert_eq!(
        events.iter().filter(|event| event["type"] == "page-done").count(),
        40
    );
    assert!(events.iter().any(|event| event["type"] == "job-held"));
    let view = client.get(&path).body;
    assert_eq!((&view["state"], &view["held"]), (&json!("done"), &Value::Null));
}

#[test]
fn language_model_calls_stop_at_the_daily_quota() {
    let model = ModelServer::start(|_| {
        ModelReply::Text(
            std::time::Duration::ZERO,
            "It says what it says, and no more.".into(),
        )
    });
    let weir = WeirFixture::new();
    let settings = model.settings_toml(
        "",
        "prompt_price_per_million = 2\ncompletion_price_per_million = 10",
    );
    let file = weir.write_file("weir.toml", settings.as_bytes());
    let server = TestServer::start(&weir, &["--config", file.to_str().unwrap()]);
    let client = server.create_tenant("one", json!({ "quotas": { "llm_calls_per_day": 4 } }));
    let options = json!({ "summarize": true });
    let submitted = client.submit_files(
        &[("book.pdf", &weir_samples::generate_chapters(20))],
        &options,
        &[],
    );
    let job = submitted.body["id"].as_str().unwrap();
    let events = client.wait_for_job(job);
    assert_eq!(model.requests().len(), 4);
    let failed = events
        .iter()
        .find(|event| event["type"] == "document-failed")
        .unwrap();
    assert_eq!(failed["error"]["kind"], "quota", "{failed}");
    let day = &client.get("/v1/usage").body["days"][0];
    assert_eq!(
        (
            &day["llm_calls"],
            &day["llm_prompt_tokens"],
            &day["llm_answer_tokens"],
            &day["llm_cost_micros"]
        ),
        (&json!(4), &json!(44), &json!(28), &json!(4 * (11 * 2 + 7 * 10)))
    );
    assert_eq!(
        server
            .admin_client()
            .metric_value(r#"weir_tenant_llm_calls_total{tenant="one"}"#),
        4.0
    );
}

//! Quotas of tenants, enforced while their jobs are in work.

use serde_json::{Value, json};
use weir_tests::model::{Model, Said};
use weir_tests::server::Server;
use weir_tests::{Weir, eventually};

#[test]
fn job_stops_at_the_pages_of_the_day_and_goes_on_with_more() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.tenant("one", json!({ "quotas": { "pages_per_day": 5 } }));
    let job = client.job("book.pdf", &weir_samples::book(40, 1));
    let path = format!("/v1/jobs/{job}");
    let mut view = Value::Null;
    eventually(|| {
        view = client.get(&path).body;
        match view["held"] == "pages_per_day" {
            true => Ok(()),
            false => Err(view.to_string()),
        }
    });
    assert_eq!(view["documents"][0]["done"], 5, "{view}");
    let used = client.get("/v1/usage").body;
    assert_eq!(used["days"][0]["pages"], 5, "{used}");
    let refused = client.submit(&[("a.pdf", &weir_samples::chapters(1))], &json!({}), &[]);
    assert_eq!(
        (refused.status, &refused.body["quota"]),
        (429, &json!("pages_per_day"))
    );

    let changed = server.admin().send(
        "PATCH",
        "/v1/tenants/one",
        &json!({ "quotas": { "pages_per_day": 0 } }),
    );
    assert_eq!(changed.status, 200, "{}", changed.body);
    let events = client.wait(&job);
    assert_eq!(
        events.iter().filter(|event| event["type"] == "page-done").count(),
        40
    );
    assert!(events.iter().any(|event| event["type"] == "job-held"));
    let view = client.get(&path).body;
    assert_eq!((&view["state"], &view["held"]), (&json!("done"), &Value::Null));
}

#[test]
fn calls_to_language_models_stop_at_the_quota_of_the_day() {
    let model = Model::start(|_| {
        Said::Text(
            std::time::Duration::ZERO,
            "It says what it says, and no more.".into(),
        )
    });
    let weir = Weir::new();
    let settings = model.settings("", "prompt_price = 2\nanswer_price = 10");
    let file = weir.file("weir.toml", settings.as_bytes());
    let server = Server::start(&weir, &["--config", file.to_str().unwrap()]);
    let client = server.tenant("one", json!({ "quotas": { "llm_calls_per_day": 4 } }));
    let options = json!({ "summarize": true });
    let submitted = client.submit(&[("book.pdf", &weir_samples::chapters(20))], &options, &[]);
    let job = submitted.body["id"].as_str().unwrap();
    let events = client.wait(job);
    assert_eq!(model.asked().len(), 4);
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
            .admin()
            .measured(r#"weir_tenant_llm_calls_total{tenant="one"}"#),
        4.0
    );
}

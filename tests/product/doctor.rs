//! `weir doctor` sends each language model a small request, reports the results, and never prints a key.

use weir_tests::model_server::{ModelReply, ModelServer};
use weir_tests::{WeirFixture, WeirProcess};

const KEY: &str = "sk-51c0-never-to-be-seen";

#[test]
fn doctor_calls_each_language_model_and_hides_api_keys() {
    let weir = WeirFixture::new();
    // This model rejects every request and repeats the API key in its error message.
    let model = ModelServer::start(|_| {
        let body = format!("{{\"error\": {{\"message\": \"no such key: {KEY}\"}}}}");
        ModelReply::ErrorStatus(401, body)
    });
    let others = "key_env = \"A_KEY\"\n\n\
        [[llm.provider]]\nname = \"nobody\"\nurl = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"\nkey_env = \"A_KEY\"\n\n\
        [[llm.provider]]\nname = \"absent\"\nkind = \"local\"\nmodel_file = \"no-such.gguf\"\n\n\
        [[llm.provider]]\nname = \"quotes\"\nkind = \"extractive\"";
    weir.write_file("weir.toml", model.settings_toml("", others).as_bytes());
    let mut command = weir.weir_command(&["doctor", "--json"]);
    command.env("A_KEY", KEY);
    let ended = WeirProcess::start(command).wait_for_exit();
    let sent = model
        .requests()
        .iter()
        .all(|request| request.authorization == Some(format!("Bearer {KEY}")));
    assert!(
        sent && !model.requests().is_empty(),
        "the provider must receive its key"
    );
    let output = format!("{:?} {}", ended.stdout_lines, ended.stderr);
    assert!(!output.contains(KEY), "{output}");
    let findings = ended.stdout_lines[0]["findings"].as_array().unwrap();
    let model_findings: Vec<(&str, &str)> = findings
        .iter()
        .filter(|finding| finding["check"] == "language model")
        .map(|finding| {
            (
                finding["state"].as_str().unwrap(),
                finding["detail"].as_str().unwrap(),
            )
        })
        .collect();
    for ((state, detail), (wanted, words)) in model_findings.iter().zip([
        (
            "degraded",
            "model, test: authentication failed (401): no such key: ***; check llm.provider.model.key_env or key_file",
        ),
        ("degraded", "nobody, m: cannot be reached"),
        ("missing", "the language model 'absent' cannot be set up"),
        ("ok", "quotes the sentences of a text"),
    ]) {
        assert!(*state == wanted && detail.contains(words), "{state}: {detail}");
    }
    assert_eq!(model_findings.len(), 4, "{model_findings:?}");
    assert_eq!(ended.exit_code, 1, "one model cannot be set up");
}

#[test]
fn doctor_checks_the_extractive_model_if_none_is_configured() {
    let weir = WeirFixture::new();
    let ended = weir.run_command(&["doctor", "--json"]);
    let findings = ended.stdout_lines[0]["findings"].as_array().unwrap();
    let model_finding = findings
        .iter()
        .find(|finding| finding["check"] == "language model")
        .unwrap();
    assert_eq!(model_finding["state"], "ok", "{model_finding}");
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
}

//! `weir doctor` asks each language model something small, says how each did, and shows nobody's key.

use weir_tests::model::{Model, Said};
use weir_tests::{Running, Weir};

const KEY: &str = "sk-51c0-never-to-be-seen";

#[test]
fn each_language_model_is_asked_and_no_key_is_shown() {
    let weir = Weir::new();
    // It denies every request, and repeats what it was sent.
    let model = Model::start(|_| {
        let body = format!("{{\"error\": {{\"message\": \"no such key: {KEY}\"}}}}");
        Said::Refusal(401, body)
    });
    let others = "key_env = \"A_KEY\"\n\n\
        [[llm.provider]]\nname = \"nobody\"\nurl = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"\nkey_env = \"A_KEY\"\n\n\
        [[llm.provider]]\nname = \"absent\"\nkind = \"local\"\nfile = \"no-such.gguf\"\n\n\
        [[llm.provider]]\nname = \"quotes\"\nkind = \"extractive\"";
    weir.file("weir.toml", model.settings("", others).as_bytes());
    let mut command = weir.command(&["doctor", "--json"]);
    command.env("A_KEY", KEY);
    let ended = Running::start(command).wait();
    let sent = model
        .asked()
        .iter()
        .all(|asked| asked.authorization == Some(format!("Bearer {KEY}")));
    assert!(
        sent && !model.asked().is_empty(),
        "it was not sent to whom it belongs"
    );
    let shown = format!("{:?} {}", ended.lines, ended.errors);
    assert!(!shown.contains(KEY), "{shown}");
    let findings = ended.lines[0]["findings"].as_array().unwrap();
    let told: Vec<(&str, &str)> = findings
        .iter()
        .filter(|finding| finding["what"] == "language model")
        .map(|finding| {
            (
                finding["state"].as_str().unwrap(),
                finding["detail"].as_str().unwrap(),
            )
        })
        .collect();
    for ((state, detail), (wanted, words)) in told.iter().zip([
        (
            "weak",
            "model, test: authentication failed (401): no such key: ***; check llm.provider.model.key_env or key_file",
        ),
        ("weak", "nobody, m: cannot be reached"),
        ("missing", "the language model 'absent' cannot be set up"),
        ("well", "quotes the sentences of a text"),
    ]) {
        assert!(*state == wanted && detail.contains(words), "{state}: {detail}");
    }
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(ended.code, 1, "one cannot be set up");
}

#[test]
fn without_any_set_up_the_one_that_quotes_is_tried() {
    let weir = Weir::new();
    let ended = weir.run(&["doctor", "--json"]);
    let findings = ended.lines[0]["findings"].as_array().unwrap();
    let told = findings
        .iter()
        .find(|finding| finding["what"] == "language model")
        .unwrap();
    assert_eq!(told["state"], "well", "{told}");
    assert_eq!(ended.code, 0, "{}", ended.errors);
}

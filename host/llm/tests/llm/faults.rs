//! Every way in which an endpoint can answer badly has its name.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use weir_core::language::{Fault, Question};
use weir_core::page::EncodedImage;
use weir_core::settings::TokenLimit;
use weir_llm::{OpenAi, OpenAiConfig, Provider as _, Reply, Secret};

use crate::endpoint::{Act, Endpoint, chunk, whole};
use crate::fakes::question;

async fn ask(act: Act) -> Result<Reply, Fault> {
    let endpoint = Endpoint::always(act).await;
    let asked = endpoint.provider();
    timeout(Duration::from_secs(5), asked.ask(&question("the text")))
        .await
        .expect("an end")
}

#[tokio::test]
async fn an_answer_comes_whole_and_as_a_stream() {
    let endpoint = Endpoint::always(Act::Answer).await;
    for stream in [true, false] {
        let asked = OpenAi::new(OpenAiConfig {
            stream,
            ..endpoint.config()
        })
        .unwrap();
        let reply = asked.ask(&question("Größe: 3 µm – ja.")).await.unwrap();
        let expected = Reply {
            text: "Größe: 3 µm – ja.".into(),
            quotes: Vec::new(),
            prompt_tokens: Some(11),
            answer_tokens: Some(7),
        };
        assert_eq!(reply, expected, "stream {stream}");
    }
    // Asked for a stream, some answer whole, and some in parts.
    let parts = json!({"choices": [{"message": {"content": [{"type": "text", "text": "the "}, {"type": "text", "text": "text"}]}}]});
    assert_eq!(ask(Act::Whole(parts.to_string())).await.unwrap().text, "the text");
    assert_eq!(
        ask(Act::Whole(whole(" the text\n", "eos"))).await.unwrap().text,
        "the text"
    );
    // A stream that has said that it ends need not say so twice.
    let ended = vec![chunk("the ", None), chunk("text", Some("stop"))];
    assert_eq!(ask(Act::Events(ended)).await.unwrap().text, "the text");
}

#[tokio::test]
async fn every_bad_answer_has_its_name() {
    let status = |status: u16, headers: &[(&'static str, &str)], body: &str| {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        Act::Status(status, headers, body.into())
    };
    let error = r#"{"error": {"message": "it\nbroke", "code": 7}}"#;
    for (act, kind, words) in [
        (status(429, &[], ""), "rate-limited", "says it is asked too often"),
        (
            status(429, &[("retry-after", "7")], ""),
            "rate-limited",
            "says it is asked too often, again in 7 s",
        ),
        (
            status(500, &[], error),
            "server-error",
            "failed with status 500: it broke",
        ),
        (
            status(503, &[], ""),
            "server-error",
            "failed with status 503: service unavailable",
        ),
        (
            status(400, &[], error),
            "refused",
            "does not take the question, with status 400: it broke",
        ),
        (
            status(401, &[], error),
            "denied",
            "authentication failed (401): it broke",
        ),
        (
            status(307, &[("location", "http://elsewhere/")], ""),
            "denied",
            "address refused (307)",
        ),
        (
            Act::Whole("<html>hello</html>".into()),
            "unintelligible",
            "no chat completion",
        ),
        (Act::Whole("[]".into()), "unintelligible", "no chat completion"),
        (Act::Whole("{}".into()), "unintelligible", "no choices"),
        (Act::Whole(error.into()), "server-error", "it broke"),
        (Act::Whole(String::new()), "empty", "answered with nothing"),
        (
            Act::Whole(r#"{"choices": []}"#.into()),
            "empty",
            "answered with nothing",
        ),
        (
            Act::Whole(whole("  \n", "stop")),
            "empty",
            "answered with nothing",
        ),
        (
            Act::Whole(whole("the te", "length")),
            "cut-short",
            "did not end its answer",
        ),
        (
            Act::Whole(whole("", "content_filter")),
            "filtered",
            "content filter",
        ),
        (
            Act::Events(vec!["{]".into()]),
            "unintelligible",
            "no chat completion",
        ),
        (
            Act::Events(vec![chunk("the", None), error.into()]),
            "server-error",
            "it broke",
        ),
        (
            Act::Events(vec![
                chunk("the", None),
                chunk("", Some("length")),
                "[DONE]".into(),
            ]),
            "cut-short",
            "did not end",
        ),
        (Act::Events(vec!["[DONE]".into()]), "empty", "nothing"),
        (Act::HalfStream, "broken-off", "broke off"),
        (Act::HalfBody, "broken-off", "broke off"),
        (Act::GoesSilent, "stalled", "went silent"),
        (Act::Endless, "unintelligible", "it does not end"),
    ] {
        let shown = format!("{act:?}");
        let fault = ask(act).await.unwrap_err();
        assert_eq!(fault.kind(), kind, "{shown}: {fault}");
        assert!(fault.to_string().contains(words), "{shown}: {fault}");
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let url = {
        let endpoint = Endpoint::always(Act::Answer).await;
        endpoint.config()
    };
    let closed = OpenAiConfig {
        url: "http://127.0.0.1:1/v1".into(),
        ..url
    };
    let fault = OpenAi::new(closed)
        .unwrap()
        .ask(&question("x"))
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), "unreachable");
    assert!(!fault.to_string().contains("127.0.0.1"), "{fault}");
    let closes = ask(Act::Closes).await.unwrap_err();
    assert!(
        matches!(closes, Fault::Unreachable(_) | Fault::BrokenOff),
        "{closes:?}"
    );
}

#[tokio::test]
async fn a_question_is_sent_as_it_is_meant() {
    let endpoint = Endpoint::always(Act::Answer).await;
    let config = OpenAiConfig {
        key: Secret::new("sk-very-secret"),
        ..endpoint.config()
    };
    let sees = OpenAi::new(config.clone()).unwrap();
    let page = Question {
        system: Some("You read pages.".into()),
        image: Some(EncodedImage {
            media_type: "image/jpeg",
            bytes: Arc::from(*b"\xff\xd8 page"),
        }),
        ..question("page 3")
    };
    assert_eq!(sees.ask(&page).await.unwrap().text, "page 3");
    let newer = OpenAiConfig {
        token_limit: TokenLimit::MaxCompletionTokens,
        temperature: None,
        stream: false,
        key: None,
        ..config
    };
    OpenAi::new(newer).unwrap().ask(&question("x")).await.unwrap();
    let seen = endpoint.seen.requests.lock().clone();
    assert_eq!(seen[0].authorization.as_deref(), Some("Bearer sk-very-secret"));
    assert_eq!(
        seen[0].body,
        json!({
            "model": "test-model",
            "messages": [
                {"role": "system", "content": "You read pages."},
                {"role": "user", "content": [
                    {"type": "text", "text": "Of this: page 3"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9ggcGFnZQ=="}},
                ]},
            ],
            "max_tokens": 100,
            "temperature": 0.0,
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
    assert_eq!(seen[1].authorization, None);
    assert_eq!(
        seen[1].body,
        json!({
            "model": "test-model",
            "messages": [{"role": "user", "content": "Of this: x"}],
            "max_completion_tokens": 100,
            "stream": false,
        })
    );
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_at_the_endpoint_too() {
    let endpoint = Endpoint::always(Act::GoesSilent).await;
    let patient = OpenAi::new(OpenAiConfig {
        stall: Duration::from_secs(3600),
        ..endpoint.config()
    })
    .unwrap();
    let dropped = timeout(Duration::from_millis(300), patient.ask(&question("x"))).await;
    assert!(dropped.is_err());
    let gone = async {
        while endpoint.seen.busy() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), gone)
        .await
        .expect("the connection is closed");
}

//! Responses of a real model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use weir_core::llm::{LanguageModel as _, LlmRequestKind, ProviderError};
use weir_llm::{
    LocalConfig, LocalProvider, Provider as _, ProviderEntry, ProviderOptions, Router, RouterConfig,
};

use crate::{build_request, local_config, open_local_provider};

/// A prompt whose response is one sentence.
const SHORT_PROMPT: &str = "What is the capital of France? Answer in one sentence.";
/// A prompt whose response takes longer than any of these tests.
const ENDLESS_PROMPT: &str =
    "Write the numbers from 1 to 1000, each on a line of its own, and leave none out.";

#[tokio::test]
async fn response_has_text_and_token_counts() {
    let local = open_local_provider();
    assert_eq!(local.model_name(), "SmolLM2-135M-Instruct.Q4_1");
    assert!(!local.supports_images());
    let remark = local.note_for_operator().unwrap();
    assert!(
        remark.starts_with("134 million parameters") && remark.contains("small"),
        "{remark}"
    );
    let request = build_request(SHORT_PROMPT, 60);
    let reply = local.call_model(&request).await.unwrap();
    assert!(reply.text.contains("Paris"), "{}", reply.text);
    assert_eq!(reply.text.trim(), reply.text);
    assert!(
        !reply.text.contains("<|"),
        "no special tokens of the template: {}",
        reply.text
    );
    let (prompt, answer) = (reply.prompt_tokens.unwrap(), reply.completion_tokens.unwrap());
    assert!(
        (15..40).contains(&prompt) && (3..40).contains(&answer),
        "{prompt} {answer}"
    );
    // With temperature 0, the response is the same each time.
    assert_eq!(local.call_model(&request).await.unwrap(), reply);
}

#[tokio::test]
async fn system_prompt_is_followed() {
    let local = open_local_provider();
    let mut request = build_request("Which city is it?", 200);
    request.system_prompt = Some("You know one thing: the city is called Quellheim.".into());
    let reply = local.call_model(&request).await.unwrap();
    assert!(reply.text.contains("Quellheim"), "{}", reply.text);
}

#[tokio::test]
async fn response_over_the_token_limit_is_cut_short() {
    let local = open_local_provider();
    assert_eq!(
        local.call_model(&build_request(ENDLESS_PROMPT, 12)).await,
        Err(ProviderError::TokenLimitReached)
    );
    assert_eq!(
        local.call_model(&build_request(ENDLESS_PROMPT, 1)).await,
        Err(ProviderError::TokenLimitReached)
    );
}

/// A truncated summary keeps its complete sentences.
#[tokio::test]
async fn truncated_summary_keeps_whole_sentences() {
    let local = open_local_provider();
    let mut request = build_request(
        "Tell a long story about a river and the people who live beside it.",
        90,
    );
    request.kind = LlmRequestKind::Map;
    let reply = local.call_model(&request).await.unwrap();
    assert!(reply.text.ends_with('.'), "{}", reply.text);
    assert_eq!(reply.completion_tokens, Some(90), "{}", reply.text);
}

/// Template tokens in a document are ordinary characters. If they were parsed as special tokens, each would be one token, and
/// the document could pose as the system prompt.
#[tokio::test]
async fn document_text_cannot_contain_template_tokens() {
    let local = open_local_provider();
    // The error of a request that is too long contains its number of tokens.
    let count = async |text: &str| {
        let mut request = build_request("Of this: {text}", 1020);
        request.text = text.into();
        match local.call_model(&request).await {
            Err(ProviderError::ContextTooLong { needed, .. }) => needed - 1020,
            other => panic!("{other:?}"),
        }
    };
    let plain = count("").await;
    let marks = count("<|im_end|><|im_start|>").await;
    assert!(plain < 20 && marks >= plain + 8, "{plain} {marks}");
}

#[tokio::test]
async fn request_over_the_context_is_refused_with_its_size() {
    let local = open_local_provider();
    let long = "A river carries what the hills have lost to rain. ".repeat(200);
    match local.call_model(&build_request(&long, 100)).await {
        Err(
            fault @ ProviderError::ContextTooLong {
                needed,
                context_tokens: 1024,
            },
        ) => {
            assert!((2000..3000).contains(&needed), "{needed}");
            assert!(fault.to_string().contains("raise context_tokens"), "{fault}");
        }
        other => panic!("{other:?}"),
    }
    // The context has room for the prompt, but not for the response.
    let fault = local.call_model(&build_request("Hello", 1024)).await.unwrap_err();
    assert_eq!(fault.kind(), "context-too-long");
    // A prompt that is too long with any tokenization is not tokenized; the error estimates its size from its bytes.
    let flood = build_request(&"river ".repeat(1_000_000), 10);
    let needed = flood.prompt.len() / 512 + 10;
    assert_eq!(
        local.call_model(&flood).await,
        Err(ProviderError::ContextTooLong {
            needed,
            context_tokens: 1024
        })
    );
    // The provider still works.
    assert!(local.call_model(&build_request(SHORT_PROMPT, 60)).await.is_ok());
}

/// A dropped request releases its sequence for the next request.
#[tokio::test]
async fn dropped_request_stops_generation() {
    let local = LocalProvider::inspect_file_and_start(LocalConfig {
        max_concurrency: 1,
        ..local_config()
    })
    .unwrap();
    local.call_model(&build_request(SHORT_PROMPT, 60)).await.unwrap();
    // The request occupies the only sequence for 900 tokens, some ten seconds.
    let endless = build_request(ENDLESS_PROMPT, 900);
    let dropped = timeout(Duration::from_millis(300), local.call_model(&endless)).await;
    assert!(dropped.is_err(), "{dropped:?}");
    // The next request needs that sequence and would time out without it.
    let began = Instant::now();
    let next = build_request(SHORT_PROMPT, 60);
    timeout(Duration::from_secs(60), local.call_model(&next))
        .await
        .unwrap()
        .unwrap();
    let whole = local.call_model(&endless);
    tokio::pin!(whole);
    let took = began.elapsed();
    // The endless request takes longer than that, so the sequence was released early.
    assert!(timeout(took, &mut whole).await.is_err(), "{took:?}");
}

/// Two requests are decoded together, each with its own response; the router holds the third one back until one of them has
/// ended.
#[tokio::test]
async fn concurrency_stays_within_the_configured_limit() {
    let entry = ProviderEntry {
        name: "own".into(),
        provider: Arc::new(open_local_provider()),
        options: ProviderOptions {
            max_concurrency: 2,
            ..ProviderOptions::default()
        },
    };
    let router = Router::new(vec![entry], RouterConfig::default());
    let ask = |city: &'static str| {
        let mut request = build_request("Which city is it?", 200);
        request.system_prompt = Some(format!("You know one thing: the city is called {city}."));
        router.request_completion(request)
    };
    let busiest = async {
        let mut busiest = 0;
        loop {
            busiest = busiest.max(router.stats().providers[0].calls_in_flight);
            let own = &router.stats().providers[0];
            if own.successes + own.failures >= 3 {
                return busiest;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (first, second, third, busiest) =
        tokio::join!(ask("Quellheim"), ask("Erlenau"), ask("Moorwies"), busiest);
    for (response, city) in [(first, "Quellheim"), (second, "Erlenau"), (third, "Moorwies")] {
        let response = response.unwrap();
        assert!(response.text.contains(city), "{city}: {}", response.text);
        assert_eq!(response.provider, "own");
    }
    assert_eq!(busiest, 2);
    let stats = router.stats();
    let own = &stats.providers[0];
    assert_eq!((own.successes, own.failures, own.cost_micros), (3, 0, 0));
    assert!(own.prompt_tokens > 60 && own.completion_tokens > 9, "{own:?}");
}

/// The timeout of the request ends it in the middle of the response.
#[tokio::test]
async fn request_timeout_stops_generation() {
    let entry = ProviderEntry {
        name: "own".into(),
        provider: Arc::new(open_local_provider()),
        options: ProviderOptions::default(),
    };
    let router = Router::new(vec![entry], RouterConfig::default());
    let mut request = build_request(ENDLESS_PROMPT, 900);
    request.timeout = Duration::from_secs(2);
    let began = Instant::now();
    let error = router.request_completion(request).await.unwrap_err();
    assert_eq!(error.kind(), "llm-timeout");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

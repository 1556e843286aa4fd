use weir_core::PriorityLane;
use weir_core::decision::{ComputeDevice, DeviceKind};

use super::*;

/// Counts words, so that texts with common words are similar.
struct WordHashEmbedder;

#[async_trait]
impl Embedder for WordHashEmbedder {
    async fn embed_texts(
        &self,
        _: &SchedulingContext,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<f32>>, InferenceError> {
        let vector = |text: &String| {
            let mut vector = vec![0.0_f32; 64];
            for word in text
                .to_lowercase()
                .split(|c: char| !c.is_alphanumeric())
                .filter(|w| w.len() > 3)
            {
                let bucket = word
                    .bytes()
                    .fold(7_usize, |hash, byte| hash.wrapping_mul(31) + usize::from(byte))
                    % 64;
                vector[bucket] += 1.0;
            }
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1.0);
            vector.into_iter().map(|x| x / length).collect()
        };
        Ok(texts.iter().map(vector).collect())
    }

    fn count_tokens(&self, text: &str) -> Result<u32, InferenceError> {
        Ok(text.split_whitespace().count() as u32)
    }

    fn vector_dimensions(&self) -> usize {
        64
    }

    fn max_input_tokens(&self) -> u32 {
        256
    }

    fn worker_count(&self) -> u32 {
        1
    }

    fn compute_device(&self) -> ComputeDevice {
        ComputeDevice {
            kind: DeviceKind::Cpu,
            memory_bytes: 0,
            cores: 1,
        }
    }
}

const TEXT: &str = "Weirs in rivers\nA weir is a low barrier across a river that raises the level of its water. \
    Many a weir was built so that mills could take water from the river.\nThe miller had a dog with one eye and three legs. \
    Where a weir raises the water, boats pass the river by a lock. \
    A weir also measures how much water a river carries, because the level above the weir depends on it.\nLunch was late on that day. \
    Fish need a ladder beside the weir to climb the river to where they were born. \
    In floods the weir is lowered so that the water of the river can pass.";

fn build_request(kind: LlmRequestKind, text: &str, max_tokens: u32) -> LlmRequest {
    LlmRequest {
        scheduling: SchedulingContext {
            tenant: "t".parse().unwrap(),
            lane: PriorityLane::Bulk,
            group: 0,
            batch_linger: Duration::from_secs(9),
            tenant_weight: 1.0,
        },
        kind,
        system_prompt: Some("You are a summarizer.".into()),
        prompt: "Summarize the text in five sentences. Do it well.\n---\n{text}\n---\nSummary:".into(),
        text: text.into(),
        image: None,
        max_response_tokens: max_tokens,
        timeout: Duration::from_secs(1),
        document: None,
    }
}

async fn call_extractive(request: &LlmRequest) -> Result<ProviderResponse, ProviderError> {
    ExtractiveProvider::new(Arc::new(WordHashEmbedder))
        .call_model(request)
        .await
}

/// Asserts that every quote is verbatim and in order, and that the response consists of quotes only.
fn assert_quotes_are_verbatim(reply: &ProviderResponse, text: &str) {
    let (mut response_end, mut source) = (0, 0);
    for quote in &reply.quotes {
        let answered = &reply.text[quote.response_range.start as usize..quote.response_range.end as usize];
        let quoted = &text[quote.source_range.start as usize..quote.source_range.end as usize];
        let words: Vec<_> = quoted.split_whitespace().collect();
        assert_eq!(answered, words.join(" "));
        assert!(
            quote.response_range.start as usize <= response_end + 1 && quote.source_range.start >= source
        );
        (response_end, source) = (quote.response_range.end as usize, quote.source_range.end);
    }
    assert_eq!(response_end, reply.text.len());
    assert!(!reply.text.contains("Summar"), "the prompt is not echoed");
}

#[tokio::test]
async fn summary_quotes_the_most_central_sentences() {
    let reply = call_extractive(&build_request(LlmRequestKind::Map, TEXT, 300))
        .await
        .unwrap();
    assert_quotes_are_verbatim(&reply, TEXT);
    assert_eq!(
        reply.quotes.len(),
        2,
        "a quarter of eight sentences: {}",
        reply.text
    );
    assert!(
        !reply.text.contains("dog") && !reply.text.contains("Lunch"),
        "{}",
        reply.text
    );
    assert!(
        !reply.text.contains("Weirs in rivers"),
        "a heading is no sentence"
    );
}

#[tokio::test]
async fn response_fits_the_token_limit_and_is_never_empty() {
    for (tokens, quotes) in [(1, 1), (20, 1), (300, 2)] {
        let reply = call_extractive(&build_request(LlmRequestKind::Preview, TEXT, tokens))
            .await
            .unwrap();
        assert_quotes_are_verbatim(&reply, TEXT);
        assert_eq!(reply.quotes.len(), quotes, "{tokens}: {}", reply.text);
    }
    let title = call_extractive(&build_request(LlmRequestKind::Title, TEXT, 20))
        .await
        .unwrap();
    assert_quotes_are_verbatim(&title, TEXT);
    assert!(title.text.split_whitespace().count() <= 12, "{}", title.text);
}

#[tokio::test]
async fn repeated_sentence_is_quoted_once() {
    let text = "A weir raises the level of the water. ".repeat(12) + "Fish need a ladder to climb the river.";
    let reply = call_extractive(&build_request(LlmRequestKind::Reduce, &text, 300))
        .await
        .unwrap();
    assert!(reply.text.contains("ladder"), "{}", reply.text);
}

#[tokio::test]
async fn a_text_without_sentences_has_nothing_to_quote() {
    for text in ["", "Contents\n1 Weirs\n2 Locks\n"] {
        let fault = call_extractive(&build_request(LlmRequestKind::Map, text, 300))
            .await
            .unwrap_err();
        assert_eq!(fault, ProviderError::NothingToQuote);
    }
}

#[tokio::test]
async fn long_text_is_sampled_evenly() {
    let text: String = (0..3000)
        .map(|i| format!("The river number {i} has a weir. "))
        .collect();
    let reply = call_extractive(&build_request(LlmRequestKind::Map, &text, 300))
        .await
        .unwrap();
    assert_quotes_are_verbatim(&reply, &text);
    assert_eq!(reply.quotes.len(), 5);
}

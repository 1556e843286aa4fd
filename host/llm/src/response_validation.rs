//! Detects responses that have a success status and no usable content: refusals, echoes of the prompt, and repetition.
//!
//! Such a response is an error: the router tries another provider, the cache does not store it, and it becomes neither page
//! text nor summary. Responses to components are not validated, because only the component knows what it expects. Responses of
//! quotes are not validated, because they repeat the document.

use std::collections::HashSet;

use unicode_segmentation::UnicodeSegmentation as _;
use weir_core::llm::{LlmRequest, LlmRequestKind, ProviderError};

use crate::provider::ProviderResponse;

/// Consecutive words of the prompt that a response does not contain by chance.
const ECHO_WORDS: usize = 8;
/// Consecutive words that good prose rarely repeats.
const REPETITION_WORDS: usize = 4;
/// A text of at least this many words is repetitive if less than this fraction of its word sequences is unique. Readable
/// summaries have 0.7 and more; repetitive ones have 0.5 and less (SmolLM2-135M).
const MIN_WORDS_FOR_REPETITION: usize = 24;
const MIN_UNIQUE_RATIO: f64 = 0.6;

/// Returns the error of an unusable response; `None` if the response is usable.
pub(crate) fn validate_response(request: &LlmRequest, reply: &ProviderResponse) -> Option<ProviderError> {
    if request.kind == LlmRequestKind::Component || !reply.quotes.is_empty() {
        return None;
    }
    if is_refusal(&reply.text) {
        return Some(ProviderError::Declined);
    }
    // The text of a page may repeat itself, as tables do.
    if request.kind == LlmRequestKind::Page {
        return None;
    }
    let words = lowercase_words(&reply.text);
    if echoes_prompt(&words, request) {
        return Some(ProviderError::PromptEcho);
    }
    is_repetitive(&words).then_some(ProviderError::Repetition)
}

fn lowercase_words(text: &str) -> Vec<String> {
    text.unicode_words().map(str::to_lowercase).collect()
}

/// Whether a response repeats the prompt. Quoted parts of the prompt, such as a title, come from the document and do not count.
/// Neither do words that the text contains, too.
fn echoes_prompt(response_words: &[String], request: &LlmRequest) -> bool {
    let parts = request.prompt.split("{text}");
    let instructions: Vec<Vec<String>> = parts
        .flat_map(|part| part.split(['"', '“', '”', '„', '«', '»']).step_by(2))
        .map(lowercase_words)
        .collect();
    let prompt_phrases: HashSet<&[String]> = instructions
        .iter()
        .flat_map(|part| part.windows(ECHO_WORDS))
        .collect();
    let mut echoed_phrases = response_words
        .windows(ECHO_WORDS)
        .filter(|row| prompt_phrases.contains(row))
        .peekable();
    if echoed_phrases.peek().is_none() {
        return false;
    }
    let text = lowercase_words(&request.text);
    let document_phrases: HashSet<&[String]> = text.windows(ECHO_WORDS).collect();
    echoed_phrases.any(|row| !document_phrases.contains(row))
}

fn is_repetitive(words: &[String]) -> bool {
    let rows = words.windows(REPETITION_WORDS);
    let all = rows.len();
    let new = rows.collect::<HashSet<_>>().len();
    words.len() >= MIN_WORDS_FOR_REPETITION && (new as f64) < MIN_UNIQUE_RATIO * all as f64
}

/// Whether the response is a refusal. The check uses phrases of English-speaking models: the response must be short, start with
/// an opening, and contain a refusal and a task. The task avoids false positives, because the apology in a letter rarely
/// mentions one. A refusal that is not recognized counts as an ordinary response.
fn is_refusal(response: &str) -> bool {
    const REFUSAL_OPENINGS: [&str; 8] = [
        "i'm sorry",
        "i am sorry",
        "sorry,",
        "i can't",
        "i cannot",
        "i'm unable",
        "i am unable",
        "unfortunately",
    ];
    const REFUSAL_PHRASES: [&str; 6] = ["can't", "cannot", "unable", "not able", "won't", "don't see"];
    const REFUSED_TASKS: [&str; 7] = [
        "assist",
        "transcri",
        "image",
        "read the",
        "that request",
        "help with",
        "process this",
    ];
    /// Maximum length of a refusal in bytes.
    const MAX_REFUSAL_BYTES: usize = 600;

    if response.len() > MAX_REFUSAL_BYTES {
        return false;
    }
    let response = response.trim_start().to_lowercase().replace('’', "'");
    let has = |words: &[&str]| words.iter().any(|word| response.contains(word));
    REFUSAL_OPENINGS
        .iter()
        .any(|opening| response.starts_with(opening))
        && has(&REFUSAL_PHRASES)
        && has(&REFUSED_TASKS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_core::ports::SchedulingContext;
    use weir_core::{PriorityLane, TenantId};

    use super::*;

    fn validate_summary(prompt: &str, text: &str, response: &str) -> Option<ProviderError> {
        let request = LlmRequest {
            scheduling: SchedulingContext {
                tenant: TenantId::default_tenant(),
                lane: PriorityLane::Bulk,
                group: 0,
                batch_linger: Duration::ZERO,
                tenant_weight: 1.0,
            },
            kind: LlmRequestKind::Map,
            system_prompt: None,
            prompt: prompt.into(),
            text: text.into(),
            image: None,
            max_response_tokens: 300,
            timeout: Duration::from_secs(60),
            document: None,
        };
        let reply = ProviderResponse {
            text: response.into(),
            quotes: Vec::new(),
            prompt_tokens: None,
            completion_tokens: None,
        };
        validate_response(&request, &reply)
    }

    const PROMPT: &str = "The text between the lines is the section \"Water, fish and silt in the lower Aune, and what \
        became of them\" of a document. Summarize it in three to five sentences, in its language.\n---\n{text}\n---\nSummary:";

    #[test]
    fn prompt_echo_is_rejected_unless_the_document_says_the_same() {
        let text = "The Aune is lower, livelier and muddier than it was.";
        for echoed in [
            "The text between the lines is the section \"4 Flood\" of a document. It is about floods.",
            "The Aune is low. OF A DOCUMENT: summarize it in three -- to five sentences!",
        ] {
            assert_eq!(
                validate_summary(PROMPT, text, echoed),
                Some(ProviderError::PromptEcho),
                "{echoed}"
            );
            assert_eq!(validate_summary(PROMPT, echoed, echoed), None, "{echoed}");
        }
        for fine in [
            text,
            "Water, fish and silt in the lower Aune, and what became of them, is about a river.",
            "The text between the lines is new.",
        ] {
            assert_eq!(validate_summary(PROMPT, text, fine), None, "{fine}");
        }
    }

    #[test]
    fn repetitive_response_is_rejected() {
        let looped = "The river has less water. The river has more fish. The river has more. The river has more fish. The \
            river has more than the river. The river has more fish. The river has more, the river has more.";
        assert_eq!(
            validate_summary(PROMPT, "", looped),
            Some(ProviderError::Repetition)
        );
        let fine = "Gate One is opened by 20 centimetres, Gate Two by 40 and Gate Three by 60. Gate One is closed first, Gate \
            Two is closed after it, and Gate Three is closed when the horn has been blown three times.";
        assert_eq!(validate_summary(PROMPT, "", fine), None);
        assert_eq!(validate_summary(PROMPT, "", "no no no no no no no no"), None);
    }

    #[test]
    fn refusals_are_distinguished_from_page_text() {
        for declined in [
            "I'm sorry, but I can't assist with that.",
            "I’m sorry, I cannot transcribe the text of copyrighted material.",
            "I cannot read the text in this image because it is too blurry.",
            "Unfortunately, I am unable to process this page. The image appears to be damaged.",
            "Sorry, I don't see an image.",
        ] {
            assert!(is_refusal(declined), "{declined}");
        }
        let page = "I'm sorry, but I can't assist with that. ".repeat(20);
        for page in [
            "I am sorry to tell you that the lock will be closed in May.",
            "Sorry, closed",
            "# Report\n\nI'm sorry, but I can't assist with that.",
            "I cannot come on Friday. Could you take the keys?",
            page.as_str(),
        ] {
            assert!(!is_refusal(page), "{page}");
        }
    }
}

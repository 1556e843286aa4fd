//! Tests of requests, prompt rendering and provider errors.

use super::*;
use crate::page::PriorityLane;

fn make_request(prompt: &str, text: &str) -> LlmRequest {
    LlmRequest {
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
        max_response_tokens: 100,
        timeout: Duration::from_secs(1),
        document: None,
    }
}

#[test]
fn placeholder_inside_the_text_is_not_replaced() {
    let request = make_request("Of this: {text}. Yes?", "so {text} it is");
    assert_eq!(request.render_prompt(), "Of this: so {text} it is. Yes?");
}

#[test]
fn debug_output_hides_prompt_and_text() {
    let debug_text = format!("{:?}", make_request("a private prompt", "a private text"));
    assert!(!debug_text.contains("private"), "{debug_text}");
}

#[test]
fn error_names_every_provider() {
    let error = LlmError::AllProvidersFailed(vec![
        (
            "near".into(),
            ProviderError::Unreachable("connection refused".into()),
        ),
        ("far".into(), ProviderError::TimedOut { seconds: 30 }),
    ]);
    assert_eq!(
        error.to_string(),
        "no language model responds: near cannot be reached: connection refused; far did not respond within 30 s"
    );
}

#[test]
fn technical_failure_is_not_reported_as_nothing_to_quote() {
    let down = |faults: &[ProviderError]| {
        let named = faults.iter().map(|fault| ("one".to_owned(), fault.clone()));
        LlmError::AllProvidersFailed(named.collect()).is_nothing_to_quote()
    };
    assert!(down(&[ProviderError::NothingToQuote]));
    assert!(down(&[
        ProviderError::Repetition,
        ProviderError::NothingToQuote,
        ProviderError::PromptEcho
    ]));
    assert!(!down(&[]));
    assert!(!down(&[ProviderError::Repetition]));
    assert!(!down(&[
        ProviderError::NothingToQuote,
        ProviderError::ResponseInterrupted
    ]));
}

#[test]
fn denials_name_the_setting_and_the_reason() {
    let denied = |status, denial| {
        let reason = "no".into();
        (
            "far".to_owned(),
            ProviderError::Denied {
                status,
                denial,
                reason,
            },
        )
    };
    let one = |status, denial| LlmError::AllProvidersFailed(vec![denied(status, denial)]);
    let error = one(401, DenialReason::Authentication);
    assert_eq!(error.kind(), "llm-denied");
    assert_eq!(
        error.to_string(),
        "no language model responds: far: authentication failed (401): no; check llm.provider.far.key_env or key_file"
    );
    for (denial, setting) in [
        (DenialReason::Permission, "llm.provider.far.model"),
        (DenialReason::ModelNotFound, "llm.provider.far.model"),
        (DenialReason::WrongAddress, "llm.provider.far.url"),
        (
            DenialReason::QuotaExhausted,
            "balance of the account of llm.provider.far",
        ),
        (
            DenialReason::UnsupportedParameter {
                setting: "temperature",
            },
            "llm.provider.far.temperature",
        ),
    ] {
        let message = one(400, denial).to_string();
        assert!(message.contains(setting), "{message}");
    }
    let down = ("near".to_owned(), ProviderError::ResponseInterrupted);
    let mixed = LlmError::AllProvidersFailed(vec![denied(401, DenialReason::Authentication), down]);
    assert_eq!(mixed.kind(), "llm-down");
}

//! Recognizes permanent errors by status, code and text, because services report them differently.

use weir_core::llm::DenialReason;

use super::error_body::ErrorDetails;

/// Error codes and types of an account without quota or credit.
const QUOTA_CODES: [&str; 4] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "exceeded_current_quota_error",
    "insufficient_balance",
];
/// Phrases of an account without quota or credit, for services without such codes. Messages about a limit per minute may
/// contain them, too, so they count only if the error names no time to retry.
const QUOTA_PHRASES: [&str; 10] = [
    "exceeded your current quota",
    "billing",
    "insufficient balance",
    "insufficient credit",
    "insufficient fund",
    "insufficient quota",
    "credit balance",
    "available credits",
    "spending limit",
    "account is suspended",
];
/// Error codes of a temporary limit per minute or per day.
const RATE_CODES: [&str; 3] = ["rate_limit_exceeded", "rate_limit_error", "too_many_requests"];
/// Phrases of a content filter that refused one request.
const FILTER_PHRASES: [&str; 3] = ["flagged", "moderation", "content policy"];
/// Phrases that say, together with the word `model`, that the model does not exist.
const MODEL_PHRASES: [&str; 6] = [
    "not exist",
    "not found",
    "invalid model",
    "not a valid model",
    "unknown model",
    "no such model",
];
/// Codes and phrases that say that the service does not support a parameter.
const PARAMETER_CODES: [&str; 3] = ["unsupported_parameter", "unsupported_value", "unknown_parameter"];
const PARAMETER_PHRASES: [&str; 5] = [
    "unsupported",
    "not supported",
    "unrecognized request argument",
    "extra inputs are not permitted",
    "extra_forbidden",
];
/// Parameters of each request, with the setting that changes each of them.
const PARAMETER_SETTINGS: [(&str, &str); 4] = [
    ("stream_options", "stream"),
    ("max_completion_tokens", "token_limit"),
    ("max_tokens", "token_limit"),
    ("temperature", "temperature"),
];

/// Returns the reason for which a provider denies all requests; `None` if the error concerns one request or is temporary.
/// `retry` says whether the error names a time to retry.
pub(super) fn classify_denial(status: u16, details: &ErrorDetails, retry: bool) -> Option<DenialReason> {
    let message = details.message.to_lowercase();
    let code = details.code.as_deref().unwrap_or_default();
    let kind = details.error_type.as_deref().unwrap_or_default();
    let coded = |codes: &[&str]| codes.contains(&code) || codes.contains(&kind);
    let has = |list: &[&str]| list.iter().any(|part| message.contains(part));
    let quota = coded(&QUOTA_CODES) || (!retry && !coded(&RATE_CODES) && has(&QUOTA_PHRASES));
    match status {
        402 => Some(DenialReason::QuotaExhausted),
        400 | 403 | 429 if quota => Some(DenialReason::QuotaExhausted),
        401 => Some(DenialReason::Authentication),
        403 if has(&FILTER_PHRASES) => None,
        403 => Some(DenialReason::Permission),
        404 | 410 => Some(DenialReason::ModelNotFound),
        300..=399 | 405 => Some(DenialReason::WrongAddress),
        400 | 422 if coded(&["model_not_found", "invalid_model"]) => Some(DenialReason::ModelNotFound),
        400 | 422 if message.contains("model") && has(&MODEL_PHRASES) => Some(DenialReason::ModelNotFound),
        400 | 422 if coded(&PARAMETER_CODES) || has(&PARAMETER_PHRASES) => {
            unsupported_parameter_denial(details, &message)
        }
        _ => None,
    }
}

/// Returns the denial for an unsupported parameter, if it is one that each request has.
fn unsupported_parameter_denial(details: &ErrorDetails, message: &str) -> Option<DenialReason> {
    let named = |name: &str| match details.parameter.as_deref() {
        Some(param) => param == name,
        None => message.contains(name),
    };
    let (_, setting) = PARAMETER_SETTINGS.into_iter().find(|(name, _)| named(name))?;
    Some(DenialReason::UnsupportedParameter { setting })
}

#[cfg(test)]
mod tests {
    use super::super::error_body::parse_error_body;
    use super::*;

    fn classify_body(status: u16, body: &str, retry: bool) -> Option<DenialReason> {
        classify_denial(status, &parse_error_body(body), retry)
    }

    #[test]
    fn denials_are_distinguished_from_temporary_limits() {
        let quota = [
            r#"{"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}}"#,
            r#"{"error": {"message": "Your account is suspended, please check your plan and billing details", "type": "exceeded_current_quota_error"}}"#,
            r#"{"error": {"message": "please check your plan and billing details"}}"#,
            r#"{"error": {"message": "Insufficient Balance"}}"#,
        ];
        for body in quota {
            assert_eq!(
                classify_body(429, body, false),
                Some(DenialReason::QuotaExhausted),
                "{body}"
            );
        }
        // Messages about a limit per minute with the same phrases.
        let gemini = r#"{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details."}}"#;
        assert_eq!(classify_body(429, gemini, true), None);
        let openai = r#"{"error": {"message": "Rate limit reached. Add a payment method at /account/billing", "code": "rate_limit_exceeded"}}"#;
        assert_eq!(classify_body(429, openai, false), None);
        let azure = r#"{"error": {"code": "429", "message": "You have exceeded token rate limit. Please retry after 3 seconds."}}"#;
        assert_eq!(classify_body(429, azure, true), None);
    }

    #[test]
    fn denials_are_distinguished_from_single_request_errors() {
        for (status, body, expected) in [
            (401, "", Some(DenialReason::Authentication)),
            (402, "", Some(DenialReason::QuotaExhausted)),
            (403, "no", Some(DenialReason::Permission)),
            (403, r#"{"error": {"message": "your input was flagged"}}"#, None),
            (404, "", Some(DenialReason::ModelNotFound)),
            (302, "", Some(DenialReason::WrongAddress)),
            (
                400,
                r#"{"error": {"message": "Invalid model: m"}}"#,
                Some(DenialReason::ModelNotFound),
            ),
            (
                400,
                r#"{"error": {"message": "Model Not Exist"}}"#,
                Some(DenialReason::ModelNotFound),
            ),
            (
                400,
                r#"{"error": {"message": "Your credit balance is too low"}}"#,
                Some(DenialReason::QuotaExhausted),
            ),
            (
                400,
                r#"{"error": {"message": "maximum context length is 4096 tokens", "code": "context_length_exceeded"}}"#,
                None,
            ),
            (
                400,
                r#"{"error": {"message": "max_tokens is too large: 9000", "param": "max_tokens"}}"#,
                None,
            ),
            (400, r#"{"error": {"message": "images are not supported"}}"#, None),
        ] {
            assert_eq!(classify_body(status, body, false), expected, "{status} {body}");
        }
    }

    #[test]
    fn unsupported_parameter_names_its_setting() {
        for (status, body, setting) in [
            (
                400,
                r#"{"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "param": "max_tokens", "code": "unsupported_parameter"}}"#,
                "token_limit",
            ),
            (
                400,
                r#"{"error": {"message": "Unsupported value: 'temperature' does not support 0 with this model.", "param": "temperature", "code": "unsupported_value"}}"#,
                "temperature",
            ),
            (
                422,
                r#"{"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"], "msg": "Extra inputs are not permitted"}]}, "type": "invalid_request_error"}"#,
                "stream",
            ),
        ] {
            assert_eq!(
                classify_body(status, body, false),
                Some(DenialReason::UnsupportedParameter { setting }),
                "{body}"
            );
        }
    }
}

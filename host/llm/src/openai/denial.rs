//! Errors that time does not heal, recognized by status, code and words: no two services agree on them.

use weir_core::language::Denial;

use super::wire::Said;

/// Codes and types that say that an account has no quota or credit left.
const QUOTA_CODES: [&str; 4] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "exceeded_current_quota_error",
    "insufficient_balance",
];
/// Words that say the same where there is no such code. A limit a minute may be explained with some of them, too, so they
/// count only without a time to try again.
const QUOTA_WORDS: [&str; 10] = [
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
/// Codes of a limit a minute or a day, which passes.
const RATE_CODES: [&str; 3] = ["rate_limit_exceeded", "rate_limit_error", "too_many_requests"];
/// Words of a filter that refused one request.
const FILTER_WORDS: [&str; 3] = ["flagged", "moderation", "content policy"];
/// Words that say that there is no such model, beside the word `model`.
const MODEL_WORDS: [&str; 6] = [
    "not exist",
    "not found",
    "invalid model",
    "not a valid model",
    "unknown model",
    "no such model",
];
/// Codes and words that say that a parameter is not taken.
const PARAMETER_CODES: [&str; 3] = ["unsupported_parameter", "unsupported_value", "unknown_parameter"];
const PARAMETER_WORDS: [&str; 5] = [
    "unsupported",
    "not supported",
    "unrecognized request argument",
    "extra inputs are not permitted",
    "extra_forbidden",
];
/// Parameters that each request has, with the setting that changes them.
const PARAMETERS: [(&str, &str); 4] = [
    ("stream_options", "stream"),
    ("max_completion_tokens", "token_limit"),
    ("max_tokens", "token_limit"),
    ("temperature", "temperature"),
];

/// Why a provider that answered with this status answers no request at all; `None` if it is about this request or passes by
/// itself. `retry` says whether the answer names a time to try again.
pub(super) fn denial(status: u16, said: &Said, retry: bool) -> Option<Denial> {
    let words = said.words.to_lowercase();
    let code = said.code.as_deref().unwrap_or_default();
    let kind = said.kind.as_deref().unwrap_or_default();
    let coded = |codes: &[&str]| codes.contains(&code) || codes.contains(&kind);
    let has = |list: &[&str]| list.iter().any(|part| words.contains(part));
    let quota = coded(&QUOTA_CODES) || (!retry && !coded(&RATE_CODES) && has(&QUOTA_WORDS));
    match status {
        402 => Some(Denial::Quota),
        400 | 403 | 429 if quota => Some(Denial::Quota),
        401 => Some(Denial::Authentication),
        403 if has(&FILTER_WORDS) => None,
        403 => Some(Denial::Permission),
        404 | 410 => Some(Denial::NotFound),
        300..=399 | 405 => Some(Denial::Address),
        400 | 422 if coded(&["model_not_found", "invalid_model"]) => Some(Denial::NotFound),
        400 | 422 if words.contains("model") && has(&MODEL_WORDS) => Some(Denial::NotFound),
        400 | 422 if coded(&PARAMETER_CODES) || has(&PARAMETER_WORDS) => parameter(said, &words),
        _ => None,
    }
}

/// The parameter that the provider does not take, if it is one that each request has.
fn parameter(said: &Said, words: &str) -> Option<Denial> {
    let named = |name: &str| match said.param.as_deref() {
        Some(param) => param == name,
        None => words.contains(name),
    };
    let (_, setting) = PARAMETERS.into_iter().find(|(name, _)| named(name))?;
    Some(Denial::Parameter { setting })
}

#[cfg(test)]
mod tests {
    use super::super::wire::said;
    use super::*;

    fn of(status: u16, body: &str, retry: bool) -> Option<Denial> {
        denial(status, &said(body), retry)
    }

    #[test]
    fn denials_are_told_from_limits_that_pass() {
        let quota = [
            r#"{"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}}"#,
            r#"{"error": {"message": "Your account is suspended, please check your plan and billing details", "type": "exceeded_current_quota_error"}}"#,
            r#"{"error": {"message": "please check your plan and billing details"}}"#,
            r#"{"error": {"message": "Insufficient Balance"}}"#,
        ];
        for body in quota {
            assert_eq!(of(429, body, false), Some(Denial::Quota), "{body}");
        }
        // A limit a minute that is explained with the same words.
        let gemini = r#"{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details."}}"#;
        assert_eq!(of(429, gemini, true), None);
        let openai = r#"{"error": {"message": "Rate limit reached. Add a payment method at /account/billing", "code": "rate_limit_exceeded"}}"#;
        assert_eq!(of(429, openai, false), None);
        let azure = r#"{"error": {"code": "429", "message": "You have exceeded token rate limit. Please retry after 3 seconds."}}"#;
        assert_eq!(of(429, azure, true), None);
    }

    #[test]
    fn denials_are_told_from_errors_of_one_request() {
        for (status, body, expected) in [
            (401, "", Some(Denial::Authentication)),
            (402, "", Some(Denial::Quota)),
            (403, "no", Some(Denial::Permission)),
            (403, r#"{"error": {"message": "your input was flagged"}}"#, None),
            (404, "", Some(Denial::NotFound)),
            (302, "", Some(Denial::Address)),
            (
                400,
                r#"{"error": {"message": "Invalid model: m"}}"#,
                Some(Denial::NotFound),
            ),
            (
                400,
                r#"{"error": {"message": "Model Not Exist"}}"#,
                Some(Denial::NotFound),
            ),
            (
                400,
                r#"{"error": {"message": "Your credit balance is too low"}}"#,
                Some(Denial::Quota),
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
            assert_eq!(of(status, body, false), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_parameter_that_is_not_taken_names_its_setting() {
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
                of(status, body, false),
                Some(Denial::Parameter { setting }),
                "{body}"
            );
        }
    }
}

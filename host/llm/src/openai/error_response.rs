//! Converts error responses into errors of the provider.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use weir_core::llm::ProviderError;

use super::denial_classification::classify_denial;
use super::error_body::{ErrorDetails, parse_error_body, shorten_to_one_line};

/// Returns the error of a response with a status other than 200.
pub(super) fn error_from_response(
    status: StatusCode,
    headers: &HeaderMap,
    body: &str,
    redact: impl Fn(String) -> String,
) -> ProviderError {
    let details = parse_error_body(body);
    let after = parse_retry_after_headers(headers, SystemTime::now())
        .or_else(|| parse_retry_after_text(&details.message));
    let mut reason = shorten_to_one_line(&redact(details.message.clone()));
    if reason.is_empty() {
        reason = status
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_lowercase();
    }
    let number = status.as_u16();
    if let Some(denial) = classify_denial(number, &details, after.is_some()) {
        return ProviderError::Denied {
            status: number,
            denial,
            reason,
        };
    }
    match number {
        429 => ProviderError::RateLimited { after },
        500..=599 | 408 | 409 | 425 => ProviderError::ServerError {
            status: number,
            reason,
            after: parse_retry_after_headers(headers, SystemTime::now()),
        },
        400..=499 => ProviderError::RequestRejected {
            status: number,
            reason,
        },
        _ => ProviderError::InvalidResponse(format!("status {number}")),
    }
}

/// Returns the error of a response that has status 200 but an error body, either the whole body or one event of a stream. The
/// `code` in the body may be an HTTP status.
pub(super) fn error_from_status_200_body(details: &ErrorDetails) -> ProviderError {
    let code = details.code.as_deref().and_then(|code| code.parse().ok());
    // Without a status, the text can still show an exhausted quota.
    let status = code.filter(|code| (400..600).contains(code)).unwrap_or(429);
    let after = parse_retry_after_text(&details.message);
    let reason = shorten_to_one_line(&details.message);
    match classify_denial(status, details, after.is_some()) {
        Some(denial) => ProviderError::Denied {
            status,
            denial,
            reason,
        },
        None if code == Some(429) => ProviderError::RateLimited { after },
        None => ProviderError::ServerError {
            status: 200,
            reason,
            after: None,
        },
    }
}

/// Parses the time to wait from the text of an error, as in "Please retry after 3 seconds" or "try again in 1.5s".
fn parse_retry_after_text(text: &str) -> Option<Duration> {
    let text = text.to_lowercase();
    let (_, rest) = ["retry after ", "retry in ", "try again in ", "try again after "]
        .iter()
        .find_map(|phrase| text.split_once(phrase))?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, unit) = rest.split_at(end);
    let number: f64 = number.trim_end_matches('.').parse().ok()?;
    let unit = unit.trim_start();
    let seconds = match () {
        () if unit.starts_with("ms") || unit.starts_with("milli") => number / 1000.0,
        () if unit.starts_with('m') => number * 60.0,
        () if unit.starts_with('h') => number * 3600.0,
        () => number,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// Parses `Retry-After` as seconds or as a date. A date is compared with the `Date` header of the response, because the clocks
/// may differ.
fn parse_retry_after_headers(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim().to_owned());
    let seconds = |text: &str| {
        let seconds: f64 = text.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    };
    if let Some(exact) = text("retry-after-ms").and_then(|millis| seconds(&millis)) {
        return Some(exact / 1000);
    }
    let after = text(RETRY_AFTER.as_str())?;
    if let Some(after) = seconds(&after) {
        return Some(after);
    }
    let date = httpdate::parse_http_date(&after).ok()?;
    let sent = text(DATE.as_str()).and_then(|date| httpdate::parse_http_date(&date).ok());
    Some(date.duration_since(sent.unwrap_or(now)).unwrap_or_default())
}

/// Describes a transport error without the address, which may be confidential.
pub(super) fn describe_transport_error(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "the connection timed out".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    shorten_to_one_line(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::error_body::MAX_ERROR_TEXT_CHARS;
    use super::*;

    fn build_headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    reqwest::header::HeaderName::from_static(name),
                    value.parse().unwrap(),
                )
            })
            .collect()
    }

    fn error_for(status: u16, pairs: &[(&'static str, &str)], body: &str) -> ProviderError {
        error_from_response(
            StatusCode::from_u16(status).unwrap(),
            &build_headers(pairs),
            body,
            |text| text.replace("sk-1", "***"),
        )
    }

    #[test]
    fn retry_after_header_is_parsed_in_all_formats() {
        let after = |pairs: &[(&'static str, &str)]| match error_for(429, pairs, "") {
            ProviderError::RateLimited { after } => after.map(|after| after.as_millis()),
            other => panic!("{other:?}"),
        };
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[("retry-after", "7")]), Some(7000));
        assert_eq!(after(&[("retry-after", "0.5")]), Some(500));
        assert_eq!(
            after(&[("retry-after", "9"), ("retry-after-ms", "1500")]),
            Some(1500)
        );
        assert_eq!(after(&[("retry-after", "soon")]), None);
        assert_eq!(after(&[("retry-after", "-1")]), None);
        assert_eq!(after(&[("retry-after", "1e300")]), None);
        let dates = [
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"),
        ];
        assert_eq!(after(&dates), Some(30_000), "relative to the Date header");
        assert_eq!(
            after(&dates[1..]),
            Some(0),
            "relative to the local clock, long past"
        );
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let millis = after(&[("retry-after", &soon)]).unwrap();
        assert!((55_000..=60_000).contains(&millis), "{millis}");
    }

    #[test]
    fn retry_after_is_parsed_from_error_text() {
        for (words, millis) in [
            ("Please retry after 3 seconds.", Some(3000)),
            (
                "Rate limit reached. Please try again in 7.66s. Need more?",
                Some(7660),
            ),
            ("try again in 20ms", Some(20)),
            ("try again in 2 minutes", Some(120_000)),
            ("try again in a while", None),
            ("slow down", None),
        ] {
            let after = parse_retry_after_text(words).map(|after| after.as_millis());
            assert_eq!(after, millis, "{words}");
        }
    }

    #[test]
    fn each_status_maps_to_its_error() {
        let json = r#"{"error": {"message": "wrong key\n sk-1", "type": "x", "code": null}}"#;
        assert_eq!(
            error_for(401, &[], json).to_string(),
            "authentication failed (401): wrong key ***"
        );
        assert_eq!(error_for(302, &[], "").kind(), "denied");
        assert_eq!(error_for(404, &[], "nothing here").kind(), "denied");
        assert_eq!(
            error_for(400, &[], r#"{"error": "too long"}"#),
            ProviderError::RequestRejected {
                status: 400,
                reason: "too long".into()
            }
        );
        assert_eq!(
            error_for(422, &[], r#"{"detail": [{"msg": "x"}]}"#).kind(),
            "request-rejected"
        );
        assert_eq!(
            error_for(503, &[("retry-after", "3")], "<html>"),
            ProviderError::ServerError {
                status: 503,
                reason: "<html>".into(),
                after: Some(Duration::from_secs(3))
            }
        );
        let broke = r#"{"error": {"message": "no money", "code": "insufficient_quota"}}"#;
        assert_eq!(error_for(429, &[], broke).kind(), "denied");
        assert_eq!(error_for(206, &[], "").kind(), "invalid-response");
        let long = shorten_to_one_line(&"word ".repeat(1000));
        assert!(long.chars().count() <= MAX_ERROR_TEXT_CHARS + 1 && long.ends_with('…'));
    }
}

//! What a status that is not 200 means.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use weir_core::language::Fault;

use super::wire::{self, one_line};

/// What some endpoints say under 429 when there is nothing left to be waited for.
const NO_MONEY: [&str; 2] = ["insufficient_quota", "billing_hard_limit_reached"];

/// The fault of an answer with such a status.
pub(super) fn of(
    status: StatusCode,
    headers: &HeaderMap,
    body: &str,
    blacken: impl Fn(String) -> String,
) -> Fault {
    let said = wire::said(body);
    let mut reason = one_line(&blacken(said.words));
    if reason.is_empty() {
        reason = status
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_lowercase();
    }
    let code = said.code.unwrap_or_default();
    let number = status.as_u16();
    match number {
        429 if NO_MONEY.contains(&code.as_str()) => Fault::Denied {
            status: number,
            reason,
        },
        429 => Fault::RateLimited {
            after: retry_after(headers, SystemTime::now()),
        },
        500..=599 | 408 | 409 | 425 => Fault::Server {
            status: number,
            reason,
            after: retry_after(headers, SystemTime::now()),
        },
        // A way elsewhere is not followed, since the key would go along.
        300..=399 | 401..=405 => Fault::Denied {
            status: number,
            reason,
        },
        400..=499 => Fault::Refused {
            status: number,
            reason,
        },
        _ => Fault::Unintelligible(format!("status {number}")),
    }
}

/// `Retry-After` in seconds or as a date, which is taken relative to the answer's own date: two clocks seldom agree.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
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

/// What a call that got no answer says, without the address: the settings have it, and it may be nobody's business.
pub(super) fn words_of(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no connection in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    one_line(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::wire::WORDS;
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
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

    fn fault(status: u16, pairs: &[(&'static str, &str)], body: &str) -> Fault {
        of(
            StatusCode::from_u16(status).unwrap(),
            &headers(pairs),
            body,
            |text| text.replace("sk-1", "***"),
        )
    }

    #[test]
    fn retry_after_is_read_as_seconds_as_a_date_and_in_milliseconds() {
        let after = |pairs: &[(&'static str, &str)]| match fault(429, pairs, "") {
            Fault::RateLimited { after } => after.map(|after| after.as_millis()),
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
        assert_eq!(after(&dates), Some(30_000), "by its own clock");
        assert_eq!(after(&dates[1..]), Some(0), "by ours, long past");
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let millis = after(&[("retry-after", &soon)]).unwrap();
        assert!((55_000..=60_000).contains(&millis), "{millis}");
    }

    #[test]
    fn every_status_has_its_fault_and_its_words() {
        let json = r#"{"error": {"message": "wrong key\n sk-1", "type": "x", "code": null}}"#;
        assert_eq!(
            fault(401, &[], json).to_string(),
            "lets nobody in with status 401: wrong key ***; check its url, model and key"
        );
        assert_eq!(fault(302, &[], "").kind(), "denied");
        assert_eq!(fault(404, &[], "nothing here").kind(), "denied");
        assert_eq!(
            fault(400, &[], r#"{"error": "too long"}"#),
            Fault::Refused {
                status: 400,
                reason: "too long".into()
            }
        );
        assert_eq!(fault(422, &[], r#"{"detail": [{"msg": "x"}]}"#).kind(), "refused");
        assert_eq!(
            fault(503, &[("retry-after", "3")], "<html>"),
            Fault::Server {
                status: 503,
                reason: "<html>".into(),
                after: Some(Duration::from_secs(3))
            }
        );
        let broke = r#"{"error": {"message": "no money", "code": "insufficient_quota"}}"#;
        assert_eq!(fault(429, &[], broke).kind(), "denied");
        assert_eq!(fault(206, &[], "").kind(), "unintelligible");
        let long = one_line(&"word ".repeat(1000));
        assert!(long.chars().count() <= WORDS + 1 && long.ends_with('…'));
    }
}

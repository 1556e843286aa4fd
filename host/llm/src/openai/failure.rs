//! What a status that is not 200 means.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use weir_core::language::Fault;

use super::denial::denial;
use super::wire::{self, Said, one_line};

/// The fault of an answer with such a status.
pub(super) fn of(
    status: StatusCode,
    headers: &HeaderMap,
    body: &str,
    blacken: impl Fn(String) -> String,
) -> Fault {
    let said = wire::said(body);
    let after = retry_after(headers, SystemTime::now()).or_else(|| retry_after_in_words(&said.words));
    let mut reason = one_line(&blacken(said.words.clone()));
    if reason.is_empty() {
        reason = status
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_lowercase();
    }
    let number = status.as_u16();
    if let Some(denial) = denial(number, &said, after.is_some()) {
        return Fault::Denied {
            status: number,
            denial,
            reason,
        };
    }
    match number {
        429 => Fault::RateLimited { after },
        500..=599 | 408 | 409 | 425 => Fault::Server {
            status: number,
            reason,
            after: retry_after(headers, SystemTime::now()),
        },
        400..=499 => Fault::Refused {
            status: number,
            reason,
        },
        _ => Fault::Unintelligible(format!("status {number}")),
    }
}

/// The fault of an error that comes under status 200, at once or in the middle of a stream. Its code may be a status.
pub(super) fn under_success(said: &Said) -> Fault {
    let code = said.code.as_deref().and_then(|code| code.parse().ok());
    // Without one, the words still tell an exhausted quota.
    let status = code.filter(|code| (400..600).contains(code)).unwrap_or(429);
    let after = retry_after_in_words(&said.words);
    let reason = one_line(&said.words);
    match denial(status, said, after.is_some()) {
        Some(denial) => Fault::Denied {
            status,
            denial,
            reason,
        },
        None if code == Some(429) => Fault::RateLimited { after },
        None => Fault::Server {
            status: 200,
            reason,
            after: None,
        },
    }
}

/// The time that an error's words ask to wait, as in "Please retry after 3 seconds" or "try again in 1.5s".
fn retry_after_in_words(words: &str) -> Option<Duration> {
    let words = words.to_lowercase();
    let (_, rest) = ["retry after ", "retry in ", "try again in ", "try again after "]
        .iter()
        .find_map(|phrase| words.split_once(phrase))?;
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
    fn retry_after_is_read_from_the_words_of_an_error() {
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
            let after = retry_after_in_words(words).map(|after| after.as_millis());
            assert_eq!(after, millis, "{words}");
        }
    }

    #[test]
    fn every_status_has_its_fault_and_its_words() {
        let json = r#"{"error": {"message": "wrong key\n sk-1", "type": "x", "code": null}}"#;
        assert_eq!(
            fault(401, &[], json).to_string(),
            "authentication failed (401): wrong key ***"
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

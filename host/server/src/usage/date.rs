//! Dates in the API, in the format `2026-11-21`.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use weir_core::usage::UsageDay;

/// A date in UTC from 1970 to 9999. There is no usage before 1970, so an earlier date is parsed as the first day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct UtcDate(pub(crate) UsageDay);

impl fmt::Display for UtcDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = i32::try_from(self.0).ok().and_then(NaiveDate::from_epoch_days);
        date.unwrap_or(NaiveDate::MAX).fmt(f)
    }
}

impl FromStr for UtcDate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
        // Without this check, signs, spaces, short months and years of five digits are accepted.
        let date = date.filter(|date| text.len() == 10 && date.to_string() == text);
        let date = date.ok_or_else(|| format!("'{text}' is not a date: use the format 2026-11-21"))?;
        Ok(Self(UsageDay::try_from(date.to_epoch_days()).unwrap_or(0)))
    }
}

impl TryFrom<String> for UtcDate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<UtcDate> for String {
    fn from(date: UtcDate) -> Self {
        date.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip_as_text() {
        for (day, text) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_778, "2026-11-21"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(UtcDate(day).to_string(), text);
            assert_eq!(text.parse(), Ok(UtcDate(day)));
        }
        for day in (0..200_000).step_by(7) {
            assert_eq!(UtcDate(day).to_string().parse(), Ok(UtcDate(day)));
        }
    }

    #[test]
    fn dates_before_1970_are_the_first_day() {
        for text in ["0000-01-01", "0000-02-29", "1600-02-29", "1969-12-31"] {
            assert_eq!(text.parse(), Ok(UtcDate(0)), "{text}");
        }
    }

    #[test]
    fn invalid_dates_are_rejected() {
        for text in [
            "",
            "2026-02-30",
            "2026-13-01",
            "2026-00-10",
            "2026-1-1",
            "1900-02-29",
            "2026-11-21x",
            " 2026-11-21",
            "+10000-01-01",
            "+026-11-21",
        ] {
            assert!(text.parse::<UtcDate>().is_err(), "{text}");
        }
    }
}

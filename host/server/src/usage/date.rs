//! Dates in the API, in the format `2026-11-21`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use weir_core::usage::UsageDay;

/// A date in UTC from 1970 to 9999. There is no usage before 1970, so an earlier date is parsed as the first day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct UtcDate(pub(crate) UsageDay);

/// The number of days from March 1 of the year 0 to January 1, 1970.
const DAYS_FROM_YEAR_0_TO_1970: i64 = 719_468;
const DAYS_OF_400_YEARS: i64 = 146_097;

impl fmt::Display for UtcDate {
    /// Uses the algorithm of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": a year that starts in March has its leap
    /// day at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = i64::from(self.0) + DAYS_FROM_YEAR_0_TO_1970;
        let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for UtcDate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a date: use the format 2026-11-21");
        let mut parts = text.splitn(3, '-');
        let mut part = |digits: usize| {
            let part = parts
                .next()
                .filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
            part.parse::<i64>().ok()
        };
        let (year, month, day) = part(4)
            .zip(part(2))
            .zip(part(2))
            .map(|((year, month), day)| (year, month, day))
            .ok_or_else(wrong)?;
        let year_from_march = year - i64::from(month <= 2);
        let (era, year_of_era) = (year_from_march.div_euclid(400), year_from_march.rem_euclid(400));
        let from_march = (month + 9) % 12;
        let day_of_year = (153 * from_march + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * DAYS_OF_400_YEARS + day_of_era - DAYS_FROM_YEAR_0_TO_1970;
        if year < 1970 {
            // The calendar repeats every 400 years, so this date is valid if the date 2000 years later is.
            let later = format!("{:04}-{month:02}-{day:02}", year + 2000);
            return later.parse::<Self>().map(|_| Self(0)).map_err(|_| wrong());
        }
        let date = UsageDay::try_from(days).map(Self).map_err(|_| wrong())?;
        // A date that does not exist, such as February 30, is formatted as another date.
        if date.to_string() == text {
            Ok(date)
        } else {
            Err(wrong())
        }
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
            "+026-11-21",
        ] {
            assert!(text.parse::<UtcDate>().is_err(), "{text}");
        }
    }
}

//! Days on the wire: `2026-11-21`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use weir_core::usage::Day;

/// A day (UTC), from 1970 to 9999. Nothing was used before, so an earlier day is read as the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Date(pub(crate) Day);

/// Days from March 1st of the year 0 to 1970.
const SHIFT: i64 = 719_468;
const DAYS_OF_400_YEARS: i64 = 146_097;

impl fmt::Display for Date {
    /// After Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years that begin in March have their leap day last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = i64::from(self.0) + SHIFT;
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

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no day: write it as 2026-11-21");
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
        let days = era * DAYS_OF_400_YEARS + day_of_era - SHIFT;
        if year < 1970 {
            // The calendar repeats itself every 400 years, so this day is one if that of 2000 years later is.
            let later = format!("{:04}-{month:02}-{day:02}", year + 2000);
            return later.parse::<Self>().map(|_| Self(0)).map_err(|_| wrong());
        }
        let date = Day::try_from(days).map(Self).map_err(|_| wrong())?;
        // A day that does not exist, as February 30th, is another day when it is written out.
        if date.to_string() == text {
            Ok(date)
        } else {
            Err(wrong())
        }
    }
}

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_there_and_back() {
        for (day, text) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_778, "2026-11-21"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(Date(day).to_string(), text);
            assert_eq!(text.parse(), Ok(Date(day)));
        }
        for day in (0..200_000).step_by(7) {
            assert_eq!(Date(day).to_string().parse(), Ok(Date(day)));
        }
    }

    #[test]
    fn days_before_all_use_are_the_first() {
        for text in ["0000-01-01", "0000-02-29", "1600-02-29", "1969-12-31"] {
            assert_eq!(text.parse(), Ok(Date(0)), "{text}");
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
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
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }
}

//! Conversions between values and columns: ids are text, numbers are signed integers, structures are JSON.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sql_connection::{SqlResult, SqlRow};

/// Converts a number to a signed integer. Numbers above 2⁶³ − 1 become 2⁶³ − 1; no count of bytes, milliseconds or events is
/// that large.
pub(super) fn to_sql_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn to_sql_millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Converts a row count to the value of a `LIMIT` clause.
pub(super) fn to_sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn read_and_parse_text<T: FromStr<Err: Display>>(row: &SqlRow<'_>, column: usize) -> SqlResult<T> {
    row.convert_text(column, |text| text.parse().map_err(|e: T::Err| e.to_string()))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> SqlResult<String> {
    Ok(serde_json::to_string(value)?)
}

pub(super) fn read_json<T: DeserializeOwned>(row: &SqlRow<'_>, column: usize) -> SqlResult<T> {
    row.convert_text(column, |text| {
        serde_json::from_str(text).map_err(|e| e.to_string())
    })
}

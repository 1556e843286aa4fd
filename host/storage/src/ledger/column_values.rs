//! Conversions between values and columns: ids are text, numbers are signed integers, structures are JSON.

use std::fmt::Display;
use std::num::TryFromIntError;
use std::str::FromStr;

use rusqlite::types::Type;
use rusqlite::{Result, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Converts a number to an SQLite integer. Numbers above 2⁶³ − 1 become 2⁶³ − 1; no count of bytes, milliseconds or events is
/// that large.
pub(super) fn to_sql_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts a row count to the value of a `LIMIT` clause.
pub(super) fn to_sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn read_u64(row: &Row<'_>, column: usize) -> Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|e| negative_integer_error(column, e))
}

pub(super) fn read_optional_u64(row: &Row<'_>, column: usize) -> Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    number
        .map(u64::try_from)
        .transpose()
        .map_err(|e| negative_integer_error(column, e))
}

pub(super) fn read_and_parse_text<T: FromStr<Err: Display>>(row: &Row<'_>, column: usize) -> Result<T> {
    row.get_ref(column)?
        .as_str()?
        .parse()
        .map_err(|e: T::Err| invalid_value_error(column, e.to_string().into()))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

pub(super) fn read_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|e| invalid_value_error(column, e.into()))
}

fn negative_integer_error(column: usize, error: TryFromIntError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, error.into())
}

/// Returns the error for an invalid value of a text column.
pub(super) fn invalid_value_error(
    column: usize,
    error: Box<dyn std::error::Error + Send + Sync>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
}

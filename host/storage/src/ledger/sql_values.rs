//! Values of statements and of result columns, the same for SQLite and PostgreSQL.

use std::borrow::Cow;

/// A value of a statement's parameter, or of a column.
///
/// Booleans are integers, because SQLite has no others. PostgreSQL's columns of type `boolean` are converted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SqlValue<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(Cow<'a, [u8]>),
}

impl SqlValue<'_> {
    pub(super) fn into_owned(self) -> SqlValue<'static> {
        match self {
            Self::Null => SqlValue::Null,
            Self::Integer(number) => SqlValue::Integer(number),
            Self::Real(number) => SqlValue::Real(number),
            Self::Text(text) => SqlValue::Text(Cow::Owned(text.into_owned())),
            Self::Blob(bytes) => SqlValue::Blob(Cow::Owned(bytes.into_owned())),
        }
    }
}

/// A type whose values can be parameters.
pub(super) trait ToSqlValue {
    fn to_sql_value(&self) -> SqlValue<'_>;
}

/// Makes the parameters `?1`, `?2` and so on of a statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::ledger::sql_values::ToSqlValue::to_sql_value(&$value)),*]
    };
}
pub(super) use params;

impl<T: ToSqlValue + ?Sized> ToSqlValue for &T {
    fn to_sql_value(&self) -> SqlValue<'_> {
        (**self).to_sql_value()
    }
}

impl<T: ToSqlValue> ToSqlValue for Option<T> {
    fn to_sql_value(&self) -> SqlValue<'_> {
        self.as_ref().map_or(SqlValue::Null, T::to_sql_value)
    }
}

impl ToSqlValue for str {
    fn to_sql_value(&self) -> SqlValue<'_> {
        SqlValue::Text(Cow::Borrowed(self))
    }
}

impl ToSqlValue for String {
    fn to_sql_value(&self) -> SqlValue<'_> {
        self.as_str().to_sql_value()
    }
}

impl ToSqlValue for [u8] {
    fn to_sql_value(&self) -> SqlValue<'_> {
        SqlValue::Blob(Cow::Borrowed(self))
    }
}

impl ToSqlValue for Vec<u8> {
    fn to_sql_value(&self) -> SqlValue<'_> {
        self.as_slice().to_sql_value()
    }
}

impl ToSqlValue for i64 {
    fn to_sql_value(&self) -> SqlValue<'_> {
        SqlValue::Integer(*self)
    }
}

impl ToSqlValue for u32 {
    fn to_sql_value(&self) -> SqlValue<'_> {
        SqlValue::Integer(i64::from(*self))
    }
}

impl ToSqlValue for bool {
    fn to_sql_value(&self) -> SqlValue<'_> {
        SqlValue::Integer(i64::from(*self))
    }
}

impl ToSqlValue for f64 {
    fn to_sql_value(&self) -> SqlValue<'_> {
        SqlValue::Real(*self)
    }
}

/// A type that is read from a column.
pub(super) trait FromSqlValue: Sized {
    /// Converts a value. The error says what is wrong with it.
    fn from_sql_value(value: SqlValue<'_>) -> Result<Self, String>;
}

fn unexpected_value<T>(expected: &str, value: &SqlValue<'_>) -> Result<T, String> {
    let found = match value {
        SqlValue::Null => "null",
        SqlValue::Integer(_) => "an integer",
        SqlValue::Real(_) => "a real number",
        SqlValue::Text(_) => "text",
        SqlValue::Blob(_) => "bytes",
    };
    Err(format!("{found} instead of {expected}"))
}

impl<T: FromSqlValue> FromSqlValue for Option<T> {
    fn from_sql_value(value: SqlValue<'_>) -> Result<Self, String> {
        match value {
            SqlValue::Null => Ok(None),
            value => T::from_sql_value(value).map(Some),
        }
    }
}

impl FromSqlValue for i64 {
    fn from_sql_value(value: SqlValue<'_>) -> Result<Self, String> {
        match value {
            SqlValue::Integer(number) => Ok(number),
            value => unexpected_value("an integer", &value),
        }
    }
}

impl FromSqlValue for u64 {
    fn from_sql_value(value: SqlValue<'_>) -> Result<Self, String> {
        let number = i64::from_sql_value(value)?;
        Self::try_from(number).map_err(|_| format!("{number} is negative"))
    }
}

impl FromSqlValue for u32 {
    fn from_sql_value(value: SqlValue<'_>) -> Result<Self, String> {
        let number = i64::from_sql_value(value)?;
        Self::try_from(number).map_err(|_| format!("{number} is not between 0 and 2^32 - 1"))
    }
}

impl FromSqlValue for bool {
    fn from_sql_value(value: SqlValue<'_>) -> Result<Self, String> {
        i64::from_sql_value(value).map(|number| number != 0)
    }
}

impl FromSqlValue for f64 {
    fn from_sql_value(value: SqlValue<'_>) -> Result<Self, String> {
        match value {
            SqlValue::Real(number) => Ok(number),
            value => unexpected_value("a real number", &value),
        }
    }
}

impl FromSqlValue for String {
    fn from_sql_value(value: SqlValue<'_>) -> Result<Self, String> {
        match value {
            SqlValue::Text(text) => Ok(text.into_owned()),
            value => unexpected_value("text", &value),
        }
    }
}

impl FromSqlValue for Vec<u8> {
    fn from_sql_value(value: SqlValue<'_>) -> Result<Self, String> {
        match value {
            SqlValue::Blob(bytes) => Ok(bytes.into_owned()),
            value => unexpected_value("bytes", &value),
        }
    }
}

impl<const N: usize> FromSqlValue for [u8; N] {
    fn from_sql_value(value: SqlValue<'_>) -> Result<Self, String> {
        match value {
            SqlValue::Blob(bytes) => {
                Self::try_from(&*bytes).map_err(|_| format!("{} bytes instead of {N}", bytes.len()))
            }
            value => unexpected_value("bytes", &value),
        }
    }
}

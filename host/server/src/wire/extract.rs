//! Extractors that refuse as [`Problem`].

use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request};
use axum::http::request;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize as _, Deserializer};
use serde_json::Value;

use crate::problem::Problem;

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

/// The query of the address.
pub(crate) struct Params<T>(pub(crate) T);

/// The variable parts of the path. One that cannot be an id names nothing, so it is not found.
pub(crate) struct Route<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<Value>::from_request(request, state).await {
            Ok(Json(body @ Value::Object(_))) => T::deserialize(whole(body))
                .map(Self)
                .map_err(|e| Problem::unprocessable(e.to_string())),
            Ok(Json(_)) => Err(Problem::unprocessable("the body is to be a JSON object")),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Problem::unsupported(
                "send the body as `Content-Type: application/json`",
            )),
            Err(JsonRejection::BytesRejection(BytesRejection::FailedToBufferBody(
                FailedToBufferBody::LengthLimitError(_),
            ))) => Err(Problem::too_large("the body is larger than this path takes")),
            Err(JsonRejection::BytesRejection(_)) => {
                Err(Problem::incomplete("the body broke off: send it again"))
            }
            Err(other) => Err(Problem::invalid(other.body_text())),
        }
    }
}

/// For a field that is an object: derived code would also take a list of its fields' values.
pub(crate) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<T, D::Error> {
    maybe_object(from)?.ok_or_else(|| D::Error::custom("expected an object"))
}

/// The same for a field that may be null.
pub(crate) fn maybe_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        value @ Value::Object(_) => T::deserialize(value).map(Some).map_err(D::Error::custom),
        _ => Err(D::Error::custom("expected an object")),
    }
}

/// The same with 5.0 as 5: JSON has one kind of number, and some clients write whole ones so.
fn whole(value: Value) -> Value {
    /// From here on not every whole number is one of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(whole).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, whole(value)))
            .collect(),
        other => other,
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(wrong) => Err(Problem::invalid(wrong.body_text())),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Route<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(route)) => Ok(Self(route)),
            Err(_) => Err(Problem::not_found("there is nothing under this id")),
        }
    }
}

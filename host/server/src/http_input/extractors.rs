//! Extractors that reject invalid requests with a [`Problem`].

use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request};
use axum::http::request;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize as _, Deserializer};
use serde_json::Value;

use crate::problem::Problem;

/// Former and present names of request fields.
const RENAMED_FIELDS: [(&str, &str); 10] = [
    ("judge", "canary_analysis"),
    ("on_trap", "on_component_failure"),
    ("call_millis", "call_timeout_millis"),
    ("memory_bytes", "max_memory_bytes"),
    ("jobs", "min_jobs"),
    ("slower", "max_slowdown"),
    ("failures", "max_failure_increase"),
    ("timeouts", "max_timeout_increase"),
    ("traps", "max_trap_increase"),
    ("skipped", "max_skipped_increase"),
];

/// Extracts a body that is a JSON object.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// Extracts the query parameters of the URL.
pub(crate) struct QueryParams<T>(pub(crate) T);

/// Extracts the parameters of the path. A malformed id gets status 404, like an id that does not exist.
pub(crate) struct PathParams<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<Value>::from_request(request, state).await {
            Ok(Json(body @ Value::Object(_))) => T::deserialize(convert_whole_floats_to_integers(body))
                .map(Self)
                .map_err(|e| Problem::unprocessable(describe_json_error(&e))),
            Ok(Json(_)) => Err(Problem::unprocessable("the body must be a JSON object")),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Problem::unsupported_media_type(
                "send the body as `Content-Type: application/json`",
            )),
            Err(JsonRejection::BytesRejection(BytesRejection::FailedToBufferBody(
                FailedToBufferBody::LengthLimitError(_),
            ))) => Err(Problem::too_large("the body is larger than this path accepts")),
            Err(JsonRejection::BytesRejection(_)) => {
                Err(Problem::incomplete_body("the body is incomplete: send it again"))
            }
            Err(other) => Err(Problem::invalid_request(other.body_text())),
        }
    }
}

/// Describes why a request body cannot be deserialized. For the former name of a field, the message contains its present name.
pub(crate) fn describe_json_error(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match find_renamed_field(&message) {
        Some((former, present)) => format!("field `{former}` was renamed to `{present}`"),
        None => message,
    }
}

/// Finds the renamed field that an error of `deny_unknown_fields` is about. The present name must be among the fields that the
/// error lists, because the same name may mean something else in another object.
fn find_renamed_field(message: &str) -> Option<(&'static str, &'static str)> {
    let (unknown, expected) = message
        .strip_prefix("unknown field `")?
        .split_once("`, expected ")?;
    RENAMED_FIELDS
        .into_iter()
        .find(|(former, present)| *former == unknown && expected.contains(&format!("`{present}`")))
}

/// Deserializes a field that must be an object. Derived code would also accept an array of the field values.
pub(crate) fn deserialize_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<T, D::Error> {
    deserialize_optional_object(from)?.ok_or_else(|| D::Error::custom("expected an object"))
}

/// Deserializes a field that must be an object or null.
pub(crate) fn deserialize_optional_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        value @ Value::Object(_) => T::deserialize(value).map(Some).map_err(D::Error::custom),
        _ => Err(D::Error::custom("expected an object")),
    }
}

/// Replaces whole floating-point numbers by integers (5.0 by 5), since some JSON clients write integers that way.
fn convert_whole_floats_to_integers(value: Value) -> Value {
    /// 2^53: an `f64` represents every smaller integer exactly.
    const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < MAX_EXACT_INTEGER => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(convert_whole_floats_to_integers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, convert_whole_floats_to_integers(value)))
            .collect(),
        other => other,
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(wrong) => Err(Problem::invalid_request(wrong.body_text())),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(route)) => Ok(Self(route)),
            Err(_) => Err(Problem::not_found("nothing exists under this id")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_field_is_found_only_where_it_was_renamed() {
        let found = find_renamed_field("unknown field `jobs`, expected one of `automatic`, `min_jobs`");
        assert_eq!(found, Some(("jobs", "min_jobs")));
        for message in [
            "unknown field `jobs`, expected one of `components`, `canary_analysis`",
            "unknown field `color`, expected `min_jobs`",
            "missing field `jobs`",
        ] {
            assert_eq!(find_renamed_field(message), None, "{message}");
        }
    }
}

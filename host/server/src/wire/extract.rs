//! Extractors that refuse as [`Problem`].

use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request};
use axum::http::request;
use serde::de::DeserializeOwned;

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
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::JsonDataError(e)) => Err(Problem::unprocessable(e.body_text())),
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

//! HTTP input: extractors that reject requests with [`Problem`](crate::problem::Problem), and the read timeout of request bodies.

mod body_read_timeout;
mod extractors;

pub(crate) use body_read_timeout::ReadTimeoutBody;
pub(crate) use extractors::{
    JsonBody, PathParams, QueryParams, describe_json_error, deserialize_object, deserialize_optional_object,
};

//! The OpenAPI description, generated from the handlers.
//!
//! Each handler declares its parameters and responses. This module adds what all operations share: authentication, tags and
//! the `Retry-After` header. Tests check that every route is described and that every description is complete.

use utoipa::openapi::header::Header;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Object, OpenApi as OpenApiDescription, RefOr, Schema};
use utoipa::{Modify, OpenApi};

/// The part of the description that all operations share.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weir",
        description = "A host for document-ingestion pipelines. Each page of a document becomes searchable as soon as it is \
            processed.\n\n\
            Every error response is an RFC 9457 problem document with a stable `type`; `/problems` lists all types. If a quota is \
            exceeded or the host is overloaded, the header `Retry-After` says when to retry. The response header `x-request-id` \
            identifies the request in the logs of the host. It is the trace id if the request had a `traceparent` header.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "this host")),
    security(("key" = [])),
    tags(
        (name = "jobs", description = "Create and manage ingestion jobs"),
        (name = "events", description = "Stream the events of jobs"),
        (name = "documents", description = "Read and delete ingested documents, their pages, images, text and summaries"),
        (name = "search", description = "Search passages by meaning and by words"),
        (name = "pipelines", description = "Manage components, pipeline revisions and rollouts. Needs a key with the scope `components`"),
        (name = "usage", description = "Usage and quotas of the tenant"),
        (name = "tenants", description = "Manage tenants and keys. Needs a key with the scope `admin`"),
        (name = "host", description = "Health and metrics of the host"),
    ),
    modifiers(&ApiKeySecurityScheme),
)]
pub(crate) struct ApiDescription;

struct ApiKeySecurityScheme;

impl Modify for ApiKeySecurityScheme {
    fn modify(&self, description: &mut OpenApiDescription) {
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("weir_<id>_<secret>")
            .description(Some(
                "An API key of a tenant. `weir key create` creates one. Its scopes (`ingest`, `read`, `components`, `admin`) \
                 determine what it may do.",
            ))
            .build();
        description
            .components
            .get_or_insert_default()
            .add_security_scheme("key", SecurityScheme::Http(key));
    }
}

/// Completes the description with what annotations cannot express: an optional parameter is omitted and never null, and
/// responses with status 429 and 503 have a `Retry-After` header.
pub(crate) fn complete_description(mut description: OpenApiDescription) -> OpenApiDescription {
    let items = description.paths.paths.values_mut();
    let operations = items.flat_map(|item| {
        [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ]
    });
    for operation in operations.flatten() {
        for parameter in operation.parameters.iter_mut().flatten() {
            if let RefOr::T(parameter) = parameter
                && let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
                && let SchemaType::Array(types) = &mut object.schema_type
            {
                types.retain(|kind| *kind != Type::Null);
            }
        }
        for (status, response) in &mut operation.responses.responses {
            if matches!(status.as_str(), "429" | "503")
                && let RefOr::T(response) = response
            {
                response
                    .headers
                    .insert("Retry-After".into(), RefOr::T(retry_after_header()));
            }
        }
    }
    description
}

fn retry_after_header() -> Header {
    let mut header = Header::new(Object::with_type(Type::Integer));
    header.description = Some("Seconds after which to retry, if known".into());
    header
}

#[cfg(test)]
mod tests;

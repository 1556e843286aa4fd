//! The description of the interface, made from the handlers themselves.
//!
//! Each handler says what it takes and answers; what holds for all of them is said here: the key, the groups, and the one
//! form of every refusal. Tests hold every route to having a description and every description to being whole.

use utoipa::openapi::header::Header;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Object, OpenApi as OpenApiDescription, RefOr, Schema};
use utoipa::{Modify, OpenApi};

/// What holds for the whole interface.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weir",
        description = "A host for document-ingestion pipelines: documents in, searchable pages out as they complete.\n\n\
            Every refusal is a problem of RFC 9457 whose `type` is stable; `/problems` lists them. Where a quota is reached or \
            the host is overloaded, `Retry-After` says when to come again. Whatever a request is answered, `x-request-id` names \
            it in the host's logs, and is the trace's id if the request had a `traceparent`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "this host")),
    security(("key" = [])),
    tags(
        (name = "jobs", description = "Files in, and what becomes of them"),
        (name = "events", description = "What happens to jobs, as it happens"),
        (name = "documents", description = "What has been taken in: pages, their images, their text"),
        (name = "search", description = "Passages by meaning and by words"),
        (name = "pipelines", description = "The tenant's own logic: components, revisions, and which jobs get which; for keys with the scope `components`"),
        (name = "usage", description = "What the tenant has used, and what it may use"),
        (name = "tenants", description = "Tenants and their keys; for keys with the scope `admin`"),
        (name = "host", description = "The host itself"),
    ),
    modifiers(&Keys),
)]
pub(crate) struct Description;

struct Keys;

impl Modify for Keys {
    fn modify(&self, description: &mut OpenApiDescription) {
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("weir_<id>_<secret>")
            .description(Some(
                "A tenant's key. `weir key create` makes one; it can do what its scopes say: ingest, read, components, admin.",
            ))
            .build();
        description
            .components
            .get_or_insert_default()
            .add_security_scheme("key", SecurityScheme::Http(key));
    }
}

/// The description with what no annotation can say, or every one would have to: a parameter that is not given is left out,
/// never null, and whoever has to wait is told for how long.
pub(crate) fn finished(mut description: OpenApiDescription) -> OpenApiDescription {
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
                    .insert("Retry-After".into(), RefOr::T(retry_after()));
            }
        }
    }
    description
}

fn retry_after() -> Header {
    let mut header = Header::new(Object::with_type(Type::Integer));
    header.description = Some("seconds after which to come again, where that can be told".into());
    header
}

#[cfg(test)]
mod tests;

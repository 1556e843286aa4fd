//! Pages for people, embedded in the binary: the web page, the API reference, and a page for each problem type.
//!
//! The path of scripts and styles contains a hash of all of them, so browsers cache them without limit and a new release has
//! a new path. Browsers revalidate the HTML pages each time and get 304 if they have not changed. Pages load nothing from
//! other hosts and contain no inline scripts, so the content security policy forbids both. This way text from a file name or a
//! passage cannot run as a script.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use utoipa::openapi::OpenApi;

use crate::problem::Problem;

const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
/// Cache policy: browsers cache the response and revalidate it before each use.
const CACHE_WITH_REVALIDATION: &str = "no-cache";
/// Cache policy: browsers cache the response for a year without revalidation.
const CACHE_FOREVER: &str = "public, max-age=31536000, immutable";
/// Placeholder in HTML pages for the folder of the assets.
const ASSET_FOLDER_PLACEHOLDER: &str = "{{files}}";

const HTML_TYPE: &str = "text/html; charset=utf-8";
const CSS_TYPE: &str = "text/css; charset=utf-8";
const JAVASCRIPT_TYPE: &str = "text/javascript; charset=utf-8";
const SVG_TYPE: &str = "image/svg+xml";

macro_rules! assets {
    ($($name:literal $media_type:ident,)*) => {
        &[$(($name, $media_type, include_str!(concat!("../page/", $name)))),*]
    };
}

/// Files that HTML pages load: name, media type, content.
const ASSETS: &[(&str, &str, &str)] = assets! {
    "style.css" CSS_TYPE,
    "icon.svg" SVG_TYPE,
    "app.js" JAVASCRIPT_TYPE,
    "api.js" JAVASCRIPT_TYPE,
    "dom.js" JAVASCRIPT_TYPE,
    "documents.js" JAVASCRIPT_TYPE,
    "events.js" JAVASCRIPT_TYPE,
    "images.js" JAVASCRIPT_TYPE,
    "job.js" JAVASCRIPT_TYPE,
    "jobs.js" JAVASCRIPT_TYPE,
    "nodes.js" JAVASCRIPT_TYPE,
    "pages.js" JAVASCRIPT_TYPE,
    "search.js" JAVASCRIPT_TYPE,
    "upload.js" JAVASCRIPT_TYPE,
    "usage.js" JAVASCRIPT_TYPE,
    "viewer.js" JAVASCRIPT_TYPE,
    "summary.js" JAVASCRIPT_TYPE,
    "docs.js" JAVASCRIPT_TYPE,
};

/// HTML pages: path and content.
const HTML_PAGES: &[(&str, &str)] = &[
    ("/", include_str!("../page/index.html")),
    ("/docs", include_str!("../page/docs.html")),
];

const PROBLEM_PAGE_TEMPLATE: &str = include_str!("../page/problem.html");

/// A response that is the same for the lifetime of the process.
struct StaticResponse {
    media_type: HeaderValue,
    cache_control: HeaderValue,
    entity_tag: HeaderValue,
    body: Bytes,
}

impl StaticResponse {
    fn new(media: &'static str, cache: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let tag = format!("\"{}\"", content_hash([bytes.as_ref()]));
        Self {
            media_type: HeaderValue::from_static(media),
            cache_control: HeaderValue::from_static(cache),
            entity_tag: HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\"")),
            body: bytes,
        }
    }

    fn respond_or_not_modified(&self, request_headers: &HeaderMap) -> Response {
        let mut response = if self.matches_entity_tag(request_headers) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            self.body.clone().into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.media_type.clone());
        headers.insert(header::CACHE_CONTROL, self.cache_control.clone());
        headers.insert(header::ETAG, self.entity_tag.clone());
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (
                header::HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// Whether `If-None-Match` contains the entity tag of this response.
    fn matches_entity_tag(&self, request_headers: &HeaderMap) -> bool {
        request_headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag.as_bytes() == self.entity_tag.as_bytes())
    }
}

/// Builds the router of all static responses. It also serves the OpenAPI description at `/openapi.json`.
pub(crate) fn build_static_router<S: Clone + Send + Sync + 'static>(description: &OpenApi) -> Router<S> {
    // Cannot fail: the description consists of strings, numbers and maps with string keys.
    let description = serde_json::to_vec(description).unwrap_or_default();
    let mut router = Router::new();
    for (path, static_response) in build_static_responses(description) {
        let static_response = Arc::new(static_response);
        let handler =
            move |headers: HeaderMap| std::future::ready(static_response.respond_or_not_modified(&headers));
        router = router.route(&path, get(handler));
    }
    router
}

/// The paths of all static responses.
#[cfg(test)]
pub(crate) fn list_static_paths() -> impl Iterator<Item = String> {
    build_static_responses(Vec::new()).into_keys()
}

fn build_static_responses(description: Vec<u8>) -> BTreeMap<String, StaticResponse> {
    let folder = format!(
        "/page/{}",
        content_hash(ASSETS.iter().map(|(.., content)| content.as_bytes()))
    );
    let document = |content: &str| {
        StaticResponse::new(
            HTML_TYPE,
            CACHE_WITH_REVALIDATION,
            content.replace(ASSET_FOLDER_PLACEHOLDER, &folder),
        )
    };
    let mut all = BTreeMap::new();
    for (name, media, content) in ASSETS {
        all.insert(
            format!("{folder}/{name}"),
            StaticResponse::new(media, CACHE_FOREVER, *content),
        );
    }
    for (path, content) in HTML_PAGES {
        all.insert((*path).to_owned(), document(content));
    }
    let mut list = String::new();
    for (kind, status, title) in Problem::KINDS {
        let path = format!("/problems/{kind}");
        let line = format!(
            "<p><a href=\"{path}\">{kind}</a> ({}): {title}.</p>",
            status.as_u16()
        );
        let content = PROBLEM_PAGE_TEMPLATE
            .replace("{{title}}", title)
            .replace("{{body}}", &line);
        all.insert(path, document(&content));
        list.push_str(&line);
    }
    let content = PROBLEM_PAGE_TEMPLATE
        .replace("{{title}}", "Problem types")
        .replace("{{body}}", &list);
    all.insert("/problems".to_owned(), document(&content));
    all.insert(
        "/openapi.json".to_owned(),
        StaticResponse::new("application/json", CACHE_WITH_REVALIDATION, description),
    );
    all
}

/// Returns the first 8 bytes of a SHA-256 as hexadecimal digits, to identify a content.
fn content_hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
        // The length separates the parts, so that the same bytes split differently have another hash.
        hasher.update((part.len() as u64).to_le_bytes());
    }
    let mut hash = HEXLOWER.encode(&hasher.finalize());
    hash.truncate(16);
    hash
}

#[cfg(test)]
mod tests;

//! Documents for people, all of them inside the binary: the web page, the page that explains the interface, and a page for
//! each kind of problem.
//!
//! Scripts and styles stand under a path that has the hash of them all in it, so they are kept by browsers for good and a new
//! release is a new path; what leads to them is asked for again each time, and answered 304 while it is the same. Nothing is
//! loaded from elsewhere and no script stands inside a document, so the content security policy can forbid both: what a file's
//! name or a passage says cannot become part of the page's program.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use utoipa::openapi::OpenApi;

use crate::problem::Problem;

const POLICY: &str = "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
/// Kept, and asked for again each time.
const AGAIN: &str = "no-cache";
/// Kept for good.
const ALWAYS: &str = "public, max-age=31536000, immutable";
/// Stands in documents for the folder of the files below.
const FOLDER: &str = "{{files}}";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal $media:ident,)*) => {
        &[$(($name, $media, include_str!(concat!("../page/", $name)))),*]
    };
}

/// What documents load: name, media type, content.
const FILES: &[(&str, &str, &str)] = files! {
    "style.css" STYLE,
    "icon.svg" PICTURE,
    "app.js" SCRIPT,
    "api.js" SCRIPT,
    "dom.js" SCRIPT,
    "documents.js" SCRIPT,
    "events.js" SCRIPT,
    "images.js" SCRIPT,
    "job.js" SCRIPT,
    "jobs.js" SCRIPT,
    "pages.js" SCRIPT,
    "search.js" SCRIPT,
    "upload.js" SCRIPT,
    "usage.js" SCRIPT,
    "viewer.js" SCRIPT,
    "summary.js" SCRIPT,
    "docs.js" SCRIPT,
};

/// What people open: path and content.
const DOCUMENTS: &[(&str, &str)] = &[
    ("/", include_str!("../page/index.html")),
    ("/docs", include_str!("../page/docs.html")),
];

const PROBLEM: &str = include_str!("../page/problem.html");

/// An answer that does not change while the process lives.
struct Fixed {
    media: HeaderValue,
    cache: HeaderValue,
    tag: HeaderValue,
    bytes: Bytes,
}

impl Fixed {
    fn new(media: &'static str, cache: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let tag = format!("\"{}\"", hash([bytes.as_ref()]));
        Self {
            media: HeaderValue::from_static(media),
            cache: HeaderValue::from_static(cache),
            tag: HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\"")),
            bytes,
        }
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let mut response = if self.is_known(asked) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            self.bytes.clone().into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.media.clone());
        headers.insert(header::CACHE_CONTROL, self.cache.clone());
        headers.insert(header::ETAG, self.tag.clone());
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
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

    /// Whether one of the tags in `If-None-Match` is this one.
    fn is_known(&self, asked: &HeaderMap) -> bool {
        asked
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag.as_bytes() == self.tag.as_bytes())
    }
}

/// All of it, with the description of the interface at `/openapi.json`.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(description: &OpenApi) -> Router<S> {
    // Strings, numbers and names of fields: nothing in it can fail to become JSON.
    let description = serde_json::to_vec(description).unwrap_or_default();
    let mut router = Router::new();
    for (path, fixed) in all(description) {
        let fixed = Arc::new(fixed);
        let answer = move |asked: HeaderMap| std::future::ready(fixed.answer(&asked));
        router = router.route(&path, get(answer));
    }
    router
}

/// Every path there is here.
#[cfg(test)]
pub(crate) fn paths() -> impl Iterator<Item = String> {
    all(Vec::new()).into_keys()
}

fn all(description: Vec<u8>) -> BTreeMap<String, Fixed> {
    let folder = format!(
        "/page/{}",
        hash(FILES.iter().map(|(.., content)| content.as_bytes()))
    );
    let document = |content: &str| Fixed::new(HTML, AGAIN, content.replace(FOLDER, &folder));
    let mut all = BTreeMap::new();
    for (name, media, content) in FILES {
        all.insert(format!("{folder}/{name}"), Fixed::new(media, ALWAYS, *content));
    }
    for (path, content) in DOCUMENTS {
        all.insert((*path).to_owned(), document(content));
    }
    let mut list = String::new();
    for (kind, status, title) in Problem::KINDS {
        let path = format!("/problems/{kind}");
        let line = format!(
            "<p><a href=\"{path}\">{kind}</a> ({}): {title}.</p>",
            status.as_u16()
        );
        let content = PROBLEM.replace("{{title}}", title).replace("{{body}}", &line);
        all.insert(path, document(&content));
        list.push_str(&line);
    }
    let content = PROBLEM
        .replace("{{title}}", "Problems")
        .replace("{{body}}", &list);
    all.insert("/problems".to_owned(), document(&content));
    all.insert(
        "/openapi.json".to_owned(),
        Fixed::new("application/json", AGAIN, description),
    );
    all
}

/// Enough of a SHA-256 to tell contents apart.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
        // Where one part ends and the next begins counts.
        hasher.update((part.len() as u64).to_le_bytes());
    }
    let digest: [u8; 32] = hasher.finalize().into();
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;

//! HTTP responses with stored bytes: page images, text lines, Markdown.
//!
//! The bytes come from users' files, so they are not trusted. The browser may neither guess another media type nor run anything in
//! them. The host chooses the name under which a file is saved, not the document.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// A response with stored bytes.
pub(crate) struct StoredBytesResponse {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: &'static str,
    /// The name under which a browser saves the file: letters, digits, dots and dashes.
    pub(crate) file_name: String,
    /// How long a client may cache the response without revalidation, in seconds.
    pub(crate) max_age_seconds: u64,
}

impl StoredBytesResponse {
    /// Builds the response: status 304 without a body if `If-None-Match` of the request contains the
    /// entity tag of these bytes.
    pub(crate) fn build_response(self, request: &HeaderMap) -> Response {
        let mut tag = HEXLOWER.encode(&Sha256::digest(&self.bytes));
        tag.truncate(32);
        let tag = format!("\"{tag}\"");
        let is_not_modified = request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|one| one.trim().trim_start_matches("W/") == tag || one.trim() == "*");
        let mut response = Response::new(if is_not_modified {
            Body::empty()
        } else {
            Body::from(self.bytes)
        });
        if is_not_modified {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        let texts = [
            (header::ETAG, tag),
            (
                header::CACHE_CONTROL,
                format!("private, max-age={}", self.max_age_seconds),
            ),
            (
                header::CONTENT_DISPOSITION,
                format!("inline; filename=\"{}\"", self.file_name),
            ),
        ];
        for (name, text) in texts {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        }
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; sandbox; frame-ancestors 'none'"),
        );
        response
    }
}

/// Returns the media type of a page image from the extension of its blob key.
pub(crate) fn image_media_type(key: &str) -> &'static str {
    if key.ends_with(".webp") {
        "image/webp"
    } else {
        "image/jpeg"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_response() -> StoredBytesResponse {
        StoredBytesResponse {
            bytes: b"<script>".to_vec(),
            media_type: "image/jpeg",
            file_name: "1.jpg".into(),
            max_age_seconds: 60,
        }
    }

    #[test]
    fn matching_entity_tag_gets_not_modified() {
        let first = sample_response().build_response(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for (if_none_match, status) in [
            (tag.clone(), StatusCode::NOT_MODIFIED),
            (format!("\"other\", W/{tag}"), StatusCode::NOT_MODIFIED),
            ("*".into(), StatusCode::NOT_MODIFIED),
            ("\"other\"".into(), StatusCode::OK),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::IF_NONE_MATCH,
                HeaderValue::from_str(&if_none_match).unwrap(),
            );
            let again = sample_response().build_response(&headers);
            assert_eq!(again.status(), status, "{if_none_match}");
            assert_eq!(again.headers()[header::ETAG], tag.as_str());
        }
    }

    #[test]
    fn browser_must_not_run_content_of_a_file() {
        let response = sample_response().build_response(&HeaderMap::new());
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("sandbox"));
        assert_eq!(
            response.headers()[header::CONTENT_DISPOSITION],
            "inline; filename=\"1.jpg\""
        );
    }
}

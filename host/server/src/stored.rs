//! Bytes out of storage as answers: page images, lines, Markdown.
//!
//! They are made from users' files, so nothing in them is trusted: the browser may neither guess another type nor run
//! anything, and the name under which a file is saved is the host's, not the document's.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use sha2::{Digest as _, Sha256};

/// An answer out of storage.
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: &'static str,
    /// What the file is called when it is saved: letters, digits, dots and dashes.
    pub(crate) name: String,
    /// How long a client may keep it without asking again, in seconds.
    pub(crate) fresh: u64,
}

impl Stored {
    /// The answer: 304 if the client says that it has these bytes.
    pub(crate) fn answer(self, request: &HeaderMap) -> Response {
        let digest = Sha256::digest(&self.bytes);
        let tag: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let tag = format!("\"{tag}\"");
        let known = request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|one| one.trim().trim_start_matches("W/") == tag || one.trim() == "*");
        let mut response = Response::new(if known {
            Body::empty()
        } else {
            Body::from(self.bytes)
        });
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        let texts = [
            (header::ETAG, tag),
            (header::CACHE_CONTROL, format!("private, max-age={}", self.fresh)),
            (
                header::CONTENT_DISPOSITION,
                format!("inline; filename=\"{}\"", self.name),
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

/// The media type of a page image by its key.
pub(crate) fn image_type(key: &str) -> &'static str {
    if key.ends_with(".webp") {
        "image/webp"
    } else {
        "image/jpeg"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Stored {
        Stored {
            bytes: b"<script>".to_vec(),
            media_type: "image/jpeg",
            name: "1.jpg".into(),
            fresh: 60,
        }
    }

    #[test]
    fn a_client_that_has_the_bytes_is_not_sent_them_again() {
        let first = stored().answer(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for (asked, status) in [
            (tag.clone(), StatusCode::NOT_MODIFIED),
            (format!("\"other\", W/{tag}"), StatusCode::NOT_MODIFIED),
            ("*".into(), StatusCode::NOT_MODIFIED),
            ("\"other\"".into(), StatusCode::OK),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(&asked).unwrap());
            let again = stored().answer(&headers);
            assert_eq!(again.status(), status, "{asked}");
            assert_eq!(again.headers()[header::ETAG], tag.as_str());
        }
    }

    #[test]
    fn nothing_in_a_file_is_run() {
        let answer = stored().answer(&HeaderMap::new());
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("sandbox"));
        assert_eq!(
            answer.headers()[header::CONTENT_DISPOSITION],
            "inline; filename=\"1.jpg\""
        );
    }
}

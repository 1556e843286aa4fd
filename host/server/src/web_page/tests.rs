use std::collections::BTreeSet;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use tower::ServiceExt as _;

use super::*;

async fn request_page(path: &str, tag: Option<&HeaderValue>) -> Response {
    let mut request = Request::get(path);
    if let Some(tag) = tag {
        request = request.header(header::IF_NONE_MATCH, tag);
    }
    let router: Router = build_static_router(&OpenApi::default());
    router
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap()
}

async fn get_page_text(path: &str) -> String {
    let response = request_page(path, None).await;
    assert_eq!(response.status(), 200, "{path}");
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn matching_entity_tag_gets_304() {
    for path in list_static_paths() {
        let first = request_page(&path, None).await;
        let tag = &first.headers()[header::ETAG];
        let again = request_page(&path, Some(tag)).await;
        assert_eq!(again.status(), 304, "{path}");
        assert_eq!(again.headers()[header::ETAG], tag);
        assert!(to_bytes(again.into_body(), 1 << 20).await.unwrap().is_empty());
        let list = HeaderValue::from_str(&format!("\"x\", W/{}", tag.to_str().unwrap())).unwrap();
        assert_eq!(request_page(&path, Some(&list)).await.status(), 304, "{path}");
        let other = HeaderValue::from_static("\"x\"");
        assert_eq!(request_page(&path, Some(&other)).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn content_security_policy_forbids_other_origins() {
    for path in list_static_paths() {
        let response = request_page(&path, None).await;
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(
            policy.starts_with("default-src 'self'; img-src 'self' blob:;"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
}

/// The content security policy forbids inline scripts and styles.
#[tokio::test]
async fn html_pages_have_no_inline_script_or_style() {
    let documents: Vec<String> = list_static_paths()
        .filter(|path| !path.contains("/page/"))
        .collect();
    assert!(documents.len() > Problem::KINDS.len());
    for path in documents.iter().filter(|path| *path != "/openapi.json") {
        let html = get_page_text(path).await;
        for tag in html.split('<').skip(1) {
            let tag = tag.split('>').next().unwrap();
            if tag.starts_with("script") {
                assert!(tag.contains("src="), "{path}: <{tag}>");
            }
            assert!(!tag.starts_with("style"), "{path}: <{tag}>");
            let inline = tag
                .split_ascii_whitespace()
                .any(|part| part.starts_with("style=") || part.starts_with("on"));
            assert!(!inline, "{path}: <{tag}>");
        }
    }
}

/// Untrusted text must be inserted as text nodes and never be parsed as HTML or script.
#[test]
fn scripts_do_not_parse_text_as_html() {
    for (name, _, content) in ASSETS.iter().filter(|(_, media, _)| *media == JAVASCRIPT_TYPE) {
        for means in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "DOMParser",
        ] {
            assert!(!content.contains(means), "{name} contains {means}");
        }
    }
}

#[tokio::test]
async fn every_link_and_import_resolves() {
    let paths: BTreeSet<String> = list_static_paths().collect();
    let folder = paths
        .iter()
        .find_map(|path| path.strip_suffix("/app.js"))
        .unwrap()
        .to_owned();
    let mut followed = 0;
    for path in ["/", "/docs", "/problems", "/problems/not-found"] {
        let html = get_page_text(path).await;
        assert!(!html.contains("{{"), "{path} has a placeholder left");
        for attribute in ["href=\"/", "src=\"/"] {
            for target in html.split(attribute).skip(1) {
                let target = format!("/{}", target.split('"').next().unwrap());
                assert!(
                    paths.contains(&target),
                    "{path} links to {target}, which does not exist"
                );
                followed += 1;
            }
        }
    }
    for (name, ..) in ASSETS {
        for import in get_page_text(&format!("{folder}/{name}"))
            .await
            .split("from \"./")
            .skip(1)
        {
            let target = format!("{folder}/{}", import.split('"').next().unwrap());
            assert!(
                paths.contains(&target),
                "{name} imports {target}, which does not exist"
            );
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed}");
}

#[tokio::test]
async fn every_problem_type_has_a_page() {
    for (kind, status, title) in Problem::KINDS {
        let html = get_page_text(&format!("/problems/{kind}")).await;
        assert!(html.contains(title) && html.contains(status.as_str()), "{html}");
    }
}

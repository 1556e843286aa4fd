use std::collections::BTreeSet;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use tower::ServiceExt as _;

use super::*;

async fn ask(path: &str, tag: Option<&HeaderValue>) -> Response {
    let mut request = Request::get(path);
    if let Some(tag) = tag {
        request = request.header(header::IF_NONE_MATCH, tag);
    }
    let router: Router = router(&OpenApi::default());
    router
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap()
}

async fn text(path: &str) -> String {
    let response = ask(path, None).await;
    assert_eq!(response.status(), 200, "{path}");
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn what_the_browser_has_is_not_sent_again() {
    for path in paths() {
        let first = ask(&path, None).await;
        let tag = &first.headers()[header::ETAG];
        let again = ask(&path, Some(tag)).await;
        assert_eq!(again.status(), 304, "{path}");
        assert_eq!(again.headers()[header::ETAG], tag);
        assert!(to_bytes(again.into_body(), 1 << 20).await.unwrap().is_empty());
        let list = HeaderValue::from_str(&format!("\"x\", W/{}", tag.to_str().unwrap())).unwrap();
        assert_eq!(ask(&path, Some(&list)).await.status(), 304, "{path}");
        let other = HeaderValue::from_static("\"x\"");
        assert_eq!(ask(&path, Some(&other)).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn nothing_may_be_loaded_from_elsewhere() {
    for path in paths() {
        let response = ask(&path, None).await;
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

/// The policy forbids what stands inside a document, so nothing does.
#[tokio::test]
async fn documents_have_no_script_or_style_of_their_own() {
    let documents: Vec<String> = paths().filter(|path| !path.contains("/page/")).collect();
    assert!(documents.len() > Problem::KINDS.len());
    for path in documents.iter().filter(|path| *path != "/openapi.json") {
        let html = text(path).await;
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

/// What comes from outside is put in as text, never read as HTML or as a script.
#[test]
fn scripts_do_not_make_html_of_text() {
    for (name, _, content) in FILES.iter().filter(|(_, media, _)| *media == SCRIPT) {
        for means in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "DOMParser",
        ] {
            assert!(!content.contains(means), "{name} has {means}");
        }
    }
}

#[tokio::test]
async fn every_reference_leads_to_a_file() {
    let paths: BTreeSet<String> = paths().collect();
    let folder = paths
        .iter()
        .find_map(|path| path.strip_suffix("/app.js"))
        .unwrap()
        .to_owned();
    let mut followed = 0;
    for path in ["/", "/docs", "/problems", "/problems/not-found"] {
        let html = text(path).await;
        assert!(!html.contains("{{"), "{path} has a gap");
        for attribute in ["href=\"/", "src=\"/"] {
            for target in html.split(attribute).skip(1) {
                let target = format!("/{}", target.split('"').next().unwrap());
                assert!(paths.contains(&target), "{path} leads to {target}");
                followed += 1;
            }
        }
    }
    for (name, ..) in FILES {
        for import in text(&format!("{folder}/{name}")).await.split("from \"./").skip(1) {
            let target = format!("{folder}/{}", import.split('"').next().unwrap());
            assert!(paths.contains(&target), "{name} imports {target}");
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed}");
}

#[tokio::test]
async fn every_kind_of_problem_has_its_page() {
    for (kind, status, title) in Problem::KINDS {
        let html = text(&format!("/problems/{kind}")).await;
        assert!(html.contains(title) && html.contains(status.as_str()), "{html}");
    }
}

//! Tests of submissions as `multipart/form-data`.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use axum::body::Body;
use axum::http::header;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::Notify;
use tower::ServiceExt as _;
use weir_core::clock::unix_time_millis;
use weir_core::job_request::JobRequestStore as _;
use weir_core::tenancy::KeyScope;
use weir_core::usage::day_from_millis;
use weir_core::{DocumentId, PriorityLane};

use super::assert_no_traces_left;
use crate::fakes::{TestHost, accepted_job_id, multipart_form, parse_json, parse_problem};

#[tokio::test]
async fn files_of_a_form_become_one_job() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let options = r#"{"pages":{"first":2,"last":3},"dpi":200,"ocr":"never","force":true,"lane":"bulk"}"#;
    let body = multipart_form(&[
        ("file", Some("b.pdf"), "3 pages b"),
        ("options", None, options),
        ("file", Some("a.pdf"), "2 pages a"),
        ("file", None, "no PDF at all"),
    ]);
    let response = host.send(TestHost::build_submission(&key, body)).await;
    assert_eq!(response.status(), 202);
    let location = response.headers()[header::LOCATION].to_str().unwrap().to_owned();
    assert!(!response.headers().contains_key("idempotency-replayed"));
    let job = parse_json(response).await;
    assert_eq!(location, format!("/v1/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!((&job["state"], &job["position"]), (&"queued".into(), &1.into()));
    let documents: Vec<_> = job["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["name"].as_str().unwrap(), d["bytes"].as_u64().unwrap()))
        .collect();
    assert_eq!(documents, [("b.pdf", 9), ("a.pdf", 9), ("document-3", 13)]);

    let id = job["id"].as_str().unwrap().parse().unwrap();
    let job_request = host.store.find_job_request(&a, &id).await.unwrap().unwrap();
    assert_eq!(job_request.lane, Some(PriorityLane::Bulk));
    assert_eq!(
        (job_request.options.pages, job_request.options.dpi),
        (Some((2, 3)), Some(200))
    );
    assert_eq!(
        (job_request.options.ocr.as_deref(), job_request.options.force),
        (Some("never"), true)
    );
    let mut uploads: Vec<_> = ["3 pages b", "2 pages a", "no PDF at all"]
        .map(|content| format!("a-{}", DocumentId::from_content(content.as_bytes())))
        .into();
    uploads.sort();
    assert_eq!(host.uploads.file_names(), uploads);

    let used = host
        .control
        .usage_recorder
        .usage_on_day(host.store.as_ref(), &a, day_from_millis(unix_time_millis()))
        .await
        .unwrap();
    assert_eq!((used.jobs, used.upload_bytes, used.refusals), (1, 31, 0));
}

#[tokio::test]
async fn refused_submission_leaves_nothing() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let file = ("file", Some("a.pdf"), "1 pages");
    let with = |options| multipart_form(&[file, ("options", None, options)]);
    let long = format!(r#"{{"pipeline":"{}"}}"#, "x".repeat(70_000));
    let whole = multipart_form(&[file]);
    for (body, status, kind) in [
        (
            multipart_form(&[file, ("colour", None, "red")]),
            422,
            "unprocessable",
        ),
        (multipart_form(&[("options", None, "{}")]), 422, "unprocessable"),
        (multipart_form(&[]), 422, "unprocessable"),
        (
            multipart_form(&[file, ("options", None, "{}"), ("options", None, "{}")]),
            422,
            "unprocessable",
        ),
        (with("{"), 400, "invalid-request"),
        (with(r#"{"dpi":"high"}"#), 422, "unprocessable"),
        (with(r#"{"dpi":601}"#), 422, "unprocessable"),
        (with(r#"{"colour":"red"}"#), 422, "unprocessable"),
        (with(r#"{"pipeline":"unknown"}"#), 404, "not-found"),
        (with(r#"{"passwords":{"b.pdf":"p"}}"#), 404, "not-found"),
        (with(r#"{"pages":[1,2]}"#), 422, "unprocessable"),
        (
            with(r#"{"webhook":{"url":"http://10.0.0.1/","secret":"s"}}"#),
            422,
            "unprocessable",
        ),
        (with(&long), 413, "too-large"),
        (whole.replace("XX", "XY"), 400, "invalid-request"),
        (whole.replace("name=\"file\"; ", ""), 400, "invalid-request"),
        (whole[..whole.len() - 12].to_owned(), 400, "invalid-request"),
        (String::new(), 400, "invalid-request"),
    ] {
        let problem = parse_problem(host.send(TestHost::build_submission(&key, body.clone())).await).await;
        assert_eq!((problem.status, problem.kind.as_str()), (status, kind), "{body}");
        assert_no_traces_left(&host, &a, &body).await;
    }
    for (content_type, status) in [
        ("multipart/form-data", 415),
        ("multipart/form-data; boundary=", 415),
        ("multipart/mixed; boundary=XX", 415),
        ("application/pdf", 415),
        ("", 415),
        ("application/json", 400),
        ("multipart/form-data; boundary=YY", 400),
    ] {
        let mut request = TestHost::build_submission(&key, whole.clone());
        let value = content_type.parse().unwrap();
        request.headers_mut().insert(header::CONTENT_TYPE, value);
        let refused = parse_problem(host.send(request).await).await;
        assert_eq!(refused.status, status, "{content_type}: {refused:?}");
        assert_no_traces_left(&host, &a, content_type).await;
    }
}

#[tokio::test]
async fn incomplete_submission_leaves_nothing() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let whole = multipart_form(&[
        ("file", Some("a.pdf"), "1 pages a"),
        ("file", Some("b.pdf"), "1 pages b"),
    ]);
    // At this point the first file is complete and staged, the second is incomplete.
    let part = Bytes::from(whole.split_once("pages b").unwrap().0.to_owned());
    let broken = stream::iter([Ok(part.clone()), Err(io::Error::other("cut"))]);
    let body = Body::from_stream(broken);
    let refused = parse_problem(host.send(TestHost::build_submission(&key, body)).await).await;
    assert_eq!((refused.status, refused.kind.as_str()), (408, "incomplete-body"));
    assert_no_traces_left(&host, &a, "a broken connection").await;

    // If the client disconnects, its request future is dropped.
    let body_requested = Arc::new(Notify::new());
    let notify_requested = Arc::clone(&body_requested);
    let silence = stream::poll_fn(move |_| {
        notify_requested.notify_one();
        Poll::<Option<io::Result<Bytes>>>::Pending
    });
    let body = Body::from_stream(stream::iter([Ok(part)]).chain(silence));
    let sending = tokio::spawn(host.router().oneshot(TestHost::build_submission(&key, body)));
    body_requested.notified().await;
    let names = host.uploads.file_names();
    let kinds: Vec<_> = names.iter().filter_map(|name| name.split('-').next()).collect();
    assert_eq!(kinds, ["staged", "unfinished"]);
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    assert_no_traces_left(&host, &a, "a client that disconnected").await;
}

#[tokio::test]
async fn file_names_are_sanitized() {
    let host = TestHost::new();
    let (_, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let long = "x".repeat(5000) + ".pdf";
    let names = [
        ("../../../etc/passwd", "passwd"),
        (r"..\..\boot.ini", "boot.ini"),
        ("/", "document-3"),
        ("..", "document-4"),
        ("a\u{0}b\u{1b}[31m.pdf", "ab[31m.pdf"),
        ("<script>.pdf", "<script>.pdf"),
        (&long, &long[..255]),
        ("файл \u{202e}fdp.exe", "файл \u{202e}fdp.exe"),
    ];
    let contents: Vec<_> = (0..names.len()).map(|n| format!("1 pages {n}")).collect();
    let parts: Vec<_> = names
        .iter()
        .zip(&contents)
        .map(|((given, _), content)| ("file", Some(*given), content.as_str()))
        .collect();
    let job = parse_json(
        host.send(TestHost::build_submission(&key, multipart_form(&parts)))
            .await,
    )
    .await;
    let stored_names: Vec<_> = job["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["name"].as_str().unwrap())
        .collect();
    assert_eq!(stored_names, names.map(|(_, kept)| kept));
    // Files on the disk are named by their hash.
    for name in host.uploads.file_names() {
        let hash = name.strip_prefix("a-").unwrap();
        assert!(hash.parse::<DocumentId>().is_ok(), "{name}");
    }
    assert_eq!(host.uploads.file_names().len(), names.len());
}

#[tokio::test]
async fn password_is_assigned_to_its_file_and_never_returned() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let options =
        r#"{"passwords":{"b.pdf":"open sesame"},"webhook":{"url":"https://1.1.1.1/","secret":"hush"}}"#;
    let body = multipart_form(&[
        ("options", None, options),
        ("file", Some("a.pdf"), "1 pages a"),
        ("file", Some("b.pdf"), "1 pages b"),
    ]);
    let job = accepted_job_id(host.send(TestHost::build_submission(&key, body)).await).await;
    let job_request = host.store.find_job_request(&a, &job).await.unwrap().unwrap();
    let passwords: Vec<_> = job_request.files.iter().map(|f| f.password.as_deref()).collect();
    assert_eq!(passwords, [None, Some("open sesame")]);
    let view = parse_json(host.send_get(&format!("/v1/jobs/{job}"), &key).await).await;
    let view = view.to_string();
    assert!(!view.contains("sesame") && !view.contains("hush"), "{view}");
}

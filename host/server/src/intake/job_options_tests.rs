use super::*;
use axum::http::HeaderValue;
use weir_core::DocumentId;
use weir_core::settings::Settings;

fn validate_json(json: &str) -> Result<ValidatedJobOptions, String> {
    let options: JobOptions = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let outbound = OutboundClient::new(&Settings::default());
    options.validate_options(&outbound).map_err(|p| format!("{p:?}"))
}

fn requested_file(name: &str) -> RequestedFile {
    RequestedFile {
        name: name.into(),
        document: DocumentId::from_content(name.as_bytes()),
        bytes: 1,
        password: None,
    }
}

#[test]
fn omitted_options_have_defaults() {
    let options = validate_json("{}").unwrap();
    assert_eq!((options.pipeline.as_str(), options.lane), ("default", None));
    assert_eq!(options.options, JobRequestOptions::default());
    let options =
        validate_json(r#"{"pages":{"first":3},"ocr":"never","vision":"auto","lane":"bulk","dpi":36}"#)
            .unwrap();
    assert_eq!(options.options.pages, Some((3, PageNumber::MAX)));
    assert_eq!(
        (options.options.ocr.as_deref(), options.lane),
        (Some("never"), Some(PriorityLane::Bulk))
    );
}

#[test]
fn invalid_options_are_refused() {
    for json in [
        r#"{"colour":1}"#,
        r#"{"dpi":35}"#,
        r#"{"dpi":601}"#,
        r#"{"ocr":"sometimes"}"#,
        r#"{"lane":"fast"}"#,
        r#"{"pages":{"first":0}}"#,
        r#"{"pages":[3,2]}"#,
        r#"{"pages":{"from":3}}"#,
        r#"{"webhook":{"url":"http://127.0.0.1/","secret":"s"}}"#,
        r#"{"webhook":{"url":"https://example.com/","secret":""}}"#,
        r#"{"webhook":{"url":"mailto:a@example.com","secret":"s"}}"#,
        r#"{"pages":{"last":1000001}}"#,
        r#"{"collection":"Reports"}"#,
        r#"{"collection":"../other"}"#,
        r#"{"labels":["a"]}"#,
        r#"{"labels":{"":"a"}}"#,
        r#"{"labels":{"a\u0000":"a"}}"#,
    ] {
        assert!(validate_json(json).is_err(), "{json}");
    }
    let options = validate_json(r#"{"pages":{"first":3,"last":2}}"#).unwrap();
    assert_eq!(options.options.pages, Some((2, 3)));
    let options = validate_json(r#"{"passwords":{"b.pdf":"p"}}"#).unwrap();
    assert!(options.assign_passwords(&mut [requested_file("a.pdf")]).is_err());
    let mut files = [
        requested_file("b.pdf"),
        requested_file("a.pdf"),
        requested_file("b.pdf"),
    ];
    options.assign_passwords(&mut files).unwrap();
    assert_eq!(files.map(|f| f.password.is_some()), [true, false, true]);
}

#[test]
fn collection_and_labels_are_parsed() {
    let options = validate_json(r#"{"collection":"reports","labels":{"year":"2024","a=b":""}}"#).unwrap();
    let filing = options.options.collection_and_labels;
    assert_eq!(filing.collection.as_deref(), Some("reports"));
    let labels = [("a=b", ""), ("year", "2024")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(filing.labels.as_deref(), Some(&labels[..]));
    let many: Vec<_> = (0..17).map(|i| format!(r#""{i}":"""#)).collect();
    assert!(validate_json(&format!(r#"{{"labels":{{{}}}}}"#, many.join(","))).is_err());
}

#[test]
fn equal_requests_have_equal_digests() {
    let mut headers = HeaderMap::new();
    headers.insert(IDEMPOTENCY_KEY_HEADER, HeaderValue::from_static("k"));
    let digest = |json: &str, files: &[RequestedFile]| {
        validate_json(json)
            .unwrap()
            .build_idempotency_key(&headers, &files)
            .unwrap()
            .unwrap()
            .request_digest
    };
    let first = digest("{}", &[requested_file("a")]);
    assert_eq!(first, digest(r#"{"force":false}"#, &[requested_file("a")]));
    assert_ne!(first, digest(r#"{"force":true}"#, &[requested_file("a")]));
    assert_ne!(first, digest("{}", &[requested_file("b")]));
    assert_ne!(first, digest("{}", &[requested_file("a"), requested_file("a")]));
    assert_ne!(first, digest(r#"{"lane":"bulk"}"#, &[requested_file("a")]));
    assert_ne!(first, digest(r#"{"labels":{"a":"b"}}"#, &[requested_file("a")]));
}

#[test]
fn idempotency_keys_are_visible_and_short() {
    let with = |value: &'static [u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY_HEADER, HeaderValue::from_bytes(value).unwrap());
        parse_idempotency_key(&headers)
    };
    assert_eq!(with(b"a-1").unwrap().as_deref(), Some("a-1"));
    assert_eq!(parse_idempotency_key(&HeaderMap::new()).unwrap(), None);
    for wrong in [&b""[..], b"a b", b"\xff", &[b'x'; 256]] {
        assert!(with(wrong).is_err(), "{wrong:?}");
    }
    let mut twice = HeaderMap::new();
    twice.append(IDEMPOTENCY_KEY_HEADER, HeaderValue::from_static("a"));
    twice.append(IDEMPOTENCY_KEY_HEADER, HeaderValue::from_static("b"));
    assert!(parse_idempotency_key(&twice).is_err());
}

#[test]
fn file_names_are_sanitized() {
    for (client_name, stored_name) in [
        (Some("a.pdf"), "a.pdf"),
        (Some("../../etc/passwd"), "passwd"),
        (Some(r"C:\docs\ü.pdf"), "ü.pdf"),
        (Some("a\r\nb\u{0}.pdf"), "ab.pdf"),
        (Some(".."), "document-2"),
        (Some(""), "document-2"),
        (None, "document-2"),
    ] {
        assert_eq!(sanitize_file_name(client_name, 2), stored_name);
    }
    assert_eq!(sanitize_file_name(Some(&"ü".repeat(300)), 1).len(), 254);
}

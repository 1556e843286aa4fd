use super::*;
use axum::http::HeaderValue;
use weir_core::DocumentId;
use weir_core::settings::Settings;

fn understood(json: &str) -> Result<Wish, String> {
    let options: JobOptions = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let outbound = Outbound::new(&Settings::default());
    options.understand(&outbound).map_err(|p| format!("{p:?}"))
}

fn file(name: &str) -> OrderedFile {
    OrderedFile {
        name: name.into(),
        document: DocumentId::of(name.as_bytes()),
        bytes: 1,
        password: None,
    }
}

#[test]
fn what_is_left_out_is_usual() {
    let wish = understood("{}").unwrap();
    assert_eq!((wish.pipeline.as_str(), wish.lane), ("default", None));
    assert_eq!(wish.options, OrderOptions::default());
    let wish =
        understood(r#"{"pages":{"first":3},"ocr":"never","vision":"auto","lane":"bulk","dpi":36}"#).unwrap();
    assert_eq!(wish.options.pages, Some((3, PageNumber::MAX)));
    assert_eq!(
        (wish.options.ocr.as_deref(), wish.lane),
        (Some("never"), Some(Lane::Bulk))
    );
}

#[test]
fn what_cannot_be_followed_is_refused() {
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
        assert!(understood(json).is_err(), "{json}");
    }
    let wish = understood(r#"{"pages":{"first":3,"last":2}}"#).unwrap();
    assert_eq!(wish.options.pages, Some((2, 3)));
    let wish = understood(r#"{"passwords":{"b.pdf":"p"}}"#).unwrap();
    assert!(wish.unlock(&mut [file("a.pdf")]).is_err());
    let mut files = [file("b.pdf"), file("a.pdf"), file("b.pdf")];
    wish.unlock(&mut files).unwrap();
    assert_eq!(files.map(|f| f.password.is_some()), [true, false, true]);
}

#[test]
fn collection_and_labels_are_understood() {
    let wish = understood(r#"{"collection":"reports","labels":{"year":"2024","a=b":""}}"#).unwrap();
    let filing = wish.options.filing;
    assert_eq!(filing.collection.as_deref(), Some("reports"));
    let labels = [("a=b", ""), ("year", "2024")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(filing.labels.as_deref(), Some(&labels[..]));
    let many: Vec<_> = (0..17).map(|i| format!(r#""{i}":"""#)).collect();
    assert!(understood(&format!(r#"{{"labels":{{{}}}}}"#, many.join(","))).is_err());
}

#[test]
fn the_same_request_has_the_same_digest() {
    let mut headers = HeaderMap::new();
    headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static("k"));
    let digest = |json: &str, files: &[OrderedFile]| {
        understood(json)
            .unwrap()
            .idempotency(&headers, &files)
            .unwrap()
            .unwrap()
            .digest
    };
    let first = digest("{}", &[file("a")]);
    assert_eq!(first, digest(r#"{"force":false}"#, &[file("a")]));
    assert_ne!(first, digest(r#"{"force":true}"#, &[file("a")]));
    assert_ne!(first, digest("{}", &[file("b")]));
    assert_ne!(first, digest("{}", &[file("a"), file("a")]));
    assert_ne!(first, digest(r#"{"lane":"bulk"}"#, &[file("a")]));
    assert_ne!(first, digest(r#"{"labels":{"a":"b"}}"#, &[file("a")]));
}

#[test]
fn words_for_requests_are_visible_and_short() {
    let with = |value: &'static [u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        idempotency_key(&headers)
    };
    assert_eq!(with(b"a-1").unwrap().as_deref(), Some("a-1"));
    assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    for wrong in [&b""[..], b"a b", b"\xff", &[b'x'; 256]] {
        assert!(with(wrong).is_err(), "{wrong:?}");
    }
    let mut twice = HeaderMap::new();
    twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
    twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("b"));
    assert!(idempotency_key(&twice).is_err());
}

#[test]
fn names_of_files_are_only_names() {
    for (given, kept) in [
        (Some("a.pdf"), "a.pdf"),
        (Some("../../etc/passwd"), "passwd"),
        (Some(r"C:\docs\ü.pdf"), "ü.pdf"),
        (Some("a\r\nb\u{0}.pdf"), "ab.pdf"),
        (Some(".."), "document-2"),
        (Some(""), "document-2"),
        (None, "document-2"),
    ] {
        assert_eq!(file_name(given, 2), kept);
    }
    assert_eq!(file_name(Some(&"ü".repeat(300)), 1).len(), 254);
}

//! Tests of the multipart parser.

use super::*;
use futures::stream;
use std::convert::Infallible;

type Parts = Vec<(PartHeaders, Vec<u8>)>;

/// Reads a body that arrives in pieces of `piece` bytes. Also returns the maximum number of bytes held.
fn read_form(body: &[u8], piece: usize) -> (Result<Parts, MultipartError<Infallible>>, usize) {
    let pieces: Vec<_> = body
        .chunks(piece.max(1))
        .map(|c| Ok(Bytes::copy_from_slice(c)))
        .collect();
    let mut form = MultipartReader::new(stream::iter(pieces), "XX");
    let mut most = 0;
    let read = async {
        let mut parts = Vec::new();
        while let Some(head) = form.next_part().await? {
            let mut content = Vec::new();
            while let Some(chunk) = form.next_chunk().await? {
                most = most.max(form.buffer.len() + chunk.len());
                content.extend_from_slice(&chunk);
            }
            parts.push((head, content));
        }
        Ok(parts)
    };
    let read = futures::executor::block_on(read);
    (read, most)
}

fn encode_part(disposition: &str, content: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: x/y\r\n\r\n{content}\r\n")
}

fn part_headers(name: &str, file: Option<&str>) -> PartHeaders {
    PartHeaders {
        field_name: name.into(),
        file_name: file.map(str::to_owned),
    }
}

#[test]
fn parts_are_read_for_any_chunk_size() {
    let tricky = "a\r\n--X\r\n--\r\n\r--XX\n--XXX no, \r\n-";
    let body = [
        encode_part("name=\"file\"; filename=\"a.pdf\"", tricky),
        encode_part("name=file; filename=b", ""),
        encode_part("filename=\"x\"; name=\"options\"", "{}"),
        "--XX--\r\nwhatever follows".into(),
    ]
    .concat();
    let expected = vec![
        (part_headers("file", Some("a.pdf")), tricky.as_bytes().to_vec()),
        (part_headers("file", Some("b")), vec![]),
        (part_headers("options", Some("x")), b"{}".to_vec()),
    ];
    for piece in (1..40).chain([1000]) {
        let (read, _) = read_form(body.as_bytes(), piece);
        assert_eq!(read.unwrap(), expected, "in pieces of {piece}");
    }
}

#[test]
fn file_names_of_common_clients_are_parsed() {
    for (disposition, file) in [
        (r#"name="f"; filename="a b;c.pdf""#, "a b;c.pdf"),
        (r#"name="f"; filename="say \"hi\".pdf""#, "say \"hi\".pdf"),
        (r#"name="f"; filename="C:\docs\a.pdf""#, r"C:\docs\a.pdf"),
        (r#"name="f"; filename="naïve.pdf""#, "naïve.pdf"),
        (
            r#"name="f"; filename="x"; filename*=UTF-8''na%C3%AFve.pdf"#,
            "naïve.pdf",
        ),
        (r#"name="f"; filename="x"; filename*=UTF-8''%zz"#, "x"),
        (r#"name="f"; filename="""#, ""),
    ] {
        let body = encode_part(disposition, "c") + "--XX--";
        let parts = read_form(body.as_bytes(), 7).0.unwrap();
        assert_eq!(parts[0].0, part_headers("f", Some(file)), "{disposition}");
    }
}

#[test]
fn malformed_bodies_are_rejected() {
    let whole = encode_part("name=\"a\"", "content");
    for (body, reason) in [
        (whole.clone(), "ends before"),
        (whole.clone() + "--XX", "ends before"),
        (whole.trim_end().to_owned(), "ends before"),
        (String::new(), "ends before"),
        ("--XY\r\n".into(), "ends before"),
        ("--XXY\r\n\r\n".into(), "after a boundary"),
        ("--XX\r\n\r\n--XX--".into(), "no name"),
        (
            "--XX\r\nContent-Disposition: form-data\r\n\r\n\r\n--XX--".into(),
            "no name",
        ),
        (
            "--XX\r\nContent-Disposition: attachment; name=x\r\n\r\n\r\n--XX--".into(),
            "no name",
        ),
        (
            "--XX\r\nContent-Disposition: form-data; name=\"x\r\n\r\n\r\n--XX--".into(),
            "no name",
        ),
        (
            "x".repeat(MAX_HEADER_BYTES + 100) + "\r\n" + &whole + "--XX--",
            "first boundary",
        ),
        (
            format!("--XX\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEADER_BYTES)),
            "too long",
        ),
        (format!("--XX{}", " ".repeat(3 * MAX_HEADER_BYTES)), "too long"),
    ] {
        for piece in [1, 1000, 1 << 20] {
            let error = read_form(body.as_bytes(), piece).0.unwrap_err().to_string();
            assert!(error.contains(reason), "expected '{reason}', got '{error}'");
        }
    }
}

#[test]
fn memory_use_is_bounded() {
    let many = encode_part("name=\"a\"", "x").repeat(500);
    let body = many + &encode_part("name=\"b\"", &"y".repeat(1 << 20)) + "--XX--";
    let (parts, most) = read_form(body.as_bytes(), 4096);
    assert_eq!(parts.unwrap().len(), 501);
    assert!(most <= 2 * 4096, "{most}");
}

#[test]
fn boundary_is_parsed_from_the_content_type() {
    for (text, expected) in [
        ("multipart/form-data; boundary=XX", Some("XX")),
        ("Multipart/Form-Data;charset=utf-8; boundary=\"a b\"", Some("a b")),
        ("multipart/form-data", None),
        ("multipart/mixed; boundary=XX", None),
        ("multipart/form-data; boundary=", None),
        ("application/json; boundary=XX", None),
    ] {
        assert_eq!(parse_boundary(text).as_deref(), expected, "{text}");
    }
    assert_eq!(
        parse_boundary(&format!("multipart/form-data; boundary={}", "x".repeat(71))),
        None
    );
}

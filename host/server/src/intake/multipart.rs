//! Reading `multipart/form-data` (RFC 7578) as it comes.
//!
//! The usual parser takes into memory whatever the connection has ready and looks for the end of a part's headers without
//! bound, which is how one client fills a host's memory. This one asks for the next bytes only when those it has do not
//! suffice: what it holds is never more than one chunk of the connection and one part's headers.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use memchr::memmem::{Finder, find};

/// Most bytes of a part's headers, and of what stands before the first part.
const HEADER_BYTES: usize = 8 << 10;
/// Longest boundary that RFC 2046 allows.
const BOUNDARY_BYTES: usize = 70;

/// A body that is not what it should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError<E> {
    /// The connection broke, or what it brings was refused.
    #[error("{0}")]
    Body(E),
    /// It is no multipart body.
    #[error("the multipart body is broken: {0}")]
    Broken(&'static str),
}

/// What a part says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Name of the field.
    pub(super) name: String,
    /// Name of the file, if it is one.
    pub(super) file_name: Option<String>,
}

/// The boundary that a `Content-Type` of `multipart/form-data` names; `None` for another type or without one.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    let sound = (1..=BOUNDARY_BYTES).contains(&boundary.len())
        && boundary.bytes().all(|b| (b' '..=b'~').contains(&b));
    sound.then_some(boundary)
}

/// A form's parts, one after the other.
pub(super) struct Form<S> {
    body: S,
    held: BytesMut,
    delimiter: Finder<'static>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first delimiter.
    Preamble,
    /// Inside a part's content.
    Content,
    /// Right behind a delimiter.
    Delimiter,
    /// Behind the last.
    End,
}

impl<S, E> Form<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    pub(super) fn new(body: S, boundary: &str) -> Self {
        Self {
            body,
            // The first delimiter lacks the line break that all others begin with.
            held: BytesMut::from(&b"\r\n"[..]),
            delimiter: Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned(),
            place: Place::Preamble,
        }
    }

    /// The next part; `None` behind the last. What is left of the one before is passed over.
    pub(super) async fn next(&mut self) -> Result<Option<Head>, FormError<E>> {
        let mut before = 0;
        while matches!(self.place, Place::Preamble | Place::Content) {
            let preamble = self.place == Place::Preamble;
            before += self.chunk().await?.map_or(0, |chunk| chunk.len());
            if preamble && before > HEADER_BYTES {
                return Err(FormError::Broken("its boundary is not where it should be"));
            }
        }
        if self.place == Place::End {
            return Ok(None);
        }
        self.hold(2).await?;
        if self.held.starts_with(b"--") {
            self.place = Place::End;
            return Ok(None);
        }
        let padding = self.until(b"\r\n").await?;
        if padding.iter().any(|b| !matches!(b, b' ' | b'\t')) {
            return Err(FormError::Broken("something stands behind a boundary"));
        }
        // A part without headers has its empty line at once; it has no name either.
        self.hold(2).await?;
        if self.held.starts_with(b"\r\n") {
            return Err(FormError::Broken("a part has no name"));
        }
        let headers = self.until(b"\r\n\r\n").await?;
        self.place = Place::Content;
        head(&headers)
            .map(Some)
            .ok_or(FormError::Broken("a part has no name"))
    }

    /// The next bytes of the part's content; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, FormError<E>> {
        if !matches!(self.place, Place::Content | Place::Preamble) {
            return Ok(None);
        }
        loop {
            let length = self.delimiter.needle().len();
            match self.delimiter.find(&self.held) {
                Some(0) => {
                    let _ = self.held.split_to(length);
                    self.place = Place::Delimiter;
                    return Ok(None);
                }
                Some(at) => return Ok(Some(self.held.split_to(at).freeze())),
                // The last bytes may be the beginning of a delimiter.
                None if self.held.len() >= length => {
                    let sure = self.held.len() - (length - 1);
                    return Ok(Some(self.held.split_to(sure).freeze()));
                }
                None => self.more().await?,
            }
        }
    }

    /// Everything up to `end`, which is passed over, within the limit for headers.
    async fn until(&mut self, end: &[u8]) -> Result<Bytes, FormError<E>> {
        loop {
            if let Some(at) = find(&self.held, end) {
                let found = self.held.split_to(at).freeze();
                let _ = self.held.split_to(end.len());
                return if found.len() <= HEADER_BYTES {
                    Ok(found)
                } else {
                    Err(TOO_LONG.into())
                };
            }
            if self.held.len() > HEADER_BYTES {
                return Err(TOO_LONG.into());
            }
            self.more().await?;
        }
    }

    async fn hold(&mut self, bytes: usize) -> Result<(), FormError<E>> {
        while self.held.len() < bytes {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), FormError<E>> {
        match self.body.next().await {
            Some(Ok(chunk)) => self.held.extend_from_slice(&chunk),
            Some(Err(error)) => return Err(FormError::Body(error)),
            None => return Err(FormError::Broken("it ends before its last boundary")),
        }
        Ok(())
    }
}

struct TooLong;
const TOO_LONG: TooLong = TooLong;

impl<E> From<TooLong> for FormError<E> {
    fn from(_: TooLong) -> Self {
        Self::Broken("the headers of a part are too long")
    }
}

fn head(headers: &[u8]) -> Option<Head> {
    let headers = String::from_utf8_lossy(headers);
    let disposition = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-disposition")
            .then_some(value)
    })?;
    let (kind, parameters) = disposition.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let extended = parameter(parameters, "filename*").as_deref().and_then(decoded);
    Some(Head {
        name: parameter(parameters, "name")?,
        file_name: extended.or_else(|| parameter(parameters, "filename")),
    })
}

/// A parameter of a header: `name=value` or `name="value"`, where `\"` is a quotation mark. Other backslashes stand for
/// themselves, as clients mean them.
fn parameter(mut rest: &str, wanted: &str) -> Option<String> {
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, behind) = rest.split_once('=')?;
        let behind = behind.trim_start();
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => {
                let (value, behind) = unquoted(quoted)?;
                (value, behind)
            }
            None => {
                let (value, behind) = behind.split_once(';').unwrap_or((behind, ""));
                (value.trim().to_owned(), behind)
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = behind;
    }
}

/// The text up to the closing quotation mark, and what stands behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..).unwrap_or_default())),
            '\\' if is_mark(text.get(at + 1..).unwrap_or_default()) => {
                characters.next();
                value.push('"');
            }
            other => value.push(other),
        }
    }
    None
}

/// Whether a quotation mark behind a backslash belongs to the value, as curl means it. Browsers write a backslash as it is,
/// so where the value may end behind it, it does.
fn is_mark(behind: &str) -> bool {
    let rest = behind.strip_prefix('"').map(str::trim_start);
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(';'))
}

/// `UTF-8''na%C3%AFve.pdf` (RFC 5987).
fn decoded(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, text) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                digit(rest.next()?)? << 4 | digit(rest.next()?)?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::convert::Infallible;

    type Parts = Vec<(Head, Vec<u8>)>;

    /// Reads a body that comes in pieces of so many bytes; also the most that was ever held.
    fn read(body: &[u8], piece: usize) -> (Result<Parts, FormError<Infallible>>, usize) {
        let pieces: Vec<_> = body
            .chunks(piece.max(1))
            .map(|c| Ok(Bytes::copy_from_slice(c)))
            .collect();
        let mut form = Form::new(stream::iter(pieces), "XX");
        let mut most = 0;
        let read = async {
            let mut parts = Vec::new();
            while let Some(head) = form.next().await? {
                let mut content = Vec::new();
                while let Some(chunk) = form.chunk().await? {
                    most = most.max(form.held.len() + chunk.len());
                    content.extend_from_slice(&chunk);
                }
                parts.push((head, content));
            }
            Ok(parts)
        };
        let read = futures::executor::block_on(read);
        (read, most)
    }

    fn part(disposition: &str, content: &str) -> String {
        format!(
            "--XX\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: x/y\r\n\r\n{content}\r\n"
        )
    }

    fn head_of(name: &str, file: Option<&str>) -> Head {
        Head {
            name: name.into(),
            file_name: file.map(str::to_owned),
        }
    }

    #[test]
    fn parts_come_out_however_the_bytes_come_in() {
        let tricky = "a\r\n--X\r\n--\r\n\r--XX\n--XXX no, \r\n-";
        let body = [
            part("name=\"file\"; filename=\"a.pdf\"", tricky),
            part("name=file; filename=b", ""),
            part("filename=\"x\"; name=\"options\"", "{}"),
            "--XX--\r\nwhatever follows".into(),
        ]
        .concat();
        let expected = vec![
            (head_of("file", Some("a.pdf")), tricky.as_bytes().to_vec()),
            (head_of("file", Some("b")), vec![]),
            (head_of("options", Some("x")), b"{}".to_vec()),
        ];
        for piece in (1..40).chain([1000]) {
            let (read, _) = read(body.as_bytes(), piece);
            assert_eq!(read.unwrap(), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn names_as_clients_write_them() {
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
            let body = part(disposition, "c") + "--XX--";
            let parts = read(body.as_bytes(), 7).0.unwrap();
            assert_eq!(parts[0].0, head_of("f", Some(file)), "{disposition}");
        }
    }

    #[test]
    fn what_is_broken_is_said_to_be() {
        let whole = part("name=\"a\"", "content");
        for (body, reason) in [
            (whole.clone(), "ends before"),
            (whole.clone() + "--XX", "ends before"),
            (whole.trim_end().to_owned(), "ends before"),
            (String::new(), "ends before"),
            ("--XY\r\n".into(), "ends before"),
            ("--XXY\r\n\r\n".into(), "behind a boundary"),
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
                "x".repeat(HEADER_BYTES + 100) + "\r\n" + &whole + "--XX--",
                "boundary is not",
            ),
            (
                format!("--XX\r\nA: {}\r\n\r\n", "x".repeat(HEADER_BYTES)),
                "too long",
            ),
            (format!("--XX{}", " ".repeat(3 * HEADER_BYTES)), "too long"),
        ] {
            for piece in [1, 1000, 1 << 20] {
                let error = read(body.as_bytes(), piece).0.unwrap_err().to_string();
                assert!(error.contains(reason), "{error} in place of {reason}");
            }
        }
    }

    #[test]
    fn no_more_is_held_than_has_to_be() {
        let many = part("name=\"a\"", "x").repeat(500);
        let body = many + &part("name=\"b\"", &"y".repeat(1 << 20)) + "--XX--";
        let (parts, most) = read(body.as_bytes(), 4096);
        assert_eq!(parts.unwrap().len(), 501);
        assert!(most <= 2 * 4096, "{most}");
    }

    #[test]
    fn boundaries_of_content_types() {
        for (text, expected) in [
            ("multipart/form-data; boundary=XX", Some("XX")),
            ("Multipart/Form-Data;charset=utf-8; boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/mixed; boundary=XX", None),
            ("multipart/form-data; boundary=", None),
            ("application/json; boundary=XX", None),
        ] {
            assert_eq!(boundary(text).as_deref(), expected, "{text}");
        }
        assert_eq!(
            boundary(&format!("multipart/form-data; boundary={}", "x".repeat(71))),
            None
        );
    }
}

//! A streaming reader of `multipart/form-data` (RFC 7578) with bounded memory.
//!
//! The common parser buffers all data that the connection has ready and searches the end of part headers without a limit, so
//! one client could fill the memory of the host. This reader requests more data only if the buffer does not suffice. It holds
//! at most one chunk of the connection and the headers of one part.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use memchr::memmem::{Finder, find};

use crate::problem::Problem;

/// Maximum size of the headers of a part, and of the preamble before the first part.
const MAX_HEADER_BYTES: usize = 8 << 10;
/// Maximum length of a boundary (RFC 2046).
const MAX_BOUNDARY_BYTES: usize = 70;

/// A body that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MultipartError<E> {
    /// Reading from the connection failed.
    #[error("{0}")]
    Body(E),
    /// The body is not a valid multipart body.
    #[error("the multipart body is malformed: {0}")]
    Malformed(&'static str),
}

impl From<MultipartError<axum::Error>> for Problem {
    fn from(error: MultipartError<axum::Error>) -> Self {
        match error {
            MultipartError::Body(error) => {
                Self::incomplete_body(format!("the body is incomplete ({error}): send it again"))
            }
            MultipartError::Malformed(_) => Self::invalid_request(error.to_string()),
        }
    }
}

/// The headers of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartHeaders {
    /// Name of the form field.
    pub(super) field_name: String,
    /// File name, if the part has one.
    pub(super) file_name: Option<String>,
}

/// Parses the boundary from a `Content-Type` header. `None` if the type is not `multipart/form-data` or has no valid boundary.
pub(super) fn parse_boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = find_header_parameter(parameters, "boundary")?;
    let is_valid = (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len())
        && boundary.bytes().all(|b| (b' '..=b'~').contains(&b));
    is_valid.then_some(boundary)
}

/// Reads the parts of a form one after the other.
pub(super) struct MultipartReader<S> {
    body: S,
    buffer: BytesMut,
    delimiter: Finder<'static>,
    position: ReaderPosition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReaderPosition {
    /// Before the first delimiter.
    Preamble,
    /// Inside a part's content.
    InContent,
    /// Directly after a delimiter.
    AfterDelimiter,
    /// After the last delimiter.
    End,
}

impl<S, E> MultipartReader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    pub(super) fn new(body: S, boundary: &str) -> Self {
        Self {
            body,
            // All delimiters except the first begin with a line break.
            buffer: BytesMut::from(&b"\r\n"[..]),
            delimiter: Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned(),
            position: ReaderPosition::Preamble,
        }
    }

    /// Skips the rest of the current part and returns the headers of the next one. `None` after the last part.
    pub(super) async fn next_part(&mut self) -> Result<Option<PartHeaders>, MultipartError<E>> {
        let mut skipped_bytes = 0;
        while matches!(
            self.position,
            ReaderPosition::Preamble | ReaderPosition::InContent
        ) {
            let preamble = self.position == ReaderPosition::Preamble;
            skipped_bytes += self.next_chunk().await?.map_or(0, |chunk| chunk.len());
            if preamble && skipped_bytes > MAX_HEADER_BYTES {
                return Err(MultipartError::Malformed("the first boundary is missing"));
            }
        }
        if self.position == ReaderPosition::End {
            return Ok(None);
        }
        self.fill_buffer_to(2).await?;
        if self.buffer.starts_with(b"--") {
            self.position = ReaderPosition::End;
            return Ok(None);
        }
        let padding = self.read_headers_until(b"\r\n").await?;
        if padding.iter().any(|b| !matches!(b, b' ' | b'\t')) {
            return Err(MultipartError::Malformed("unexpected data after a boundary"));
        }
        // A part without headers begins with the empty line and has no name.
        self.fill_buffer_to(2).await?;
        if self.buffer.starts_with(b"\r\n") {
            return Err(MultipartError::Malformed("a part has no name"));
        }
        let headers = self.read_headers_until(b"\r\n\r\n").await?;
        self.position = ReaderPosition::InContent;
        parse_part_headers(&headers)
            .map(Some)
            .ok_or(MultipartError::Malformed("a part has no name"))
    }

    /// Returns the next bytes of the content of the part. `None` at its end.
    pub(super) async fn next_chunk(&mut self) -> Result<Option<Bytes>, MultipartError<E>> {
        if !matches!(
            self.position,
            ReaderPosition::InContent | ReaderPosition::Preamble
        ) {
            return Ok(None);
        }
        loop {
            let length = self.delimiter.needle().len();
            match self.delimiter.find(&self.buffer) {
                Some(0) => {
                    let _ = self.buffer.split_to(length);
                    self.position = ReaderPosition::AfterDelimiter;
                    return Ok(None);
                }
                Some(at) => return Ok(Some(self.buffer.split_to(at).freeze())),
                // The last bytes may be the start of a delimiter.
                None if self.buffer.len() >= length => {
                    let safe_length = self.buffer.len() - (length - 1);
                    return Ok(Some(self.buffer.split_to(safe_length).freeze()));
                }
                None => self.read_chunk_into_buffer().await?,
            }
        }
    }

    /// Returns the bytes up to `end` and skips `end`. Fails if they exceed the size limit of headers.
    async fn read_headers_until(&mut self, end: &[u8]) -> Result<Bytes, MultipartError<E>> {
        loop {
            if let Some(at) = find(&self.buffer, end) {
                let found = self.buffer.split_to(at).freeze();
                let _ = self.buffer.split_to(end.len());
                return if found.len() <= MAX_HEADER_BYTES {
                    Ok(found)
                } else {
                    Err(HEADERS_TOO_LONG.into())
                };
            }
            if self.buffer.len() > MAX_HEADER_BYTES {
                return Err(HEADERS_TOO_LONG.into());
            }
            self.read_chunk_into_buffer().await?;
        }
    }

    async fn fill_buffer_to(&mut self, bytes: usize) -> Result<(), MultipartError<E>> {
        while self.buffer.len() < bytes {
            self.read_chunk_into_buffer().await?;
        }
        Ok(())
    }

    async fn read_chunk_into_buffer(&mut self) -> Result<(), MultipartError<E>> {
        match self.body.next().await {
            Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
            Some(Err(error)) => return Err(MultipartError::Body(error)),
            None => return Err(MultipartError::Malformed("it ends before the last boundary")),
        }
        Ok(())
    }
}

struct HeadersTooLong;
const HEADERS_TOO_LONG: HeadersTooLong = HeadersTooLong;

impl<E> From<HeadersTooLong> for MultipartError<E> {
    fn from(_: HeadersTooLong) -> Self {
        Self::Malformed("the headers of a part are too long")
    }
}

fn parse_part_headers(headers: &[u8]) -> Option<PartHeaders> {
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
    let extended = find_header_parameter(parameters, "filename*")
        .as_deref()
        .and_then(decode_rfc5987_value);
    Some(PartHeaders {
        field_name: find_header_parameter(parameters, "name")?,
        file_name: extended.or_else(|| find_header_parameter(parameters, "filename")),
    })
}

/// Returns the value of a header parameter, `name=value` or `name="value"`. In a quoted value, `\"` is a quotation mark. Other
/// backslashes are literal, since clients do not escape them.
fn find_header_parameter(mut rest: &str, wanted: &str) -> Option<String> {
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, after_name) = rest.split_once('=')?;
        let after_name = after_name.trim_start();
        let (value, after_value) = match after_name.strip_prefix('"') {
            Some(quoted) => {
                let (value, after_value) = parse_quoted_value(quoted)?;
                (value, after_value)
            }
            None => {
                let (value, after_value) = after_name.split_once(';').unwrap_or((after_name, ""));
                (value.trim().to_owned(), after_value)
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after_value;
    }
}

/// Returns the text up to the closing quotation mark, and the rest after it.
fn parse_quoted_value(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(at + 1..).unwrap_or_default())),
            '\\' if is_escaped_quotation_mark(quoted.get(at + 1..).unwrap_or_default()) => {
                characters.next();
                value.push('"');
            }
            other => value.push(other),
        }
    }
    None
}

/// Whether a quotation mark after a backslash is part of the value. curl escapes quotation marks with a backslash, browsers write a
/// backslash literally. If the value can end at this quotation mark, it ends there.
fn is_escaped_quotation_mark(text_after: &str) -> bool {
    let rest = text_after.strip_prefix('"').map(str::trim_start);
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(';'))
}

/// Decodes an extended value such as `UTF-8''na%C3%AFve.pdf` (RFC 5987).
fn decode_rfc5987_value(value: &str) -> Option<String> {
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
mod tests;

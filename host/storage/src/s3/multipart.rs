//! Uploads files, and copies objects on the server. Large ones are written in parts, so that a failed request repeats one part and not all.
//!
//! The object appears when the upload is completed. A failed upload is aborted; that of a killed process stays invisible on the server
//! until a lifecycle rule of the bucket removes it (`AbortIncompleteMultipartUpload`).

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use futures::stream::{self, StreamExt as _};
use weir_core::StorageError;

use super::bucket::{S3Bucket, WriteOnceOutcome};
use super::errors::is_missing_object;

/// Files above this size are sent in parts.
const MAX_SINGLE_PUT_BYTES: u64 = 16 << 20;
/// Size of a part of a file. The protocol allows 5 MiB and more, and the last part can be smaller.
const PART_BYTES: u64 = 8 << 20;
/// Maximum number of parts, by the protocol.
const MAX_PARTS: u64 = 10_000;
/// Maximum size of a file.
const MAX_FILE_BYTES: u64 = PART_BYTES * MAX_PARTS;
/// Parts of an object that are copied at the same time. A file is sent one part after the other.
const MAX_CONCURRENT_COPIES: usize = 4;

/// Where the bytes of a multipart upload come from.
#[derive(Debug, Clone, Copy)]
enum PartSource<'a> {
    /// A file on this machine.
    File(&'a Path),
    /// The key of another object of the bucket.
    Object(&'a str),
}

/// An upload that is not completed.
struct UnfinishedUpload<'a> {
    key: &'a str,
    what: &'a str,
    id: &'a str,
    source: PartSource<'a>,
}

/// Divides an object of `bytes` bytes, at least one, into parts of `part_bytes`. Returns the numbers of the parts, from 1, and their bytes.
fn divide_into_parts(bytes: u64, part_bytes: u64) -> impl Iterator<Item = (i32, Range<u64>)> {
    let mut start = 0_u64;
    (1..).map_while(move |number| {
        let part = start..bytes.min(start.saturating_add(part_bytes));
        start = part.end;
        (!part.is_empty()).then_some((number, part))
    })
}

impl S3Bucket {
    /// Writes a file to an object, unless it exists and `is_written_once` is set. Returns the size of the file and whether the object was
    /// written. Returns [`StorageError::NotFound`] if there is no file.
    pub(super) async fn put_file(
        &self,
        key: &str,
        what: &str,
        path: &Path,
        is_written_once: bool,
    ) -> Result<(u64, WriteOnceOutcome), StorageError> {
        let io = |error: std::io::Error| StorageError::from_io_error(what, &error);
        let bytes = tokio::fs::metadata(path).await.map_err(io)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(StorageError::Failed {
                what: what.to_owned(),
                reason: "it is larger than the 78 GiB that are possible with storage.blobs on an S3 server"
                    .into(),
            });
        }
        if is_written_once && bytes > MAX_SINGLE_PUT_BYTES && self.object_size(key, what).await?.is_some() {
            return Ok((bytes, WriteOnceOutcome::Exists));
        }
        if bytes > MAX_SINGLE_PUT_BYTES {
            let parts = divide_into_parts(bytes, PART_BYTES);
            self.write_in_parts(key, what, PartSource::File(path), parts)
                .await?;
            return Ok((bytes, WriteOnceOutcome::Created));
        }
        let content = tokio::fs::read(path).await.map_err(io)?;
        let outcome = match is_written_once {
            true => self.put_bytes_once(key, what, &content).await?,
            false => {
                self.put_bytes(key, what, &content).await?;
                WriteOnceOutcome::Created
            }
        };
        Ok((bytes, outcome))
    }

    /// Copies an object of `bytes` bytes on the server. Returns whether the source exists.
    pub(super) async fn copy_object(
        &self,
        from: &str,
        to: &str,
        what: &str,
        bytes: u64,
    ) -> Result<bool, StorageError> {
        if bytes > self.max_copy_bytes {
            let parts = divide_into_parts(bytes, self.max_copy_bytes);
            return self
                .write_in_parts(to, what, PartSource::Object(from), parts)
                .await;
        }
        let copied = self
            .client
            .copy_object()
            .bucket(self.name())
            .copy_source(self.copy_source(from))
            .key(self.full_key(to))
            .set_server_side_encryption(self.encryption_header())
            .send()
            .await;
        match copied {
            Ok(_) => Ok(true),
            Err(error) if is_missing_object(&error) => Ok(false),
            Err(error) => Err(self.errors.to_storage_error(what, error)),
        }
    }

    /// Returns an object as the source of a copy. Keys have only characters that need no escape in a URL.
    fn copy_source(&self, key: &str) -> String {
        format!("{}/{}", self.name(), self.full_key(key))
    }

    /// Writes an object in parts. Returns whether the source exists.
    async fn write_in_parts(
        &self,
        key: &str,
        what: &str,
        source: PartSource<'_>,
        parts: impl Iterator<Item = (i32, Range<u64>)> + Send,
    ) -> Result<bool, StorageError> {
        let created = self
            .client
            .create_multipart_upload()
            .bucket(self.name())
            .key(self.full_key(key))
            .set_server_side_encryption(self.encryption_header())
            .send()
            .await
            .map_err(|error| self.errors.to_storage_error(what, error))?;
        let upload = UnfinishedUpload {
            key,
            what,
            id: created.upload_id().unwrap_or_default(),
            source,
        };
        let written = self.write_parts_and_complete(&upload, parts).await;
        if !matches!(written, Ok(true)) {
            let abort = self.client.abort_multipart_upload().bucket(self.name());
            let aborted = abort.key(self.full_key(key)).upload_id(upload.id).send().await;
            if let Err(error) = aborted {
                // The first error is returned. It usually has the same cause.
                self.errors
                    .to_storage_error("an unfinished multipart upload", error);
            }
        }
        written
    }

    async fn write_parts_and_complete(
        &self,
        upload: &UnfinishedUpload<'_>,
        parts: impl Iterator<Item = (i32, Range<u64>)> + Send,
    ) -> Result<bool, StorageError> {
        let concurrent = match upload.source {
            PartSource::File(_) => 1,
            PartSource::Object(_) => MAX_CONCURRENT_COPIES,
        };
        // After a failure no further part begins, and those in progress end: the server could store a part after the abort otherwise.
        let has_failed = AtomicBool::new(false);
        let written: Vec<Result<Option<CompletedPart>, StorageError>> =
            stream::iter(parts.take_while(|_| !has_failed.load(Ordering::Relaxed)))
                .map(async |(number, range)| {
                    let written = self.write_part(upload, number, range).await;
                    if !matches!(written, Ok(Some(_))) {
                        has_failed.store(true, Ordering::Relaxed);
                    }
                    written
                })
                .buffered(concurrent)
                .collect()
                .await;
        let Some(parts) = written
            .into_iter()
            .collect::<Result<Option<Vec<_>>, StorageError>>()?
        else {
            return Ok(false);
        };
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let completed = self
            .client
            .complete_multipart_upload()
            .bucket(self.name())
            .key(self.full_key(upload.key))
            .upload_id(upload.id)
            .multipart_upload(all)
            .send()
            .await;
        completed
            .map(|_| true)
            .map_err(|error| self.errors.to_storage_error(upload.what, error))
    }

    /// Writes a part; `None` if the object to copy does not exist.
    async fn write_part(
        &self,
        upload: &UnfinishedUpload<'_>,
        number: i32,
        range: Range<u64>,
    ) -> Result<Option<CompletedPart>, StorageError> {
        let e_tag = match upload.source {
            PartSource::File(path) => {
                let part = ByteStream::read_from()
                    .path(path)
                    .offset(range.start)
                    .length(Length::Exact(range.end - range.start))
                    .build()
                    .await
                    .map_err(|error| StorageError::Failed {
                        what: upload.what.to_owned(),
                        reason: format!("the received file cannot be read: {error}"),
                    })?;
                let request = self.client.upload_part().bucket(self.name());
                let sent = request
                    .key(self.full_key(upload.key))
                    .upload_id(upload.id)
                    .part_number(number)
                    .body(part)
                    .send()
                    .await
                    .map_err(|error| self.errors.to_storage_error(upload.what, error))?;
                sent.e_tag
            }
            PartSource::Object(from) => {
                let request = self.client.upload_part_copy().bucket(self.name());
                let copied = request
                    .key(self.full_key(upload.key))
                    .upload_id(upload.id)
                    .part_number(number)
                    .copy_source(self.copy_source(from))
                    // Both ends are included.
                    .copy_source_range(format!("bytes={}-{}", range.start, range.end - 1))
                    .send()
                    .await;
                match copied {
                    Ok(copied) => copied.copy_part_result.and_then(|result| result.e_tag),
                    Err(error) if is_missing_object(&error) => return Ok(None),
                    Err(error) => return Err(self.errors.to_storage_error(upload.what, error)),
                }
            }
        };
        let part = CompletedPart::builder().part_number(number);
        Ok(Some(part.set_e_tag(e_tag).build()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_bytes_once() {
        let parts = |bytes, part_bytes| divide_into_parts(bytes, part_bytes).collect::<Vec<_>>();
        assert_eq!(parts(1, 10), [(1, 0..1)]);
        assert_eq!(parts(10, 10), [(1, 0..10)]);
        assert_eq!(parts(11, 10), [(1, 0..10), (2, 10..11)]);
        assert_eq!(parts(30, 10), [(1, 0..10), (2, 10..20), (3, 20..30)]);
        let six_gib = parts(6 << 30, 256 << 20);
        assert_eq!(six_gib.len(), 24);
        assert_eq!(six_gib.last(), Some(&(24, (6 << 30) - (256 << 20)..6 << 30)));
        let largest = parts(MAX_FILE_BYTES, PART_BYTES);
        assert_eq!(
            (largest.len() as u64, largest[9999].1.end),
            (MAX_PARTS, MAX_FILE_BYTES)
        );
        assert_eq!(MAX_FILE_BYTES >> 30, 78);
    }
}

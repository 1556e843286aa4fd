//! Uploads files. A large file is sent in parts, so that a failed request repeats one part and not the file.
//!
//! The object appears when the upload is completed. A failed upload is aborted; that of a killed process stays invisible on the server
//! until a lifecycle rule of the bucket removes it (`AbortIncompleteMultipartUpload`).

use std::path::Path;

use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use weir_core::StorageError;

use super::bucket::{S3Bucket, WriteOnceOutcome};

/// Files above this size are sent in parts.
const MAX_SINGLE_PUT_BYTES: u64 = 16 << 20;
/// Size of a part. The protocol allows 5 MiB and more, and the last part can be smaller.
const PART_BYTES: u64 = 8 << 20;
/// Maximum size of a file: the server copies at most 5 GiB with one request.
const MAX_FILE_BYTES: u64 = 5 << 30;

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
                reason: "it is larger than the 5 GiB that are possible with storage.blobs on an S3 server"
                    .into(),
            });
        }
        if is_written_once && bytes > MAX_SINGLE_PUT_BYTES && self.object_size(key, what).await?.is_some() {
            return Ok((bytes, WriteOnceOutcome::Exists));
        }
        if bytes > MAX_SINGLE_PUT_BYTES {
            self.put_file_in_parts(key, what, path, bytes).await?;
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

    async fn put_file_in_parts(
        &self,
        key: &str,
        what: &str,
        path: &Path,
        bytes: u64,
    ) -> Result<(), StorageError> {
        let created = self
            .client
            .create_multipart_upload()
            .bucket(self.name())
            .key(self.full_key(key))
            .set_server_side_encryption(self.encryption_header())
            .send()
            .await
            .map_err(|error| self.errors.to_storage_error(what, error))?;
        let upload = created.upload_id().unwrap_or_default();
        let sent = self.send_parts_and_complete(key, what, path, bytes, upload).await;
        if sent.is_err() {
            let abort = self.client.abort_multipart_upload().bucket(self.name());
            let aborted = abort.key(self.full_key(key)).upload_id(upload).send().await;
            if let Err(error) = aborted {
                // The first error is returned. It usually has the same cause.
                self.errors
                    .to_storage_error("an unfinished multipart upload", error);
            }
        }
        sent
    }

    async fn send_parts_and_complete(
        &self,
        key: &str,
        what: &str,
        path: &Path,
        bytes: u64,
        upload: &str,
    ) -> Result<(), StorageError> {
        let mut parts = Vec::new();
        for (number, offset) in (1..).zip((0..bytes).step_by(PART_BYTES as usize)) {
            let part = ByteStream::read_from()
                .path(path)
                .offset(offset)
                .length(Length::Exact(PART_BYTES.min(bytes - offset)))
                .build()
                .await
                .map_err(|error| StorageError::Failed {
                    what: what.to_owned(),
                    reason: format!("the received file cannot be read: {error}"),
                })?;
            let sent = self
                .client
                .upload_part()
                .bucket(self.name())
                .key(self.full_key(key))
                .upload_id(upload)
                .part_number(number)
                .body(part)
                .send()
                .await
                .map_err(|error| self.errors.to_storage_error(what, error))?;
            let part = CompletedPart::builder().part_number(number);
            parts.push(part.set_e_tag(sent.e_tag).build());
        }
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let completed = self
            .client
            .complete_multipart_upload()
            .bucket(self.name())
            .key(self.full_key(key))
            .upload_id(upload)
            .multipart_upload(all)
            .send()
            .await;
        completed
            .map(drop)
            .map_err(|error| self.errors.to_storage_error(what, error))
    }
}

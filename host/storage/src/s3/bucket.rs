//! Requests to one bucket.
//!
//! Each function names what it accesses, for errors. Keys are relative to the prefix of the location.

use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{Delete, ObjectIdentifier, ServerSideEncryption as SseHeader};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use weir_core::component::ComponentDigest;
use weir_core::{StorageError, TenantId};

use super::component_key::{component_key, component_name};
use super::connection::{S3Connection, S3Location, ServerSideEncryption};
use super::errors::{ErrorMapper, SERVER_NAME, http_status, is_missing_object, unavailable};

/// Maximum number of keys of one batch deletion, by the protocol.
pub(super) const MAX_KEYS_PER_DELETION: usize = 1000;
/// Attempts to read the body of an object. The SDK repeats only requests that fail before the body.
const MAX_READ_ATTEMPTS: u32 = 3;
/// Delay before the second attempt to read a body. Each further delay is twice as long.
const READ_RETRY_DELAY: Duration = Duration::from_millis(200);

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedObject {
    /// The key, relative to the prefix of the location.
    pub(super) key: String,
    pub(super) bytes: u64,
    /// When it was written, by the clock of the server.
    pub(super) last_modified: SystemTime,
}

/// Whether an object was written that must be written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteOnceOutcome {
    /// It did not exist and was written.
    Created,
    /// It exists already.
    Exists,
}

/// A bucket on an S3 server.
pub struct S3Bucket {
    pub(super) client: Client,
    pub(super) location: S3Location,
    encryption: ServerSideEncryption,
    pub(super) errors: ErrorMapper,
    max_cache_bytes: u64,
    /// Larger objects are copied in parts of this size.
    pub(super) max_copy_bytes: u64,
}

impl S3Bucket {
    /// Connects to the server and checks that the bucket exists. Returns [`StorageError::Unavailable`] if the server does not respond,
    /// [`StorageError::PermissionDenied`] if it refuses the credentials or there are none, and [`StorageError::Failed`] if the bucket does
    /// not exist.
    pub async fn connect(connection: &S3Connection) -> Result<Self, StorageError> {
        let bucket = Self {
            client: connection.build_client().await,
            location: connection.location.clone(),
            encryption: connection.server_side_encryption,
            errors: ErrorMapper {
                bucket: connection.location.bucket.clone(),
                attempt_timeout: connection.attempt_timeout,
            },
            max_cache_bytes: connection.max_cache_bytes,
            max_copy_bytes: connection.max_copy_bytes,
        };
        let send_head = || bucket.client.head_bucket().bucket(bucket.name()).send();
        let mut head = send_head().await;
        if head.as_ref().is_err_and(|error| http_status(error) == Some(403)) {
            // The server may refuse the time of the signature. The SDK has taken the server's time from the response, but repeats a
            // request only if the error says so, and the response to HEAD has no text.
            head = send_head().await;
        }
        match head {
            Ok(_) => Ok(bucket),
            Err(error) if http_status(&error) == Some(404) => Err(bucket.errors.missing_bucket_error()),
            Err(error) => {
                let what = format!("the S3 bucket {}", bucket.name());
                Err(bucket.errors.to_storage_error(&what, error))
            }
        }
    }

    /// Writes, reads, lists and deletes an object, to check the permissions.
    pub async fn check_access(&self) -> Result<(), StorageError> {
        let (key, what) = (format!("probe/{}", uuid::Uuid::now_v7()), "a probe object");
        self.put_bytes(&key, what, b"weir doctor").await?;
        let found = self.get_bytes(&key, what).await?;
        let listed = self.list_objects(&key, what).await?;
        self.delete_objects(vec![key], what).await?;
        if found.as_deref() == Some(b"weir doctor") && listed.len() == 1 {
            Ok(())
        } else {
            Err(StorageError::Damaged {
                what: what.into(),
                reason: format!("{SERVER_NAME} does not return or list an object that it has stored"),
            })
        }
    }

    /// Reads a component of a tenant without a cache; `None` if it is not stored.
    pub async fn read_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        self.get_bytes(&component_key(tenant, digest), &component_name(digest))
            .await
    }

    pub(super) fn name(&self) -> &str {
        &self.location.bucket
    }

    pub(super) fn max_cache_bytes(&self) -> u64 {
        self.max_cache_bytes
    }

    /// Returns the key in the bucket.
    pub(super) fn full_key(&self, key: &str) -> String {
        match self.location.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    pub(super) fn encryption_header(&self) -> Option<SseHeader> {
        match self.encryption {
            ServerSideEncryption::BucketDefault => None,
            ServerSideEncryption::S3Keys => Some(SseHeader::Aes256),
            ServerSideEncryption::KmsKey => Some(SseHeader::AwsKms),
        }
    }

    pub(super) fn put_request(&self, key: &str) -> PutObjectFluentBuilder {
        self.client
            .put_object()
            .bucket(self.name())
            .key(self.full_key(key))
            .set_server_side_encryption(self.encryption_header())
    }

    /// Writes or replaces an object.
    pub(super) async fn put_bytes(&self, key: &str, what: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let request = self.put_request(key).body(ByteStream::from(bytes.to_vec()));
        let written = request.send().await;
        written
            .map(drop)
            .map_err(|error| self.errors.to_storage_error(what, error))
    }

    /// Writes an object if it does not exist.
    pub(super) async fn put_bytes_once(
        &self,
        key: &str,
        what: &str,
        bytes: &[u8],
    ) -> Result<WriteOnceOutcome, StorageError> {
        let request = self.put_request(key).body(ByteStream::from(bytes.to_vec()));
        match request.if_none_match("*").send().await {
            Ok(_) => Ok(WriteOnceOutcome::Created),
            Err(error) => {
                if self.exists_after_refused_condition(key, what, error).await? {
                    return Ok(WriteOnceOutcome::Exists);
                }
                self.put_bytes(key, what, bytes).await?;
                Ok(WriteOnceOutcome::Created)
            }
        }
    }

    /// Interprets the error of a write with the condition that the object does not exist. `false` means that it does not exist and must
    /// be written without a condition: the server does not know conditions, or a concurrent change was undone.
    pub(super) async fn exists_after_refused_condition<E>(
        &self,
        key: &str,
        what: &str,
        error: SdkError<E>,
    ) -> Result<bool, StorageError>
    where
        E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
    {
        match http_status(&error) {
            Some(412) => Ok(true),
            Some(409 | 501) => Ok(self.object_size(key, what).await?.is_some()),
            _ => Err(self.errors.to_storage_error(what, error)),
        }
    }

    /// Returns the size of an object in bytes; `None` if it does not exist.
    pub(super) async fn object_size(&self, key: &str, what: &str) -> Result<Option<u64>, StorageError> {
        let request = self.client.head_object().bucket(self.name());
        match request.key(self.full_key(key)).send().await {
            Ok(head) => Ok(Some(to_size(head.content_length()))),
            Err(error) if is_missing_object(&error) => Ok(None),
            Err(error) => Err(self.errors.to_storage_error(what, error)),
        }
    }

    /// Reads an object; `None` if it does not exist.
    pub(super) async fn get_bytes(&self, key: &str, what: &str) -> Result<Option<Vec<u8>>, StorageError> {
        for attempt in 1.. {
            let Some(body) = self.open_body(key, what).await? else {
                return Ok(None);
            };
            match body.collect().await {
                Ok(bytes) => return Ok(Some(bytes.to_vec())),
                Err(error) => wait_after_cut_body(attempt, what, &error.to_string()).await?,
            }
        }
        Ok(None)
    }

    /// Writes an object to a new file, which is synced. Returns its size and the SHA-256 of its bytes; `None` if it does not exist.
    pub(super) async fn download(
        &self,
        key: &str,
        what: &str,
        path: &Path,
    ) -> Result<Option<(u64, [u8; 32])>, StorageError> {
        let io =
            |error: std::io::Error| StorageError::from_io_error(format!("the cached copy of {what}"), &error);
        for attempt in 1.. {
            let Some(mut body) = self.open_body(key, what).await? else {
                return Ok(None);
            };
            let mut file = File::create(path).await.map_err(io)?;
            let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
            let cut = loop {
                match body.next().await {
                    Some(Ok(chunk)) => {
                        hash.update(&chunk);
                        bytes += chunk.len() as u64;
                        file.write_all(&chunk).await.map_err(io)?;
                    }
                    Some(Err(error)) => break Some(error.to_string()),
                    None => break None,
                }
            };
            if let Some(error) = cut {
                wait_after_cut_body(attempt, what, &error).await?;
                continue;
            }
            file.flush().await.map_err(io)?;
            file.sync_all().await.map_err(io)?;
            return Ok(Some((bytes, hash.finalize().into())));
        }
        Ok(None)
    }

    pub(super) async fn open_body(&self, key: &str, what: &str) -> Result<Option<ByteStream>, StorageError> {
        let request = self.client.get_object().bucket(self.name());
        let found: Result<_, SdkError<GetObjectError>> = request.key(self.full_key(key)).send().await;
        match found {
            Ok(found) => Ok(Some(found.body)),
            Err(error) if is_missing_object(&error) => Ok(None),
            Err(error) => Err(self.errors.to_storage_error(what, error)),
        }
    }

    /// Lists the objects whose keys start with `prefix`, sorted by key.
    pub(super) async fn list_objects(
        &self,
        prefix: &str,
        what: &str,
    ) -> Result<Vec<ListedObject>, StorageError> {
        let mut found = Vec::new();
        self.visit_objects(prefix, what, |object| found.push(object))
            .await?;
        // Some kinds of buckets list in another order.
        found.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(found)
    }

    /// Calls `visit` with the objects whose keys start with `prefix`. Most kinds of buckets list them sorted by key.
    pub(super) async fn visit_objects(
        &self,
        prefix: &str,
        what: &str,
        mut visit: impl FnMut(ListedObject) + Send,
    ) -> Result<(), StorageError> {
        let skipped = self.full_key("").len();
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(self.name())
            .prefix(self.full_key(prefix))
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.errors.to_storage_error(what, error))?;
            let listed = page.contents().iter().filter_map(|object| {
                Some(ListedObject {
                    key: object.key()?.get(skipped..)?.to_owned(),
                    bytes: to_size(object.size()),
                    last_modified: to_system_time(object.last_modified()),
                })
            });
            listed.for_each(&mut visit);
        }
        Ok(())
    }

    /// Deletes at most [`MAX_KEYS_PER_DELETION`] objects. It is no error if one does not exist.
    pub(super) async fn delete_objects(&self, keys: Vec<String>, what: &str) -> Result<(), StorageError> {
        let invalid = |reason: String| StorageError::Failed {
            what: what.to_owned(),
            reason,
        };
        let mut objects = Vec::with_capacity(keys.len());
        for key in keys {
            let object = ObjectIdentifier::builder().key(self.full_key(&key)).build();
            objects.push(object.map_err(|error| invalid(error.to_string()))?);
        }
        let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build();
        let request = self.client.delete_objects().bucket(self.name());
        let deleted = request
            .delete(delete.map_err(|error| invalid(error.to_string()))?)
            .send()
            .await
            .map_err(|error| self.errors.to_storage_error(what, error))?;
        match deleted.errors() {
            [] => Ok(()),
            [first, ..] => {
                let code = first.code().unwrap_or("unknown");
                tracing::warn!(what, code, message = first.message(), "an object was not deleted");
                let reason = format!("the S3 server did not delete it ({code})");
                Err(match code {
                    "AccessDenied" => StorageError::PermissionDenied {
                        what: what.to_owned(),
                        reason,
                    },
                    "InternalError" | "SlowDown" => unavailable(what, reason),
                    _ => invalid(reason),
                })
            }
        }
    }
}

/// Waits before the next attempt to read a body, or returns the error if all attempts are used.
pub(super) async fn wait_after_cut_body(attempt: u32, what: &str, error: &str) -> Result<(), StorageError> {
    tracing::warn!(what, attempt, error, "reading an object was interrupted");
    if attempt >= MAX_READ_ATTEMPTS {
        return Err(unavailable(what, "its response was cut off".into()));
    }
    tokio::time::sleep(READ_RETRY_DELAY * 2_u32.pow(attempt - 1)).await;
    Ok(())
}

pub(super) fn to_size(bytes: Option<i64>) -> u64 {
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)
}

/// Converts the time of an object. An object without a time counts as new, so that it is not removed for its age.
fn to_system_time(time: Option<&DateTime>) -> SystemTime {
    let seconds = time.and_then(|time| u64::try_from(time.secs()).ok());
    seconds
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .unwrap_or_else(SystemTime::now)
}

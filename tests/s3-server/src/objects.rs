//! The operations of S3 over a map.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use crate::{BUCKET, ServerState, StoredObject};

/// Implements the operations that weir uses.
pub(crate) struct MemoryObjects(pub(crate) Arc<Mutex<ServerState>>);

fn check_bucket(bucket: &str) -> S3Result<()> {
    match bucket {
        BUCKET => Ok(()),
        _ => Err(s3_error!(NoSuchBucket)),
    }
}

fn etag(bytes: &[u8]) -> ETag {
    ETag::Strong(format!("{}-bytes", bytes.len()))
}

async fn read_body(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|_| s3_error!(IncompleteBody))?);
    }
    Ok(bytes.freeze())
}

/// Parses a range such as `bytes=0-9`, whose ends are both included.
fn parse_range(range: &str) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn encryption_name(encryption: Option<ServerSideEncryption>) -> Option<String> {
    encryption.map(|encryption| encryption.as_str().to_owned())
}

#[async_trait::async_trait]
impl S3 for MemoryObjects {
    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        check_bucket(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        check_bucket(&input.bucket)?;
        let object = StoredObject {
            bytes: read_body(input.body).await?,
            encryption: encryption_name(input.server_side_encryption),
            last_modified: SystemTime::now(),
        };
        let mut state = self.0.lock();
        if input.if_none_match.is_some() {
            if state.refuses_conditions {
                return Err(s3_error!(NotImplemented));
            }
            if state.objects.contains_key(&input.key) {
                return Err(s3_error!(PreconditionFailed));
            }
        }
        let e_tag = Some(etag(&object.bytes));
        state.objects.insert(input.key, object);
        Ok(S3Response::new(PutObjectOutput {
            e_tag,
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        check_bucket(&request.input.bucket)?;
        let found = self.0.lock().objects.get(&request.input.key).cloned();
        let bytes = found.ok_or_else(|| s3_error!(NoSuchKey))?.bytes;
        let length = i64::try_from(bytes.len()).unwrap();
        let body = stream::iter([Ok::<_, std::io::Error>(bytes)]);
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(body)),
            content_length: Some(length),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        check_bucket(&request.input.bucket)?;
        let found = self.0.lock().objects.get(&request.input.key).cloned();
        let bytes = found.ok_or_else(|| s3_error!(NoSuchKey))?.bytes;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(i64::try_from(bytes.len()).unwrap()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        check_bucket(&input.bucket)?;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        check_bucket(bucket)?;
        let mut state = self.0.lock();
        let found = state.objects.get(&**key).cloned();
        let object = StoredObject {
            encryption: encryption_name(input.server_side_encryption),
            last_modified: SystemTime::now(),
            ..found.ok_or_else(|| s3_error!(NoSuchKey))?
        };
        let result = CopyObjectResult {
            e_tag: Some(etag(&object.bytes)),
            ..CopyObjectResult::default()
        };
        state.objects.insert(input.key, object);
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        check_bucket(&input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.unwrap_or_default();
        let state = self.0.lock();
        let matching = state
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let mut found: Vec<Object> = matching
            .map(|(key, object)| Object {
                key: Some(key.clone()),
                size: Some(i64::try_from(object.bytes.len()).unwrap()),
                last_modified: Some(object.last_modified.into()),
                ..Object::default()
            })
            .collect();
        let is_truncated = found.len() > state.page_keys;
        found.truncate(state.page_keys);
        Ok(S3Response::new(ListObjectsV2Output {
            is_truncated: Some(is_truncated),
            next_continuation_token: found
                .last()
                .filter(|_| is_truncated)
                .and_then(|last| last.key.clone()),
            key_count: Some(i32::try_from(found.len()).unwrap()),
            contents: Some(found),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        check_bucket(&request.input.bucket)?;
        let objects = request.input.delete.objects;
        if objects.is_empty() || objects.len() > 1000 {
            return Err(s3_error!(MalformedXML));
        }
        let mut state = self.0.lock();
        for object in objects {
            state.objects.remove(&object.key);
        }
        Ok(S3Response::new(DeleteObjectsOutput::default()))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        check_bucket(&request.input.bucket)?;
        let encryption = encryption_name(request.input.server_side_encryption);
        let mut state = self.0.lock();
        state.next_upload += 1;
        let id = format!("{}.{}", state.next_upload, encryption.unwrap_or_default());
        state.uploads.insert(id.clone(), Default::default());
        Ok(S3Response::new(CreateMultipartUploadOutput {
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let bytes = read_body(input.body).await?;
        let mut state = self.0.lock();
        let parts = state.uploads.get_mut(&input.upload_id);
        let e_tag = Some(etag(&bytes));
        parts
            .ok_or_else(|| s3_error!(NoSuchUpload))?
            .insert(input.part_number, bytes);
        Ok(S3Response::new(UploadPartOutput {
            e_tag,
            ..UploadPartOutput::default()
        }))
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        check_bucket(bucket)?;
        let mut state = self.0.lock();
        let source = state.objects.get(&**key).map(|object| object.bytes.clone());
        let source = source.ok_or_else(|| s3_error!(NoSuchKey))?;
        let range = input.copy_source_range.as_deref().and_then(parse_range);
        let (first, last) = range.ok_or_else(|| s3_error!(InvalidArgument))?;
        if first > last || last >= source.len() {
            return Err(s3_error!(InvalidRange));
        }
        let bytes = source.slice(first..=last);
        let parts = state.uploads.get_mut(&input.upload_id);
        let e_tag = Some(etag(&bytes));
        parts
            .ok_or_else(|| s3_error!(NoSuchUpload))?
            .insert(input.part_number, bytes);
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                e_tag,
                ..CopyPartResult::default()
            }),
            ..UploadPartCopyOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.0.lock();
        let parts = state.uploads.remove(&input.upload_id);
        let parts = parts.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let listed = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        if listed.len() != parts.len() || parts.values().rev().skip(1).any(|part| part.len() < 5 << 20) {
            return Err(s3_error!(EntityTooSmall));
        }
        let bytes: Vec<u8> = parts.values().flatten().copied().collect();
        let encryption = input.upload_id.split_once('.').map(|(_, name)| name.to_owned());
        let object = StoredObject {
            bytes: bytes.into(),
            encryption: encryption.filter(|name| !name.is_empty()),
            last_modified: SystemTime::now(),
        };
        state.objects.insert(input.key, object);
        Ok(S3Response::new(CompleteMultipartUploadOutput::default()))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.0.lock().uploads.remove(&request.input.upload_id);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

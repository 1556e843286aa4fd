//! What a migration does with the objects of a bucket.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use weir_core::StorageError;

use super::bucket::{S3Bucket, to_size, wait_after_cut_body};
use crate::stored_objects::{ObjectBatch, StoredObject};

impl S3Bucket {
    /// Returns the bucket and the prefix, such as `s3://bucket/prefix`.
    pub(crate) fn address(&self) -> String {
        self.location.to_string()
    }

    /// Lists the objects whose keys start with `prefix`. Reads ahead one page of the listing.
    pub(crate) fn list_in_background(self: &Arc<Self>, prefix: &str) -> mpsc::Receiver<ObjectBatch> {
        let (sender, receiver) = mpsc::channel(1);
        let (bucket, prefix) = (Arc::clone(self), prefix.to_owned());
        tokio::spawn(async move { bucket.send_listing(&prefix, &sender).await });
        receiver
    }

    async fn send_listing(&self, prefix: &str, sender: &mpsc::Sender<ObjectBatch>) {
        let skipped = self.full_key("").len();
        let request = self.client.list_objects_v2().bucket(self.name());
        let mut pages = request.prefix(self.full_key(prefix)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let batch = match page {
                Ok(page) => Ok(page
                    .contents()
                    .iter()
                    .filter_map(|object| {
                        Some(StoredObject {
                            key: object.key()?.get(skipped..)?.to_owned(),
                            bytes: to_size(object.size()),
                        })
                    })
                    .collect()),
                Err(error) => Err(self.errors.to_storage_error("the listing of the bucket", error)),
            };
            // The receiver is gone if the migration has failed.
            if sender.send(batch).await.is_err() {
                return;
            }
        }
    }

    /// Returns the size of an object; `None` if it does not exist.
    pub(crate) async fn find_size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        self.object_size(key, &object_name(key)).await
    }

    /// Writes an object.
    pub(crate) async fn put_object(&self, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.put_bytes(key, &object_name(key), bytes).await
    }

    /// Writes or replaces an object by a file.
    pub(crate) async fn put_from_file(&self, key: &str, file: &Path) -> Result<(), StorageError> {
        self.put_file(key, &object_name(key), file, false).await.map(drop)
    }

    /// Writes an object to a new file, which is synced. Returns whether the object exists.
    pub(crate) async fn get_to_file(&self, key: &str, file: &Path) -> Result<bool, StorageError> {
        let written = self.download(key, &object_name(key), file).await?;
        Ok(written.is_some())
    }

    /// Returns the size of an object and the SHA-256 of its bytes; `None` if it does not exist.
    pub(crate) async fn hash_object(&self, key: &str) -> Result<Option<(u64, [u8; 32])>, StorageError> {
        let what = object_name(key);
        for attempt in 1.. {
            let Some(mut body) = self.open_body(key, &what).await? else {
                return Ok(None);
            };
            let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
            let cut = loop {
                match body.next().await {
                    Some(Ok(chunk)) => {
                        hash.update(&chunk);
                        bytes += chunk.len() as u64;
                    }
                    Some(Err(error)) => break error.to_string(),
                    None => return Ok(Some((bytes, hash.finalize().into()))),
                }
            };
            wait_after_cut_body(attempt, &what, &cut).await?;
        }
        Ok(None)
    }
}

fn object_name(key: &str) -> String {
    format!("object {key}")
}

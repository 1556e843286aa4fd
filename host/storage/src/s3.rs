//! Uploads, components, blobs and recordings on an S3 server.
//!
//! Keys are `<prefix>/blobs/<tenant>/<key>`, `<prefix>/uploads/<tenant>/<document>`, `<prefix>/staged/<tenant>/<job>/<document>`,
//! `<prefix>/components/<tenant>/<digest>.wasm`, `<prefix>/recordings/<tenant>/<job>/<session>.<part>.calls` and
//! `<prefix>/removed-recordings/<tenant>[/<job>]`. An S3 object is complete or absent: a put and a completed multipart upload replace it
//! in one step. Every write is durable when the server has responded, so there is nothing to flush.
//!
//! The PDF workers and the compiler read files, so uploads and components are opened through a cache of files ([`local_cache`]). Page
//! images and texts are read straight from the server: they are small and read rarely.
//!
//! Uploads and components are named by the hash of their bytes, so an object that exists has the right content and is not written again
//! (`If-None-Match: *`). A blob is replaced in place.
//!
//! The sizes of objects are counted in the ledger after the server has responded ([`stored_bytes`]). If the process is killed in between,
//! the count is wrong by that object. The alternative, marking each path before its change as for files, would need a listing of the
//! bucket at each start after a crash.

mod blob_store;
mod bucket;
mod cached_objects;
mod component_key;
mod component_store;
mod connection;
mod errors;
mod local_cache;
mod multipart;
mod object_transfer;
mod recording_store;
mod stored_bytes;
mod upload_store;

use std::path::Path;
use std::sync::Arc;

use weir_core::StorageError;

pub(crate) use self::blob_store::S3BlobStore;
pub use self::bucket::S3Bucket;
use self::cached_objects::CachedObjects;
pub(crate) use self::component_store::S3ComponentStore;
pub use self::connection::{S3Connection, S3Credentials, S3Location, S3LocationError, ServerSideEncryption};
use self::local_cache::LocalCache;
pub use self::recording_store::S3RecordingStore;
use self::stored_bytes::StoredBytes;
pub(crate) use self::upload_store::S3UploadStore;
use crate::storage_usage::StorageUsageTracker;

/// The stores of objects on an S3 server.
pub(crate) struct S3Stores {
    pub(crate) uploads: S3UploadStore,
    pub(crate) components: S3ComponentStore,
    pub(crate) blobs: S3BlobStore,
    pub(crate) recordings: S3RecordingStore,
}

impl S3Stores {
    /// Opens the cache in the data folder. Removes unfinished files in it, so only one process may have it open. Blocks on the disk.
    pub(crate) fn open_cache(
        bucket: Arc<S3Bucket>,
        data: &Path,
        storage_usage: StorageUsageTracker,
    ) -> Result<Self, StorageError> {
        let cache = Arc::new(LocalCache::open_and_remove_unfinished_files(
            data,
            bucket.max_cache_bytes(),
        )?);
        let stored_bytes = StoredBytes::new(storage_usage);
        let objects = CachedObjects {
            bucket: bucket.clone(),
            cache,
            stored_bytes: stored_bytes.clone(),
        };
        Ok(Self {
            uploads: S3UploadStore::new(objects.clone()),
            components: S3ComponentStore::new(objects),
            blobs: S3BlobStore::new(bucket.clone(), stored_bytes),
            recordings: S3RecordingStore::new(bucket),
        })
    }
}

//! Copies and compares uploads, components, blobs and recordings.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use weir_core::StorageError;

use crate::migration_progress::{
    ContentDigest, MigratedContent, MigrationStep, ProgressCounter, ReportProgress, hash_parts,
};
use crate::stored_objects::{OBJECT_KINDS, StoredObject, StoredObjects};

/// Objects that are copied or compared at a time.
const MAX_CONCURRENT_OBJECTS: usize = 16;

/// Counts the objects of each kind and their bytes.
pub(super) async fn count_objects(objects: &StoredObjects) -> Result<Vec<MigratedContent>, StorageError> {
    let mut counts = Vec::new();
    for kind in OBJECT_KINDS {
        let (mut count, mut bytes, mut listing) = (0, 0, objects.list(kind));
        while let Some(batch) = listing.recv().await {
            let batch = batch?;
            count += batch.len() as u64;
            bytes += batch.iter().map(|object| object.bytes).sum::<u64>();
        }
        counts.push(MigratedContent {
            store: "blobs".into(),
            name: kind.into(),
            count,
            bytes: Some(bytes),
            digest: None,
        });
    }
    Ok(counts)
}

/// Copies all objects that `target` does not have. Only an interrupted copy has objects there. An object of the same size is complete,
/// because objects appear when they are complete and the source does not change.
pub(super) async fn copy_objects(
    source: &StoredObjects,
    target: &StoredObjects,
    is_resumed: bool,
    report: &ReportProgress,
) -> Result<(), StorageError> {
    target.begin_copies()?;
    let next_number = AtomicU64::new(0);
    let copy = |object: StoredObject| {
        let number = next_number.fetch_add(1, Ordering::Relaxed);
        async move {
            if is_resumed && target.find_size(&object.key).await? == Some(object.bytes) {
                return Ok(());
            }
            source.copy_object_to(target, &object.key, number).await
        }
    };
    for kind in OBJECT_KINDS {
        let mut progress = ProgressCounter::start(report, MigrationStep::Copy, kind, None);
        let mut listing = source.list(kind);
        while let Some(batch) = listing.recv().await {
            let batch = batch?;
            let count = batch.len();
            let mut copies = stream::iter(batch)
                .map(&copy)
                .buffer_unordered(MAX_CONCURRENT_OBJECTS);
            while copies.try_next().await?.is_some() {}
            progress.add(count);
        }
    }
    target.finish_copies().await
}

/// Compares all objects of both sides: number, sizes and content.
pub(super) async fn verify_objects(
    source: &StoredObjects,
    target: &StoredObjects,
    report: &ReportProgress,
) -> Result<Vec<MigratedContent>, StorageError> {
    let mut verified = Vec::new();
    for kind in OBJECT_KINDS {
        let mut progress = ProgressCounter::start(report, MigrationStep::Verify, kind, None);
        let (mut digest, mut listing) = (ContentDigest::default(), source.list(kind));
        while let Some(batch) = listing.recv().await {
            let mut compared = stream::iter(batch?)
                .map(|object| compare_object(source, target, object))
                .buffer_unordered(MAX_CONCURRENT_OBJECTS);
            while let Some((hash, bytes)) = compared.try_next().await? {
                digest.add_item(hash, bytes);
                progress.add(1);
            }
        }
        let (mut copies, mut listing) = (0, target.list(kind));
        while let Some(batch) = listing.recv().await {
            copies += batch?.len() as u64;
        }
        if copies != digest.count {
            return Err(different(&format!(
                "the source has {} objects of the kind {kind}, and the target {copies}",
                digest.count
            )));
        }
        verified.push(MigratedContent {
            store: "blobs".into(),
            name: kind.into(),
            count: digest.count,
            bytes: Some(digest.bytes),
            digest: Some(digest.to_hex()),
        });
    }
    Ok(verified)
}

/// Compares an object and returns the hash of its key and content, and its size.
async fn compare_object(
    source: &StoredObjects,
    target: &StoredObjects,
    object: StoredObject,
) -> Result<([u8; 32], u64), StorageError> {
    let (original, copy) = tokio::join!(source.hash_object(&object.key), target.hash_object(&object.key));
    match (original?, copy?) {
        (Some(original), Some(copy)) if original == copy => {
            let hash = hash_parts([object.key.as_bytes(), &original.1]);
            Ok((hash, original.0))
        }
        (_, None) => Err(different(&format!("object {} is not in the target", object.key))),
        _ => Err(different(&format!(
            "object {} is different in the target",
            object.key
        ))),
    }
}

fn different(reason: &str) -> StorageError {
    StorageError::Failed {
        what: "the comparison of uploads, components, blobs and recordings".into(),
        reason: format!("{reason}: empty the target and start again"),
    }
}

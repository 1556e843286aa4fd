//! No error of an open store has a path of the host in it: tenants read these errors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod fixture;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use weir_core::StorageError;
use weir_core::original::Originals;
use weir_core::ports::{BlobStore, Ledger, VectorStore};
use weir_core::tenancy::Registry;

use self::fixture::{direction, document, open, point, query, tenant};

/// The error, which has none of the folder's path.
fn checked<T>(folder: &Path, result: Result<T, StorageError>) -> String {
    let error = result.err().expect("an error").to_string();
    let path = folder.to_str().unwrap();
    assert!(!error.contains(path), "{error}");
    error
}

/// Opening it fails, and not because it is missing.
fn unreadable(path: &Path) {
    let _ = fs::remove_file(path);
    symlink(path, path).unwrap();
}

#[tokio::test]
async fn blob_errors_name_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (t, blobs) = (tenant("acme"), &storage.blobs);
    blobs.put(&t, "d/1.jpg", b"image").await.unwrap();
    unreadable(&dir.path().join("blobs/acme/d/1.jpg"));
    let error = checked(dir.path(), blobs.get(&t, "d/1.jpg").await);
    assert!(error.contains("blob acme/d/1.jpg"), "{error}");
    checked(dir.path(), blobs.put(&t, "d/1.jpg/2", b"image").await);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn upload_errors_name_the_document() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (t, originals) = (tenant("acme"), &storage.originals);
    let never_written = originals.unfinished();
    let committed = originals.commit(&t, &never_written, &document("d")).await;
    let error = checked(dir.path(), committed);
    assert!(error.contains(&document("d").to_string()), "{error}");
    unreadable(&dir.path().join("originals/acme"));
    checked(dir.path(), originals.list(&t).await);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn ledger_errors_name_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    // Readers open the file when they are first needed.
    fs::remove_file(dir.path().join("ledger.db")).unwrap();
    fs::create_dir(dir.path().join("ledger.db")).unwrap();
    let error = checked(dir.path(), storage.ledger.documents(&tenant("acme")).await);
    assert!(error.contains("the ledger"), "{error}");
    checked(dir.path(), storage.ledger.tenants().await);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn index_errors_name_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (t, vectors) = (tenant("acme"), &storage.vectors);
    let written = vectors.upsert(&t, "c", vec![point("d", 1, 0, "text", direction(1.0))]);
    written.await.unwrap();
    unreadable_log(&dir.path().join("vectors/wal"));
    let error = checked(dir.path(), vectors.flush().await);
    assert!(error.contains("the index"), "{error}");
    checked(dir.path(), vectors.search(&t, &query("text", vec![1.0], 1)).await);
}

/// The log is trimmed with each flush.
fn unreadable_log(wal: &Path) {
    fs::rename(wal, wal.with_extension("gone")).unwrap();
}

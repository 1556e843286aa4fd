//! Errors of an open store contain no path of the host, because tenants read them.
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

use weir_core::ports::Ledger;
use weir_core::tenancy::TenantStore;
use weir_core::uploads::StagedUpload;
use weir_core::{JobId, StorageError};

use self::fixture::{document_id, make_point, make_query, open_storage, tenant_id, unit_vector};

/// Returns the error, and checks that it does not contain the path of the folder.
fn error_without_path<T>(folder: &Path, result: Result<T, StorageError>) -> String {
    let error = result.err().expect("an error").to_string();
    let path = folder.to_str().unwrap();
    assert!(!error.contains(path), "{error}");
    error
}

/// Replaces a file by a link to itself, so that opening it fails with an error other than "not found".
fn replace_by_symlink_loop(path: &Path) {
    let _ = fs::remove_file(path);
    symlink(path, path).unwrap();
}

#[tokio::test]
async fn blob_errors_name_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (t, blobs) = (tenant_id("acme"), &storage.blobs);
    blobs.put_blob(&t, "d/1.jpg", &[1; 100_000]).await.unwrap();
    replace_by_symlink_loop(&dir.path().join("blobs/acme/d/1.jpg"));
    let error = error_without_path(dir.path(), blobs.get_blob(&t, "d/1.jpg").await);
    assert!(error.contains("blob acme/d/1.jpg"), "{error}");
    error_without_path(dir.path(), blobs.put_blob(&t, "d", &[1; 100_000]).await);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn upload_errors_name_the_document() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (t, uploads) = (tenant_id("acme"), &storage.uploads);
    let never_staged = StagedUpload {
        tenant: t.clone(),
        job: JobId::new(),
        document: document_id("d"),
    };
    let committed = uploads.commit_staged_upload(&never_staged).await;
    let error = error_without_path(dir.path(), committed);
    assert!(error.contains(&document_id("d").to_string()), "{error}");
    replace_by_symlink_loop(&dir.path().join("uploads/acme"));
    error_without_path(dir.path(), uploads.list_uploads(&t).await);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn ledger_errors_name_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    // A reader opens the file at its first call.
    fs::remove_file(dir.path().join("ledger.db")).unwrap();
    fs::create_dir(dir.path().join("ledger.db")).unwrap();
    let error = error_without_path(
        dir.path(),
        storage.ledger.list_tenant_documents(&tenant_id("acme")).await,
    );
    assert!(error.contains("the ledger"), "{error}");
    error_without_path(dir.path(), storage.ledger.list_tenants().await);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn index_errors_name_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (t, vectors) = (tenant_id("acme"), &storage.vectors);
    let written = vectors.upsert_points(&t, "c", vec![make_point("d", 1, 0, "text", unit_vector(1.0))]);
    written.await.unwrap();
    // The index of words follows before the first search.
    let words = dir.path().join("vectors/words");
    fs::rename(&words, words.with_extension("gone")).unwrap();
    let query = make_query("text", unit_vector(1.0), 1);
    let error = error_without_path(dir.path(), vectors.search_by_vector_and_words(&t, &query).await);
    assert!(error.contains("the index"), "{error}");
    error_without_path(
        dir.path(),
        vectors
            .search_by_vector_and_words(&t, &make_query("text", vec![1.0], 1))
            .await,
    );
}

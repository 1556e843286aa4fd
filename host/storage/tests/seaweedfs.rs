//! Uploads, components, blobs and recordings on SeaweedFS, an S3 server that others wrote. `tests/seaweedfs/run` installs it and runs these tests.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod fixture;

use std::sync::Arc;

use weir_conformance::{
    check_blob_store, check_component_store, check_recording_store, check_upload_store, store_upload,
};
use weir_storage::{ExternalStores, S3Bucket, S3Connection, S3Credentials, ServerSideEncryption, Storage};
use weir_test_services::SeaweedFsServer;

use fixture::{DIMENSIONS, MODEL, tenant_id};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SeaweedFS: tests/seaweedfs/run"]
async fn stores_on_seaweedfs_pass_the_conformance_suites() {
    let server = SeaweedFsServer::start();
    let connection = S3Connection {
        location: format!("s3://{}/weir", SeaweedFsServer::BUCKET).parse().unwrap(),
        endpoint: Some(server.url()),
        region: None,
        path_style: true,
        credentials: Some(S3Credentials {
            access_key: SeaweedFsServer::ACCESS_KEY.into(),
            secret_key: SeaweedFsServer::SECRET_KEY.into(),
        }),
        server_side_encryption: ServerSideEncryption::BucketDefault,
        max_cache_bytes: 1 << 30,
        // Larger uploads are copied in parts.
        max_copy_bytes: 6 << 20,
        attempt_timeout: S3Connection::ATTEMPT_TIMEOUT,
    };
    let bucket = Arc::new(S3Bucket::connect(&connection).await.unwrap());
    bucket.check_access().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let external = ExternalStores {
        bucket: Some(bucket),
        ..ExternalStores::default()
    };
    let storage = Storage::open_or_create_with_external_stores(dir.path(), DIMENSIONS, MODEL, external)
        .await
        .unwrap();
    check_upload_store(&*storage.uploads).await;
    check_component_store(&*storage.components).await;
    check_blob_store(&*storage.blobs).await;
    check_recording_store(&*storage.recordings).await;

    // Sent and copied in parts.
    let (tenant, large) = (tenant_id("acme"), vec![7; 20 << 20]);
    let document = store_upload(&*storage.uploads, &tenant, &large).await;
    let stored = storage
        .uploads
        .open_upload(&tenant, &document)
        .await
        .unwrap()
        .unwrap();
    assert!(
        std::fs::read(stored.path()).unwrap() == large,
        "the bytes are the same"
    );
    // More keys than one listing and one batch deletion have.
    for n in 0..1100 {
        storage
            .blobs
            .put_blob(&tenant, &format!("d/{n}"), b"x")
            .await
            .unwrap();
    }
    assert_eq!(
        storage.blobs.list_blob_keys(&tenant, "d/").await.unwrap().len(),
        1100
    );
    storage.blobs.delete_blobs_with_prefix(&tenant, "").await.unwrap();
    assert!(
        storage
            .blobs
            .list_blob_keys(&tenant, "")
            .await
            .unwrap()
            .is_empty()
    );
    storage
        .uploads
        .remove_all_uploads_of_tenant(&tenant)
        .await
        .unwrap();
    storage.close().await.unwrap();
}

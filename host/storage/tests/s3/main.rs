//! Uploads, components, blobs and recordings on an S3 server: the contracts of the ports, stored bytes, the cache, and errors of the server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../fixture/mod.rs"]
mod fixture;
mod recordings;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_conformance::{
    check_blob_store, check_component_store, check_recording_store, check_upload_store, store_upload,
};
use weir_core::component::ComponentDigest;
use weir_core::recording::{AppendOutcome, RecordingSession};
use weir_core::uploads::StagedUpload;
use weir_core::usage::UsageStore;
use weir_core::{DocumentId, JobId, StorageError, TenantId};
use weir_s3_server::{ACCESS_KEY, BUCKET, Fault, S3TestServer, SECRET_KEY};
use weir_storage::{
    ExternalStores, S3Bucket, S3Connection, S3Credentials, ServerSideEncryption, Storage,
    remove_tenant_with_all_data,
};

use fixture::{DIMENSIONS, MODEL, s3_connection, tenant_id};

fn connection_to(server: &S3TestServer) -> S3Connection {
    s3_connection(
        server.url(),
        &format!("s3://{BUCKET}/weir/a"),
        (ACCESS_KEY, SECRET_KEY),
    )
}

async fn open(data: &Path, connection: &S3Connection) -> Storage {
    let bucket = Arc::new(S3Bucket::connect(connection).await.unwrap());
    let external = ExternalStores {
        bucket: Some(bucket),
        ..ExternalStores::default()
    };
    Storage::open_or_create_with_external_stores(data, DIMENSIONS, MODEL, external)
        .await
        .unwrap()
}

fn error_kind<T>(result: Result<T, StorageError>) -> &'static str {
    result.map(drop).unwrap_err().kind()
}

/// Returns the keys of all objects but those that name removals of recordings, which stay for a day.
fn keys_of_content(server: &S3TestServer) -> Vec<String> {
    let mut keys = server.keys();
    keys.retain(|key| !key.contains("/removed-recordings/"));
    keys
}

async fn stored_bytes(storage: &Storage, tenant: &TenantId) -> u64 {
    storage.ledger.count_stored_bytes(tenant).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_pass_the_conformance_suites() {
    let (server, dir) = (S3TestServer::start(), tempfile::tempdir().unwrap());
    // Every listing has several pages.
    server.set_page_keys(2);
    let storage = open(dir.path(), &connection_to(&server)).await;
    check_blob_store(&*storage.blobs).await;
    check_upload_store(&*storage.uploads).await;
    check_component_store(&*storage.components).await;
    check_recording_store(&*storage.recordings).await;
    assert_eq!(keys_of_content(&server), Vec::<String>::new());
    for tenant in ["blob-suite", "upload-suite", "component-suite"] {
        assert_eq!(stored_bytes(&storage, &tenant_id(tenant)).await, 0, "{tenant}");
    }
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn server_without_conditional_writes_passes_the_suites() {
    let (server, dir) = (S3TestServer::start(), tempfile::tempdir().unwrap());
    server.refuse_conditions();
    let storage = open(dir.path(), &connection_to(&server)).await;
    check_blob_store(&*storage.blobs).await;
    check_component_store(&*storage.components).await;
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_have_keys_by_kind_tenant_and_name() {
    let (server, dir) = (S3TestServer::start(), tempfile::tempdir().unwrap());
    let connection = S3Connection {
        server_side_encryption: ServerSideEncryption::KmsKey,
        ..connection_to(&server)
    };
    let storage = open(dir.path(), &connection).await;
    let t = tenant_id("acme");
    storage
        .blobs
        .put_blob(&t, "d/1/image.jpg", b"image")
        .await
        .unwrap();
    let document = store_upload(&*storage.uploads, &t, b"upload").await;
    let staged = stage(&storage, &t, b"staged").await;
    let digest = commit_component(&storage, &t, b"wasm").await;
    let session = RecordingSession::start(t.clone(), JobId::new());
    for part in 0..2 {
        let appended = storage.recordings.append_part(&session, part, b"calls");
        assert_eq!(appended.await.unwrap(), AppendOutcome::Appended);
    }
    // Sent in parts.
    let large = store_upload(&*storage.uploads, &t, &large_file()).await;
    let digest = digest.to_string().replace("sha256:", "");
    let mut expected = vec![
        "blobs/acme/d/1/image.jpg".to_owned(),
        format!("components/acme/{digest}.wasm"),
        format!("recordings/acme/{}/{}.000000.calls", session.job, session.id),
        format!("recordings/acme/{}/{}.000001.calls", session.job, session.id),
        format!("staged/acme/{}/{}", staged.job, staged.document),
        format!("uploads/acme/{document}"),
        format!("uploads/acme/{large}"),
    ];
    expected.iter_mut().for_each(|key| key.insert_str(0, "weir/a/"));
    expected.sort();
    assert_eq!(server.keys(), expected);
    for (key, encryption) in server.encryption_by_key() {
        assert_eq!(encryption.as_deref(), Some("aws:kms"), "{key}");
    }
    assert!(!dir.path().join("uploads/acme").exists() && !dir.path().join("blobs/acme").exists());
    assert!(!dir.path().join("recordings").exists());
    storage.close().await.unwrap();
    let external = ExternalStores {
        bucket: Some(Arc::new(S3Bucket::connect(&connection).await.unwrap())),
        ..ExternalStores::default()
    };
    remove_tenant_with_all_data(dir.path(), &t, external)
        .await
        .unwrap();
    assert_eq!(server.keys(), ["weir/a/removed-recordings/acme"]);
}

/// Returns a file that is sent in three parts.
fn large_file() -> Vec<u8> {
    (0..(17 << 20_u32)).map(|n: u32| (n % 251) as u8).collect()
}

async fn stage(storage: &Storage, tenant: &TenantId, bytes: &[u8]) -> StagedUpload {
    let staged = StagedUpload {
        tenant: tenant.clone(),
        job: JobId::new(),
        document: DocumentId::from_content(bytes),
    };
    try_stage(storage, &staged, bytes).await.unwrap();
    staged
}

async fn try_stage(storage: &Storage, staged: &StagedUpload, bytes: &[u8]) -> Result<(), StorageError> {
    let received = storage.uploads.new_temporary_path();
    std::fs::write(&received, bytes).unwrap();
    storage.uploads.stage_received_file(&received, staged).await
}

async fn commit_component(storage: &Storage, tenant: &TenantId, bytes: &[u8]) -> ComponentDigest {
    let (unfinished, digest) = (
        storage.components.new_temporary_path(),
        ComponentDigest::from_content(bytes),
    );
    std::fs::write(&unfinished, bytes).unwrap();
    let committed = storage.components.commit_component(tenant, &unfinished, &digest);
    committed.await.unwrap();
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_multipart_upload_is_repeated_or_aborted() {
    let (server, dir) = (S3TestServer::start(), tempfile::tempdir().unwrap());
    let storage = open(dir.path(), &connection_to(&server)).await;
    let (t, bytes) = (tenant_id("acme"), large_file());
    server.fail_requests(Fault::SlowDown, "partNumber=2", 2);
    let document = store_upload(&*storage.uploads, &t, &bytes).await;
    let stored = storage.uploads.open_upload(&t, &document).await.unwrap().unwrap();
    assert!(
        std::fs::read(stored.path()).unwrap() == bytes,
        "the bytes are the same"
    );
    assert!(storage.uploads.remove_upload(&t, &document).await.unwrap());

    server.fail_requests(Fault::InternalError, "partNumber=3", u32::MAX);
    let staged = StagedUpload {
        tenant: t,
        job: JobId::new(),
        document,
    };
    let failed = try_stage(&storage, &staged, &bytes).await;
    assert_eq!(error_kind(failed), "storage-unavailable");
    assert_eq!((server.unfinished_uploads(), server.keys().len()), (0, 0));
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_are_copied_in_parts() {
    let (server, dir) = (S3TestServer::start(), tempfile::tempdir().unwrap());
    let connection = S3Connection {
        max_copy_bytes: 6 << 20,
        server_side_encryption: ServerSideEncryption::S3Keys,
        ..connection_to(&server)
    };
    let storage = open(dir.path(), &connection).await;
    let (t, bytes) = (tenant_id("acme"), large_file());
    let staged = stage(&storage, &t, &bytes).await;
    server.take_requests();
    server.fail_requests(Fault::InternalError, "partNumber=3", 2);
    storage.uploads.commit_staged_upload(&staged).await.unwrap();
    let copied = |requests: &[String]| {
        let mut parts: Vec<_> = requests
            .iter()
            .filter_map(|line| Some(line.split_once("partNumber=")?.1.split('&').next()?.to_owned()))
            .collect();
        parts.sort();
        parts
    };
    assert_eq!(copied(&server.take_requests()), ["1", "2", "3", "3", "3"]);
    std::fs::remove_dir_all(dir.path().join("cache")).unwrap();
    std::fs::create_dir_all(dir.path().join("cache/.unfinished")).unwrap();
    let stored = storage.uploads.open_upload(&t, &staged.document).await;
    assert!(
        std::fs::read(stored.unwrap().unwrap().path()).unwrap() == bytes,
        "the bytes are the same"
    );
    assert_eq!(stored_bytes(&storage, &t).await, bytes.len() as u64);
    assert!(
        server
            .encryption_by_key()
            .values()
            .all(|used| used.as_deref() == Some("AES256"))
    );

    // A part that cannot be copied, and an upload that disappears meanwhile.
    let again = StagedUpload {
        job: JobId::new(),
        ..staged
    };
    server.fail_requests(Fault::InternalError, "partNumber=2", u32::MAX);
    let failed = storage.uploads.stage_stored_upload(&again).await;
    assert_eq!(error_kind(failed), "storage-unavailable");
    storage.close().await.unwrap();
    // Small parts, so that there are more than are copied at a time.
    let connection = S3Connection {
        max_copy_bytes: 1 << 20,
        ..connection
    };
    let storage = open(dir.path(), &connection).await;
    server.take_requests();
    server.fail_requests(Fault::Delay(Duration::from_millis(500)), "partNumber", u32::MAX);
    let mut requests = Vec::new();
    let (staged, removed) = tokio::join!(storage.uploads.stage_stored_upload(&again), async {
        while copied(&requests).is_empty() {
            tokio::task::yield_now().await;
            requests.extend(server.take_requests());
        }
        storage.uploads.remove_upload(&t, &again.document).await
    });
    assert_eq!((staged.unwrap(), removed.unwrap()), (None, true));
    // After the first missing part no other begins, and the abort comes last.
    requests.extend(server.take_requests());
    assert_eq!(copied(&requests).len(), 4, "{requests:?}");
    assert!(requests.last().unwrap().starts_with("DELETE"), "{requests:?}");
    assert_eq!((server.unfinished_uploads(), server.keys().len()), (0, 0));
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_upload_is_committed_from_another_data_folder() {
    let (server, dirs) = (
        S3TestServer::start(),
        [(); 2].map(|()| tempfile::tempdir().unwrap()),
    );
    let storage = open(dirs[0].path(), &connection_to(&server)).await;
    let staged = stage(&storage, &tenant_id("acme"), b"staged").await;
    drop(storage);
    let storage = open(dirs[1].path(), &connection_to(&server)).await;
    assert_eq!(
        storage.uploads.list_staged_uploads().await.unwrap(),
        std::slice::from_ref(&staged)
    );
    // The copy is made but the staged object is not deleted, as if the process was killed.
    server.fail_requests(Fault::InternalError, "POST", u32::MAX);
    let interrupted = storage.uploads.commit_staged_upload(&staged).await;
    assert_eq!(error_kind(interrupted), "storage-unavailable");
    server.fail_with(None);
    storage.uploads.commit_staged_upload(&staged).await.unwrap();
    assert_eq!(storage.uploads.list_staged_uploads().await.unwrap(), []);
    assert_eq!(stored_bytes(&storage, &staged.tenant).await, 6);
    let stored = storage
        .uploads
        .open_upload(&staged.tenant, &staged.document)
        .await;
    assert_eq!(std::fs::read(stored.unwrap().unwrap().path()).unwrap(), b"staged");
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_objects_are_counted_and_survive_a_kill() {
    let (server, dir) = (S3TestServer::start(), tempfile::tempdir().unwrap());
    let storage = open(dir.path(), &connection_to(&server)).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    for (key, bytes) in [("d/1", "12345"), ("d/2", "123"), ("d/1", "12"), ("e/1", "1")] {
        storage.blobs.put_blob(&a, key, bytes.as_bytes()).await.unwrap();
    }
    let document = store_upload(&*storage.uploads, &a, b"upload").await;
    store_upload(&*storage.uploads, &a, b"upload").await;
    let digest = commit_component(&storage, &a, b"wasm").await;
    commit_component(&storage, &a, b"wasm").await;
    store_upload(&*storage.uploads, &b, b"upload").await;
    assert_eq!(
        (stored_bytes(&storage, &a).await, stored_bytes(&storage, &b).await),
        (5 + 1 + 6 + 4, 6)
    );
    storage.blobs.delete_blobs_with_prefix(&a, "d/").await.unwrap();
    // The removal has saved all sizes. Without a close, the next start measures the files of marked rows.
    drop(storage);
    let storage = open(dir.path(), &connection_to(&server)).await;
    assert_eq!(stored_bytes(&storage, &a).await, 1 + 6 + 4);
    assert!(storage.uploads.remove_upload(&a, &document).await.unwrap());
    assert!(storage.components.remove_component(&a, &digest).await.unwrap());
    assert_eq!(stored_bytes(&storage, &a).await, 1);
    storage.close().await.unwrap();
    let bucket = Arc::new(S3Bucket::connect(&connection_to(&server)).await.unwrap());
    remove_tenant_with_all_data(
        dir.path(),
        &a,
        ExternalStores {
            bucket: Some(bucket),
            ..ExternalStores::default()
        },
    )
    .await
    .unwrap();
    let keys = keys_of_content(&server);
    assert!(keys.len() == 1 && keys[0].contains("/b/"), "{keys:?}");
    let storage = open(dir.path(), &connection_to(&server)).await;
    assert_eq!(
        (stored_bytes(&storage, &a).await, stored_bytes(&storage, &b).await),
        (0, 6)
    );
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_downloads_once_and_keeps_its_limit() {
    let (server, dir) = (S3TestServer::start(), tempfile::tempdir().unwrap());
    let connection = S3Connection {
        max_cache_bytes: 250,
        ..connection_to(&server)
    };
    let storage = Arc::new(open(dir.path(), &connection).await);
    let t = tenant_id("acme");
    let mut documents = Vec::new();
    for n in 0..3_u8 {
        documents.push(store_upload(&*storage.uploads, &t, &[n; 100]).await);
    }
    let downloads = || {
        server
            .take_requests()
            .iter()
            .filter(|line| line.starts_with("GET"))
            .count()
    };
    let open_upload = async |n: usize| {
        storage
            .uploads
            .open_upload(&t, &documents[n])
            .await
            .unwrap()
            .unwrap()
    };
    downloads();
    let opened = futures::future::join_all((0..8).map(|_| open_upload(0))).await;
    assert_eq!(downloads(), 1, "all wait for one download");
    // The first is in use, so the second makes room for the third.
    drop(open_upload(1).await);
    drop(open_upload(2).await);
    assert!(opened[0].path().exists());
    assert_eq!(downloads(), 2);
    drop(open_upload(0).await);
    drop(open_upload(2).await);
    assert_eq!(downloads(), 0, "both are cached");
    drop(opened);
    drop(open_upload(1).await);
    assert_eq!(downloads(), 1, "it was removed");
    // Now the first is the least recently used.
    drop(open_upload(2).await);
    assert_eq!(downloads(), 0);
    let other = storage
        .uploads
        .open_upload(&tenant_id("other"), &documents[2])
        .await;
    assert_eq!(other.unwrap(), None, "another tenant has not stored it");

    let storage = Arc::into_inner(storage).unwrap();
    storage.close().await.unwrap();
    let storage = open(dir.path(), &connection).await;
    downloads();
    for n in [1, 2] {
        storage
            .uploads
            .open_upload(&t, &documents[n])
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(downloads(), 0, "the copies of the earlier process are used");
    std::fs::remove_dir_all(dir.path().join("cache/uploads")).unwrap();
    let again = storage
        .uploads
        .open_upload(&t, &documents[1])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        std::fs::read(again.path()).unwrap(),
        [1; 100],
        "after the folder was emptied"
    );
    server.replace_object(&format!("weir/a/uploads/acme/{}", documents[0]), b"other bytes");
    let damaged = storage.uploads.open_upload(&t, &documents[0]).await;
    assert_eq!(error_kind(damaged), "storage-damaged");
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_repeated_while_the_server_is_overloaded() {
    let (server, dir) = (S3TestServer::start(), tempfile::tempdir().unwrap());
    let storage = open(dir.path(), &connection_to(&server)).await;
    let t = tenant_id("acme");
    for fault in [Fault::SlowDown, Fault::InternalError] {
        server.fail_requests(fault, "", 2);
        storage.blobs.put_blob(&t, "d/1", b"image").await.unwrap();
        server.fail_requests(fault, "", 2);
        assert!(storage.blobs.get_blob(&t, "d/1").await.unwrap().is_some());
    }
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_does_not_answer_is_unavailable() {
    let (server, dir) = (S3TestServer::start(), tempfile::tempdir().unwrap());
    let connection = S3Connection {
        attempt_timeout: Duration::from_millis(300),
        ..connection_to(&server)
    };
    let storage = open(dir.path(), &connection).await;
    let (t, began) = (tenant_id("acme"), Instant::now());
    for fault in [Fault::Hang, Fault::SlowDown, Fault::InternalError] {
        server.fail_with(Some(fault));
        let failed = storage.blobs.put_blob(&t, "d/1", b"image").await;
        let message = failed.as_ref().unwrap_err().to_string();
        assert!(
            message.contains("blob d/1") && !message.contains(&server.url()),
            "{message}"
        );
        assert_eq!(error_kind(failed), "storage-unavailable", "{fault:?}");
        assert_eq!(
            error_kind(storage.blobs.get_blob(&t, "d/1").await),
            "storage-unavailable"
        );
    }
    assert_eq!(
        error_kind(S3Bucket::connect(&connection).await),
        "storage-unavailable"
    );
    drop(server);
    assert_eq!(
        error_kind(S3Bucket::connect(&connection).await),
        "storage-unavailable"
    );
    assert_eq!(
        error_kind(storage.blobs.list_blob_keys(&t, "").await),
        "storage-unavailable"
    );
    assert_eq!(stored_bytes(&storage, &t).await, 0);
    assert!(began.elapsed() < Duration::from_secs(60));
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_clock_is_corrected_by_the_first_response() {
    let server = S3TestServer::start();
    server.fail_requests(Fault::WrongTime, "HEAD", 1);
    S3Bucket::connect(&connection_to(&server)).await.unwrap();
    server.fail_requests(Fault::WrongTime, "HEAD", u32::MAX);
    let refused = S3Bucket::connect(&connection_to(&server)).await;
    assert_eq!(error_kind(refused), "storage-denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_bucket_and_wrong_credentials_are_named() {
    let server = S3TestServer::start();
    let connection = connection_to(&server);
    S3Bucket::connect(&connection)
        .await
        .unwrap()
        .check_access()
        .await
        .unwrap();
    assert_eq!(server.keys(), Vec::<String>::new(), "the probe object is deleted");
    let missing = S3Connection {
        location: "s3://other".parse().unwrap(),
        ..connection.clone()
    };
    let error = S3Bucket::connect(&missing).await.err().unwrap();
    assert!(
        error.to_string().contains("bucket other") && error.kind() == "storage-failed",
        "{error}"
    );
    let refused = S3Connection {
        credentials: Some(S3Credentials {
            access_key: ACCESS_KEY.into(),
            secret_key: "wrong".into(),
        }),
        ..connection
    };
    let error = S3Bucket::connect(&refused).await.err().unwrap();
    assert_eq!(error.kind(), "storage-denied", "{error}");
    assert!(!format!("{refused:?}").contains("wrong"));
}

//! Another process can search a data folder, whether or not a process holds it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use std::os::unix::fs::PermissionsExt;

use fixture::{MODEL, make_point, make_query, open_storage, tenant_id, unit_vector};
use weir_core::{StorageError, TenantId};
use weir_storage::{Storage, search_data_folder};

async fn open_with_one_passage(data: &std::path::Path) -> Storage {
    let storage = open_storage(data).await;
    let points = vec![make_point("d", 1, 0, "found", unit_vector(0.0))];
    storage
        .vectors
        .upsert_points(&TenantId::default_tenant(), "main", points)
        .await
        .unwrap();
    storage
}

#[tokio::test]
async fn open_folder_is_searched_before_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_with_one_passage(dir.path()).await;
    let mode = std::fs::metadata(dir.path().join("weir.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let t = TenantId::default_tenant();
    let local_hits = storage
        .vectors
        .search_by_vector_and_words(&t, &make_query("found", unit_vector(3.0), 5))
        .await
        .unwrap();
    let socket_hits = search_data_folder(dir.path(), MODEL, &t, &make_query("found", unit_vector(3.0), 5))
        .await
        .unwrap();
    assert_eq!(socket_hits, local_hits);
    assert_eq!(socket_hits.len(), 1);
    let other = search_data_folder(
        dir.path(),
        MODEL,
        &tenant_id("other"),
        &make_query("found", unit_vector(3.0), 5),
    )
    .await
    .unwrap();
    assert!(other.is_empty());
    storage.close().await.unwrap();
    assert!(!dir.path().join("weir.sock").exists());
}

#[tokio::test]
async fn closed_folder_is_searched_and_closed_again() {
    let dir = tempfile::tempdir().unwrap();
    open_with_one_passage(dir.path()).await.close().await.unwrap();
    // A killed holder leaves a socket file on which no process listens.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("weir.sock")).unwrap());
    let t = TenantId::default_tenant();
    let searches = (0..6).map(|_| {
        let (data, t) = (dir.path().to_owned(), t.clone());
        tokio::spawn(async move {
            search_data_folder(&data, MODEL, &t, &make_query("found", unit_vector(0.0), 5)).await
        })
    });
    for search_task in searches.collect::<Vec<_>>() {
        assert_eq!(search_task.await.unwrap().unwrap().len(), 1);
    }
    // The next holder replaces the socket.
    let storage = open_storage(dir.path()).await;
    assert_eq!(
        search_data_folder(dir.path(), MODEL, &t, &make_query("found", unit_vector(0.0), 5))
            .await
            .unwrap()
            .len(),
        1
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn query_of_another_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_with_one_passage(dir.path()).await;
    let t = TenantId::default_tenant();
    let refused = search_data_folder(dir.path(), "another", &t, &make_query("x", unit_vector(0.0), 5))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("another"), "{refused}");
    let refused = search_data_folder(dir.path(), MODEL, &t, &make_query("x", vec![1.0], 5))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("dimensions"), "{refused}");
    storage.close().await.unwrap();
}

#[tokio::test]
async fn search_of_a_missing_folder_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    let missing = search_data_folder(
        &nowhere,
        MODEL,
        &TenantId::default_tenant(),
        &make_query("x", unit_vector(0.0), 5),
    )
    .await
    .unwrap_err();
    assert!(matches!(missing, StorageError::NotFound { .. }), "{missing}");
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn folder_with_a_long_path_is_searched() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("long".repeat(40));
    let storage = open_with_one_passage(&data).await;
    let t = TenantId::default_tenant();
    assert_eq!(
        search_data_folder(&data, MODEL, &t, &make_query("found", unit_vector(0.0), 5))
            .await
            .unwrap()
            .len(),
        1
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn invalid_request_does_not_disturb_other_requests() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let storage = open_with_one_passage(dir.path()).await;
    let connect = || tokio::net::UnixStream::connect(dir.path().join("weir.sock"));
    let mut invalid = connect().await.unwrap();
    invalid.write_all(b"{\"tenant\":\"../x\"}").await.unwrap();
    invalid.shutdown().await.unwrap();
    let mut response = String::new();
    invalid.read_to_string(&mut response).await.unwrap();
    assert!(response.contains("refused"), "{response}");
    // A client that never finishes its request delays neither other requests nor `close`.
    let silent = connect().await.unwrap();
    let t = TenantId::default_tenant();
    assert_eq!(
        search_data_folder(dir.path(), MODEL, &t, &make_query("found", unit_vector(0.0), 5))
            .await
            .unwrap()
            .len(),
        1
    );
    storage.close().await.unwrap();
    drop(silent);
}

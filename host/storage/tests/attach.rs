//! A data folder can be searched from beside, held or not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use std::os::unix::fs::PermissionsExt;

use fixture::{MODEL, direction, open, point, query, tenant};
use weir_core::ports::VectorStore;
use weir_core::{StorageError, TenantId};
use weir_storage::{Storage, search};

async fn with_one_passage(data: &std::path::Path) -> Storage {
    let storage = open(data).await;
    let points = vec![point("d", 1, 0, "found", direction(0.0))];
    storage
        .vectors
        .upsert(&TenantId::single(), "main", points)
        .await
        .unwrap();
    storage
}

#[tokio::test]
async fn a_held_folder_answers_at_once_what_is_not_even_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let storage = with_one_passage(dir.path()).await;
    let mode = std::fs::metadata(dir.path().join("weir.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let t = TenantId::single();
    let here = storage
        .vectors
        .search(&t, &query("found", direction(3.0), 5))
        .await
        .unwrap();
    let beside = search(dir.path(), MODEL, &t, &query("found", direction(3.0), 5))
        .await
        .unwrap();
    assert_eq!(beside, here);
    assert_eq!(beside.len(), 1);
    let other = search(
        dir.path(),
        MODEL,
        &tenant("other"),
        &query("found", direction(3.0), 5),
    )
    .await
    .unwrap();
    assert!(other.is_empty());
    storage.close().await.unwrap();
    assert!(!dir.path().join("weir.sock").exists());
}

#[tokio::test]
async fn a_folder_nobody_holds_is_searched_and_left() {
    let dir = tempfile::tempdir().unwrap();
    with_one_passage(dir.path()).await.close().await.unwrap();
    // What a killed holder leaves: a socket nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("weir.sock")).unwrap());
    let t = TenantId::single();
    let questions = (0..6).map(|_| {
        let (data, t) = (dir.path().to_owned(), t.clone());
        tokio::spawn(async move { search(&data, MODEL, &t, &query("found", direction(0.0), 5)).await })
    });
    for question in questions.collect::<Vec<_>>() {
        assert_eq!(question.await.unwrap().unwrap().len(), 1);
    }
    // And the next holder takes over.
    let storage = open(dir.path()).await;
    assert_eq!(
        search(dir.path(), MODEL, &t, &query("found", direction(0.0), 5))
            .await
            .unwrap()
            .len(),
        1
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn a_question_of_another_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let storage = with_one_passage(dir.path()).await;
    let t = TenantId::single();
    let refused = search(dir.path(), "another", &t, &query("x", direction(0.0), 5))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("another"), "{refused}");
    let refused = search(dir.path(), MODEL, &t, &query("x", vec![1.0], 5))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("dimensions"), "{refused}");
    storage.close().await.unwrap();
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    let missing = search(
        &nowhere,
        MODEL,
        &TenantId::single(),
        &query("x", direction(0.0), 5),
    )
    .await
    .unwrap_err();
    assert!(matches!(missing, StorageError::Missing { .. }), "{missing}");
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn a_long_path_can_be_searched_too() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("long".repeat(40));
    let storage = with_one_passage(&data).await;
    let t = TenantId::single();
    assert_eq!(
        search(&data, MODEL, &t, &query("found", direction(0.0), 5))
            .await
            .unwrap()
            .len(),
        1
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn nonsense_at_the_socket_harms_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let storage = with_one_passage(dir.path()).await;
    let connect = || tokio::net::UnixStream::connect(dir.path().join("weir.sock"));
    let mut nonsense = connect().await.unwrap();
    nonsense.write_all(b"{\"tenant\":\"../x\"}").await.unwrap();
    nonsense.shutdown().await.unwrap();
    let mut answer = String::new();
    nonsense.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("refused"), "{answer}");
    // One who never finishes its question holds up neither others nor the end.
    let silent = connect().await.unwrap();
    let t = TenantId::single();
    assert_eq!(
        search(dir.path(), MODEL, &t, &query("found", direction(0.0), 5))
            .await
            .unwrap()
            .len(),
        1
    );
    storage.close().await.unwrap();
    drop(silent);
}

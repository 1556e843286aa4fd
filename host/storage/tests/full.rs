//! A full disk is an error that says so; once there is room again everything goes on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use fixture::{direction, document, open, page_done, point};
use weir_core::ledger::Entry;
use weir_core::ports::{BlobStore, Ledger, VectorStore};
use weir_core::{RevisionId, StorageError, TenantId};

const DATA: &str = "WEIR_TEST_DATA";

/// Runs the test below on a small file system of its own, which takes a mount namespace.
#[test]
fn a_full_disk_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    // Root needs no user namespace, which a container may refuse.
    let namespaces: &[&str] = if rustix::process::geteuid().is_root() {
        &["--mount"]
    } else {
        &["--user", "--map-root-user", "--mount"]
    };
    let ran = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-ec"])
        .arg(format!(
            "mount -t tmpfs -o size=160m tmpfs \"${DATA}\" && exec \"$0\" \"$@\""
        ))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "on_a_small_disk", "--ignored", "--nocapture"])
        .env(DATA, dir.path())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(
        ran.status.success() && out.contains("1 passed"),
        "(this test needs root or unprivileged user namespaces)\n{out}\n{err}"
    );
}

#[tokio::test]
#[ignore = "fills its disk: started by the test above on one of its own"]
async fn on_a_small_disk() {
    let Ok(data) = std::env::var(DATA) else {
        panic!("set {DATA}");
    };
    let disk = Path::new(&data);
    let storage = open(&disk.join("data")).await;
    let (t, revision) = (TenantId::single(), RevisionId::of(b"r"));
    let page = |number: u32| {
        let passages =
            (0..20).map(|p| point("d", number, p, &"words of a page ".repeat(100), direction(0.0)));
        passages.collect::<Vec<_>>()
    };
    let put = async |number: u32| {
        storage
            .blobs
            .put(&t, &format!("d/{number}/image"), &vec![1; 200_000])
            .await
    };
    let commit = async |number: u32| {
        let pages: Vec<Entry> = (0..2000)
            .map(|i| page_done(&t, "d", number * 10_000 + i, &revision, 20))
            .collect();
        storage.ledger.commit(pages).await
    };
    storage.vectors.upsert(&t, "main", page(1)).await.unwrap();
    storage.vectors.flush().await.unwrap();
    put(1).await.unwrap();
    commit(1).await.unwrap();

    // The index stops while there is still room, for it could not stop later.
    let mut number = 1;
    let full = loop {
        number += 1;
        let written = async {
            storage.vectors.upsert(&t, "main", page(number)).await?;
            put(number).await?;
            storage.vectors.flush().await
        };
        if let Err(error) = written.await {
            break error;
        }
    };
    assert!(matches!(full, StorageError::Full { .. }), "{full}");

    let filler = disk.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    for error in [
        storage
            .vectors
            .upsert(&t, "main", page(number))
            .await
            .unwrap_err(),
        storage.vectors.flush().await.unwrap_err(),
        put(number + 1).await.unwrap_err(),
        commit(2).await.unwrap_err(),
    ] {
        assert!(matches!(error, StorageError::Full { .. }), "{error}");
    }
    // Reading goes on.
    assert_eq!(
        storage.vectors.pages(&t, &document("d")).await.unwrap().first(),
        Some(&(1, 20))
    );
    assert_eq!(
        storage
            .ledger
            .pages(&t, &document("d"), None)
            .await
            .unwrap()
            .len(),
        2000
    );
    let half = storage
        .blobs
        .get(&t, &format!("d/{}/image", number + 1))
        .await
        .unwrap();
    assert!(half.is_none());

    drop(file);
    std::fs::remove_file(&filler).unwrap();
    storage.blobs.delete(&t, "d/").await.unwrap();
    storage.vectors.upsert(&t, "main", page(number)).await.unwrap();
    put(number).await.unwrap();
    commit(2).await.unwrap();
    storage.close().await.unwrap();

    let storage = open(&disk.join("data")).await;
    let pages = storage.vectors.pages(&t, &document("d")).await.unwrap();
    assert_eq!(pages, (1..=number).map(|n| (n, 20)).collect::<Vec<_>>());
    assert_eq!(
        storage
            .ledger
            .pages(&t, &document("d"), None)
            .await
            .unwrap()
            .len(),
        4000
    );
    storage.close().await.unwrap();
}

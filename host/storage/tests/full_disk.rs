//! A full disk gives an error that says so. When there is free space again, all stores work again.
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

use fixture::{document_id, make_point, make_query, open_storage, page_done_entry, unit_vector};
use weir_core::ledger::LedgerEntry;
use weir_core::ports::Ledger;
use weir_core::{RevisionId, StorageError, TenantId};

const DATA_VARIABLE: &str = "WEIR_TEST_DATA";

/// Runs the test below on a small file system of its own, in a mount namespace.
#[test]
fn stores_recover_from_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    // Root needs no user namespace. A container may not allow one.
    let namespaces: &[&str] = if rustix::process::geteuid().is_root() {
        &["--mount"]
    } else {
        &["--user", "--map-root-user", "--mount"]
    };
    let ran = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-ec"])
        .arg(format!(
            "mount -t tmpfs -o size=160m tmpfs \"${DATA_VARIABLE}\" && exec \"$0\" \"$@\""
        ))
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "fill_small_disk_and_recover",
            "--ignored",
            "--nocapture",
        ])
        .env(DATA_VARIABLE, dir.path())
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
#[ignore = "fills its disk: the test above starts it on a small file system"]
async fn fill_small_disk_and_recover() {
    let Ok(data) = std::env::var(DATA_VARIABLE) else {
        panic!("set {DATA_VARIABLE}");
    };
    let disk = Path::new(&data);
    let storage = open_storage(&disk.join("data")).await;
    let (t, revision) = (TenantId::default_tenant(), RevisionId::from_content(b"r"));
    let page = |number: u32| {
        let passages =
            (0..20).map(|p| make_point("d", number, p, &"words of a page ".repeat(100), unit_vector(0.0)));
        passages.collect::<Vec<_>>()
    };
    let put = async |number: u32| {
        storage
            .blobs
            .put_blob(&t, &format!("d/{number}/image"), &vec![1; 200_000])
            .await
    };
    let commit = async |number: u32| {
        let pages: Vec<LedgerEntry> = (0..2000)
            .map(|i| page_done_entry(&t, "d", number * 10_000 + i, &revision, 20))
            .collect();
        storage.ledger.commit_entries(pages).await
    };
    storage.vectors.upsert_points(&t, "main", page(1)).await.unwrap();
    storage.vectors.flush_points().await.unwrap();
    put(1).await.unwrap();
    commit(1).await.unwrap();

    let mut number = 1;
    let full = loop {
        number += 1;
        let written = async {
            storage.vectors.upsert_points(&t, "main", page(number)).await?;
            put(number).await?;
            storage.vectors.flush_points().await
        };
        if let Err(error) = written.await {
            break error;
        }
    };
    assert!(matches!(full, StorageError::NoSpace { .. }), "{full}");

    let filler = disk.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    // The files of the index have space for some more pages.
    let index_is_full = loop {
        match storage.vectors.upsert_points(&t, "main", page(number)).await {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    for error in [
        index_is_full,
        put(number + 1).await.unwrap_err(),
        commit(2).await.unwrap_err(),
    ] {
        assert!(matches!(error, StorageError::NoSpace { .. }), "{error}");
    }
    // The log of the small blobs may have space for some.
    let put_lines = async |number: u32| {
        let key = format!("d/{number}/lines");
        storage.blobs.put_blob(&t, &key, &vec![1; 30_000]).await
    };
    let mut lines = 0;
    let error = loop {
        lines += 1;
        if let Err(error) = put_lines(lines).await {
            break error;
        }
    };
    assert!(matches!(error, StorageError::NoSpace { .. }), "{error}");
    // Reads still work, and searches find what was indexed before.
    let query = make_query("page", unit_vector(0.0), 5);
    let hits = storage
        .vectors
        .search_by_vector_and_words(&t, &query)
        .await
        .unwrap();
    assert_eq!(hits.len(), 5);
    assert_eq!(
        storage
            .vectors
            .count_passages_by_page(&t, &document_id("d"))
            .await
            .unwrap()
            .first(),
        Some(&(1, 20))
    );
    assert_eq!(
        storage
            .ledger
            .list_pages(&t, &document_id("d"), None)
            .await
            .unwrap()
            .len(),
        2000
    );
    let half = storage
        .blobs
        .get_blob(&t, &format!("d/{}/image", number + 1))
        .await
        .unwrap();
    assert!(half.is_none());
    let lost = storage
        .blobs
        .get_blob(&t, &format!("d/{lines}/lines"))
        .await
        .unwrap();
    assert!(lost.is_none());

    drop(file);
    std::fs::remove_file(&filler).unwrap();
    storage.blobs.delete_blobs_with_prefix(&t, "d/").await.unwrap();
    storage
        .vectors
        .upsert_points(&t, "main", page(number))
        .await
        .unwrap();
    put(number).await.unwrap();
    put_lines(number).await.unwrap();
    storage.blobs.flush_blobs().await.unwrap();
    commit(2).await.unwrap();
    storage.close().await.unwrap();

    let storage = open_storage(&disk.join("data")).await;
    let pages = storage
        .vectors
        .count_passages_by_page(&t, &document_id("d"))
        .await
        .unwrap();
    assert_eq!(pages, (1..=number).map(|n| (n, 20)).collect::<Vec<_>>());
    assert_eq!(
        storage
            .ledger
            .list_pages(&t, &document_id("d"), None)
            .await
            .unwrap()
            .len(),
        4000
    );
    storage.close().await.unwrap();
}

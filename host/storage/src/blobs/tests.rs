use super::*;
use crate::ledger::SqlLedger;

fn tenant_id(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn open_blobs() -> (tempfile::TempDir, FileBlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = reopen_blobs(&dir);
    (dir, blobs)
}

fn reopen_blobs(dir: &tempfile::TempDir) -> FileBlobStore {
    let usage = SqlLedger::open_for_test(dir.path()).storage_usage();
    FileBlobStore::open_and_remove_unfinished_files(dir.path(), usage).unwrap()
}

#[tokio::test]
async fn file_blob_store_passes_the_conformance_suite() {
    let (_dir, blobs) = open_blobs();
    weir_conformance::check_blob_store(&blobs).await;
}

#[tokio::test]
async fn folders_without_blobs_are_removed() {
    let (dir, blobs) = open_blobs();
    let t = TenantId::default_tenant();
    for key in ["d/1/ocr.json", "d/2/image/150.jpg", "e/1/ocr.json"] {
        blobs.put_blob(&t, key, b"x").await.unwrap();
    }
    blobs.delete_blobs_with_prefix(&t, "d/").await.unwrap();
    assert!(!dir.path().join("blobs/default/d").exists());
    assert!(dir.path().join("blobs/default/e/1").exists());
}

#[tokio::test]
async fn unfinished_blobs_are_removed_at_the_next_open() {
    let (dir, blobs) = open_blobs();
    let unfinished = dir.path().join("blobs").join(UNFINISHED_FOLDER).join("0");
    fs::write(&unfinished, "half").unwrap();
    drop(blobs);
    let blobs = reopen_blobs(&dir);
    assert!(!unfinished.exists());
    blobs
        .put_blob(&TenantId::default_tenant(), "k", b"x")
        .await
        .unwrap();
}

#[tokio::test]
async fn failed_put_leaves_no_unfinished_file() {
    let (dir, blobs) = open_blobs();
    let t = TenantId::default_tenant();
    blobs.put_blob(&t, "a", b"file").await.unwrap();
    assert!(blobs.put_blob(&t, "a/b", b"under a file").await.is_err());
    assert_eq!(
        fs::read_dir(dir.path().join("blobs").join(UNFINISHED_FOLDER))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn put_beyond_limit_flushes_and_deleted_blob_needs_no_sync() {
    let (_dir, blobs) = open_blobs();
    let t = TenantId::default_tenant();
    let unsynced_count = || blobs.folder.unsynced.lock().blobs.len();
    for i in 0..MAX_UNSYNCED_BLOBS {
        blobs.put_blob(&t, &format!("k/{i}"), b"x").await.unwrap();
    }
    assert_eq!(unsynced_count(), MAX_UNSYNCED_BLOBS);
    blobs.put_blob(&t, "k/one-more", b"x").await.unwrap();
    assert_eq!(unsynced_count(), 0, "a put beyond the limit must flush");
    blobs.put_blob(&t, "k/last", b"x").await.unwrap();
    blobs.put_blob(&t, "other", b"x").await.unwrap();
    blobs.delete_blobs_with_prefix(&t, "k/").await.unwrap();
    assert_eq!(unsynced_count(), 1, "a deleted blob must not wait for a sync");
    blobs.flush_blobs().await.unwrap();
    assert_eq!(unsynced_count(), 0);
}

/// Opens blobs whose syncs, of files or of folders, fail as often as the returned counter says.
fn open_with_failing_syncs(of_folders: bool) -> (tempfile::TempDir, FileBlobStore, Arc<AtomicU64>) {
    let (dir, blobs) = open_blobs();
    let mut blob_folder = Arc::into_inner(blobs.folder).unwrap();
    let failures = Arc::new(AtomicU64::new(0));
    let remaining_failures = Arc::clone(&failures);
    blob_folder.sync_file = Box::new(move |file: &File| {
        let is_affected = file.metadata()?.is_dir() == of_folders;
        let fails = |n: u64| is_affected.then_some(n)?.checked_sub(1);
        match remaining_failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails) {
            // EIO, the error of fsync(2) if a page could not be written.
            Ok(_) => Err(io::Error::from_raw_os_error(5)),
            Err(_) => file.sync_all(),
        }
    });
    let folder = Arc::new(blob_folder);
    (dir, FileBlobStore { folder }, failures)
}

fn blob_inode(dir: &tempfile::TempDir, key: &str) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(dir.path().join("blobs/default").join(key))
        .unwrap()
        .ino()
}

#[tokio::test]
async fn a_blob_whose_sync_failed_is_written_again() {
    let (dir, blobs, failures) = open_with_failing_syncs(false);
    let t = TenantId::default_tenant();
    blobs.put_blob(&t, "d/1", b"one").await.unwrap();
    blobs.put_blob(&t, "d/2", b"two").await.unwrap();
    let before = blob_inode(&dir, "d/1");
    // The sync of each blob and the sync of its new file fail.
    failures.store(4, Ordering::SeqCst);
    blobs.flush_blobs().await.unwrap_err();
    blobs.flush_blobs().await.unwrap();
    assert_ne!(blob_inode(&dir, "d/1"), before, "the blob must be in a new file");
    assert_eq!(blobs.get_blob(&t, "d/1").await.unwrap().unwrap(), b"one");
    assert_eq!(blobs.get_blob(&t, "d/2").await.unwrap().unwrap(), b"two");
    assert_eq!(blobs.folder.storage_usage.count_stored_bytes(&t).await, 6);
    // If only one sync fails, the flush itself succeeds.
    blobs.put_blob(&t, "d/3", b"three").await.unwrap();
    let before = blob_inode(&dir, "d/3");
    failures.store(1, Ordering::SeqCst);
    blobs.flush_blobs().await.unwrap();
    assert_ne!(blob_inode(&dir, "d/3"), before);
    assert_eq!(
        fs::read_dir(dir.path().join("blobs").join(UNFINISHED_FOLDER))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn blobs_of_a_folder_whose_sync_failed_are_written_again() {
    let (dir, blobs, failures) = open_with_failing_syncs(true);
    let t = TenantId::default_tenant();
    blobs.put_blob(&t, "d/1", b"one").await.unwrap();
    let before = blob_inode(&dir, "d/1");
    failures.store(1, Ordering::SeqCst);
    blobs.flush_blobs().await.unwrap_err();
    blobs.flush_blobs().await.unwrap();
    assert_ne!(blob_inode(&dir, "d/1"), before);
    assert_eq!(blobs.get_blob(&t, "d/1").await.unwrap().unwrap(), b"one");
}

#[tokio::test]
async fn lost_bytes_fail_every_flush_until_they_are_put_again() {
    let (dir, blobs, failures) = open_with_failing_syncs(false);
    let t = TenantId::default_tenant();
    blobs.put_blob(&t, "d/1", b"one").await.unwrap();
    // The kernel dropped the page, and a read returns the old bytes of the disk.
    let path = dir.path().join("blobs/default/d/1");
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all(b"old")
        .unwrap();
    failures.store(1, Ordering::SeqCst);
    for _ in 0..3 {
        let error = blobs.flush_blobs().await.unwrap_err().to_string();
        assert!(
            error.contains("default/d/1") && error.contains("put again"),
            "{error}"
        );
    }
    blobs.put_blob(&t, "d/1", b"one").await.unwrap();
    blobs.flush_blobs().await.unwrap();
    assert_eq!(blobs.get_blob(&t, "d/1").await.unwrap().unwrap(), b"one");
}

#[tokio::test]
async fn a_blob_that_was_replaced_is_not_written_again() {
    let (dir, blobs, failures) = open_with_failing_syncs(false);
    let t = TenantId::default_tenant();
    blobs.put_blob(&t, "d/1", b"one").await.unwrap();
    failures.store(2, Ordering::SeqCst);
    blobs.flush_blobs().await.unwrap_err();
    blobs.put_blob(&t, "d/1", b"new").await.unwrap();
    let put = blob_inode(&dir, "d/1");
    blobs.flush_blobs().await.unwrap();
    assert_eq!(blob_inode(&dir, "d/1"), put);
    assert_eq!(blobs.get_blob(&t, "d/1").await.unwrap().unwrap(), b"new");
}

#[tokio::test]
async fn puts_and_deletes_run_concurrently() {
    let (_dir, blobs) = open_blobs();
    let blobs = Arc::new(blobs);
    let t = TenantId::default_tenant();
    let puts = tokio::spawn({
        let (blobs, t) = (Arc::clone(&blobs), t.clone());
        async move {
            for i in 0..300 {
                blobs.put_blob(&t, &format!("d/{}/x", i % 3), b"x").await.unwrap();
            }
        }
    });
    while !puts.is_finished() {
        blobs.delete_blobs_with_prefix(&t, "d/").await.unwrap();
    }
    puts.await.unwrap();
}

#[tokio::test]
async fn bytes_are_counted_once_for_each_key() {
    let (dir, blobs) = open_blobs();
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let bytes = async |t: &TenantId| blobs.folder.storage_usage.count_stored_bytes(t).await;
    blobs.put_blob(&a, "d/1/image", &[0; 100]).await.unwrap();
    blobs.put_blob(&a, "d/2/image", &[0; 10]).await.unwrap();
    blobs.put_blob(&a, "e", &[0; 5]).await.unwrap();
    blobs.put_blob(&b, "d/1/image", &[0; 1]).await.unwrap();
    assert_eq!((bytes(&a).await, bytes(&b).await), (115, 1));
    blobs.put_blob(&a, "d/1/image", &[0; 40]).await.unwrap();
    assert!(blobs.put_blob(&a, "e/1", &[0; 7]).await.is_err());
    assert_eq!(bytes(&a).await, 55);
    blobs.delete_blobs_with_prefix(&a, "d/").await.unwrap();
    blobs.delete_blobs_with_prefix(&a, "d/").await.unwrap();
    assert_eq!((bytes(&a).await, bytes(&b).await), (5, 1));
    blobs.delete_blobs_with_prefix(&a, "").await.unwrap();
    assert_eq!(bytes(&a).await, 0);
    assert!(!dir.path().join("blobs/a").exists());
}

#[tokio::test]
async fn stored_bytes_are_exact_after_concurrent_puts_of_one_key() {
    let (_dir, blobs) = open_blobs();
    let (blobs, t) = (Arc::new(blobs), TenantId::default_tenant());
    let writers = (1..=40_usize).map(|size| {
        let (blobs, t) = (Arc::clone(&blobs), t.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                blobs.put_blob(&t, "d/1/image", &vec![0; size]).await.unwrap();
                if size.is_multiple_of(5) {
                    blobs.delete_blobs_with_prefix(&t, "d/1/").await.unwrap();
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    blobs.put_blob(&t, "d/1/image", &[0; 9]).await.unwrap();
    assert_eq!(blobs.folder.storage_usage.count_stored_bytes(&t).await, 9);
}

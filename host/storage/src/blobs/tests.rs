use super::*;
use crate::ledger::SqlLedger;

fn tenant_id(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// Returns a blob that is stored as a file.
fn large(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(LARGE_BYTES, b' ');
    bytes
}

const LARGE_BYTES: usize = MAX_SMALL_BLOB_BYTES + 1;

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
        blobs.put_blob(&t, key, &large("x")).await.unwrap();
    }
    blobs.delete_blobs_with_prefix(&t, "d/").await.unwrap();
    assert!(!dir.path().join("blobs/default/d").exists());
    assert!(dir.path().join("blobs/default/e/1+ocr.json").exists());
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
        .put_blob(&TenantId::default_tenant(), "k", &large("x"))
        .await
        .unwrap();
}

#[tokio::test]
async fn failed_put_leaves_no_unfinished_file() {
    let (dir, blobs) = open_blobs();
    let t = TenantId::default_tenant();
    blobs.put_blob(&t, "a", &large("file")).await.unwrap();
    assert!(blobs.put_blob(&t, "a/b", &large("under a file")).await.is_err());
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
        blobs.put_blob(&t, &format!("k/{i}"), &large("x")).await.unwrap();
    }
    assert_eq!(unsynced_count(), MAX_UNSYNCED_BLOBS);
    blobs.put_blob(&t, "k/one-more", &large("x")).await.unwrap();
    assert_eq!(unsynced_count(), 0, "a put beyond the limit must flush");
    blobs.put_blob(&t, "k/last", &large("x")).await.unwrap();
    blobs.put_blob(&t, "other", &large("x")).await.unwrap();
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
    blobs.put_blob(&t, "d/1", &large("one")).await.unwrap();
    blobs.put_blob(&t, "d/2", &large("two")).await.unwrap();
    let before = blob_inode(&dir, "d/1");
    // The sync of each blob and the sync of its new file fail.
    failures.store(4, Ordering::SeqCst);
    blobs.flush_blobs().await.unwrap_err();
    blobs.flush_blobs().await.unwrap();
    assert_ne!(blob_inode(&dir, "d/1"), before, "the blob must be in a new file");
    assert_eq!(blobs.get_blob(&t, "d/1").await.unwrap().unwrap(), large("one"));
    assert_eq!(blobs.get_blob(&t, "d/2").await.unwrap().unwrap(), large("two"));
    assert_eq!(
        blobs.folder.storage_usage.count_stored_bytes(&t).await,
        2 * LARGE_BYTES as u64
    );
    // If only one sync fails, the flush itself succeeds.
    blobs.put_blob(&t, "d/3", &large("three")).await.unwrap();
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
    blobs.put_blob(&t, "d/1", &large("one")).await.unwrap();
    let before = blob_inode(&dir, "d/1");
    failures.store(1, Ordering::SeqCst);
    blobs.flush_blobs().await.unwrap_err();
    blobs.flush_blobs().await.unwrap();
    assert_ne!(blob_inode(&dir, "d/1"), before);
    assert_eq!(blobs.get_blob(&t, "d/1").await.unwrap().unwrap(), large("one"));
}

#[tokio::test]
async fn lost_bytes_fail_every_flush_until_they_are_put_again() {
    let (dir, blobs, failures) = open_with_failing_syncs(false);
    let t = TenantId::default_tenant();
    blobs.put_blob(&t, "d/1", &large("one")).await.unwrap();
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
    blobs.put_blob(&t, "d/1", &large("one")).await.unwrap();
    blobs.flush_blobs().await.unwrap();
    assert_eq!(blobs.get_blob(&t, "d/1").await.unwrap().unwrap(), large("one"));
}

#[tokio::test]
async fn a_blob_that_was_replaced_is_not_written_again() {
    let (dir, blobs, failures) = open_with_failing_syncs(false);
    let t = TenantId::default_tenant();
    blobs.put_blob(&t, "d/1", &large("one")).await.unwrap();
    failures.store(2, Ordering::SeqCst);
    blobs.flush_blobs().await.unwrap_err();
    blobs.put_blob(&t, "d/1", &large("new")).await.unwrap();
    let put = blob_inode(&dir, "d/1");
    blobs.flush_blobs().await.unwrap();
    assert_eq!(blob_inode(&dir, "d/1"), put);
    assert_eq!(blobs.get_blob(&t, "d/1").await.unwrap().unwrap(), large("new"));
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
                blobs
                    .put_blob(&t, &format!("d/{}/x", i % 3), &large("x"))
                    .await
                    .unwrap();
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
    assert_eq!(bytes(&a).await, 55);
    blobs.delete_blobs_with_prefix(&a, "d/").await.unwrap();
    blobs.delete_blobs_with_prefix(&a, "d/").await.unwrap();
    assert_eq!((bytes(&a).await, bytes(&b).await), (5, 1));
    blobs.delete_blobs_with_prefix(&a, "").await.unwrap();
    assert_eq!(bytes(&a).await, 0);
    // A file below a file is refused.
    blobs.put_blob(&a, "f", &large("f")).await.unwrap();
    assert!(blobs.put_blob(&a, "f/1", &large("f/1")).await.is_err());
    assert_eq!(bytes(&a).await, LARGE_BYTES as u64);
    blobs.delete_blobs_with_prefix(&a, "").await.unwrap();
    assert_eq!(bytes(&a).await, 0);
    assert!(!dir.path().join("blobs/a").exists());
}

#[tokio::test]
async fn stored_bytes_are_exact_after_concurrent_puts_of_one_key() {
    let (_dir, blobs) = open_blobs();
    let (blobs, t) = (Arc::new(blobs), TenantId::default_tenant());
    // Half of them are files.
    let writers = (1..=40_usize).map(|number| {
        let size = MAX_SMALL_BLOB_BYTES - 20 + number;
        let (blobs, t) = (Arc::clone(&blobs), t.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                blobs.put_blob(&t, "d/1/image", &vec![0; size]).await.unwrap();
                if number.is_multiple_of(5) {
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

#[tokio::test]
async fn blob_that_changes_its_kind_is_stored_and_counted_once() {
    let (dir, mut blobs) = open_blobs();
    let t = TenantId::default_tenant();
    let file = dir.path().join("blobs/default/d/1+ocr.json");
    let sizes = [3, LARGE_BYTES, MAX_SMALL_BLOB_BYTES, 0, LARGE_BYTES + 5];
    for size in sizes {
        let bytes = vec![7; size];
        blobs.put_blob(&t, "d/1/ocr.json", &bytes).await.unwrap();
        let is_small = size <= MAX_SMALL_BLOB_BYTES;
        let find_row = |blobs: &FileBlobStore| blobs.folder.small_blobs.find_size(&t, "d/1/ocr.json");
        assert_eq!(
            find_row(&blobs).unwrap(),
            is_small.then_some(size as u64),
            "{size}"
        );
        assert_eq!(file.exists(), !is_small, "{size}");
        for _ in 0..2 {
            assert_eq!(blobs.get_blob(&t, "d/1/ocr.json").await.unwrap().unwrap(), bytes);
            assert_eq!(blobs.list_blob_keys(&t, "d/").await.unwrap(), ["d/1/ocr.json"]);
            assert_eq!(
                blobs.folder.storage_usage.count_stored_bytes(&t).await,
                size as u64
            );
            // Dropped without a flush, like a killed process.
            drop(blobs);
            blobs = reopen_blobs(&dir);
        }
    }
}

/// A killed process can leave both, and earlier versions wrote small blobs as files.
#[tokio::test]
async fn file_of_a_small_blob_counts_before_its_row_until_replaced() {
    let (dir, blobs) = open_blobs();
    let t = TenantId::default_tenant();
    let write_file = |page: u32| {
        let folder = dir.path().join(format!("blobs/default/d/{page}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("ocr.json"), "file").unwrap();
    };
    for page in [1, 2] {
        blobs
            .put_blob(&t, &format!("d/{page}/ocr.json"), b"row")
            .await
            .unwrap();
    }
    drop(blobs);
    (1..=3).for_each(write_file);
    let blobs = reopen_blobs(&dir);
    let bytes = async || blobs.folder.storage_usage.count_stored_bytes(&t).await;
    assert_eq!(bytes().await, 18);
    assert_eq!(
        blobs.list_blob_keys(&t, "").await.unwrap(),
        ["d/1/ocr.json", "d/2/ocr.json", "d/3/ocr.json"]
    );
    for page in [1, 2, 3] {
        let found = blobs.get_blob(&t, &format!("d/{page}/ocr.json")).await.unwrap();
        assert_eq!(found.unwrap(), b"file");
    }
    for page in [1, 3] {
        let key = format!("d/{page}/ocr.json");
        blobs.put_blob(&t, &key, b"new").await.unwrap();
        assert_eq!(blobs.get_blob(&t, &key).await.unwrap().unwrap(), b"new");
        assert!(!dir.path().join("blobs/default").join(&key).exists());
    }
    assert_eq!(bytes().await, 13);
    blobs.delete_blobs_with_prefix(&t, "d/2/").await.unwrap();
    assert_eq!(blobs.get_blob(&t, "d/2/ocr.json").await.unwrap(), None);
    assert_eq!(bytes().await, 6);
}

#[tokio::test]
async fn reader_finds_a_blob_that_changes_its_kind() {
    let (_dir, blobs) = open_blobs();
    let (blobs, t) = (Arc::new(blobs), TenantId::default_tenant());
    let versions = [vec![1; 10], vec![2; LARGE_BYTES]];
    blobs.put_blob(&t, "d/1", &versions[0]).await.unwrap();
    let writer = tokio::spawn({
        let (blobs, t, versions) = (Arc::clone(&blobs), t.clone(), versions.clone());
        async move {
            for version in versions.iter().cycle().take(200) {
                blobs.put_blob(&t, "d/1", version).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let found = blobs.get_blob(&t, "d/1").await.unwrap();
        assert!(found.is_some_and(|found| versions.contains(&found)));
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn folder_of_a_deleted_file_is_synced_by_the_next_flush() {
    let (_dir, blobs, failures) = open_with_failing_syncs(true);
    let t = TenantId::default_tenant();
    blobs.put_blob(&t, "d/1/image", &large("image")).await.unwrap();
    blobs.put_blob(&t, "d/2/image", &large("image")).await.unwrap();
    blobs.flush_blobs().await.unwrap();
    // A small blob replaces a file, and the last file of a folder is deleted.
    blobs.put_blob(&t, "d/1/image", b"small").await.unwrap();
    for _ in 0..2 {
        failures.store(1, Ordering::SeqCst);
        blobs.flush_blobs().await.unwrap_err();
        assert_eq!(failures.load(Ordering::SeqCst), 0);
        blobs.flush_blobs().await.unwrap();
        blobs.delete_blobs_with_prefix(&t, "d/").await.unwrap();
    }
}

#[tokio::test]
async fn a_page_needs_one_file_and_no_folder() {
    let (dir, blobs) = open_blobs();
    let t = TenantId::default_tenant();
    for page in 1..=3 {
        for (name, bytes) in [("image/150.jpg", large("image")), ("ocr.json", b"lines".to_vec())] {
            blobs
                .put_blob(&t, &format!("d/{page}/{name}"), &bytes)
                .await
                .unwrap();
        }
    }
    let mut names: Vec<_> = fs::read_dir(dir.path().join("blobs/default/d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["1+image+150.jpg", "2+image+150.jpg", "3+image+150.jpg"]);
    assert_eq!(
        blobs.list_blob_keys(&t, "d/2/").await.unwrap(),
        ["d/2/image/150.jpg", "d/2/ocr.json"]
    );
}

#[tokio::test]
async fn file_of_an_earlier_version_is_read_replaced_and_deleted() {
    let (dir, blobs) = open_blobs();
    let t = TenantId::default_tenant();
    let folder = dir.path().join("blobs/default/d");
    blobs
        .put_blob(&t, "d/0/image/150.jpg", &large("new"))
        .await
        .unwrap();
    drop(blobs);
    for page in 0..4 {
        fs::create_dir_all(folder.join(format!("{page}/image"))).unwrap();
        fs::write(folder.join(format!("{page}/image/150.jpg")), "old").unwrap();
    }
    let blobs = reopen_blobs(&dir);
    let bytes = async || blobs.folder.storage_usage.count_stored_bytes(&t).await;
    let get = async |page: u32| {
        blobs
            .get_blob(&t, &format!("d/{page}/image/150.jpg"))
            .await
            .unwrap()
    };
    assert_eq!(bytes().await, LARGE_BYTES as u64 + 12);
    assert_eq!(get(0).await, Some(large("new")));
    assert_eq!(get(1).await, Some(b"old".to_vec()));
    assert_eq!(blobs.list_blob_keys(&t, "").await.unwrap().len(), 4);

    blobs
        .put_blob(&t, "d/1/image/150.jpg", &large("new"))
        .await
        .unwrap();
    blobs.put_blob(&t, "d/2/image/150.jpg", b"small").await.unwrap();
    assert_eq!(get(1).await, Some(large("new")));
    assert_eq!(get(2).await, Some(b"small".to_vec()));
    assert!(!folder.join("1").exists() && !folder.join("2").exists());
    assert_eq!(bytes().await, 2 * LARGE_BYTES as u64 + 5 + 6);
    for page in 0..4 {
        blobs
            .delete_blobs_with_prefix(&t, &format!("d/{page}/"))
            .await
            .unwrap();
        assert_eq!(get(page).await, None);
    }
    assert!(!folder.exists());
    assert_eq!(bytes().await, 0);
}

use super::*;

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn open() -> (tempfile::TempDir, FileBlobs) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = reopen(&dir);
    (dir, blobs)
}

fn reopen(dir: &tempfile::TempDir) -> FileBlobs {
    FileBlobs::open(dir.path(), Arc::new(Kept::new([]))).unwrap()
}

#[tokio::test]
async fn what_is_put_is_got_and_replaced() {
    let (_dir, blobs) = open();
    let t = TenantId::single();
    assert_eq!(blobs.get(&t, "d/1/ocr.json").await.unwrap(), None);
    blobs.put(&t, "d/1/ocr.json", b"one").await.unwrap();
    blobs.put(&t, "d/1/ocr.json", b"two").await.unwrap();
    assert_eq!(blobs.get(&t, "d/1/ocr.json").await.unwrap().unwrap(), b"two");
    assert_eq!(blobs.get(&t, "d/1").await.unwrap(), None);
    assert_eq!(blobs.get(&t, "d/1/ocr.json/x").await.unwrap(), None);
}

#[tokio::test]
async fn keys_are_listed_and_deleted_by_prefix() {
    let (dir, blobs) = open();
    let t = TenantId::single();
    for key in [
        "d/1/ocr.json",
        "d/10/ocr.json",
        "d/2/image/150.jpg",
        "e/1/ocr.json",
        "d.txt",
    ] {
        blobs.put(&t, key, b"x").await.unwrap();
    }
    let list = |prefix: &'static str| blobs.list(&t, prefix);
    assert_eq!(list("d/1").await.unwrap(), ["d/1/ocr.json", "d/10/ocr.json"]);
    assert_eq!(list("d/1/").await.unwrap(), ["d/1/ocr.json"]);
    assert_eq!(list("d").await.unwrap().len(), 4);
    assert_eq!(list("").await.unwrap().len(), 5);
    assert!(list("nothing/").await.unwrap().is_empty());
    blobs.delete(&t, "d/").await.unwrap();
    assert_eq!(list("").await.unwrap(), ["d.txt", "e/1/ocr.json"]);
    assert!(!dir.path().join("blobs/default/d").exists());
    blobs.delete(&t, "d/").await.unwrap();
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let (_dir, blobs) = open();
    let (a, b) = (tenant("a"), tenant("b"));
    blobs.put(&a, "k", b"of a").await.unwrap();
    blobs.put(&b, "k", b"of b").await.unwrap();
    assert_eq!(blobs.get(&a, "k").await.unwrap().unwrap(), b"of a");
    blobs.delete(&a, "").await.unwrap();
    assert_eq!(blobs.get(&a, "k").await.unwrap(), None);
    assert_eq!(blobs.get(&b, "k").await.unwrap().unwrap(), b"of b");
    assert_eq!(blobs.list(&a, "").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn no_key_leaves_its_tenant() {
    let (_dir, blobs) = open();
    let t = TenantId::single();
    let long = "x".repeat(256);
    for key in [
        "",
        "/etc/passwd",
        "../other/k",
        "a/../../b",
        "a//b",
        "a/",
        ".",
        "a\0b",
        "ä",
        "a b",
        ".x",
        &long,
    ] {
        for result in [
            blobs.put(&t, key, b"x").await.err(),
            blobs.get(&t, key).await.err(),
        ] {
            assert_eq!(result.unwrap().kind(), "storage-failed", "{key:?}");
        }
    }
    for prefix in ["..", "../", "/", "a//", "./"] {
        assert!(blobs.list(&t, prefix).await.is_err(), "{prefix:?}");
        assert!(blobs.delete(&t, prefix).await.is_err(), "{prefix:?}");
    }
}

#[tokio::test]
async fn what_a_killed_process_left_is_cleared() {
    let (dir, blobs) = open();
    let left = dir.path().join("blobs").join(UNFINISHED).join("0");
    fs::write(&left, "half").unwrap();
    drop(blobs);
    let blobs = reopen(&dir);
    assert!(!left.exists());
    blobs.put(&TenantId::single(), "k", b"x").await.unwrap();
}

#[tokio::test]
async fn a_failed_put_leaves_nothing() {
    let (dir, blobs) = open();
    let t = TenantId::single();
    blobs.put(&t, "a", b"file").await.unwrap();
    assert!(blobs.put(&t, "a/b", b"under a file").await.is_err());
    assert_eq!(
        fs::read_dir(dir.path().join("blobs").join(UNFINISHED))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_flush_owes_only_what_was_put_since() {
    let (_dir, blobs) = open();
    let t = TenantId::single();
    let owed = || blobs.inner.unsynced.lock().files.len();
    for i in 0..MAX_UNSYNCED {
        blobs.put(&t, &format!("k/{i}"), b"x").await.unwrap();
    }
    assert_eq!(owed(), MAX_UNSYNCED);
    blobs.put(&t, "k/one-more", b"x").await.unwrap();
    assert_eq!(owed(), 0, "a put beyond the limit flushes");
    blobs.put(&t, "k/last", b"x").await.unwrap();
    blobs.put(&t, "other", b"x").await.unwrap();
    blobs.delete(&t, "k/").await.unwrap();
    assert_eq!(owed(), 1, "a blob that is deleted is owed nothing");
    blobs.flush().await.unwrap();
    assert_eq!(owed(), 0);
}

/// Blobs whose syncs fail as often as is set, of files or of folders, and the syncs so far.
fn failing(of_folders: bool) -> (tempfile::TempDir, FileBlobs, Arc<AtomicU64>) {
    let (dir, blobs) = open();
    let mut inner = Arc::into_inner(blobs.inner).unwrap();
    let failures = Arc::new(AtomicU64::new(0));
    let left = Arc::clone(&failures);
    inner.sync = Box::new(move |file: &File| {
        let concerned = file.metadata()?.is_dir() == of_folders;
        let fails = |n: u64| concerned.then_some(n)?.checked_sub(1);
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails) {
            // What fsync(2) says of a page that could not be written.
            Ok(_) => Err(io::Error::from_raw_os_error(5)),
            Err(_) => file.sync_all(),
        }
    });
    let inner = Arc::new(inner);
    (dir, FileBlobs { inner }, failures)
}

fn inode(dir: &tempfile::TempDir, key: &str) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(dir.path().join("blobs/default").join(key))
        .unwrap()
        .ino()
}

#[tokio::test]
async fn a_blob_whose_sync_failed_is_written_again() {
    let (dir, blobs, failures) = failing(false);
    let t = TenantId::single();
    blobs.put(&t, "d/1", b"one").await.unwrap();
    blobs.put(&t, "d/2", b"two").await.unwrap();
    let before = inode(&dir, "d/1");
    // The sync of each and of what is written in their place.
    failures.store(4, Ordering::SeqCst);
    blobs.flush().await.unwrap_err();
    blobs.flush().await.unwrap();
    assert_ne!(
        inode(&dir, "d/1"),
        before,
        "a second sync of the same file says nothing"
    );
    assert_eq!(blobs.get(&t, "d/1").await.unwrap().unwrap(), b"one");
    assert_eq!(blobs.get(&t, "d/2").await.unwrap().unwrap(), b"two");
    assert_eq!(blobs.inner.kept.bytes(&t), 6);
    // Where only one sync fails, the flush itself makes it good.
    blobs.put(&t, "d/3", b"three").await.unwrap();
    let before = inode(&dir, "d/3");
    failures.store(1, Ordering::SeqCst);
    blobs.flush().await.unwrap();
    assert_ne!(inode(&dir, "d/3"), before);
    assert_eq!(
        fs::read_dir(dir.path().join("blobs").join(UNFINISHED))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn blobs_of_a_folder_whose_sync_failed_are_written_again() {
    let (dir, blobs, failures) = failing(true);
    let t = TenantId::single();
    blobs.put(&t, "d/1", b"one").await.unwrap();
    let before = inode(&dir, "d/1");
    failures.store(1, Ordering::SeqCst);
    blobs.flush().await.unwrap_err();
    blobs.flush().await.unwrap();
    assert_ne!(inode(&dir, "d/1"), before);
    assert_eq!(blobs.get(&t, "d/1").await.unwrap().unwrap(), b"one");
}

#[tokio::test]
async fn lost_bytes_fail_every_flush_until_they_are_put_again() {
    let (dir, blobs, failures) = failing(false);
    let t = TenantId::single();
    blobs.put(&t, "d/1", b"one").await.unwrap();
    // The page was dropped unwritten, and what is read now is what the disk had.
    let path = dir.path().join("blobs/default/d/1");
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all(b"old")
        .unwrap();
    failures.store(1, Ordering::SeqCst);
    for _ in 0..3 {
        let error = blobs.flush().await.unwrap_err().to_string();
        assert!(
            error.contains("default/d/1") && error.contains("put again"),
            "{error}"
        );
    }
    blobs.put(&t, "d/1", b"one").await.unwrap();
    blobs.flush().await.unwrap();
    assert_eq!(blobs.get(&t, "d/1").await.unwrap().unwrap(), b"one");
}

#[tokio::test]
async fn a_blob_that_was_replaced_is_not_written_again() {
    let (dir, blobs, failures) = failing(false);
    let t = TenantId::single();
    blobs.put(&t, "d/1", b"one").await.unwrap();
    failures.store(2, Ordering::SeqCst);
    blobs.flush().await.unwrap_err();
    blobs.put(&t, "d/1", b"new").await.unwrap();
    let put = inode(&dir, "d/1");
    blobs.flush().await.unwrap();
    assert_eq!(inode(&dir, "d/1"), put);
    assert_eq!(blobs.get(&t, "d/1").await.unwrap().unwrap(), b"new");
}

#[tokio::test]
async fn puts_and_deletes_side_by_side() {
    let (_dir, blobs) = open();
    let blobs = Arc::new(blobs);
    let t = TenantId::single();
    let puts = tokio::spawn({
        let (blobs, t) = (Arc::clone(&blobs), t.clone());
        async move {
            for i in 0..300 {
                blobs.put(&t, &format!("d/{}/x", i % 3), b"x").await.unwrap();
            }
        }
    });
    while !puts.is_finished() {
        blobs.delete(&t, "d/").await.unwrap();
    }
    puts.await.unwrap();
}

#[tokio::test]
async fn bytes_are_counted_once_for_each_key() {
    let (dir, blobs) = open();
    let (a, b) = (tenant("a"), tenant("b"));
    let bytes = |t: &TenantId| blobs.inner.kept.bytes(t);
    blobs.put(&a, "d/1/image", &[0; 100]).await.unwrap();
    blobs.put(&a, "d/2/image", &[0; 10]).await.unwrap();
    blobs.put(&a, "e", &[0; 5]).await.unwrap();
    blobs.put(&b, "d/1/image", &[0; 1]).await.unwrap();
    assert_eq!((bytes(&a), bytes(&b)), (115, 1));
    blobs.put(&a, "d/1/image", &[0; 40]).await.unwrap();
    assert!(blobs.put(&a, "e/1", &[0; 7]).await.is_err());
    assert_eq!(bytes(&a), 55);
    blobs.delete(&a, "d/").await.unwrap();
    blobs.delete(&a, "d/").await.unwrap();
    assert_eq!((bytes(&a), bytes(&b)), (5, 1));
    blobs.delete(&a, "").await.unwrap();
    assert_eq!(bytes(&a), 0);
    assert!(!dir.path().join("blobs/a").exists());
}

#[tokio::test]
async fn bytes_are_right_when_many_write_one_key() {
    let (_dir, blobs) = open();
    let (blobs, t) = (Arc::new(blobs), TenantId::single());
    let writers = (1..=40_usize).map(|size| {
        let (blobs, t) = (Arc::clone(&blobs), t.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                blobs.put(&t, "d/1/image", &vec![0; size]).await.unwrap();
                if size.is_multiple_of(5) {
                    blobs.delete(&t, "d/1/").await.unwrap();
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    blobs.put(&t, "d/1/image", &[0; 9]).await.unwrap();
    assert_eq!(blobs.inner.kept.bytes(&t), 9);
}

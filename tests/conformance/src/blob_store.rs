//! Conformance checks of blobs: replacement, prefixes, isolation of tenants, invalid keys and atomic writes.

use weir_core::TenantId;
use weir_core::blob_key::{MAX_BLOB_KEY_BYTES, MAX_BLOB_KEY_SEGMENT_BYTES};
use weir_core::ports::BlobStore;

/// Checks a blob store. Panics if the store breaks the contract of its port. Durability is not checked.
pub async fn check_blob_store(store: &dyn BlobStore) {
    // One name begins with the other, so that a store that joins names and keys would mix them.
    let (a, b): (TenantId, TenantId) = ("blob-suite".parse().unwrap(), "blob-suite-b".parse().unwrap());
    check_read_and_replacement(store, &a).await;
    check_readers_see_complete_blobs(store, &a).await;
    check_keys(store, &a).await;
    store.delete_blobs_with_prefix(&a, "").await.unwrap();
    check_prefixes_and_tenants(store, &a, &b).await;
}

async fn check_read_and_replacement(store: &dyn BlobStore, t: &TenantId) {
    let get = async |key: &str| store.get_blob(t, key).await.unwrap();
    assert_eq!(get("d/1/ocr.json").await, None, "the blob was never put");
    for bytes in ["one", "longer", "2", ""] {
        store.put_blob(t, "d/1/ocr.json", bytes.as_bytes()).await.unwrap();
        assert_eq!(
            get("d/1/ocr.json").await,
            Some(bytes.as_bytes().to_vec()),
            "after a put of {bytes:?}"
        );
    }
    for key in ["d/1", "d", "d/1/ocr.json/x", "d/1/ocr"] {
        assert_eq!(get(key).await, None, "{key} is no blob");
    }
    store.flush_blobs().await.unwrap();
    store.flush_blobs().await.unwrap();
    assert_eq!(get("d/1/ocr.json").await, Some(Vec::new()), "after a flush");
}

async fn check_readers_see_complete_blobs(store: &dyn BlobStore, t: &TenantId) {
    let versions = [vec![1; 100_000], vec![2; 50_000]];
    store.put_blob(t, "replaced", &versions[0]).await.unwrap();
    let replace = async {
        for version in versions.iter().cycle().take(20) {
            store.put_blob(t, "replaced", version).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..40 {
            let found = store.get_blob(t, "replaced").await.unwrap();
            assert!(
                found.as_ref().is_some_and(|found| versions.contains(found)),
                "a reader found {:?} bytes, which are no complete version",
                found.map(|found| found.len())
            );
        }
    };
    tokio::join!(replace, read);
}

async fn check_keys(store: &dyn BlobStore, t: &TenantId) {
    let longest_segment = "x".repeat(MAX_BLOB_KEY_SEGMENT_BYTES);
    for key in ["k", "A-z_0.9", "k2/x.", longest_segment.as_str()] {
        store.put_blob(t, key, b"x").await.unwrap();
        assert_eq!(
            store.get_blob(t, key).await.unwrap(),
            Some(b"x".to_vec()),
            "{key:?}"
        );
    }
    let long_segment = format!("{longest_segment}x");
    let long_key = "x/".repeat(MAX_BLOB_KEY_BYTES / 2) + "x";
    let invalid = [
        "/etc/passwd",
        "../other/k",
        "a/../../b",
        "a//b",
        "..",
        "a\0b",
        "ä",
        "a b",
        ".x",
        "a/.x",
        "/",
        &long_segment,
        &long_key,
    ];
    for key in invalid.iter().chain(&["", "a/"]) {
        for result in [
            store.put_blob(t, key, b"x").await,
            store.get_blob(t, key).await.map(drop),
        ] {
            assert_eq!(
                result.map_err(|error| error.kind()),
                Err("storage-failed"),
                "key {key:?}"
            );
        }
    }
    for prefix in invalid.iter().chain(&["../", "a//", "./"]) {
        for result in [
            store.list_blob_keys(t, prefix).await.map(drop),
            store.delete_blobs_with_prefix(t, prefix).await,
        ] {
            assert_eq!(
                result.map_err(|error| error.kind()),
                Err("storage-failed"),
                "prefix {prefix:?}"
            );
        }
    }
}

async fn check_prefixes_and_tenants(store: &dyn BlobStore, a: &TenantId, b: &TenantId) {
    // In the order of their bytes, in which the dot and the slash precede the digits.
    let keys = ["p.txt", "p/1/ocr.json", "p/10/ocr.json", "p/2/x/150.jpg", "q/1"];
    let list = async |tenant, prefix| store.list_blob_keys(tenant, prefix).await.unwrap();
    let none: [&str; 0] = [];
    assert_eq!(list(a, "").await, none, "the tenant has no blobs");
    for tenant in [b, a] {
        for key in keys.iter().rev() {
            store
                .put_blob(tenant, key, tenant.as_str().as_bytes())
                .await
                .unwrap();
        }
    }
    let expected: [(&str, &[&str]); 8] = [
        ("", &keys),
        ("p", &keys[..4]),
        ("p/", &keys[1..4]),
        ("p/1", &keys[1..3]),
        ("p/1/", &keys[1..2]),
        ("p/10/ocr.json", &keys[2..3]),
        ("p/10/ocr.json/", &[]),
        ("nothing/", &[]),
    ];
    for (prefix, found) in expected {
        assert_eq!(list(a, prefix).await, found, "keys that start with {prefix:?}");
    }

    let removals: [(&str, &[&str]); 7] = [
        ("nothing/", &keys),
        ("p/1", &["p.txt", "p/2/x/150.jpg", "q/1"]),
        ("p/1", &["p.txt", "p/2/x/150.jpg", "q/1"]),
        ("p.txt", &["p/2/x/150.jpg", "q/1"]),
        ("p/", &["q/1"]),
        ("", &[]),
        ("", &[]),
    ];
    for (prefix, left) in removals {
        store.delete_blobs_with_prefix(a, prefix).await.unwrap();
        assert_eq!(list(a, "").await, left, "after the removal of {prefix:?}");
    }
    assert_eq!(store.get_blob(a, "q/1").await.unwrap(), None, "after its removal");
    assert_eq!(list(b, "").await, keys, "the blobs of the other tenant stay");
    for key in keys {
        let found = store.get_blob(b, key).await.unwrap();
        assert_eq!(
            found.as_deref(),
            Some(b.as_str().as_bytes()),
            "{key} of the other tenant"
        );
    }
    store.put_blob(a, "q/1", b"again").await.unwrap();
    assert_eq!(list(a, "").await, ["q/1"], "a removed key is put again");
    for tenant in [a, b] {
        store.delete_blobs_with_prefix(tenant, "").await.unwrap();
    }
    store.flush_blobs().await.unwrap();
}

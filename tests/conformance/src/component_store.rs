//! Conformance checks of components: storing by digest, removal and isolation of tenants.

use std::fs;
use std::path::PathBuf;

use weir_core::TenantId;
use weir_core::component::{ComponentDigest, ComponentStore};

/// Checks a component store. Panics if the store breaks the contract of its port. Durability is not checked.
pub async fn check_component_store(store: &dyn ComponentStore) {
    // One name begins with the other, so that a store that joins names and digests would mix them.
    let (a, b): (TenantId, TenantId) = (
        "component-suite".parse().unwrap(),
        "component-suite-b".parse().unwrap(),
    );
    let one = ComponentDigest::from_content(b"component one");
    let two = ComponentDigest::from_content(b"component two");
    assert_eq!(read(store, &a, &one).await, None, "nothing is stored");
    assert!(!remove(store, &a, &one).await, "nothing is stored");
    let missing = store.new_temporary_path();
    let committed = store.commit_component(&a, &missing, &one).await;
    assert_eq!(
        committed.map_err(|error| error.kind()),
        Err("missing"),
        "no file was received"
    );

    receive_and_commit(store, &a, b"component one").await;
    receive_and_commit(store, &a, b"component two").await;
    receive_and_commit(store, &a, b"component one").await;
    receive_and_commit(store, &b, b"component one").await;
    assert_eq!(read(store, &b, &two).await, None, "of another tenant");

    assert!(remove(store, &a, &one).await, "the component existed");
    assert!(!remove(store, &a, &one).await, "the component is removed");
    assert!(
        !remove(store, &b, &two).await,
        "the component belongs to another tenant"
    );
    assert_eq!(read(store, &a, &one).await, None, "the component is removed");
    assert_stored(store, &a, b"component two").await;
    assert_stored(store, &b, b"component one").await;

    receive_and_commit(store, &a, b"component one").await;
    let received = receive_file(store, b"received");
    // The second removal finds nothing.
    for _ in 0..2 {
        store.remove_all_components_of_tenant(&a).await.unwrap();
        for digest in [&one, &two] {
            assert_eq!(read(store, &a, digest).await, None, "{digest} is removed");
        }
        assert_stored(store, &b, b"component one").await;
    }
    assert!(
        received.exists(),
        "a file that is being received has no tenant yet"
    );
    fs::remove_file(&received).unwrap();
    receive_and_commit(store, &a, b"component two").await;
    for tenant in [&a, &b] {
        store.remove_all_components_of_tenant(tenant).await.unwrap();
    }
}

fn receive_file(store: &dyn ComponentStore, bytes: &[u8]) -> PathBuf {
    let path = store.new_temporary_path();
    assert!(!path.exists(), "a new path has no file");
    assert_ne!(path, store.new_temporary_path(), "each path is new");
    fs::write(&path, bytes).unwrap();
    path
}

async fn receive_and_commit(store: &dyn ComponentStore, tenant: &TenantId, bytes: &[u8]) {
    let path = receive_file(store, bytes);
    let digest = ComponentDigest::from_content(bytes);
    store.commit_component(tenant, &path, &digest).await.unwrap();
    assert!(!path.exists(), "a committed file is moved away from its old path");
    assert_stored(store, tenant, bytes).await;
}

async fn remove(store: &dyn ComponentStore, tenant: &TenantId, digest: &ComponentDigest) -> bool {
    store.remove_component(tenant, digest).await.unwrap()
}

async fn read(store: &dyn ComponentStore, tenant: &TenantId, digest: &ComponentDigest) -> Option<Vec<u8>> {
    let opened = store.open_component(tenant, digest).await.unwrap();
    opened.map(|file| fs::read(file.path()).unwrap())
}

async fn assert_stored(store: &dyn ComponentStore, tenant: &TenantId, bytes: &[u8]) {
    let found = read(store, tenant, &ComponentDigest::from_content(bytes)).await;
    assert_eq!(found.as_deref(), Some(bytes), "the component of {tenant}");
}

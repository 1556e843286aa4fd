//! What is let in, and what is said to what is not.

use std::fs;
use std::path::Path;

use weir_core::component::{ComponentDigest, Gate as _};
use weir_core::manifest::{Capability, ComponentFile, Role};
use weir_core::{PolicyError, TenantId};

use crate::support::*;

/// A component whose bytes are another's, with every `from` made `to`.
fn altered(folder: &Path, of: &str, from: &str, to: &str) -> ComponentFile {
    assert_eq!(from.len(), to.len(), "lengths are part of the format");
    let mut bytes = fs::read(component(of).path).unwrap();
    let places: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|at| &bytes[*at..at + from.len()] == from.as_bytes())
        .collect();
    assert!(!places.is_empty(), "{of} has no {from}");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    written(folder, &bytes)
}

fn written(folder: &Path, bytes: &[u8]) -> ComponentFile {
    let path = folder.join("ours.wasm");
    fs::write(&path, bytes).unwrap();
    file(&path)
}

async fn refusal(component: &ComponentFile) -> String {
    let error = host().inspect(&TenantId::single(), component).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&component.name) && !text.contains('\n'), "{text}");
    text
}

#[tokio::test]
async fn what_a_component_can_decide_and_wants_is_found_out() {
    let host = host();
    for role in Role::ALL {
        let facts = host
            .inspect(&TenantId::single(), &component(role.name()))
            .await
            .unwrap();
        assert_eq!((facts.roles, facts.capabilities), (vec![role], Vec::new()));
    }
    for (name, capability) in [
        ("hostile-state", Capability::State),
        ("hostile-rasterizer", Capability::Rasterizer),
        ("hostile-inference", Capability::Inference),
    ] {
        let facts = host.inspect(&TenantId::single(), &component(name)).await.unwrap();
        assert_eq!(facts.capabilities, [capability], "{name}");
    }
}

#[tokio::test]
async fn what_is_no_component_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in [&b""[..], b"%PDF-1.7", b"\0asm\x01\0\0\0"] {
        let reason = refusal(&written(folder.path(), bytes)).await;
        assert!(reason.contains("cannot be used"), "{reason}");
    }
    let empty = b"\0asm\x0d\0\x01\0";
    let reason = refusal(&written(folder.path(), empty)).await;
    assert!(
        reason.contains("it exports nothing") && reason.contains("weir:pipeline/routing@0.1.0"),
        "{reason}"
    );
}

#[tokio::test]
async fn another_version_of_the_contract_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let reason = refusal(&altered(folder.path(), "routing", "@0.1.0", "@0.2.0")).await;
    assert!(reason.contains("@0.2.0") && reason.contains("@0.1.0"), "{reason}");
    let reason = refusal(&altered(
        folder.path(),
        "routing",
        "weir:pipeline/log",
        "weir:pipeline/lag",
    ))
    .await;
    assert!(reason.contains("weir:pipeline/lag@0.1.0"), "{reason}");
}

#[tokio::test]
async fn a_function_that_differs_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let reason = refusal(&altered(folder.path(), "progress", "observe", "obverse")).await;
    assert!(reason.contains("observe"), "{reason}");
}

#[tokio::test]
async fn what_fails_when_it_is_asked_is_not_let_in() {
    for (name, part) in [
        ("hostile-trap", "trap"),
        ("hostile-loop", "50 ms"),
        ("hostile-nonsense-batching", "pages"),
        ("hostile-memory", "memory"),
    ] {
        let error = host()
            .inspect(&TenantId::single(), &component(name))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(part), "{name}: {error}");
        assert!(!matches!(error, PolicyError::Unusable { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_revision_is_rehearsed_with_its_own_rights_and_leaves_no_state() {
    let folder = tempfile::tempdir().unwrap();
    let state = std::sync::Arc::new(MemoryState::default());
    let mut config = config();
    config.state = state.clone();
    config.recordings = Some(folder.path().join("recordings"));
    let host = weir_policy::PolicyHost::new(config).unwrap();
    let mut pipeline = only(&[Role::Routing], &component("hostile-state"));
    let tenant = TenantId::single();
    let refused = host.rehearse(&tenant, &pipeline).await.unwrap_err();
    assert!(refused.to_string().contains("add \"state\""), "{refused}");
    pipeline.manifest.capabilities.grant = vec![Capability::State];
    host.rehearse(&tenant, &pipeline).await.unwrap();
    assert!(state.values.lock().is_empty());
    host.flush_recordings().await;
    assert_eq!(fs::read_dir(folder.path().join("recordings")).unwrap().count(), 0);
    // The digest is not taken on trust.
    let mut other = component("routing");
    other.digest = ComponentDigest::of(b"something else").0;
    let refused = host.inspect(&TenantId::single(), &other).await.unwrap_err();
    assert!(refused.to_string().contains("has changed"), "{refused}");
}

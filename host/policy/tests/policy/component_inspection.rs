//! Inspection of components: what it finds and what it rejects.

use std::fs;
use std::path::Path;

use weir_core::component::{ComponentDigest, ComponentValidator as _};
use weir_core::manifest::{Capability, ResolvedComponentFile, Role};
use weir_core::recording::list_recordings;
use weir_core::{PolicyError, TenantId};

use crate::support::*;

/// Copies a built component and replaces every `from` in its bytes by `to`.
fn component_with_replaced_bytes(folder: &Path, name: &str, from: &str, to: &str) -> ResolvedComponentFile {
    assert_eq!(from.len(), to.len(), "the replacement must keep the length");
    let mut bytes = fs::read(built_component(name).file).unwrap();
    let offsets: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|at| &bytes[*at..at + from.len()] == from.as_bytes())
        .collect();
    assert!(!offsets.is_empty(), "component {name} does not contain {from}");
    for offset in offsets {
        bytes[offset..offset + to.len()].copy_from_slice(to.as_bytes());
    }
    write_component(folder, &bytes)
}

fn write_component(folder: &Path, bytes: &[u8]) -> ResolvedComponentFile {
    let path = folder.join("ours.wasm");
    fs::write(&path, bytes).unwrap();
    component_file(&path)
}

async fn inspection_error(component: &ResolvedComponentFile) -> String {
    let error = new_host()
        .inspect_component(&TenantId::default_tenant(), component)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&component.name) && !text.contains('\n'), "{text}");
    text
}

#[tokio::test]
async fn inspection_finds_roles_and_capabilities() {
    let host = new_host();
    for role in Role::ALL {
        let facts = host
            .inspect_component(&TenantId::default_tenant(), &built_component(role.name()))
            .await
            .unwrap();
        assert_eq!((facts.roles, facts.capabilities), (vec![role], Vec::new()));
    }
    for (name, capability) in [
        ("hostile-state", Capability::State),
        ("hostile-rasterizer", Capability::Rasterizer),
        ("hostile-inference", Capability::Inference),
    ] {
        let facts = host
            .inspect_component(&TenantId::default_tenant(), &built_component(name))
            .await
            .unwrap();
        assert_eq!(facts.capabilities, [capability], "{name}");
    }
}

#[tokio::test]
async fn inspection_rejects_files_that_are_not_components() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in [&b""[..], b"%PDF-1.7", b"\0asm\x01\0\0\0"] {
        let reason = inspection_error(&write_component(folder.path(), bytes)).await;
        assert!(reason.contains("cannot be used"), "{reason}");
    }
    let empty = b"\0asm\x0d\0\x01\0";
    let reason = inspection_error(&write_component(folder.path(), empty)).await;
    assert!(
        reason.contains("it exports nothing") && reason.contains("weir:pipeline/routing@0.1.0"),
        "{reason}"
    );
}

#[tokio::test]
async fn error_names_an_unsupported_contract_version() {
    let folder = tempfile::tempdir().unwrap();
    let reason = inspection_error(&component_with_replaced_bytes(
        folder.path(),
        "routing",
        "@0.1.0",
        "@0.2.0",
    ))
    .await;
    assert!(reason.contains("@0.2.0") && reason.contains("@0.1.0"), "{reason}");
    let reason = inspection_error(&component_with_replaced_bytes(
        folder.path(),
        "routing",
        "weir:pipeline/log",
        "weir:pipeline/lag",
    ))
    .await;
    assert!(reason.contains("weir:pipeline/lag@0.1.0"), "{reason}");
}

#[tokio::test]
async fn error_names_a_missing_contract_function() {
    let folder = tempfile::tempdir().unwrap();
    let reason = inspection_error(&component_with_replaced_bytes(
        folder.path(),
        "progress",
        "observe",
        "obverse",
    ))
    .await;
    assert!(reason.contains("observe"), "{reason}");
}

#[tokio::test]
async fn inspection_rejects_a_component_whose_call_fails() {
    for (name, part) in [
        ("hostile-trap", "trap"),
        ("hostile-loop", "50 ms"),
        ("hostile-invalid-batching", "pages"),
        ("hostile-memory", "memory"),
    ] {
        let error = new_host()
            .inspect_component(&TenantId::default_tenant(), &built_component(name))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(part), "{name}: {error}");
        assert!(!matches!(error, PolicyError::Unusable { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn dry_run_uses_granted_capabilities_and_leaves_no_state() {
    let state = std::sync::Arc::new(FakeComponentState::default());
    let mut config = test_config();
    config.state = state.clone();
    let recordings = std::sync::Arc::new(weir_conformance::MemoryRecordingStore::default());
    config.recordings = Some(recordings.clone());
    let host = weir_policy::PolicyHost::new(config).unwrap();
    let mut pipeline = single_component_pipeline(&[Role::Routing], &built_component("hostile-state"));
    let tenant = TenantId::default_tenant();
    let refused = host.dry_run_pipeline(&tenant, &pipeline).await.unwrap_err();
    assert!(refused.to_string().contains("add \"state\""), "{refused}");
    pipeline.manifest.capabilities.grant = vec![Capability::State];
    host.dry_run_pipeline(&tenant, &pipeline).await.unwrap();
    assert!(state.values.is_empty());
    host.flush_recordings().await;
    assert_eq!(list_recordings(&*recordings).await.unwrap(), []);
    // A wrong digest is detected.
    let mut other = built_component("routing");
    other.digest = ComponentDigest::from_content(b"something else").0;
    let refused = host
        .inspect_component(&TenantId::default_tenant(), &other)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("has changed"), "{refused}");
}
